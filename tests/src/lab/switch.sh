# Process 1 of a lab: holds the network between its hosts, and ends when its
# owner does. Arguments: the state folder, a word that is "keep" if the folder is
# to stay, then each host's name. Standard input is a pipe from the owner that
# nothing is ever written to: its end is the owner's end.
set -eu
state=$1 keep=$2
shift 2

# /proc is still the owner's: it shows this process by the owner's number for it.
read -r switch rest </proc/self/stat

ip link set lo up
ip link add switch type bridge
ip link set switch up
for host in "$@"; do
	{
		unshare --net --mount --uts --ipc sh "$state/host.sh" "$state/$host" "$host" "$switch" ||
			: >"$state/$host/failed"
	} </dev/null >"$state/$host/init.log" 2>&1 &
done

cat >/dev/null

# All at once, not one after the other: a guest must not see its host half gone.
kill -s KILL -- -1 || :
[ "$keep" != keep ] || exit 0
tries=0
until rm -rf -- "$state" || [ "$tries" = 100 ]; do
	# Those who were killed may still be making files.
	tries=$((tries + 1))
	sleep 0.05
done

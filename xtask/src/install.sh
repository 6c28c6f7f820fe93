# Installs the packages named as arguments (those with a ? before the name only
# where apt knows them), without starting a service: the hypervisors that are
# wanted are the lab's, not this machine's.
set -eu
policy=/usr/sbin/policy-rc.d
refusal=$(mktemp)
made=
clean() {
	rm -f "$refusal"
	[ -z "$made" ] || rm -f "$policy"
}
trap clean EXIT
trap 'exit 130' HUP INT TERM

printf '#!/bin/sh\nexit 101\n' >"$refusal"
chmod 755 "$refusal"
# A mount needs something to lie on; should this script be killed, what it leaves
# is not executable, which Debian takes for "no policy".
[ -e "$policy" ] || {
	: >"$policy"
	made=yes
}

export DEBIAN_FRONTEND=noninteractive
tries=1
# Another apt may hold the lists; the option below is for dpkg's lock alone.
until apt-get -q -o Acquire::Retries=3 update; do
	[ "$tries" -lt 5 ] || exit 1
	tries=$((tries + 1))
	sleep 5
done

for package in "$@"; do
	shift
	case $package in
	\?*)
		package=${package#\?}
		apt-cache show "$package" >/dev/null 2>&1 || continue
		;;
	esac
	set -- "$@" "$package"
done
set -- apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 \
	--no-install-recommends install "$@"
if unshare --mount true 2>/dev/null; then
	# Only apt and its children see the policy: the machine's own stays as it is.
	unshare --mount sh -c 'mount --bind "$0" /usr/sbin/policy-rc.d && exec "$@"' "$refusal" "$@"
	exit
fi
# A container that allows no mounts has no services to start either, mostly.
if [ -n "$made" ]; then
	cat "$refusal" >"$policy"
	chmod 755 "$policy"
fi
"$@"

# A host, before it has processes of its own: its name and its network.
# Arguments: its state folder, its name, the switch's process as the owner sees it.
set -eu
state=$1 name=$2 switch=$3
hostname "$name"
# 1 is the switch: the kernel counts as this process does.
ip link add eth0 type veth peer name "$name" netns 1
nsenter --target "$switch" --net ip link set "$name" master switch up
ip link set lo up
ip address add "$(cat "$state/address")/24" dev eth0
ip link set eth0 up
exec unshare --pid --fork sh "$state/../init.sh" "$state"

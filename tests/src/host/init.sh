# Process 1 of a host: makes its folders its own, then only collects the
# processes that lose their parents (a QEMU that nobody collects never ends for
# libvirt). Argument: its state folder.
set -eu
state=$1

# Before this host gets its own /proc: the owner's number for this process.
read -r pid rest </proc/self/stat

mount -t proc proc /proc
# Its own network devices only, or libvirtd complains of those it cannot reach.
mount -t sysfs sysfs /sys || :
mount -t tmpfs -o mode=755 lab /run
# What is named by process numbers there is another host's otherwise.
mount -t tmpfs -o mode=1777,size=64m shm /dev/shm
mkdir -p /run/lab/bin /run/lab/boot /run/lab/huge /run/sshd /run/lock
# For guests in huge pages; libvirtd looks for it when it starts.
mount -t hugetlbfs huge /run/lab/huge 2>/dev/null || :
# First what lies anywhere on this machine, then what hides parts of it.
for file in bin/logchain bin/logchain-libvirt boot/vmlinuz boot/initramfs; do
	[ -e "$state/lab/$file" ] || continue
	: >"/run/lab/$file"
	mount --bind "$(readlink -f "$state/lab/$file")" "/run/lab/$file"
done
seen=0
while read -r folder; do
	seen=$((seen + 1))
	mkdir -p "/run/lab/sees/$seen"
	mount --bind "$folder" "/run/lab/sees/$seen"
done <"$state/lab/sees"
for own in etc/hosts etc/shadow etc/libvirt var/lib var/log var/cache tmp root; do
	mount --bind "$state/$own" "/$own"
done
seen=0
while read -r folder; do
	seen=$((seen + 1))
	mkdir -p "$folder"
	mount --bind "/run/lab/sees/$seen" "$folder"
done <"$state/lab/sees"
if [ -d "$state/../shared" ]; then
	mount --bind "$state/../shared" /var/log/lab
fi

echo "$pid" >"$state/pid.new"
mv "$state/pid.new" "$state/pid"

while :; do
	sleep 1000 &
	wait $! || :
done

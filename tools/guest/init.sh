#!/bin/busybox sh
# The guest's first program: mounts, modules, network, then scripts from the second serial port (see doc.go).
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/bin/busybox mkdir -p /bin /sbin
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /run
ln -s /proc/self/fd /dev/fd
ln -s /proc/mounts /etc/mtab
[ ! -e /modules ] || while read -r m; do
  insmod "$m" || echo "guest: $m does not load"
done </modules
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then # the addresses that qemu's user network gives
  ip addr add 10.0.2.15/24 dev eth0
  ip link set eth0 up
  ip route add default via 10.0.2.2
fi
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo ready >&3
# Not in this shell: it is told of the end of every orphan, and a read that is interrupted by that begins anew and drops
# what it had. The shell below has no children but those it waits for.
(
  while read -r line <&3; do
    echo "$line" | base64 -d >/run/script
    dash /run/script >/run/out 2>&1 </dev/null 3>&-
    status=$?
    base64 /run/out >&3
    echo ". $status" >&3
  done
)
poweroff -f

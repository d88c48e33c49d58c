#!/bin/sh
# unshare --mount sh lab.sh CGROUP FOLDER
#
# Namespaces of mounts, processes and network for machines that tests boot, and a tree of cgroups. The first line that is
# printed is the process to enter them by (nsenter --target PID --mount --net --pid). They last until standard input ends,
# as it does when whoever started this is killed: then every process in them is killed, their mounts and links go with
# them, and cgroups and FOLDER are removed.
set -eu
cgroup=/sys/fs/cgroup/$1
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
# systemd-nspawn finds no rest of another systemd there, and leaves none.
mount -t tmpfs tmpfs /run
mkdir "$cgroup"
unshare --mount --net --pid --fork --kill-child sh -c '
    read -r pid rest </proc/self/stat # as seen from outside
    mount -t proc proc /proc
    ip link set lo up
    echo "$pid"
    exec cat >/dev/null
' || true
find "$cgroup" -depth -type d -exec rmdir {} +
rm -rf "$2" >/dev/null 2>&1 & # a gigabyte, for which nobody waits

#!/bin/sh
# unshare --mount --pid --fork --kill-child sh clean.sh DEBIAN FOLDER COMMAND...
#
# Runs a command on a Debian whose files stay as they are: what changes is written to FOLDER/changes. FOLDER/device is the
# agent's directory there, and FOLDER/packages is /packages. Mounts end with the command.
set -eu
debian=$1 folder=$2
shift 2
root=$folder/root
mount -t overlay overlay -o "lowerdir=$debian,upperdir=$folder/changes,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/var/lib/bedside/agent" "$root/packages"
mount --bind "$folder/device" "$root/var/lib/bedside/agent"
mount --bind "$folder/packages" "$root/packages"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"

#!/usr/bin/env bash
# A file system of its own whose power a test can cut: ext4 in a file, mounted through a loop device.
#
#   tests/power.sh          makes one, prints its folder, then does what each line of its standard input says:
#                             cut    shuts it down: what was not made durable is lost, and every access fails from now on
#                             again  unmounts and mounts it, as the next start of the machine would
#                           and prints `done`, or what went wrong; unmounts, detaches and removes everything when the
#                           input ends, or when it is told to end
#   tests/power.sh --need   only sees to it that the programs are installed
#
# Missing programs are installed only by root on Debian, and only if that is asked for with INSTALL=1.
# Exit status 2: it cannot be done on this machine; the one line on standard output says why.
set -uo pipefail
cd /

megabytes=192
mounted=
device=
folder=

cannot() {
    printf 'no power cuts here: %s\n' "$*"
    exit 2
}

# A process that was killed, or a thread that closes a database, may still be on its way out.
unmount() {
    local tries
    for tries in {1..100}; do
        said=$(umount "$folder/disk" 2>&1) && return
        sleep 0.1
    done
    return 1
}

# Every device is named by what `losetup` gave to this very process, and never by a guess.
clean_up() {
    if [ -n "$mounted" ]; then
        unmount
        mountpoint -q "$folder/disk" && umount --lazy "$folder/disk"
    fi
    [ -z "$device" ] || losetup --detach "$device"
    if [ -n "$folder" ] && ! mountpoint -q "$folder/disk"; then
        rm -rf "$folder"
    fi
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

[ "$(id -u)" = 0 ] || cannot "mounting needs root"
PATH=$PATH:/usr/sbin:/sbin
lacking=
command -v mkfs.ext4 >/dev/null 2>&1 || lacking="$lacking e2fsprogs"
command -v xfs_io >/dev/null 2>&1 || lacking="$lacking xfsprogs"
command -v losetup >/dev/null 2>&1 || lacking="$lacking mount"
if [ -n "$lacking" ] && [ "${INSTALL:-0}" = 1 ] && command -v apt-get >/dev/null 2>&1; then
    {
        echo "== power cuts need:$lacking"
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $lacking
    } >&2
fi
for program in mkfs.ext4 xfs_io losetup mountpoint; do
    command -v "$program" >/dev/null 2>&1 || cannot "there is no $program; install, on Debian:$lacking"
done
[ "${1-}" = --need ] && exit 0

folder=$(mktemp -d "${TMPDIR:-/tmp}/halfmoon-power.XXXXXX") || cannot "cannot create a folder in ${TMPDIR:-/tmp}"
# Postgres does not run as root, and has to get there.
chmod 711 "$folder" && mkdir "$folder/disk" && truncate -s "${megabytes}M" "$folder/image" || cannot "cannot make a file of $megabytes MiB"
# Without reserved blocks and with everything written now, so that no thread of the kernel writes while a test runs.
said=$(mkfs.ext4 -q -F -m 0 -E lazy_itable_init=0,lazy_journal_init=0 "$folder/image" 2>&1) || cannot "mkfs.ext4: $said"
device=$(losetup --find --show "$folder/image" 2>&1) || { said=$device device=; cannot "no loop device: $said"; }

mount_it() {
    said=$(mount -t ext4 "$device" "$folder/disk" 2>&1) && mounted=yes
}

# Shuts down the file system that holds a file which is only there: were it not mounted, there would be no such file.
cut() {
    mountpoint -q "$folder/disk" || { said="it is not mounted"; return 1; }
    said=$(xfs_io -r -x -c shutdown "$folder/disk/power" 2>&1) && [ -z "$said" ]
}

again() {
    unmount || return 1
    mounted=
    mount_it
}

mount_it || cannot "mount: $said"
touch "$folder/disk/power" && chmod 1777 "$folder/disk" && sync -f "$folder/disk" || cannot "the new file system cannot be written"
# A kernel that knows no shutdown of ext4 says so now.
cut && again || cannot "the kernel does not shut down an ext4: $said"
[ -e "$folder/disk/power" ] || cannot "what was made durable is gone after the first cut"

printf '%s\n' "$folder/disk"
while read -r order; do
    case $order in
    cut | again) "$order" && echo "done" || echo "$order: $said" ;;
    *) echo "unknown: $order" ;;
    esac
done

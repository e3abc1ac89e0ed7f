#!/bin/sh
# Makes a small bootable raw disk from Debian packages: the guest that the quickstart and the tests start.
#
#   deploy/demo-image.sh [options] OUT.raw
#
# The disk has an MBR with GRUB, one ext4 partition, Debian's cloud kernel, a busybox user space (deploy/demo-image/), the
# SSH server dropbear and the QEMU guest agent. The guest prints MUSTER-READY on its serial console when it is up, counts its boots in
# /var/lib/muster/boots (fsynced), and turns itself off when the power button is pressed or the guest agent is told to. It
# learns from its seed disk who it is (deploy/demo-image/seed) and takes the user root with an SSH key, without passwords.
#
# Nothing is installed, mounted or attached: packages are downloaded with apt and unpacked into a work folder, the file
# system is made in place by mke2fs. Works as any user. Packages and finished images are kept in a cache folder; an
# image is made again only when a package has a new version or these files changed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
parts=$here/demo-image
size=1GiB
suite_kernel=linux-image-cloud-amd64
rebuild=no
out=
cache=
print=no

usage() {
    cat <<'USAGE'
usage: deploy/demo-image.sh [options] OUT.raw

  --size SIZE    size of the disk, 128MiB to 16TiB (default 1GiB; the file is sparse, about 40 MiB hold data)
  --cache DIR    where packages and finished images are kept
                 (default $XDG_CACHE_HOME/muster, else /var/cache/muster, else ~/.cache/muster)
  --rebuild      make the image again even if it is in the cache
  --kernel PKG   kernel package (default linux-image-cloud-amd64)
  --print-kernel unpack kernel and initramfs beside OUT.raw as OUT.raw.vmlinuz and OUT.raw.initrd
  -h, --help     this text
USAGE
}

say() { printf 'demo-image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# One number with a unit -> bytes.
bytes_of() {
    case $1 in
        *[!0-9]*) ;;
        '') return 1 ;;
        *) echo "$1"; return ;;
    esac
    number=${1%%[!0-9]*}
    [ -n "$number" ] || return 1
    case ${1#"$number"} in
        KiB | K | k) echo $((number * 1024)) ;;
        MiB | M | m) echo $((number * 1024 * 1024)) ;;
        GiB | G | g) echo $((number * 1024 * 1024 * 1024)) ;;
        TiB | T | t) echo $((number * 1024 * 1024 * 1024 * 1024)) ;;
        *) return 1 ;;
    esac
}

while [ $# -gt 0 ]; do
    case $1 in
        --size | --cache | --kernel)
            [ $# -ge 2 ] || die "$1 needs a value"
            case $1 in
                --size) size=$2 ;;
                --cache) cache=$2 ;;
                --kernel) suite_kernel=$2 ;;
            esac
            shift 2
            ;;
        --rebuild) rebuild=yes; shift ;;
        --print-kernel) print=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        --) shift; [ $# -gt 0 ] && out=$1; break ;;
        -*) usage >&2; die "unknown option '$1'" ;;
        *)
            [ -z "$out" ] || die "one output file, got '$out' and '$1'"
            out=$1
            shift
            ;;
    esac
done
[ -n "$out" ] || { usage >&2; exit 2; }
# An absolute path, because the script changes its folder later.
dir=$(dirname -- "$out")
dir=$(CDPATH='' cd -- "$dir" && pwd) || die "there is no such folder to put '$out' into"
out=$dir/$(basename -- "$out")
disk_bytes=$(bytes_of "$size") || die "--size: cannot read '$size'"
[ "$disk_bytes" -ge $((128 * 1024 * 1024)) ] || die "--size: at least 128MiB, got $size"
[ "$disk_bytes" -le $((16 * 1024 * 1024 * 1024 * 1024)) ] || die "--size: at most 16TiB, got $size"
disk_bytes=$((disk_bytes / 1048576 * 1048576))
[ "$(uname -m)" = x86_64 ] || die "makes images for x86-64 on x86-64 only, this is $(uname -m)"

for tool in apt-get apt-cache dpkg-deb sha256sum flock dd; do
    command -v "$tool" > /dev/null || die "needs '$tool' (Debian 12 or a relative of it)"
done
PATH=$PATH:/usr/sbin:/sbin
for tool in mke2fs debugfs; do
    command -v "$tool" > /dev/null || die "needs '$tool': apt-get install e2fsprogs"
done

if [ -z "$cache" ]; then
    for dir in "${XDG_CACHE_HOME:+$XDG_CACHE_HOME/muster}" /var/cache/muster "${HOME:+$HOME/.cache/muster}"; do
        [ -n "$dir" ] || continue
        if mkdir -p "$dir" 2> /dev/null && [ -w "$dir" ]; then
            cache=$dir
            break
        fi
    done
    [ -n "$cache" ] || die "no cache folder can be written; name one with --cache"
fi
mkdir -p "$cache/packages" "$cache/images"
cache=$(CDPATH='' cd -- "$cache" && pwd)
started=$(date +%s)

work=
unfinished=
trap 'rm -rf ${work:+"$work"} ${unfinished:+"$unfinished"}' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

script_key=$({
    cat "$here/demo-image.sh"
    for file in "$parts"/*; do printf '%s\n' "${file##*/}"; cat "$file"; done
    printf '%s %s' "$disk_bytes" "$suite_kernel"
} | sha256sum | cut -c1-16)

# Copies a cached image to OUT, sparse, as a reflink where the file system can make one. OUT appears complete or not at
# all.
deliver() {
    unfinished=$out.partial.$$
    cp --sparse=auto --reflink=auto -- "$1" "$unfinished"
    mv -f -- "$unfinished" "$out"
    unfinished=
    if [ $print = yes ]; then
        cp -- "${1%.raw}.vmlinuz" "$out.vmlinuz"
        cp -- "${1%.raw}.initrd" "$out.initrd"
    fi
}

# One build at a time per cache. A second one waits and then finds the image of the first.
exec 9> "$cache/lock"
flock -w 600 9 || die "another build has held $cache/lock for 10 minutes"

apt() { apt-get -q -o APT::Sandbox::User=root -o Debug::NoLocking=1 "$@"; }

# Sets `kernel` to the package behind the meta package, `wanted` to all packages, `uris` to what apt would download.
choose_packages() {
    kernel=$(apt-cache depends "$suite_kernel" 2> /dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    if [ -z "$kernel" ]; then
        apt-cache show "$suite_kernel" > /dev/null 2>&1 || return 1
        kernel=$suite_kernel
    fi
    # Of the dependencies only libraries are taken: the guest has no package manager, no perl, no debconf.
    libraries=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances qemu-guest-agent grub-common dropbear-bin 2> /dev/null \
        | sed -n 's/^\(lib[a-z0-9.+-]*\|zlib1g\)$/\1/p' | grep -v -e perl -e -cross | sort -u) || return 1
    wanted=
    for package in $kernel busybox-static qemu-guest-agent dropbear-bin grub-common grub-pc-bin $libraries; do
        wanted="$wanted $package"
    done
    # shellcheck disable=SC2086 # a list of names
    uris=$(apt download --print-uris $wanted 2> /dev/null) || return 1
    [ -n "$uris" ]
}

newest_cached() {
    # shellcheck disable=SC2012 # by time, which find cannot sort; the names are this script's own
    ls -t "$cache/images/"*"-$script_key.raw" 2> /dev/null | head -n 1
}

if ! choose_packages; then
    if [ "$(id -u)" = 0 ] && say "no package lists yet: apt-get update" && apt update > /dev/null 2>&1 && choose_packages; then
        :
    elif cached=$(newest_cached) && [ -n "$cached" ] && [ $rebuild = no ]; then
        say "there are no package lists; using the image that was made earlier"
        deliver "$cached"
        exit 0
    else
        die "cannot find the packages '$suite_kernel', 'busybox-static', 'qemu-guest-agent', 'dropbear-bin', 'grub-pc-bin': is this Debian, is there a network? try: apt-get update"
    fi
fi

key=$(printf '%s' "$uris" | sha256sum | cut -c1-16)-$script_key
image=$cache/images/$key.raw
if [ -f "$image" ] && [ $rebuild = no ]; then
    deliver "$image"
    say "$out: from the cache"
    exit 0
fi

# --- packages: each line is 'URI' name size hash:hex; only what is missing or damaged is downloaded
work=$(mktemp -d "$cache/work.XXXXXX")
cd "$cache/packages"
missing=
printf '%s\n' "$uris" > "$work/uris"
while read -r _uri file _size hash; do
    package=${file%%_*}
    if [ -f "$file" ]; then
        case $hash in
            SHA256:*) [ "$(sha256sum < "$file" | cut -c1-64)" = "${hash#SHA256:}" ] && continue ;;
            SHA512:*) [ "$(sha512sum < "$file" | cut -c1-128)" = "${hash#SHA512:}" ] && continue ;;
            *) continue ;;
        esac
        rm -f "$file"
    fi
    missing="$missing $package"
done < "$work/uris"
if [ -n "$missing" ]; then
    say "downloading$missing"
    tries=0
    # The lists can be older than the archive, which then has no such file any more; an update helps.
    # shellcheck disable=SC2086 # a list of names
    until apt download $missing > "$work/apt.log" 2>&1; do
        tries=$((tries + 1))
        if [ $tries -ge 3 ]; then
            cat "$work/apt.log" >&2
            die "the packages above could not be downloaded"
        fi
        if [ "$(id -u)" != 0 ] || ! apt update > /dev/null 2>&1; then sleep 2; fi
    done
fi
root=$work/packages
mkdir -p "$root"
while read -r _uri file _size _hash; do
    [ -f "$file" ] || die "apt did not bring $file"
    dpkg-deb -x "$file" "$root"
done < "$work/uris"
cd "$work"

# --- which files
# Prints the first of these paths that exists.
first_there() {
    for path in "$@"; do
        if [ -e "$path" ]; then printf '%s\n' "$path"; return; fi
    done
}
busybox=$(first_there "$root"/bin/busybox "$root"/usr/bin/busybox)
[ -n "$busybox" ] || die "busybox-static has no busybox"
agent=$(first_there "$root"/usr/sbin/qemu-ga "$root"/usr/bin/qemu-ga)
[ -n "$agent" ] || die "qemu-guest-agent has no qemu-ga"
ssh_server=$(first_there "$root"/usr/sbin/dropbear "$root"/usr/bin/dropbear)
host_keys=$(first_there "$root"/usr/bin/dropbearkey "$root"/usr/sbin/dropbearkey)
[ -n "$ssh_server" ] || die "dropbear-bin has no dropbear"
[ -n "$host_keys" ] || die "dropbear-bin has no dropbearkey"
vmlinuz=$(first_there "$root"/boot/vmlinuz-*)
[ -n "$vmlinuz" ] || die "$kernel has no kernel"
version=${vmlinuz##*/vmlinuz-}
modules=$(first_there "$root/lib/modules/$version" "$root/usr/lib/modules/$version")
loader=$(first_there "$root"/lib64/ld-linux-x86-64.so.2 "$root"/usr/lib64/ld-linux-x86-64.so.2 \
    "$root"/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$root"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2)
[ -n "$loader" ] || die "libc6 has no dynamic loader"
library_path=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu

# Prints a module's file and, before it, the modules it needs; nothing for what is built into the kernel.
module_files() {
    for wanted_module in "$@"; do
        name=$(printf '%s' "$wanted_module" | tr - _)
        found=$(find "$modules/kernel" -name "$name.ko*" -o -name "$(printf '%s' "$name" | tr _ -).ko*" | head -n 1)
        [ -n "$found" ] || continue
        plain=$work/modules/$name.ko
        if [ ! -f "$plain" ]; then
            mkdir -p "$work/modules"
            case $found in
                *.ko) cp "$found" "$plain" ;;
                *.xz) "$busybox" xz -dc < "$found" > "$plain" ;;
                *.gz) "$busybox" gzip -dc < "$found" > "$plain" ;;
                *) die "cannot unpack module $found" ;;
            esac
        fi
        needs=$(tr '\0' '\n' < "$plain" | sed -n 's/^depends=//p' | head -n 1 | tr , ' ')
        # shellcheck disable=SC2086 # a list of names
        (module_files $needs)
        printf '%s\n' "$plain"
    done
}
# The same for several modules: in load order, each once.
load_order() { module_files "$@" | awk '!seen[$0]++'; }

# --- initramfs: busybox, the modules that a virtio disk needs, and a script that mounts the root file system
ram=$work/initramfs
mkdir -p "$ram/bin" "$ram/dev" "$ram/proc" "$ram/sys" "$ram/root" "$ram/modules"
cp "$busybox" "$ram/bin/busybox"
cp "$parts/initramfs-init" "$ram/init"
chmod 755 "$ram/init" "$ram/bin/busybox"
number=10
for file in $(load_order virtio_pci virtio_blk ext4 crc32c_generic); do
    cp "$file" "$ram/modules/$number-${file##*/}"
    number=$((number + 1))
done
epoch=1700000000
find "$ram" -exec touch -h -d "@$epoch" {} +
# Not compressed: an emulated processor reads a few more MB faster than it unpacks them.
(cd "$ram" && find . | LC_ALL=C sort | "$busybox" cpio -o -H newc --renumber-inodes --ignore-devno 2> /dev/null) > "$work/initrd"

# --- root file system
guest=$work/guest
mkdir -p "$guest/bin" "$guest/sbin" "$guest/boot" "$guest/dev" "$guest/etc/dropbear" "$guest/etc/init.d" "$guest/etc/acpi/PWRF" \
    "$guest/lib/modules" "$guest/lib64" "$guest/lib/x86_64-linux-gnu" "$guest/mnt" "$guest/proc" "$guest/root/.ssh" \
    "$guest/run" "$guest/sys" "$guest/tmp" "$guest/usr/bin" "$guest/usr/sbin" "$guest/var/lib/muster" "$guest/var/log"
ln -s ../run "$guest/var/run"
cp "$busybox" "$guest/bin/busybox"
for applet in $("$busybox" --list); do
    case $applet in
        busybox | shutdown | dpkg | dpkg-deb | rpm) continue ;;
        init | halt | poweroff | reboot | getty | mdev | acpid | insmod | rmmod | lsmod | modprobe | depmod | modinfo | fstrim \
            | hwclock | sysctl | switch_root | losetup | mke2fs | blkdiscard | blockdev | ifconfig | route | swapon | swapoff | udhcpc) dir=sbin ;;
        *) dir=bin ;;
    esac
    ln -s /bin/busybox "$guest/$dir/$applet"
done
cp "$vmlinuz" "$guest/boot/vmlinuz"
cp "$work/initrd" "$guest/boot/initrd"
cp "$loader" "$guest/lib64/ld-linux-x86-64.so.2"
for program in "$agent" "$ssh_server" "$host_keys"; do
    cp "$program" "$guest/usr/sbin/"
    "$loader" --library-path "$library_path" --list "$program" > "$work/needed" 2>&1 \
        || die "${program##*/} lacks libraries: $(cat "$work/needed")"
    while read -r _name arrow path _address; do
        [ "$arrow" = '=>' ] || continue
        case $path in
            "$root"/*) cp -L "$path" "$guest/lib/x86_64-linux-gnu/" ;;
            *) die "${program##*/} would load '$path', which is not from the packages" ;;
        esac
    done < "$work/needed"
done
number=10
for file in $(load_order virtio_console virtio_rng virtio_net nls_cp437 nls_ascii vfat button evdev); do
    # What the initramfs has loaded is there already.
    [ -z "$(first_there "$ram/modules/"??"-${file##*/}")" ] || continue
    cp "$file" "$guest/lib/modules/$number-${file##*/}"
    number=$((number + 1))
done
cp "$parts/inittab" "$parts/profile" "$guest/etc/"
cp "$parts/rcS" "$parts/rcK" "$parts/seed" "$parts/dhcp" "$guest/etc/init.d/"
cp "$parts/shutdown" "$guest/sbin/shutdown"
cp "$parts/shutdown" "$guest/etc/acpi/PWRF/00000080"
printf 'root::0:0:root:/root:/bin/sh\n' > "$guest/etc/passwd"
printf 'root:x:0:\n' > "$guest/etc/group"
# The guest writes it at each boot.
ln -s ../run/resolv.conf "$guest/etc/resolv.conf"
printf 'NAME="Muster demo"\nID=muster-demo\nPRETTY_NAME="Muster demo (Linux %s)"\nVERSION_ID="%s"\n' "$version" "$script_key" > "$guest/etc/os-release"
chmod 755 "$guest/etc/init.d/rcS" "$guest/etc/init.d/rcK" "$guest/etc/init.d/dhcp" "$guest/sbin/shutdown" "$guest/etc/acpi/PWRF/00000080" "$guest/usr/sbin/"* "$guest/bin/busybox"
chmod 700 "$guest/root" "$guest/root/.ssh" "$guest/etc/dropbear"
chmod 1777 "$guest/tmp"
find "$guest" -exec touch -h -d "@$epoch" {} +

# --- disk: MBR, GRUB's core image in the gap before the first partition, ext4 from 1 MiB on
disk=$work/disk.raw
truncate -s "$disk_bytes" "$disk"
uuid=6d757374-6572-4d55-8554-455244454d4f
# The features are fixed to those that GRUB can read. Nothing is left for the guest's kernel to initialize, and the
# journal is small: every clone would write that, and Muster would store it for each of them.
SOURCE_DATE_EPOCH=$epoch E2FSPROGS_FAKE_TIME=$epoch mke2fs -q -F -t ext4 -b 4096 -I 256 -N 16384 -m 0 -L muster-root -U $uuid \
    -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize \
    -J size=8 -E offset=1048576,hash_seed=$uuid,root_owner=0:0,nodiscard,lazy_itable_init=0,lazy_journal_init=0 \
    -d "$guest" "$disk" $(((disk_bytes - 1048576) / 1024))k
# mke2fs cannot set these times. With them set, the same packages make the same image, byte for byte.
(cd "$guest" && find . -printf "set_inode_field \"/%P\" ctime @$epoch\n") > "$work/times"
echo 'set_super_value kbytes_written 0' >> "$work/times"
E2FSPROGS_FAKE_TIME=$epoch debugfs -w -f "$work/times" "$disk?offset=1048576" > "$work/debugfs.log" 2>&1 || die "debugfs cannot set the times: $(cat "$work/debugfs.log")"

mkimage=$root/usr/bin/grub-mkimage
grub=$root/usr/lib/grub/i386-pc
# The 16-bit boot protocol. For the 32-bit one GRUB moves the kernel and all the memory that it will unpack to, byte by
# byte, which takes an emulated processor longer than the boot.
cat > "$work/grub.cfg" << 'GRUB'
set root=(hd0,msdos1)
linux16 /boot/vmlinuz root=/dev/vda1 console=ttyS0,115200 quiet panic=5 no_timer_check tsc=reliable mitigations=off cryptomgr.notests
initrd16 /boot/initrd
boot
GRUB
"$loader" --library-path "$library_path" "$mkimage" -O i386-pc -d "$grub" -p '(hd0,msdos1)/boot' -c "$work/grub.cfg" -o "$work/core.img" \
    biosdisk part_msdos ext2 linux16 boot
core_bytes=$(wc -c < "$work/core.img")
[ "$core_bytes" -le $((2047 * 512)) ] || die "GRUB's core image does not fit before the partition: $core_bytes bytes"
# By default boot.img expects core.img in sector 1, and core.img expects its own rest in sector 2.
dd if="$grub/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$disk" bs=512 seek=1 conv=notrunc status=none

# Little-endian bytes of a 32-bit number, as escapes for printf %b.
le32() { printf '\\0%03o\\0%03o\\0%03o\\0%03o' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
sectors=$(((disk_bytes - 1048576) / 512))
# An MBR cannot describe more than 2 TiB, so the partition ends there.
[ $sectors -le 4294965247 ] || sectors=4294965247
{
    printf '%b\000\000' "$(le32 1836414067)"
    printf '\200\376\377\377\203\376\377\377'
    printf '%b' "$(le32 2048)$(le32 $sectors)"
} | dd of="$disk" bs=1 seek=440 conv=notrunc status=none
printf '\125\252' | dd of="$disk" bs=1 seek=510 conv=notrunc status=none

# --- move the image into the cache, complete or not at all; images older than 30 days are deleted
cp "$vmlinuz" "$work/vmlinuz"
cp --sparse=always "$disk" "$disk.sparse"
chmod 644 "$work/vmlinuz" "$work/initrd" "$disk.sparse"
rm -f "$image"
mv "$work/vmlinuz" "${image%.raw}.vmlinuz"
mv "$work/initrd" "${image%.raw}.initrd"
mv "$disk.sparse" "$image"
find "$cache/images" -type f ! -name "$key.*" -mtime +30 -exec rm -f {} + 2> /dev/null || :
deliver "$image"
say "$out: $(du -k "$out" | cut -f1) KiB of data, Linux $version, made in $(($(date +%s) - started)) s"

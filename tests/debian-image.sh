#!/usr/bin/env bash
# Makes the Debian that the tests start: `tests/debian-image.sh OUT.raw bios|uefi`, as root. Without arguments it makes
# both images and only keeps them.
#
# It is the release of this machine, with systemd, cloud-init (NoCloud), OpenSSH and the QEMU guest agent, as mmdebstrap
# makes it from the sources that apt has here. The guest prints MUSTER-READY on its serial console when cloud-init has
# ended. Both disks have the same two partitions: FAT with boot loader, kernel and initramfs, and the root file system.
#
#   bios    MBR with boot code, SYSLINUX
#   uefi    GPT without boot code, an EFI system partition with systemd-boot: a BIOS cannot start it
#
# Nothing is mounted or attached: file systems are made in place. Images are kept below the target folder, and made again
# only when one of the main packages has a new version or these files changed.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
for part in words packages toolchain; do
    # shellcheck source=/dev/null
    . "$root/deploy/lib/$part.sh"
done
parts=$root/tests/debian-image
usage="usage: tests/debian-image.sh [OUT.raw bios|uefi]"
case $# in 0 | 2) ;; *) die "it needs a file and a kind, or nothing" "$usage" ;; esac
out=${1-} kind=${2-uefi}
case $kind in bios | uefi) ;; *) die "there is no kind '$kind'" "$usage" ;; esac
[ "$(id -u)" = 0 ] || die "mmdebstrap installs a system into a folder, as root" "sudo tests/debian-image.sh $*"
[ "$(uname -m)" = x86_64 ] || die "makes images for x86-64 on x86-64 only, this is $(uname -m)"

packages_ensure dosfstools e2fsprogs fdisk mmdebstrap mtools syslinux syslinux-common util-linux

# What the guest has. The others come as their dependencies; recommended ones do not.
guest_packages=(linux-image-cloud-amd64 tiny-initramfs systemd-sysv systemd-resolved libnss-resolve libnss-myhostname dbus udev kmod
    cloud-init openssh-server qemu-guest-agent iproute2 systemd-boot-efi)
# Sectors of 512 bytes. The head has the partition table and the first partition, the tail the copy of a GPT.
boot_start=2048 boot_sectors=$((40 * 2048)) tail_sectors=2048
root_start=$((boot_start + boot_sectors)) root_mib=480
root_sectors=$((root_mib * 2048))

cache=$(target_dir)/debian-image
mkdir -p "$cache"
started=$(now_ms)
# One at a time. A second one waits and then finds the images of the first.
exec 9> "$cache/lock"
flock -w 900 9 || die "another run has held $cache/lock for 15 minutes"

work=
trap '[ -z "$work" ] || rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

script_key=$(cat "$root/tests/debian-image.sh" "$parts"/* | sha256sum | cut -c1-12)
# Prints the versions of the main packages, or nothing if apt does not know them.
versions() { apt-cache madison "${guest_packages[@]}" syslinux 2> /dev/null | sort -u; }
if [ -z "$(versions)" ]; then apt_quietly update > /dev/null 2>&1 || :; fi
key=$script_key-$(versions | sha256sum | cut -c1-12)
if [ -z "$(versions)" ]; then
    # Without a network an image that was made earlier will do.
    image=$(find "$cache" -maxdepth 1 -name "uefi-$script_key-*.raw" -print -quit)
    [ -n "$image" ] || die "apt knows no '${guest_packages[0]}': is this Debian, is there a network?" "apt-get update"
    key=$(basename "$image" .raw)
    key=${key#uefi-}
fi

# Copies an image that is in the cache to OUT, which appears whole or not at all.
deliver() {
    [ -n "$out" ] || return 0
    cp --sparse=always --reflink=auto -- "$cache/$kind-$key.raw" "$out.partial.$$"
    mv -f -- "$out.partial.$$" "$out"
}
# The one for UEFI is made last.
if [ -e "$cache/uefi-$key.raw" ] && [ -e "$cache/bios-$key.raw" ]; then
    deliver
    say "${out:-$cache/*-$key.raw}: Debian, from the cache"
    exit 0
fi

# What a run that was killed left.
find "$cache" -mindepth 1 -maxdepth 1 -name 'work.*' -exec rm -rf --one-file-system {} +
work=$(mktemp -d "$cache/work.XXXXXX")
chmod 755 "$work"

# The lines of sources.list for Debian, as apt has them here.
sources() {
    # shellcheck disable=SC2016 # apt's words, not the shell's
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' | sort -u
}
# The proxies of this machine's apt.
proxies() { apt-config dump | grep -E '^Acquire::[a-z]+::Proxy' || :; }

# Installs the system into the folder $1.
install_guest() {
    local release options package
    # shellcheck disable=SC1091
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    options=(--variant=apt --mode=root --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*')
    for package in "${guest_packages[@]}"; do options+=(--include="$package"); done
    proxies > "$work/proxies"
    options+=(--aptopt="$work/proxies")
    sources > "$work/sources.list"
    [ -s "$work/sources.list" ] || die "apt has no sources of Debian here" "apt-get update"
    # apt's own user writes there.
    mkdir -m 1777 "$work/tmp"
    # In a mount namespace of its own, so that what it mounts ends with it even if it is killed.
    TMPDIR=$work/tmp unshare --mount --propagation private mmdebstrap "${options[@]}" "$release" "$1" "$work/sources.list" > "$work/log" 2>&1 9>&- \
        || { tail -n 20 "$work/log" >&2; die "mmdebstrap failed, see above"; }
}

# Makes the root file system of the folder $1 as the file $2, and $work/vmlinuz, $work/initrd and $work/boot.efi beside it.
make_root() {
    local guest=$1 version unit
    version=$(basename "$guest"/boot/vmlinuz-*)
    version=${version#vmlinuz-}
    # The modules that find the disk. It is not packed: an emulated processor reads faster than it unpacks.
    # There is no TMPDIR of this machine in the guest.
    env -u TMPDIR chroot "$guest" mktirfs --auto-modules=no --microcode=no --include-modules=virtio_pci,virtio_blk,crc32c_generic,ext4 \
        -o /boot/initrd "$version" > "$work/log" 2>&1 || { cat "$work/log" >&2; die "mktirfs failed, see above"; }
    mv "$guest/boot/initrd" "$work/initrd"
    cp "$guest/boot/vmlinuz-$version" "$work/vmlinuz"
    cp "$guest/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$work/boot.efi"
    rm -rf "${guest:?}"/boot/* "$guest"/etc/ssh/ssh_host_* "$guest"/var/lib/apt/lists/* "$guest"/var/cache/debconf/*-old \
        "$guest"/var/log/*.log "$guest"/etc/apt/apt.conf.d/99mmdebstrap
    cp "$parts/cloud.cfg" "$guest/etc/cloud/cloud.cfg.d/90-muster.cfg"
    cp "$parts/muster-ready.service" "$guest/etc/systemd/system/"
    printf '/dev/vda2 / ext4 noatime 0 0\n' > "$guest/etc/fstab"
    echo debian > "$guest/etc/hostname"
    # Each guest makes its own when it first boots.
    : > "$guest/etc/machine-id"
    env -u TMPDIR chroot "$guest" systemctl -q enable muster-ready.service systemd-networkd.service
    # An emulated processor has better things to do.
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
        getty@tty1.service systemd-journal-catalog-update.service systemd-update-utmp.service systemd-pstore.service \
        systemd-binfmt.service proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
        sys-fs-fuse-connections.mount systemd-udev-settle.service; do
        ln -sf /dev/null "$guest/etc/systemd/system/$unit"
    done
    truncate -s "${root_mib}M" "$2"
    mke2fs -q -F -t ext4 -m 0 -L root -J size=16 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 -d "$guest" "$2"
}

# Makes a disk of one kind ($1) as the file $2.
make_disk() {
    local boot=$work/boot.fat line
    # The options save an emulated processor work that tests need not have. On a busy machine it takes minutes for what others do
    # in seconds, so systemd waits longer, and the clock stays with the TSC, which is that of the host.
    line="root=/dev/vda2 ro console=ttyS0,115200 quiet $(cat "$parts/kernel.options")"
    rm -f "$boot"
    truncate -s $((boot_sectors * 512)) "$boot"
    mkfs.vfat -F 16 -h $boot_start -n BOOT "$boot" > "$work/log" 2>&1 || { cat "$work/log" >&2; die "mkfs.vfat failed, see above"; }
    mcopy -i "$boot" "$work/vmlinuz" "$work/initrd" ::
    truncate -s $(((root_start + root_sectors + tail_sectors) * 512)) "$2"
    if [ "$1" = bios ]; then
        printf 'DEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL /vmlinuz\n  INITRD /initrd\n  APPEND %s\n' "$line" > "$work/syslinux.cfg"
        mcopy -i "$boot" "$work/syslinux.cfg" ::
        syslinux --install "$boot"
        printf 'label: dos\nstart=%d, size=%d, type=e, bootable\nstart=%d, size=%d, type=83\n' \
            $boot_start $boot_sectors $root_start $root_sectors | sfdisk -q "$2"
        dd if=/usr/lib/syslinux/mbr/mbr.bin of="$2" bs=440 count=1 conv=notrunc status=none
    else
        mmd -i "$boot" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
        mcopy -i "$boot" "$work/boot.efi" ::/EFI/BOOT/BOOTX64.EFI
        printf 'timeout 0\n' > "$work/loader.conf"
        printf 'title Debian\nlinux /vmlinuz\ninitrd /initrd\noptions %s\n' "$line" > "$work/debian.conf"
        mcopy -i "$boot" "$work/loader.conf" ::/loader/
        mcopy -i "$boot" "$work/debian.conf" ::/loader/entries/
        printf 'label: gpt\nstart=%d, size=%d, type=U\nstart=%d, size=%d, type=L\n' \
            $boot_start $boot_sectors $root_start $root_sectors | sfdisk -q "$2"
    fi
    dd if="$boot" of="$2" bs=1M seek=$((boot_start / 2048)) conv=notrunc,sparse status=none
    dd if="$work/root.ext4" of="$2" bs=1M seek=$((root_start / 2048)) conv=notrunc,sparse status=none
}

say "installing a Debian into $work"
install_guest "$work/guest"
say "  after $(seconds $(($(now_ms) - started))): its disks"
make_root "$work/guest" "$work/root.ext4"
for one in bios uefi; do
    make_disk "$one" "$work/$one.raw"
    mv -f "$work/$one.raw" "$cache/$one-$key.raw"
done
find "$cache" -mindepth 1 -maxdepth 1 -name '*.raw' ! -name "*-$key.raw" -exec rm -f {} +
deliver
say "${out:-$cache/*-$key.raw}: Debian, $(du -m "$cache/$kind-$key.raw" | cut -f1) MiB of data, made in $(seconds $(($(now_ms) - started)))"

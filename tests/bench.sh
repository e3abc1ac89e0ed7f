#!/usr/bin/env bash
# Prints the numbers of README, measured now: `tests/bench.sh [ROW …]` as root or with sudo.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
for part in words packages toolchain; do
    # shellcheck source=/dev/null
    . "$root/deploy/lib/$part.sh"
done
[ "$(id -u)" = 0 ] || die "the bench mounts disks: it needs root" "sudo tests/bench.sh"
packages_ensure gcc libc6-dev pkg-config libvirt-dev qemu-utils fuse3 fio b3sum
toolchain_ensure
cd "$root"
cargo build --release --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/muster-bench" "$@"

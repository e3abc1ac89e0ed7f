#!/usr/bin/env bash
# Checks what the compiler does not: the shell scripts (shellcheck) and what Muster is built from (cargo deny, deny.toml).
# tests/run.sh runs it; `tests/lint.sh` alone takes seconds.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
for part in words packages toolchain; do
    # shellcheck source=/dev/null
    . "$root/deploy/lib/$part.sh"
done
packages_ensure shellcheck
toolchain_ensure
cargo_deny_ensure
cd "$root"

shellcheck .ci/run deploy/*.sh deploy/lib/*.sh tests/*.sh tests/clients/*.sh
# The guest's shell is busybox, which understands what dash does.
shellcheck --shell dash deploy/demo-image/{dhcp,initramfs-init,profile,rcK,rcS,seed,shutdown}

cargo deny --locked check --hide-inclusion-graph bans licenses sources

# The tests that the operator's page names are there.
named=$(sed -n '/^\*Seen in\*/,/^$/p' deploy/OPERATIONS.md | grep -oE '[a-z0-9]+(_[a-z0-9]+){2,}' | sort -u)
[ -n "$named" ] || die "deploy/OPERATIONS.md names no tests"
missing=$(comm -23 <(echo "$named") \
    <(grep -rhoE --include='*.rs' --exclude-dir=target 'fn [a-z0-9_]+' . | sed 's/^fn //' | sort -u))
[ -z "$missing" ] || die "deploy/OPERATIONS.md names tests that do not exist" "$missing"

#!/usr/bin/env bash
# Checks the dashboard: lints, types, component tests, the build, and how much a browser loads before it shows the first
# page. `tests/dashboard.sh`; tests/run.sh calls it. Every check runs, also after one has failed.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
for part in words packages toolchain node dashboard; do
    # shellcheck source=/dev/null
    . "$root/deploy/lib/$part.sh"
done
trap give_back_dashboard EXIT

dashboard_packages_ensure
# shellcheck disable=SC2154 # of dashboard.sh
cd "$dashboard_dir"
status=0
# The checks beside each other take half the time.
checks=(lint typecheck test)
npm run --silent generate > /dev/null
log=$(mktemp -d)
trap 'rm -rf "$log"; give_back_dashboard' EXIT
pids=()
for check in "${checks[@]}"; do
    npm run --silent "$check" > "$log/$check" 2>&1 &
    pids+=($!)
done
for n in "${!checks[@]}"; do
    if wait "${pids[n]}"; then
        say "dashboard: ${checks[n]} passed"
    else
        cat "$log/${checks[n]}" >&2
        say "dashboard: ${checks[n]} FAILED (cd ${dashboard_dir#"$root/"} && npm run ${checks[n]})"
        status=1
    fi
done
(dashboard_ensure && npm run --silent size) || status=1
exit "$status"

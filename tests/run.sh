#!/usr/bin/env bash
# Installs what is missing, builds, runs every test: `tests/run.sh [TEST-FILTER…]` as root or with sudo.
# Ends with the runner's summary, and with a non-zero exit code if anything failed.
#
# `tests/run.sh --long [--hours N] [--seed S]` runs what takes long and nothing else: 10,000 histories of the model of a cluster,
# the repository in a real engine (Ceph), then a soak and the torture of whole clusters, each for N hours, the torture with one
# seed after the other from S on. With S alone it runs only the torture, with that seed. Without either both run for one hour
# with seeds that they have not used before.
#
# Most tests use the profile `bench` of Cargo.toml, which compiles our own code fast. The suites that torture a store or a
# disk, the daemons of whole-system tests and the quickstart use the profile `release`, which production uses, too. Both
# share the dependencies, which are compiled once.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
for part in words packages toolchain libvirt leftovers; do
    # shellcheck source=/dev/null
    . "$root/deploy/lib/$part.sh"
done
# Settings of a Muster in this environment are not meant for the tests; how loud they are is.
for name in ${!MUSTER_@}; do case $name in MUSTER_TEST_*) ;; *) unset "$name" ;; esac; done
started=$(now_ms)

long=''
if [ "${1-}" = --long ]; then
    long=1
    shift
    unset MUSTER_TEST_TORTURE_HOURS MUSTER_TEST_TORTURE_SEED MUSTER_TEST_MODEL_SEED MUSTER_TEST_MODEL_STEPS MUSTER_TEST_MODEL_FIRST
    while [ "$#" -gt 0 ]; do
        [ "$#" -ge 2 ] || die "$1 needs a value" "tests/run.sh --long [--hours N] [--seed S]"
        case $1 in
            --hours) export MUSTER_TEST_TORTURE_HOURS=$2 ;;
            --seed) export MUSTER_TEST_TORTURE_SEED=$2 ;;
            *) die "there is no option $1" "tests/run.sh --long [--hours N] [--seed S]" ;;
        esac
        shift 2
    done
    if [ -z "${MUSTER_TEST_TORTURE_HOURS-}${MUSTER_TEST_TORTURE_SEED-}" ]; then export MUSTER_TEST_TORTURE_HOURS=1; fi
    if [ -z "${MUSTER_TEST_TORTURE_SEED-}" ]; then MUSTER_TEST_TORTURE_SEED=$(date +%s); fi
    export MUSTER_TEST_TORTURE_SEED
fi

[ "$(uname -s)" = Linux ] || die "Muster runs on Linux, this is $(uname -s)"
[ "$(id -u)" = 0 ] || die "the tests mount disks and start guests: they need root" "sudo tests/run.sh"

# Prints a headline with the time so far.
step() { say "== $* ($(seconds $(($(now_ms) - started))) so far)"; }

step packages
packages_ensure util-linux gcc libc6-dev pkg-config libvirt-dev ca-certificates qemu-utils qemu-system-x86 libvirt-daemon-system \
    libvirt-daemon-driver-qemu libvirt-clients fuse3 fio iproute2 nftables dnsmasq-base e2fsprogs postgresql chromium \
    ovmf swtpm swtpm-tools openssh-client
toolchain_ensure rustfmt clippy
[ -e /dev/fuse ] || modprobe fuse 2> /dev/null || :
[ -c /dev/fuse ] || die "there is no /dev/fuse: the tests mount disks" "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN"

# What a run that was killed left.
# shellcheck disable=SC2317 # called by name
folder_delete() { rm -rf --one-file-system "${1:?}"; }
dead_runs_clear folder_delete /var/tmp/muster-tests.*
for folder in /dev/shm/muster-tests.*; do
    if [ -O "$folder" ] && ! kill -0 "${folder##*.}" 2> /dev/null; then folder_delete "$folder"; fi
done
test_networks_clear

log=$(mktemp)
# Everything the tests make is below one folder, so that what they leave can be told from what is somebody else's.
# Not /tmp: that may be a tmpfs, which is no place for disks. Guests of the qemu user pass through it.
TMPDIR=$(mktemp -d /var/tmp/muster-tests.XXXXXX)
mark_folder "$TMPDIR"
chmod 0711 "$TMPDIR"
export TMPDIR
# Tests that cut no power below their files have them in memory.
if mkdir -m 0700 "/dev/shm/muster-tests.$$" 2> /dev/null; then export MUSTER_TEST_MEMORY="/dev/shm/muster-tests.$$"; fi

# Ends what the tests left and says so: a test that leaves something has a defect.
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    leftovers_end "$TMPDIR"
    test_networks_clear
    libvirt_release
    give_back_target
    folder_delete "$TMPDIR"
    if [ -n "${MUSTER_TEST_MEMORY-}" ]; then folder_delete "$MUSTER_TEST_MEMORY"; fi
    rm -f "$log"
}
trap 'clean_up' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

runner='test'
if cargo nextest --version > /dev/null 2>&1; then runner=nextest; fi
filters=("$@")
status=0
nextest_options=() test_options=()

# Backtraces of every expected panic would bury the failures.
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}

# run_tests PROFILE CARGO-OPTION…: runs the tests of some packages. A failure is kept in `status`, and the next group runs.
run_tests() {
    local profile=$1
    shift
    if [ "$runner" = nextest ]; then
        run_cargo nextest run --locked --cargo-profile "$profile" "$@" --no-fail-fast --no-tests pass --status-level pass --final-status-level fail \
            --color never "${nextest_options[@]}" "${filters[@]}" 2>&1 | tee -a "$log" || status=$?
    else
        run_cargo test --locked --profile "$profile" "$@" --no-fail-fast -- --test-threads 2 "${test_options[@]}" "${filters[@]}" 2>&1 | tee -a "$log" || status=$?
    fi
}

# Prints the slowest tests, all failures, and the closing line: how many tests passed and failed in all groups.
summary() {
    say
    say 'the slowest tests:'
    if [ "$runner" = nextest ]; then
        { sed -n 's/^ *\(PASS\|FAIL\|TIMEOUT\) \[ *>\{0,1\} *\([0-9.]*\)s\] *\(([^)]*)\)\{0,1\} *\(.*\)$/\2 s  \4/p' "$log" \
            | sort -rn | awk '!seen[$0]++' | head -n 10 >&2; } || :
        { grep -E '^ *(FAIL|TIMEOUT|SIG[A-Z]+|LEAK-FAIL) \[' "$log" | sort -u; } || :
        # shellcheck disable=SC2016 # awk's fields
        counts='/^ *Summary \[/ { for (i = 2; i <= NF; i++) {
            if ($i ~ /^tests?$/) run += $(i - 1); if ($i ~ /^passed,?$/) passed += $(i - 1) } }
            END { print passed + 0 " passed, " run - passed " failed" }'
    else
        { sed -n 's/^test result: .* finished in \([0-9.]*\)s$/\1 s/p' "$log" | sort -rn | head -n 10 >&2; } || :
        { grep -E '^test .* FAILED$' "$log" | sort -u; } || :
        # shellcheck disable=SC2016 # awk's fields
        counts='/^test result:/ { passed += $4; failed += $6 } END { print passed + 0 " passed, " failed + 0 " failed" }'
    fi
    say "everything took $(seconds $(($(now_ms) - started)))"
    [ "$status" = 0 ] || say "something failed above (exit code $status): a lint, a build, or a test"
    awk "$counts" "$log"
}

# Whole-system tests and the quickstart find the daemons here.
MUSTER_BIN_DIR=$(release_dir)
export MUSTER_BIN_DIR

if [ -n "$long" ]; then
    step 'release build of the daemons'
    run_cargo build --release --locked -p muster-controller -p muster-agent -p muster-cli --bins
    nextest_options=(--profile long --no-capture) test_options=(--nocapture)
    if [ -n "${MUSTER_TEST_TORTURE_HOURS-}" ]; then
        step "histories of the model of a cluster (cargo $runner)"
        export MUSTER_TEST_MODEL_HISTORIES=${MUSTER_TEST_MODEL_HISTORIES:-10000}
        run_tests release -p muster-agent --test model
        step "the repository in a Ceph of its own (cargo $runner)"
        packages_ensure curl ceph-mon ceph-osd radosgw faketime
        filters=(real_engine::)
        ordinary_nextest_options=("${nextest_options[@]}") ordinary_test_options=("${test_options[@]}")
        # They are marked `#[ignore]`, so that no other run counts them as passed.
        nextest_options+=(--run-ignored only) test_options+=(--ignored)
        run_tests bench -p muster-tests --test end_to_end
        nextest_options=("${ordinary_nextest_options[@]}") test_options=("${ordinary_test_options[@]}")
        step "soak of a whole cluster (cargo $runner)"
        MUSTER_TEST_SOAK_S=$(awk "BEGIN { print int($MUSTER_TEST_TORTURE_HOURS * 3600) }")
        export MUSTER_TEST_SOAK_S MUSTER_TEST_SOAK_SEED=$MUSTER_TEST_TORTURE_SEED
        filters=(soak::)
        run_tests bench -p muster-tests --test end_to_end
    fi
    step "torture of whole clusters (cargo $runner)"
    filters=(no_wrong_byte)
    run_tests bench -p muster-tests --test end_to_end
    summary
    exit "$status"
fi

step 'cargo fmt --check'
run_cargo fmt --all --check

# A finding is a failure, and the tests run all the same.
step 'shell scripts and dependencies'
"$root/tests/lint.sh" || status=1

# Tests that lack them say how to get them.
step 'linters and client generators of /openapi.json'
"$root/tests/clients/tools.sh" || status=1

# Before the controller, which takes it in.
step 'dashboard: lint, types, component tests, build'
"$root/tests/dashboard.sh" || status=1

# What needs no daemons comes first: an error in a change shows early.
fast=(--workspace --exclude storage-core --exclude muster-agent --exclude muster-tests)
step 'build of the first tests'
run_cargo test --locked --profile bench --no-run "${fast[@]}" || die 'the build failed'
step "controller, API, command line, pool (cargo $runner)"
run_tests bench "${fast[@]}"

step 'clippy, warnings denied'
run_cargo clippy --locked --profile bench --workspace --all-targets -- -D warnings

step 'release build of the daemons'
run_cargo build --release --locked -p muster-controller -p muster-agent -p muster-cli --bins

step 'libvirt'
libvirt_ensure

step "stores and disks, release (cargo $runner)"
run_tests release -p storage-core -p muster-agent --lib --test integration --test model

step 'a Debian for its guests'
"$root/tests/debian-image.sh" || status=1

step "whole systems (cargo $runner)"
run_tests bench -p muster-tests

summary
exit "$status"

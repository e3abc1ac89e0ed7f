# Daily recipes; `just` alone lists them. The two commands of the README need no just.

[private]
default:
    @{{ just_executable() }} --list --unsorted

# Type-check everything, tests included
check:
    cargo check --workspace --all-targets --locked

# Unit and property tests: no root, no services
unit *FILTER:
    cargo nextest run --workspace --lib {{ FILTER }}

# Integration tests of one crate, all or those with NAME in theirs: just test muster-agent cut
test CRATE *NAME:
    cargo nextest run -p {{ CRATE }} --test integration {{ NAME }}

# Tests of the REST API, all or those with NAME in theirs: just api snapshots
api NAME='':
    cargo nextest run -p muster-controller --test integration -E 'test(/^api::.*{{ NAME }}/)'

# Everything that CI runs, as root: just all [FILTER...]
all *FILTER:
    tests/run.sh {{ FILTER }}

# Formatting, clippy, shell scripts, dependencies
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    tests/lint.sh

# Lints, types, component tests and size of the dashboard
dashboard:
    tests/dashboard.sh

# Format the code
fmt:
    cargo fmt --all

# Measure the rows of README's table, all or those named, as root: just bench mount
bench *ROW:
    tests/bench.sh {{ ROW }}

# Feed every decoder random bytes, for so many seconds each: just fuzz 60
fuzz SECONDS:
    MUSTER_FUZZ_SECONDS={{ SECONDS }} cargo nextest run --profile fuzz --workspace --lib -E 'test(fuzz_)'

# A whole Muster on this machine, as root: just quickstart --count 2
quickstart *OPTIONS:
    deploy/quickstart.sh {{ OPTIONS }}

# shellcheck shell=bash
# shellcheck disable=SC2034 # used by the scripts that source this
# Messages, times and sizes. Sourced by the scripts in deploy/ and tests/.

# "yes" while the terminal's last line is that of a step under way, which the next message replaces.
unfinished_line=no
end_line() {
    [ $unfinished_line = no ] || printf '\r\033[K' >&2
    unfinished_line=no
}

# Prints a message to standard error; standard output is for results.
say() {
    end_line
    printf '%s\n' "$*" >&2
}

# die WRONG HELP…: prints what is wrong and what to do about it, then ends the script. Its traps clean up.
die() {
    end_line
    printf '\n%s: %s\n' "${0##*/}" "$1" >&2
    shift
    local line
    for line in "$@"; do printf '    %s\n' "$line" >&2; done
    exit 1
}

# The time in milliseconds.
now_ms() {
    local now=${EPOCHREALTIME/[.,]/}
    echo $((now / 1000))
}

# 1234 -> 1.2 s
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# 512MiB -> bytes. Fails and prints nothing for a text that is not a size.
bytes_of() {
    local number=${1%%[!0-9]*} unit=1
    [ -n "$number" ] || return 1
    case ${1#"$number"} in
        '' | B) ;;
        KiB | K | k) unit=$((1 << 10)) ;;
        MiB | M | m) unit=$((1 << 20)) ;;
        GiB | G | g) unit=$((1 << 30)) ;;
        TiB | T | t) unit=$((1 << 40)) ;;
        *) return 1 ;;
    esac
    [ "${#number}" -le 9 ] || return 1
    echo $((10#$number * unit))
}

mebibytes() { echo "$(($1 >> 20)) MiB"; }

# until_true SECONDS COMMAND…: repeats the command every 0.1 s until it succeeds; fails when the time is up.
until_true() {
    local end=$(($(now_ms) + $1 * 1000))
    shift
    until "$@"; do
        [ "$(now_ms)" -lt "$end" ] || return 1
        sleep 0.1
    done
}

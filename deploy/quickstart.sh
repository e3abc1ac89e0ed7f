#!/usr/bin/env bash
# Runs a whole Muster on this machine: a controller, agents, virtual machines from one image, a snapshot of all of them
# while they run, and a second fleet started from it. `deploy/quickstart.sh --help` lists the options.
#
# All data is below one folder. Everything that this script starts is stopped again on Ctrl-C, when a step fails, and
# when this shell is killed; then the next quickstart deletes the data folder. Nothing else on the machine is changed.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
for part in words packages toolchain node dashboard libvirt leftovers; do
    # shellcheck source=/dev/null
    . "$root/deploy/lib/$part.sh"
done

nodes=3
count=4
image=
memory=
data=
listen=127.0.0.1
leave=no
keep=no

usage() {
    cat << 'USAGE'
usage: deploy/quickstart.sh [options]     (as root or with sudo)

  --nodes K      agents to start (3)
  --count N      instances to deploy (4)
  --image FILE   raw or qcow2 image to deploy, instead of a demo image made here
  --memory SIZE  memory of each instance (128MiB, plenty for the demo image; 512MiB with --image)
  --data DIR     data folder (a fresh one under /var/tmp)
  --listen IP    address the API listens on (127.0.0.1)
  --exit         stop and clean up after the last step; exit 0 only if every step succeeded
  --keep         keep the data when it ends
  -h, --help     this text

It installs what is missing, builds, starts a controller and agents, deploys, waits until every instance is ready, takes
a snapshot of all of them, starts a second deployment from it, and stays up until Ctrl-C.
USAGE
}

refuse() {
    usage >&2
    printf '\nquickstart: %s\n' "$1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    option=$1
    case $option in
        --*=*) set -- "${option%%=*}" "${option#*=}" "${@:2}"; option=$1 ;;
    esac
    case $option in
        --nodes | --count | --image | --memory | --data | --listen)
            if [ $# -lt 2 ] || [ -z "$2" ]; then refuse "$option needs a value"; fi
            case $option in
                --nodes) nodes=$2 ;;
                --count) count=$2 ;;
                --image) image=$2 ;;
                --memory) memory=$2 ;;
                --data) data=$2 ;;
                --listen) listen=$2 ;;
            esac
            shift 2
            ;;
        --exit) leave=yes; shift ;;
        --keep) keep=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) refuse "unknown option '$option'" ;;
    esac
done

# number_up_to MOST TEXT
number_up_to() {
    case $2 in '' | *[!0-9]* | 0* | ?????*) return 1 ;; esac
    [ "$2" -le "$1" ]
}
number_up_to 64 "$nodes" || refuse "--nodes: expected a number from 1 to 64, got '$nodes'"
number_up_to 1000 "$count" || refuse "--count: expected a number from 1 to 1000, got '$count'"
if [ -z "$memory" ]; then
    memory=128MiB
    [ -z "$image" ] || memory=512MiB
fi
memory_bytes=$(bytes_of "$memory") || refuse "--memory: expected a size such as 512MiB, got '$memory'"
[ "$memory_bytes" -ge $((64 << 20)) ] || refuse "--memory: a guest needs at least 64MiB, got '$memory'"
case $listen in *[!0-9a-fA-F.:]* | '') refuse "--listen: expected an IP address, got '$listen'" ;; esac
if [ -n "$image" ]; then
    if [ ! -f "$image" ] || [ ! -r "$image" ]; then refuse "--image: cannot read '$image'"; fi
    image=$(CDPATH='' cd -- "$(dirname -- "$image")" && pwd)/$(basename -- "$image")
fi

# ---------------------------------------------------------------- what was started, and how it ends

made_data=no        # yes: the data folder is this run's and is deleted at the end
controller=         # its process id
agents=()           # their process ids, by number
helper=             # process id of a foreground program that may run for long
ending=no           # yes: cleaning up has begun
interrupted=no      # yes: a signal ended the script
up=no               # yes: every step succeeded
begun=$(now_ms)

# Settings in this environment are those of another Muster.
for name in ${!MUSTER_@}; do [ "$name" = MUSTER_BIN_DIR ] || unset "$name"; done

# Starts a daemon in a session of its own: Ctrl-C must reach only this shell, which then stops the daemons in order.
# When this shell is killed, the kernel sends them SIGTERM.
start_daemon() {
    local log=$1
    shift
    setsid setpriv --pdeathsig TERM "$@" < /dev/null >> "$log" 2>&1 &
}

# run OUT ERR PROGRAM…: runs a program that may take long. It has a process group of its own, so that cleaning up can
# end it with everything it started. OUT and ERR are files, or - for this script's own output. They are not redirections
# of the call, because then a trap that runs during the call would write its messages to the file.
run() {
    local out err
    if [ "$1" = - ]; then exec {out}>&1; else exec {out}>> "$1"; fi
    if [ "$2" = - ]; then exec {err}>&2; else exec {err}>> "$2"; fi
    shift 2
    setsid setpriv --pdeathsig TERM "$@" < /dev/null >&"$out" 2>&"$err" {out}>&- {err}>&- &
    helper=$!
    exec {out}>&- {err}>&-
    local status=0
    wait "$helper" || status=$?
    helper=
    return "$status"
}

# Sends SIGTERM to processes. Call it once per process: an agent that gets a second one ends without cleaning up.
ask_to_end() {
    local pid
    for pid in "$@"; do kill -TERM "$pid" 2> /dev/null || :; done
}

# await_end SECONDS PID…: waits until the processes have ended, and kills those that take longer.
await_end() {
    local patience=$1 pid
    shift
    for pid in "$@"; do
        if ! until_true "$patience" process_gone "$pid"; then
            say "process $pid has not ended within $patience s; killing it"
            kill -KILL "$pid" 2> /dev/null || :
        fi
        # Its exit code does not matter any more.
        wait "$pid" 2> /dev/null || :
    done
}

agents_gone() {
    local pid
    for pid in "${agents[@]}"; do process_gone "$pid" || return 1; done
}

# without_guests COMMAND…: turns off the guests of this quickstart, then runs the command.
without_guests() {
    domains_destroy "$data"
    "$@"
}

# Deletes what this script made in a data folder, and the folder if nothing else is in it.
data_delete() {
    # shellcheck disable=SC2154 # of leftovers.sh
    rm -rf --one-file-system "${1:?}/controller" "${1:?}"/node-* "${1:?}/logs" "${1:?}/env" "${1:?}/demo.raw" "${1:?}"/ssh_key* "${1:?}/$run_mark"
    rmdir "$1" 2> /dev/null || :
}

clean_up() {
    local status=$?
    [ "$ending" = no ] || return
    ending=yes
    set +e
    trap '' INT TERM HUP
    step_failed
    if [ -n "$helper" ]; then
        kill -TERM -- "-$helper" 2> /dev/null
        until_true 10 process_gone "-$helper" || kill -KILL -- "-$helper" 2> /dev/null
    fi
    if [ $made_data = yes ]; then
        [ $status = 0 ] || [ $interrupted = yes ] || show_logs
        if [ -n "$controller" ] || [ ${#agents[@]} -gt 0 ]; then
            say 'stopping …'
            # Agents shut their guests down, write everything back and unmount. Where the data is deleted anyway, the
            # guests are turned off instead, which saves the time of the shutdown.
            ask_to_end "${agents[@]}"
            if [ $keep = no ]; then until_true 60 without_guests agents_gone || :; fi
            await_end 60 "${agents[@]}"
            if [ -n "$controller" ]; then
                ask_to_end "$controller"
                await_end 15 "$controller"
            fi
        fi
        leftovers_end "$data"
        libvirt_release
        if [ $keep = yes ]; then
            say "the data is kept in $data"
        elif [ -z "$(mounts_below "$data")" ]; then
            data_delete "$data"
        else
            say "something is still mounted below $data, so the folder is not deleted"
        fi
    else
        libvirt_release
    fi
    give_back_target
    give_back_dashboard
    exit "$status"
}
interrupt() {
    interrupted=yes
    say ''
    # Ctrl-C is the normal end of a quickstart that is up.
    if [ $up = yes ]; then exit 0; fi
    exit 130
}
trap clean_up EXIT
trap interrupt INT
trap 'interrupted=yes; exit 143' TERM
trap 'interrupted=yes; exit 129' HUP

show_logs() {
    local log
    for log in "$data"/logs/*.log; do
        [ -s "$log" ] || continue
        say ''
        say "--- the end of ${log##*/}"
        tail -n 20 "$log" >&2
    done
}

# ---------------------------------------------------------------- steps and their times

step_name=
step_begun=0
steps=0

step() {
    step_name=$1
    step_begun=$(now_ms)
    if [ -t 2 ]; then
        printf '  …          %s' "$step_name" >&2
        # shellcheck disable=SC2034 # of words.sh
        unfinished_line=yes
    fi
}

# done_step [REMARK]: prints the time of the step, its name and the remark.
done_step() {
    local took
    took=$(seconds $(($(now_ms) - step_begun)))
    end_line
    printf '  %8s   %-22s %s\n' "$took" "$step_name" "${1:-}" >&2
    step_name=
    steps=$((steps + 1))
}

step_failed() {
    [ -n "$step_name" ] || return 0
    end_line
    local word=failed
    [ $interrupted = no ] || word=interrupted
    printf '  %8s   %-22s %s\n' "$(seconds $(($(now_ms) - step_begun)))" "$step_name" "$word" >&2
    step_name=
}

# ---------------------------------------------------------------- what this machine must have

[ "$(uname -s)" = Linux ] || die "Muster runs on Linux, this is $(uname -s)"
[ "$(id -u)" = 0 ] || die "the quickstart mounts disks and starts guests: it needs root" "sudo deploy/quickstart.sh"

say "Muster: $nodes agents, 2 x $count instances with $memory each"
step packages
packages_ensure util-linux iproute2 qemu-utils qemu-system-x86 libvirt-daemon-system libvirt-daemon-driver-qemu \
    libvirt-clients fuse3 e2fsprogs openssh-client nftables dnsmasq-base ovmf
[ -e /dev/fuse ] || modprobe fuse 2> /dev/null || :
[ -c /dev/fuse ] || die "there is no /dev/fuse, which Muster needs for its disks" "modprobe fuse" \
    "in a container: --device /dev/fuse --cap-add SYS_ADMIN"
(: <> /dev/fuse) 2> /dev/null || die "/dev/fuse cannot be opened" "in a container: --device /dev/fuse --cap-add SYS_ADMIN"
done_step

# ---------------------------------------------------------------- the data folder

# Prints the first folder from a path upwards that other users cannot enter. libvirt starts QEMU as a user of its own,
# which must get to the disks.
passable() {
    local dir=$1
    while [ "$dir" != / ]; do
        [ $((0$(stat -c %a "$dir") & 1)) = 1 ] || { echo "$dir"; return; }
        dir=$(dirname "$dir")
    done
}
dead_runs_clear data_delete /var/tmp/muster-quickstart.* ${data:+"$data"}
if [ -z "$data" ]; then
    data=$(mktemp -d /var/tmp/muster-quickstart.XXXXXX)
else
    mkdir -p -- "$data" || die "cannot make the data folder '$data'"
    data=$(CDPATH='' cd -- "$data" && pwd)
    [ -z "$(ls -A "$data")" ] || die "'$data' is not empty: the quickstart begins with an empty data folder" "name another one, or delete it"
fi
made_data=yes
# Without a mark the next quickstart does not delete the folder of one that was killed.
[ $keep = yes ] || mark_folder "$data"
chmod 0711 "$data"
blocked=$(passable "$data")
[ -z "$blocked" ] || die "the user that runs guests (libvirt-qemu) cannot enter '$blocked'" "chmod o+x '$blocked', or choose another --data"
mkdir -m 0755 "$data/logs"
# Guests let its owner sign in. The private half is readable by root only.
ssh-keygen -q -t ed25519 -N '' -C muster-quickstart -f "$data/ssh_key" || die "no SSH key could be made"

# How many instances fit. The memory that is free now is divided among the agents.
available=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo) * 1024))
# QEMU needs about this much memory for each guest, beside the guest's own.
beside=$((96 << 20))
reserve=$(((512 << 20) + nodes * (128 << 20)))
most=$(((available - reserve) / (memory_bytes + beside)))
per_node=$(((2 * count + nodes - 1) / nodes))
both=yes
if [ $((per_node * nodes)) -gt "$most" ]; then
    per_node=$((most / nodes))
    [ $((per_node * nodes)) -ge $((2 * count)) ] || both=no
    if [ $((per_node * nodes)) -lt "$count" ]; then
        fewer=$(((available - (640 << 20)) / (memory_bytes + beside)))
        [ $fewer -gt 0 ] || fewer=1
        die "$count instances of $memory on $nodes nodes do not fit into the $(mebibytes "$available") of memory that are free here" \
            "try fewer, for example --nodes 1 --count $((fewer < count ? fewer : count))"
    fi
fi
# Room for more deployments where there is memory: enough for README's tutorial, or up to half of what is free. The
# other half stays for other programs.
room=$((per_node + 4 / nodes + 1 < most / nodes ? per_node + 4 / nodes + 1 : most / nodes))
roomy=$((most / 2 / nodes))
room=$((roomy > room ? roomy : room))
node_memory=$((room * memory_bytes))
# More processors than there are: only memory is to limit the number of instances.
node_cpus=$((room * 2 > 4 ? room * 2 : 4))

# ---------------------------------------------------------------- build

if [ -z "${MUSTER_BIN_DIR:-}" ]; then
    # The build of the controller takes the dashboard in. Where it cannot be built, everything else works without it.
    step dashboard
    if (dashboard_ensure); then done_step; else done_step 'not built, see above'; fi
fi

step build
if [ -n "${MUSTER_BIN_DIR:-}" ]; then
    # The tests set it: they have built everything already.
    bin=$MUSTER_BIN_DIR
    for name in muster muster-controller muster-agent; do [ -x "$bin/$name" ] || die "MUSTER_BIN_DIR has no $name"; done
else
    packages_ensure gcc libc6-dev pkg-config libvirt-dev ca-certificates
    toolchain_ensure
    bin=$(release_dir)
    end_line
    run - - env -C "$root" cargo build --release --locked -p muster-controller -p muster-agent -p muster-cli --bins \
        || die "the build failed"
fi
done_step "$bin"

# ---------------------------------------------------------------- libvirt, controller, agents

step libvirt
libvirt_ensure
done_step

bracketed=$listen
case $listen in *:*) bracketed="[$listen]" ;; esac

# Prints a port on which nobody listens, with a free one after it. Another program may take it before the daemon does:
# then the daemon ends, and the caller tries again.
port_taken() { ss -Hltn "sport = :$1" 2> /dev/null | grep -q .; }
free_port() {
    local port tries=0
    while [ $((tries += 1)) -le 100 ]; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        if ! port_taken "$port" && ! port_taken $((port + 1)); then
            echo "$port"
            return 0
        fi
    done
    return 1
}

alive() { kill -0 "$1" 2> /dev/null; }

start_controller() {
    local port
    port=$(free_port) || return 1
    url=https://$bracketed:$port
    start_daemon "$data/logs/controller.log" "$bin/muster-controller" serve --data-dir "$data/controller" \
        --listen "$bracketed:$port" --node-listen "$bracketed:$((port + 1))" --public-url "$url"
    controller=$!
    export MUSTER_URL=$url MUSTER_CA=$data/controller/ca.pem
    controller_answers() {
        alive "$controller" || return 0
        [ -s "$data/controller/admin.token" ] && [ -s "$MUSTER_CA" ] \
            && MUSTER_TOKEN=@$data/controller/admin.token "$bin/muster" -q --retry-for 0s whoami > /dev/null 2>&1
    }
    until_true 60 controller_answers || die "the controller does not answer after 60 s"
    alive "$controller" && return 0
    # It has ended, most likely because the port was taken in between.
    wait "$controller" || :
    controller=
    return 1
}

# start_agent N: starts agent N and puts its process id into agents[N].
start_agent() {
    local name=node-$1 port token=$data/node-$1/join.token
    port=$(free_port) || return 1
    [ -d "$data/$name" ] || mkdir -m 0711 "$data/$name"
    if [ ! -s "$data/$name/identity/identity.json" ]; then
        (umask 077 && "$bin/muster-controller" token create --data-dir "$data/controller" --role node > "$token") \
            || die "no join token for $name"
    fi
    start_daemon "$data/logs/$name.log" "$bin/muster-agent" run --data-dir "$data/$name" --controller "$url" \
        --join-token "@$token" --listen "$bracketed:$port" --name "$name" --runtime libvirt \
        --cpus "$node_cpus" --memory "$(((node_memory + 1048575) >> 20))MiB" --keep-free 1%
    agents[$1]=$!
}

step controller
mkdir -m 0700 "$data/controller"
for try in 1 2 3; do
    start_controller && break
    [ "$try" -lt 3 ] || die "the controller ended three times at once"
done
MUSTER_TOKEN=$(cat "$data/controller/admin.token")
export MUSTER_TOKEN
unset MUSTER_PROJECT MUSTER_PROFILE
(
    umask 077
    {
        printf 'export MUSTER_URL=%q\n' "$url"
        printf 'export MUSTER_CA=%q\n' "$MUSTER_CA"
        printf 'export MUSTER_TOKEN=%q\n' "$MUSTER_TOKEN"
        printf 'unset MUSTER_PROJECT MUSTER_PROFILE\n'
        # shellcheck disable=SC2016 # expanded where it is read
        printf 'case :$PATH: in *:%q:*) ;; *) export PATH=%q:$PATH ;; esac\n' "$bin" "$bin"
    } > "$data/env"
)
# muster WORDS…: runs the command line; the variable `said` has what it printed.
muster() {
    local status=0
    : > "$data/logs/said"
    run "$data/logs/said" - "$bin/muster" -q "$@" || status=$?
    said=$(cat "$data/logs/said")
    return $status
}
done_step "$url"

step agents
for ((n = 1; n <= nodes; n++)); do start_agent "$n"; done
restarts=0
agents_ready() {
    local n
    for ((n = 1; n <= nodes; n++)); do
        alive "${agents[n]}" && continue
        # It has ended, most likely because its port was taken in between.
        [ $((restarts += 1)) -le 3 ] || die "agent node-$n ends at once"
        wait "${agents[n]}" || :
        start_agent "$n"
    done
    # The hypervisor is null until the agent has found out what can run guests here, and stays null where nothing can.
    hypervisors=$("$bin/muster" -q -o json node ls --state ready 2> /dev/null | sed -n 's/^ *"hypervisor": "\(.*\)".*/\1/p')
    [ "$(wc -w <<< "$hypervisors")" -ge "$nodes" ]
}
until_true 120 agents_ready || die "not every agent can start guests after two minutes" "$("$bin/muster" -q node ls 2>&1 || :)" \
    'what the host lacks: muster-agent check'
hypervisor=$(sort -u <<< "$hypervisors" | paste -sd, -)
done_step "$nodes ready, guests run on $hypervisor"

# ---------------------------------------------------------------- image, fleet, snapshot, second fleet

if [ -z "$image" ]; then
    step 'demo image'
    run /dev/null "$data/logs/demo-image.log" "$root/deploy/demo-image.sh" "$data/demo.raw" || die "the demo image could not be made"
    done_step "$(tail -n 1 "$data/logs/demo-image.log" | sed 's/^[^:]*: [^:]*: //')"
    # The demo image prints MUSTER-READY on its console when it is up, and counts its boots on its disk.
    ready=console
    source=$data/demo.raw
    properties=(--default-user root)
else
    ready=running
    source=$image
    properties=()
fi

step 'image import'
muster image import demo "$source" "${properties[@]}" || die "the image was refused"
done_step "$said"

step "deploy $count"
# Where nodes can have networks, each guest gets a port of its node that leads to its SSH server. A fork gets its own.
reach=()
if [ "$("$bin/muster" -q -o json node ls | grep -c '"tunnel": "')" -ge "$nodes" ]; then
    muster security-group create ssh --allow in:tcp:22 || die "no security group could be made"
    reach=(--network default --security-group default --security-group ssh --publish 22)
fi
muster deploy demo --image demo --count "$count" --memory "$memory_bytes" --ready $ready --timeout 15m \
    --ssh-key "$data/ssh_key.pub" "${reach[@]}" \
    || die "not every instance became ready"
done_step "$said"

step snapshot
muster snapshot create demo first --timeout 10m || die "the snapshot failed"
done_step "$said"

if [ $both = no ]; then
    step 'stop the first fleet'
    muster deployment stop demo --timeout 5m || die "the first fleet could not be stopped"
    done_step "there is not enough memory for both at once"
fi

step "fork the snapshot"
muster deploy fork --snapshot first --memory "$memory_bytes" --ready $ready --timeout 15m \
    || die "not every instance of the second fleet became ready"
done_step "$said"

# What guests printed proves that they booted: their names, and the number of boots that their disks have counted. Each has
# a host key of its own, also a fork, whose disk came with the key of another guest.
if [ $ready = console ]; then
    step 'consoles read'
    host_keys=
    for fleet in demo fork; do
        boot=1
        [ $fleet = demo ] || boot=2
        for ((n = 0; n < count; n++)); do
            "$bin/muster" -q instance log "$fleet.$n" | tr -d '\r' | grep -qx "MUSTER-READY $fleet-$n boot $boot" \
                || die "the console of $fleet.$n does not say 'MUSTER-READY $fleet-$n boot $boot'" \
                    "$("$bin/muster" -q instance log "$fleet.$n" --tail 1KiB 2>&1 | tail -n 5 || :)"
            host_key=$("$bin/muster" -q instance log "$fleet.$n" | tr -d '\r' | sed -n "s/^MUSTER-HOST-KEY $fleet-$n //p")
            [ -n "$host_key" ] || die "the console of $fleet.$n does not say its host key"
            case $host_keys in *" $host_key "*) die "$fleet.$n has the host key of another guest" ;; esac
            host_keys="$host_keys $host_key "
        done
    done
    done_step "$count guests booted once, $count forks of them booted once more"
fi

say ''
say "All $steps steps in $(seconds $(($(now_ms) - begun)))."
if [ $leave = yes ]; then exit 0; fi
up=yes

# ssh_line INSTANCE: prints the command that signs in to a guest.
ssh_line() {
    "$bin/muster" -q -o json instance show "$1" | sed -n 's/^ *"node_address": "\(.*\)",*$/\1/p; s/^ *"node_port": \([0-9]*\),*$/\1/p' \
        | { read -r address && read -r port && printf 'ssh -i %q -p %s root@%s' "$data/ssh_key" "$port" "$address"; }
}
sign_in="The guests let the owner of the SSH key $data/ssh_key sign in as root."
if [ "${#reach[@]}" -gt 0 ] && [ $ready = console ]; then
    sign_in="Sign in to a guest, and to its fork:

    $(ssh_line demo.0)
    $(ssh_line fork.0)"
fi

# It is good for ten minutes from now on, so it is made last.
link=$("$bin/muster" -q token link) || die "no link to sign in with could be made"

cat >&2 << END

The dashboard, signed in (this link is good once, within 10 minutes; \`muster token link\` makes another):

    $link

The browser does not know the certificate: it is signed by $MUSTER_CA.

The API is at $url (its description: /openapi.json). In another terminal, load its settings:

    . $data/env

and go on, for example:

    muster top
    muster instance ls
    muster console demo.0
    muster ssh -i $data/ssh_key demo.0
    muster snapshot show first
    muster deploy mine --image demo --count 2 --memory $memory --ssh-key $data/ssh_key.pub

$sign_in

Ctrl-C stops everything$([ $keep = yes ] && echo ' and keeps the data.' || echo ' and deletes the data.')
END
# Wait for Ctrl-C, or for the end of a daemon.
wait -n "$controller" "${agents[@]}" || :
up=no
die "a daemon ended by itself"

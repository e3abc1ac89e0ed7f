# shellcheck shell=bash
# Ends what a run can leave on a machine: mounts, domains, networks and processes below its folder, and the folder itself.
# Needs words.sh and libvirt.sh.
#
# The folder of a run has a mark in it: a file that is locked (descriptor 8) while this shell or anything it started is
# alive. The kernel unlocks the file when the last of them ends, however it ends. So a mark that is not locked belongs
# to a run that is over.
run_mark=run.lock

# Marks a folder as this run's. The file gets its name only when it is locked.
mark_folder() {
    exec 8> "$1/$run_mark.new"
    flock 8
    mv -- "$1/$run_mark.new" "$1/$run_mark"
}

# dead_runs_clear DELETE FOLDER…: ends what runs that were killed left, and deletes their folders with the function
# DELETE. Only folders are touched that belong to this user and have a mark that is not locked.
dead_runs_clear() {
    local delete=$1 folder
    shift
    for folder in "$@"; do
        if [ -L "$folder" ] || [ ! -O "$folder" ] || [ ! -f "$folder/$run_mark" ]; then continue; fi
        (
            exec 8< "$folder/$run_mark" || exit 0
            flock -n 8 || exit 0
            say "deleting $folder, left by a run that was killed"
            libvirt_ensure
            folder=$(CDPATH='' cd -- "$folder" && pwd)
            leftovers_end "$folder"
            if [ -z "$(mounts_below "$folder")" ]; then "$delete" "$folder"; fi
        )
    done
}

# Prints the mount points at or below a folder, the deepest first.
mounts_below() {
    local _rest point
    while read -r _ _ _ _ point _rest; do
        point=$(printf '%b' "$point")
        case $point in "$1" | "$1"/*) printf '%s\n' "$point" ;; esac
    done < /proc/self/mountinfo | sort -r
}

# Prints the ids of Muster's processes, of QEMU and of the servers of networks that have a path below a folder on their command line.
processes_below() {
    local proc
    for proc in /proc/[0-9]*; do
        case $(cat "$proc/comm" 2> /dev/null) in
            muster-* | qemu-system-* | dnsmasq) ;;
            *) continue ;;
        esac
        if tr '\0' '\n' < "$proc/cmdline" 2> /dev/null | grep -qF -e "$1/"; then echo "${proc##*/}"; fi
    done
}

# Prints the domains that have a disk below a folder.
domains_below() {
    local domain
    command -v virsh > /dev/null && libvirt_answers || return 0
    for domain in $(virsh -q -c "$LIBVIRT_URI" list --all --uuid 2> /dev/null); do
        if virsh -q -c "$LIBVIRT_URI" domblklist "$domain" 2> /dev/null | grep -qF -e " $1/"; then echo "$domain"; fi
    done
}

# Turns off all domains below a folder at once.
domains_destroy() {
    local domain
    for domain in $(domains_below "$1"); do virsh -q -c "$LIBVIRT_URI" destroy "$domain" > /dev/null 2>&1 || :; done
}

# Prints the namespaces of networks that agents with data below a folder made. Each has a folder with its name there.
networks_below() {
    local namespace
    find "$1" -type d -path '*/networks/muster-*' -printf '%f\n' 2> /dev/null | while read -r namespace; do
        if [ -e "/run/netns/$namespace" ]; then echo "$namespace"; fi
    done
}

# Removes the network namespaces of tests that were killed. A test calls its own `mustertest-PID-N`, or `mustertest-debian-PID`,
# with the id of its process. They are in no folder of a run, so that process tells whether they are still used.
test_networks_clear() {
    local path namespace pid
    for path in /run/netns/mustertest-*; do
        namespace=${path##*/} pid=${path##*/mustertest-}
        pid=${pid#debian-} pid=${pid%%-*}
        case $pid in '' | *[!0-9]*) continue ;; esac
        if [ ! -e "$path" ] || [ -e "/proc/$pid" ]; then continue; fi
        say "removing network namespace $namespace, left by a test that was killed"
        ip netns delete "$namespace" || :
    done
}

nothing_runs_below() { [ -z "$(processes_below "$1")" ]; }

# Deletes QEMU's logs of the guests below a folder, which libvirt would keep for ever. A log is found by the paths in it
# or, for a guest that never started, by the guest's name.
qemu_logs_delete() {
    local logs=/var/log/libvirt/qemu log
    {
        grep -lsF -e "$1/" "$logs"/muster-*.log || :
        find "$1" -path '*/console/*.log' -printf "$logs/muster-%f\n"
    } | while read -r log; do rm -f -- "$log"; done
}

# Ends whatever is left below a folder, and prints what that was: a clean stop leaves nothing.
leftovers_end() {
    local domain pid point namespace table family
    # The agent's holder ends a moment after the agent.
    until_true 3 nothing_runs_below "$1" || :
    for domain in $(domains_below "$1"); do
        say "ending domain $domain, which is still there"
        virsh -q -c "$LIBVIRT_URI" destroy "$domain" > /dev/null 2>&1 || :
        virsh -q -c "$LIBVIRT_URI" undefine "$domain" > /dev/null 2>&1 || :
    done
    for pid in $(processes_below "$1"); do
        say "ending process $pid ($(cat "/proc/$pid/comm" 2> /dev/null)), which is still there"
        kill -KILL "$pid" 2> /dev/null || :
    done
    networks_below "$1" | while read -r namespace; do
        say "removing network $namespace, which is still there"
        ip netns delete "$namespace" || :
        # The namespace is muster-CLUSTER-NODE-NETWORK, the tables in the host's packet filter are muster_CLUSTER_NODE.
        table=${namespace%-*}
        for family in inet bridge; do nft delete table "$family" "${table//-/_}" 2> /dev/null || :; done
    done
    mounts_below "$1" | while read -r point; do
        say "unmounting $point, which is still there"
        umount "$point" 2> /dev/null || umount -l "$point" 2> /dev/null || :
    done
    qemu_logs_delete "$1"
}

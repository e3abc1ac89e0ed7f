# shellcheck shell=bash
# What a run could leave on a machine: mounts, domains, processes under its folder, and the folder itself. Needs words.sh,
# libvirt.sh.
#
# A folder that goes with its run has a mark in it, a file that is locked (descriptor 8) while this shell or anything it
# started lives. The kernel lets it go with the last of them, however that ended: a mark nobody holds is a dead run's.
run_mark=run.lock

# Marks a folder as this run's. The mark is never seen unlocked.
mark_folder() {
    exec 8> "$1/$run_mark.new"
    flock 8
    mv -- "$1/$run_mark.new" "$1/$run_mark"
}

# dead_runs_clear DELETE FOLDER…: ends and deletes what runs that were killed left. DELETE is the function that deletes a
# folder. Touched is only what is this user's, has a mark, and whose mark nobody holds.
dead_runs_clear() {
    local delete=$1 folder
    shift
    for folder in "$@"; do
        if [ -L "$folder" ] || [ ! -O "$folder" ] || [ ! -f "$folder/$run_mark" ]; then continue; fi
        (
            exec 8< "$folder/$run_mark" || exit 0
            flock -n 8 || exit 0
            say "clearing $folder, which a run that was killed left"
            libvirt_ensure
            folder=$(CDPATH='' cd -- "$folder" && pwd)
            leftovers_end "$folder"
            if [ -z "$(mounts_below "$folder")" ]; then "$delete" "$folder"; fi
        )
    done
}

# Mount points at or below a folder, deepest first.
mounts_below() {
    local _rest point
    while read -r _ _ _ _ point _rest; do
        point=$(printf '%b' "$point")
        case $point in "$1" | "$1"/*) printf '%s\n' "$point" ;; esac
    done < /proc/self/mountinfo | sort -r
}

# Processes of Muster, and guests of a libvirtd that is gone, that name a folder on their command line.
processes_below() {
    local proc
    for proc in /proc/[0-9]*; do
        case $(cat "$proc/comm" 2> /dev/null) in
            muster-* | qemu-system-*) ;;
            *) continue ;;
        esac
        if tr '\0' '\n' < "$proc/cmdline" 2> /dev/null | grep -qF -e "$1/"; then echo "${proc##*/}"; fi
    done
}

# Domains with a disk below a folder: ours, whoever started them for us.
domains_below() {
    local domain
    command -v virsh > /dev/null && libvirt_answers || return 0
    for domain in $(virsh -q -c "$LIBVIRT_URI" list --all --uuid 2> /dev/null); do
        if virsh -q -c "$LIBVIRT_URI" domblklist "$domain" 2> /dev/null | grep -qF -e " $1/"; then echo "$domain"; fi
    done
}

# Cuts the power of all domains below a folder.
domains_destroy() {
    local domain
    for domain in $(domains_below "$1"); do virsh -q -c "$LIBVIRT_URI" destroy "$domain" > /dev/null 2>&1 || :; done
}

nothing_runs_below() { [ -z "$(processes_below "$1")" ]; }

# Deletes QEMU's logs of the guests below a folder, which libvirt keeps for ever: found by the paths in them and, for guests
# that never started, by their names.
qemu_logs_delete() {
    local logs=/var/log/libvirt/qemu log
    {
        grep -lsF -e "$1/" "$logs"/muster-*.log || :
        find "$1" -path '*/console/*.log' -printf "$logs/muster-%f\n"
    } | while read -r log; do rm -f -- "$log"; done
}

# Ends whatever is left below a folder; says so, because a clean stop leaves nothing.
leftovers_end() {
    local domain pid point
    # The last process of an agent ends a moment after it.
    until_true 3 nothing_runs_below "$1" || :
    for domain in $(domains_below "$1"); do
        say "ending domain $domain, which was left"
        virsh -q -c "$LIBVIRT_URI" destroy "$domain" > /dev/null 2>&1 || :
        virsh -q -c "$LIBVIRT_URI" undefine "$domain" > /dev/null 2>&1 || :
    done
    for pid in $(processes_below "$1"); do
        say "ending process $pid ($(cat "/proc/$pid/comm" 2> /dev/null)), which was left"
        kill -KILL "$pid" 2> /dev/null || :
    done
    mounts_below "$1" | while read -r point; do
        say "unmounting $point, which was left"
        umount "$point" 2> /dev/null || umount -l "$point" 2> /dev/null || :
    done
    qemu_logs_delete "$1"
}

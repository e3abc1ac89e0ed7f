# shellcheck shell=bash
# What a run could leave on a machine: mounts, domains, processes under its data folder. Needs words.sh, libvirt.sh.

# Mount points at or below a folder, deepest first.
mounts_below() {
    local _rest point
    while read -r _ _ _ _ point _rest; do
        point=$(printf '%b' "$point")
        case $point in "$1" | "$1"/*) printf '%s\n' "$point" ;; esac
    done < /proc/self/mountinfo | sort -r
}

# Processes of Muster that name a folder on their command line.
processes_below() {
    local proc
    for proc in /proc/[0-9]*; do
        case $(cat "$proc/comm" 2> /dev/null) in
            muster-*) ;;
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
}

# shellcheck shell=bash
# Provides a libvirtd that answers: the one of the machine, or else one that is started here. The
# last of the scripts that use it stops it again; quickstarts and test runs on one machine share it. Needs words.sh.

LIBVIRT_URI=qemu:///system
libvirt_state=/run/muster-libvirt

libvirt_answers() { timeout 10 virsh -q -c "$LIBVIRT_URI" version > /dev/null 2>&1; }

has_systemd() { [ -d /run/systemd/system ]; }

# Runs a function while no other script on this machine runs one this way.
libvirt_locked() {
    mkdir -p "$libvirt_state/users"
    (
        flock -w 120 9 || die "another process has held $libvirt_state/lock for two minutes"
        "$@"
    ) 9> "$libvirt_state/lock"
}

# Does what Debian's udev rule for /dev/kvm does, where no udev runs. Without it libvirt, which is root, can use KVM and
# QEMU's user cannot. libvirt then does not trust what it remembers of QEMU and probes it at every start, for 10 s each.
kvm_for_qemu() {
    [ -c /dev/kvm ] && [ "$(stat -c '%U:%G %a' /dev/kvm)" = 'root:root 600' ] || return 0
    getent group kvm > /dev/null || return 0
    if ! chgrp kvm /dev/kvm || ! chmod 660 /dev/kvm; then
        say "QEMU's user cannot be given access to /dev/kvm; guests start slowly"
    fi
}

libvirt_enter() {
    : > "$libvirt_state/users/$$"
    kvm_for_qemu
    libvirt_answers && return 0
    local log=$libvirt_state/start.log
    if has_systemd; then
        # Their sockets start the daemons when they are needed. These belong to the system and are not stopped.
        systemctl start virtlogd.socket libvirtd.socket > "$log" 2>&1 || systemctl start libvirtd >> "$log" 2>&1 || :
    else
        mkdir -p /run/libvirt
        # The daemons may outlive this shell, so they must not inherit its locks (8 is the run's mark, see
        # leftovers.sh). Nor may they inherit its TMPDIR: only this user can write there, and what libvirt starts to
        # make a TPM runs as another user and needs a folder for its files.
        if ! pid_runs "$(cat /run/virtlogd.pid 2> /dev/null)" virtlogd; then
            env -u TMPDIR virtlogd -d 8>&- 9>&- > "$log" 2>&1 && cp /run/virtlogd.pid "$libvirt_state/virtlogd.pid"
        fi
        if ! pid_runs "$(cat /run/libvirtd.pid 2> /dev/null)" libvirtd; then
            env -u TMPDIR libvirtd -d 8>&- 9>&- >> "$log" 2>&1 && cp /run/libvirtd.pid "$libvirt_state/libvirtd.pid"
        fi
    fi
    if ! until_true 30 libvirt_answers; then
        tail -n 10 "$log" >&2
        rm -f "$libvirt_state/users/$$"
        die "libvirt does not answer at $LIBVIRT_URI and could not be started" \
            "look at 'journalctl -u libvirtd', or start 'virtlogd' and 'libvirtd' by hand and see what they say"
    fi
}

pid_runs() { [ -n "$1" ] && [ "$(cat "/proc/$1/comm" 2> /dev/null)" = "$2" ]; }

libvirt_exit() {
    local user pid name
    rm -f "$libvirt_state/users/$$"
    for user in "$libvirt_state"/users/*; do
        [ -e "$user" ] || continue
        if kill -0 "${user##*/}" 2> /dev/null; then return 0; fi
        rm -f "$user"
    done
    # Somebody else may have come to rely on them. Guests would run on with nobody to steer them.
    if [ -e "$libvirt_state/libvirtd.pid" ] && [ -n "$(timeout 10 virsh -q -c "$LIBVIRT_URI" list --name 2> /dev/null)" ]; then
        say "libvirtd runs on, because guests of others run"
        return 0
    fi
    for name in libvirtd virtlogd; do
        pid=$(cat "$libvirt_state/$name.pid" 2> /dev/null) || continue
        # Stop only what was started here, and only if the process id still belongs to it.
        if pid_runs "$pid" "$name"; then
            kill "$pid" 2> /dev/null || :
            until_true 20 process_gone "$pid" || say "$name (process $pid) has not ended within 20 s"
        fi
        rm -f "$libvirt_state/$name.pid"
    done
    rm -f "$libvirt_state/start.log"
}

process_gone() { ! kill -0 "$1" 2> /dev/null; }

# Makes libvirt answer. Each script that called this calls libvirt_release at its end.
libvirt_ensure() {
    # The file of this user is named after $$, which is this script in a subshell as well.
    libvirt_locked libvirt_enter
}

libvirt_release() {
    [ -e "$libvirt_state/users/$$" ] || return 0
    libvirt_locked libvirt_exit
}

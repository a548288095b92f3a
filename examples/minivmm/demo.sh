#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Migrates a running guest between processes: by precopy, by postcopy, and by a postcopy whose connection breaks and is
# recovered; and over TLS. Then saves it to a file and loads it, also from a damaged file, and rolls it back to a
# checkpoint. Checks the guest after each step.
#
#   demo.sh MINIVMM [--quick|--large] [kvm|software]...
#
# The default is both modes, or only software if /dev/kvm is not available. --quick uses 32 MiB of memory, --large 1 GiB.
# Exit status: 0 success, 1 failure, 77 the mode kvm was requested and /dev/kvm is not available.
set -u

minivmm=$1
shift
kvm_memory=512 software_memory=64 modes=()
for word in "$@"; do
    case $word in
        --quick) kvm_memory=32 software_memory=32 ;;
        --large) kvm_memory=1024 software_memory=1024 ;;
        *) modes+=("$word") ;;
    esac
done
has_kvm() { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }
# The library with TLS has the name of this file in it. It is a part of the program, or a shared library.
has_tls() {
    local library
    library=$(ldd "$minivmm" | sed -nE 's/.*libsavevm.* => (.*) \(.*/\1/p')
    command -v openssl >/dev/null && grep -q ca-crl.pem "$minivmm" ${library:+"$library"}
}
has_userfaultfd() { [ -r /dev/userfaultfd ] || [ "$(cat /proc/sys/vm/unprivileged_userfaultfd 2>/dev/null)" = 1 ]; }
if [ ${#modes[@]} -eq 0 ]; then
    has_kvm && modes+=(kvm)
    modes+=(software)
fi

work=$(mktemp -d)
declare -A pid input log
end_all() {
    for name in "${!pid[@]}"; do
        kill "${pid[$name]}" 2>/dev/null && wait "${pid[$name]}" 2>/dev/null
    done
    pid=()
}
trap 'end_all; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else bold='' dim='' green='' red='' plain=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '  %s\n' "$*"; }
good() { printf '  %s✓%s %s\n' "$green" "$plain" "$*"; }
quote() { printf '  %s%s │ %s%s\n' "$dim" "$1" "$2" "$plain"; }
fail() {
    printf '  %s✗ %s%s\n' "$red" "$*" "$plain"
    for name in "${!log[@]}"; do
        while IFS= read -r line; do quote "$name" "$line"; done < <(tail -n 12 "${log[$name]}")
    done
    exit 1
}

# start NAME OPTIONS...: starts a minivmm; its monitor reads from a FIFO, and its output goes to a log file.
start() {
    local name=$1 fd
    shift
    mkfifo "$work/$name.in"
    log[$name]=$work/$name.log
    timeout 100 "$minivmm" -m "$memory" --dirty "$rate" --disk "$work/disk" "${accel[@]}" "$@" \
        <"$work/$name.in" >"${log[$name]}" 2>&1 &
    pid[$name]=$!
    exec {fd}>"$work/$name.in"
    input[$name]=$fd
}

# await NAME PATTERN [FROM]: waits for a matching line of the output, from line FROM on, and prints it.
await() {
    local line deadline=$((SECONDS + 30))
    while [ $SECONDS -lt $deadline ]; do
        line=$(tail -n "+${3:-1}" "${log[$1]}" | grep -m 1 -E "$2")
        [ -n "$line" ] && { printf '%s' "$line"; return 0; }
        kill -0 "${pid[$1]}" 2>/dev/null || return 1
        sleep 0.02
    done
    return 1
}

# await_listener PATH: waits until a process listens at a Unix socket. Its file exists a moment earlier.
await_listener() {
    local deadline=$((SECONDS + 30))
    until grep -q " 00010000 .* $1\$" /proc/net/unix; do
        [ $SECONDS -lt $deadline ] || fail "nothing listens at $1"
        sleep 0.02
    done
}

tell() { printf '%s\n' "$2" >&"${input[$1]}"; }
next_line() { echo $(($(wc -l <"${log[$1]}") + 1)); }

# ask NAME COMMAND PATTERN: sends a command, and waits for a matching line of its answer.
ask() {
    local from
    from=$(next_line "$1")
    tell "$1" "$2"
    await "$1" "$3" "$from" || fail "$1 does not answer the command '$2'"
}

stop_all() {
    for name in "$@"; do
        tell "$name" quit
        wait "${pid[$name]}" || fail "$name ended with an error"
        unset "pid[$name]"
    done
}

# beat NAME [FROM]: waits for a heartbeat, from line FROM of the output on, and prints it. Sets $number, $count and $gap.
beat() {
    local line
    line=$(await "$1" '^\[guest\] beat' "${2:-$(next_line "$1")}") || fail "no heartbeat from $1"
    quote "$1" "$line"
    read -r number count errors gap <<<"$(sed -E 's/[^0-9.]+/ /g' <<<"$line" | awk '{ print $1, $2, $4, $5 }')"
    [ "$errors" = 0 ] || fail "the guest found wrong data in its memory or on its disk"
}

# goes_on FROM TO: checks that the first heartbeat of TO continues the last heartbeat of FROM.
goes_on() {
    local last_number last_count
    beat "$1" "$(grep -n '^\[guest\] beat' "${log[$1]}" | tail -n 1 | cut -d : -f 1)"
    last_number=$number last_count=$count
    beat "$2" 1
    [ "$number" -eq $((last_number + 1)) ] && [ "$count" -ge "$last_count" ] ||
        fail "the guest did not continue from its last state"
    good "the guest continues from its last heartbeat, and its memory is correct"
}

# same FROM TO: checks that the status lines $here and $there, with the hash of the memory, are equal.
same() {
    quote "$1" "$here"
    quote "$2" "$there"
    [ "$here" = "$there" ] || fail "the memory differs"
    good "the memory is identical"
}

# value NAME KEY: prints a value of the last `info migrate`.
value() { sed -nE "s/^$2: //p" "${log[$1]}" | tail -n 1; }
info() { ask "$1" 'info migrate' '^downtime' >/dev/null; }

# reach NAME outgoing|incoming STATUS: waits until the migration has this status.
reach() { await "$1" "^\[$2\] $3\$" >/dev/null || fail "the migration of $1 does not reach the status $3"; }

# show NAME STATUS: prints the progress of the migration until it has this status.
show() {
    until grep -q "^\[outgoing\] $2\$" "${log[$1]}"; do
        grep -qE '^\[outgoing\] (failed|cancelled)$' "${log[$1]}" && info "$1" && fail "the migration failed"
        info "$1"
        say "${dim}round $(value "$1" rounds): sent $(value "$1" transferred), remaining $(value "$1" remaining)${plain}"
        sleep 0.3
    done
}

phases() {
    info "$1"
    local text='' phase
    for phase in "${@:2}"; do text+=" · $phase $(value "$1" "$phase")"; done
    say "sent $(value "$1" transferred)$text"
}

# move FROM TO OPTIONS...: starts the process TO, and a migration from FROM to it.
move() {
    start "$2" --incoming "unix:$work/$2.sock" "${@:3}"
    await_listener "$work/$2.sock"
    tell "$1" "migrate unix:$work/$2.sock"
}

# try_out FROM TO: the verdict of TO and a rehearsal, after which it waits on.
try_out() {
    tell "$1" "preflight unix:$work/$2.sock"
    await "$1" '^nothing prevents the migration$' "$3" >/dev/null || fail "the preflight does not pass"
    tell "$1" "rehearse unix:$work/$2.sock"
    await "$1" '^the destination has loaded all devices$' "$3" >/dev/null || fail "the rehearsal fails"
    good "$2 accepts the guest, and has loaded its devices for a test"
}

# misfit FROM: the verdict of a destination that has other memory.
misfit() {
    local other=$((memory * 2))
    memory=$other start X --incoming "unix:$work/X.sock"
    await_listener "$work/X.sock"
    say "$(ask "$1" "preflight unix:$work/X.sock" '^error: machine: RAM block memory: ')"
    good "a process with $other MiB would refuse the guest"
    stop_all X
}

precopy() {
    title "$what: a preflight and a rehearsal"
    misfit A
    start T --incoming "unix:$work/T.sock" -S
    await_listener "$work/T.sock"
    try_out A T "$(next_line A)"
    stop_all T
    title "$what: precopy to process B, which keeps the guest stopped to compare the memory"
    tell A "set downtime-limit 50"
    tell A "set max-bandwidth $((memory / 2))"
    move A B -S
    sleep 0.2
    show A completed
    phases A setup precopy switchover downtime
    reach B incoming completed
    here=$(ask A 'info status' 'memory') || exit 1
    there=$(ask B 'info status' 'memory') || exit 1
    same A B
    tell B cont
    goes_on A B

    title "$what: precopy to process C"
    tell B "set downtime-limit 50"
    move B C
    reach B outgoing completed
    phases B setup precopy switchover downtime
    goes_on B C
    say "downtime measured by the guest: $bold$gap ms$plain"
}

# to_postcopy FROM TO: starts a postcopy, and waits until the guest runs in TO.
to_postcopy() {
    tell "$1" "set postcopy-ram on"
    tell "$1" "set max-bandwidth $((memory / 4))"
    tell "$1" "set max-postcopy-bandwidth $((memory / 4))"
    move "$1" "$2"
    reach "$1" outgoing active
    sleep 0.3
    tell "$1" migrate-start-postcopy
    reach "$2" incoming postcopy-active
    info "$1"
    good "the guest runs in $2; $(value "$1" remaining) of its memory are still in $1"
}

postcopy() {
    title "$what: postcopy to process D"
    to_postcopy C D
    goes_on C D
    show C completed
    phases C precopy switchover postcopy downtime
    info D
    say "downtime measured by the guest: $bold$gap ms$plain; $(value D 'page requests') page requests"

    title "$what: postcopy to process E, with a broken connection and its recovery"
    to_postcopy D E
    tell D migrate-pause
    reach D outgoing postcopy-paused
    reach E incoming postcopy-paused
    info D
    good "both sides are paused; E does not have $(value D remaining) of the memory yet"
    tell E stop # must not wait for the CPU, which may wait for a missing page
    ask E 'info status' '^VM status: (stopping|paused)$' >/dev/null
    tell E cont
    tell E "migrate-recover unix:$work/again.sock"
    await_listener "$work/again.sock"
    tell D "set max-postcopy-bandwidth 0"
    tell D "migrate-recover unix:$work/again.sock"
    reach D outgoing completed
    reach E incoming completed
    phases D precopy switchover postcopy paused downtime
    [ "$(value D recoveries)" = 1 ] || fail "no recovery was counted"
    good "the postcopy was recovered over a new connection"
    goes_on D E
}

# damage FILE: changes the field `used` of the serial port, which follows the name, two numbers and `line`. Only the device can
# detect this damage.
damage() {
    local at
    at=$(grep -abo -m 1 serial "$1" | head -n 1 | cut -d : -f 1)
    printf '\377' | dd of="$1" bs=1 seek=$((at + 6 + 4 + 4 + 128)) conv=notrunc status=none
}

# instant NAME: saves a snapshot with fixed places of pages, and returns to it at once while its memory is read.
instant() {
    local later from
    title "$what: an instant restore"
    ask "$1" "savevm $work/mapped mapped" '^saved' >/dev/null
    beat "$1"
    beat "$1"
    later=$number
    from=$(next_line "$1")
    say "$(ask "$1" "loadvm $work/mapped lazy" '^loaded')"
    beat "$1"
    [ "$number" -lt "$later" ] || fail "the guest did not return to its snapshot"
    await "$1" '\[restore\] all memory is loaded' "$from" >/dev/null || fail "the memory was not read"
    beat "$1"
    # The first restore of a stream writes an index, which the second one uses.
    ask "$1" "savevm $work/stream" '^saved' >/dev/null
    for use in "without an index" "with an index"; do
        from=$(next_line "$1")
        say "a stream, $use: $(ask "$1" "loadvm $work/stream lazy" '^loaded')"
        beat "$1"
        await "$1" '\[restore\] all memory is loaded' "$from" >/dev/null || fail "the memory was not read"
        [ -e "$work/stream.index" ] || fail "there is no index"
    done
    beat "$1"
    good "the guest runs while its memory is read, and its memory is correct"
}

# The same with memory in huge pages, if the system has reserved enough of them.
in_huge_pages() {
    start H --huge
    if ! await H 'round [1-9]' >/dev/null; then
        kill -0 "${pid[H]}" 2>/dev/null && fail "the guest does not start"
        grep -q '^minivmm: memory: ' "${log[H]}" || fail "minivmm --huge ended"
        say "huge pages are skipped: the system has not reserved $memory MiB of them (vm.nr_hugepages)"
        wait "${pid[H]}"
        unset "pid[H]"
        return
    fi
    what+=", huge pages"
    instant H
    stop_all H
}

# A chain of snapshots, and a live update to a new process.
in_place() {
    title "$what: a new process takes the guest over, with its memory in place"
    start N --shared
    await N 'round [1-9]' >/dev/null || fail "the guest does not start"
    if has_userfaultfd; then
        ask N "savevm $work/base parent none" '^saved' >/dev/null
        beat N
        ask N "savevm $work/child parent $work/base" '^saved' >/dev/null
        good "an incremental snapshot has $(du -h --apparent-size "$work/child" | cut -f 1) of $(du -h --apparent-size "$work/base" | cut -f 1)"
    fi
    start O --live-update "unix:$work/O.sock"
    await_listener "$work/O.sock"
    tell N "live-update unix:$work/O.sock"
    reach N outgoing completed
    reach O incoming completed
    info N
    good "sent $(value N transferred), downtime $(value N downtime)"
    goes_on N O
    say "gap measured by the guest: $bold$gap ms$plain"
    stop_all N O
}

# undo NAME: makes a checkpoint, and returns to it when the guest has written to its memory.
undo() {
    local later
    title "$what: a checkpoint in the same process, and a rollback"
    say "$(ask "$1" checkpoint '^checkpoint 1,')"
    beat "$1"
    beat "$1"
    later=$number
    say "$(ask "$1" 'rollback 1' '^rolled back,')"
    beat "$1"
    [ "$number" -lt "$later" ] || fail "the guest did not return to its checkpoint"
    good "the guest continues from the checkpoint, and its memory is correct"
    tell "$1" 'checkpoint-free 1'
}

# make_certificates DIR: a CA, and certificates for both sides.
make_certificates() {
    local ca="$work/ca-key.pem" side
    mkdir -p "$1"
    openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj '/CN=demo CA' -keyout "$ca" -out "$1/ca-cert.pem"
    for side in server client; do
        openssl req -newkey rsa:2048 -nodes -subj "/O=demo/CN=$side" -keyout "$1/$side-key.pem" -out "$work/request"
        openssl x509 -req -in "$work/request" -CA "$1/ca-cert.pem" -CAkey "$ca" -CAcreateserial -days 9 \
            -extfile <(echo "subjectAltName=DNS:demo") -out "$1/$side-cert.pem"
    done
} 2>/dev/null

# encrypted FROM TO: migrates over TLS. A source that does not use it is refused first.
encrypted() {
    title "$what: precopy to process $2 over TLS"
    make_certificates "$work/certificates"
    tell "$1" "set max-bandwidth 0"
    move "$1" "$2" --tls-dir "$work/certificates"
    reach "$1" outgoing failed
    info "$1"
    await "$1" 'only the destination uses: set SaveVMParams.tls on both sides' >/dev/null || fail "the reason is missing"
    good "a plain connection is refused, and the guest continues in $1"
    tell "$1" "set tls-dir $work/certificates"
    tell "$1" "set tls-hostname demo"
    tell "$1" "migrate unix:$work/$2.sock"
    reach "$1" outgoing completed
    phases "$1" setup precopy switchover downtime
    goes_on "$1" "$2"
}

through_a_file() {
    title "$what: a snapshot to a file, loaded by another process"
    tell "$1" stop
    ask "$1" "savevm $work/state" '^saved' >/dev/null
    good "$(du -h --apparent-size "$work/state" | cut -f 1) saved"
    here=$(ask "$1" 'info status' 'memory') || exit 1
    stop_all "${!pid[@]}" # only one process may use the disk
    start Z -S
    cp "$work/state" "$work/damaged"
    damage "$work/damaged"
    ask Z "loadvm $work/damaged" 'serial: post_load' >/dev/null
    ask Z cont '^minivmm: cont: running the guest is refused: loading' >/dev/null
    good "a damaged copy of the file is rejected, and the guest does not run"
    ask Z "loadvm $work/state" '^loaded' >/dev/null
    there=$(ask Z 'info status' 'memory') || exit 1
    same "$1" Z
    tell Z cont
    goes_on "$1" Z
    if has_userfaultfd; then
        instant Z
        undo Z
    else
        say "lazy restores and checkpoints are skipped: this user may not use userfaultfd"
    fi
    stop_all Z
}

run_mode() {
    local what=software last=C here there
    memory=$software_memory accel=(--software)
    [ "$1" = kvm ] && what=KVM memory=$kvm_memory accel=()
    rate=$((memory > 64 ? 64 : memory / 4))
    rm -f "$work"/*
    log=() input=()
    truncate -s 64K "$work/disk"

    title "$what: a guest with $memory MiB that writes $rate MiB per second"
    start A
    await A 'round [1-9]' >/dev/null || fail "the guest does not start"
    beat A
    precopy
    if has_userfaultfd; then
        postcopy
        last=E
    else
        say "postcopy is skipped: this user may not use userfaultfd"
    fi
    if has_tls; then
        encrypted "$last" T
        last=T
    else
        say "TLS is skipped: there is no openssl, or the library is built without TLS"
    fi
    through_a_file "$last"
    in_place
    if has_userfaultfd; then
        in_huge_pages
    fi
}

began=$SECONDS
for mode in "${modes[@]}"; do
    if [ "$mode" = kvm ] && ! has_kvm; then
        echo "skipped: /dev/kvm is not available to this user"
        exit 77
    fi
    run_mode "$mode"
done
title "All checks passed after $((SECONDS - began)) s."

#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Moves a running guest from one process to the next, twice, then into a file and out of it again, and looks closely.
#
#   demo.sh MINIVMM [--quick] [kvm|software]...
#
# Without a mode: with KVM where there is one, and in software. Quick means little memory. The exit status tells whether
# all was well; 77 that there is no KVM.
set -u

minivmm=$1
shift
memory=256 bandwidth=200 modes=()
for word in "$@"; do
    case $word in
        --quick) memory=32 bandwidth=100 ;;
        *) modes+=("$word") ;;
    esac
done
has_kvm() { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }
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

# start NAME OPTIONS...: a minivmm whose monitor we write to and whose output we read.
start() {
    local name=$1 fd
    shift
    mkfifo "$work/$name.in"
    log[$name]=$work/$name.log
    "$minivmm" -m "$memory" --seconds 100 --monitor --disk "$work/disk" "${accel[@]}" "$@" \
        <"$work/$name.in" >"${log[$name]}" 2>&1 &
    pid[$name]=$!
    exec {fd}>"$work/$name.in"
    input[$name]=$fd
}

# await NAME PATTERN [FROM]: the first line, from line FROM of its output on, that matches; waits for it.
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

tell() { printf '%s\n' "$2" >&"${input[$1]}"; }
next_line() { echo $(($(wc -l <"${log[$1]}") + 1)); }

# ask NAME COMMAND PATTERN: what it answers.
ask() {
    local from
    from=$(next_line "$1")
    tell "$1" "$2"
    await "$1" "$3" "$from" || fail "$1 does not answer '$2'"
}

stop_all() {
    for name in "$@"; do
        tell "$name" quit
        wait "${pid[$name]}" || fail "$name ended with an error"
        unset "pid[$name]"
    done
}

# beat NAME [FROM]: waits for a heartbeat, from line FROM of the output on, and shows it. What it says is then in
# $number, $count and $gap.
beat() {
    local line
    line=$(await "$1" '^\[guest\] beat' "${2:-$(next_line "$1")}") || fail "no heartbeat from $1"
    quote "$1" "$line"
    read -r number count errors gap <<<"$(sed -E 's/[^0-9.]+/ /g' <<<"$line" | awk '{ print $1, $2, $4, $5 }')"
    [ "$errors" = 0 ] || fail "the guest found its memory or its disk changed"
}

# goes_on FROM TO: the first heartbeat there continues the last one here.
goes_on() {
    local last_number last_count
    beat "$1" "$(grep -n '^\[guest\] beat' "${log[$1]}" | tail -n 1 | cut -d : -f 1)"
    last_number=$number last_count=$count
    beat "$2" 1
    [ "$number" -eq $((last_number + 1)) ] && [ "$count" -ge "$last_count" ] ||
        fail "the guest did not go on from where it was"
    good "it goes on counting from where it was, and finds its memory as it had left it"
}

# same FROM TO: whether $here and $there are.
same() {
    quote "$1" "$here"
    quote "$2" "$there"
    [ "$here" = "$there" ] || fail "the memory is not the same"
    good "the memory arrived bit for bit"
}

value() { sed -nE "s/^$2: //p" "${log[$1]}" | tail -n 1; }

# migrate FROM TO: shows what happens until it is over.
migrate() {
    local from status=''
    until [ -S "$work/$2.sock" ]; do
        kill -0 "${pid[$2]}" 2>/dev/null || fail "$2 does not listen"
        sleep 0.02
    done
    tell "$1" "migrate unix:$work/$2.sock"
    while [[ $status != *completed ]]; do
        from=$(next_line "$1")
        status=$(ask "$1" 'info migrate' '^Migration status') || exit 1
        [[ $status =~ failed|cancelled ]] && fail "$status"
        if [[ $status == *active ]]; then
            await "$1" '^downtime' "$from" >/dev/null
            say "${dim}round $(value "$1" rounds): sent $(value "$1" transferred), left $(value "$1" remaining)${plain}"
            sleep 0.2
        fi
    done
    await "$1" '^downtime' "$from" >/dev/null
    say "$(value "$1" transferred) sent: setup $(value "$1" setup) · precopy $(value "$1" precopy) · downtime $(value "$1" downtime)"
}

run_mode() {
    local what=software here there
    accel=(--software)
    [ "$1" = kvm ] && what=KVM && accel=()
    rm -f "$work"/*
    log=() input=()
    truncate -s 64K "$work/disk"

    title "$what: a guest with $memory MiB, which writes 64 MiB a second"
    start A
    await A 'round [1-9]' >/dev/null || fail "the guest does not come up"
    beat A

    title "$what: moves to process B while it runs, and halts there for us to compare"
    start B -S --incoming "unix:$work/B.sock"
    tell A "set downtime-limit 50"
    tell A "set max-bandwidth $bandwidth"
    migrate A B
    here=$(ask A 'info memory' 'hash') || exit 1
    there=$(ask B 'info memory' 'hash') || exit 1
    same A B
    tell B cont
    goes_on A B

    title "$what: moves on to process C without a halt"
    start C --incoming "unix:$work/C.sock"
    tell B "set downtime-limit 50"
    migrate B C
    goes_on B C
    say "the longest time that the guest did not run, by its own clock: $bold$gap ms$plain"

    title "$what: goes into a file, and comes back in process D"
    tell C stop
    ask C "savevm $work/state" '^saved' >/dev/null
    good "$(du -h --apparent-size "$work/state" | cut -f 1) saved"
    here=$(ask C 'info memory' 'hash') || exit 1
    stop_all A B C # only one may have the disk
    start D -S --restore "$work/state"
    there=$(ask D 'info memory' 'hash') || exit 1
    same C D
    tell D cont
    goes_on C D
    stop_all D
}

for mode in "${modes[@]}"; do
    if [ "$mode" = kvm ] && ! has_kvm; then
        echo "there is no /dev/kvm that we may use"
        exit 77
    fi
    run_mode "$mode"
done
title "All is well."

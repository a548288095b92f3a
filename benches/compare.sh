#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs the same measurements on libsavevm and on QEMU 7.2's objects, in turns,
# and prints how many times faster libsavevm is, with the goal where there is
# one. Fails if a goal is missed.
#
# usage: QEMU_BUILD=tree benches/compare.sh LIBDIR
# LIBDIR holds libsavevm.a, built for release. RUNS says how often (3).
set -eu

: "${QEMU_BUILD:?names the built QEMU 7.2 tree}"
: "${CC:=cc}"
: "${RUNS:=3}"
lib=${1:?the directory of libsavevm.a}
here=$(cd "$(dirname "$0")" && pwd)
tests=$here/../c-tests
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

"$tests/reference/link.sh" "$work" "$here/engine.c"
$CC -O2 -g -std=gnu11 -I"$here/../include" -I"$tests" -o "$work/engine-savevm" \
    "$here/engine.c" "$tests/trace.c" "$tests/side_savevm.c" "$lib/libsavevm.a" -lpthread -ldl -lm

run=0
while [ "$run" -lt "$RUNS" ]; do
    for side in savevm qemu; do
        "$work/engine-$side" | awk -F'\t' -v side="$side" 'NF == 2 { print side "\t" $0 }' >>"$work/results"
    done
    run=$((run + 1))
done

awk -F'\t' '
    function best(key, value) { if (!(key in time) || value < time[key]) time[key] = value }
    { best($1 "/" $2, $3 + 0); if (!($2 in seen)) { seen[$2] = 1; order[++count] = $2 } }
    END {
        split("put_byte 1.2 put_be32 4 put_be64 6 get_byte 1 get_be32 3 get_be64 5 page_out 1 page_in 1 " \
              "register_16384 40 load_16384 20 unregister_16384 40", list, " ")
        for (i = 1; i in list; i += 2) goal[list[i]] = list[i + 1]
        printf "%-18s %12s %12s %9s %7s\n", "", "libsavevm ns", "QEMU ns", "times", "goal"
        for (i = 1; i <= count; i++) {
            name = order[i]; ours = time["savevm/" name]; theirs = time["qemu/" name]
            ratio = theirs / ours
            verdict = ""
            if (name in goal && ratio < goal[name]) { verdict = "  missed"; missed++ }
            printf "%-18s %12.2f %12.2f %9.2f %7s%s\n", name, ours, theirs, ratio, goal[name], verdict
        }
        printf "\nper device, 16384 against 256 devices (goal: at most 1.5)\n"
        split("register load unregister save", kinds, " ")
        for (i = 1; i in kinds; i++) {
            kind = kinds[i]
            ours = time["savevm/" kind "_16384"] / time["savevm/" kind "_256"]
            theirs = time["qemu/" kind "_16384"] / time["qemu/" kind "_256"]
            verdict = ""
            if (kind != "save" && ours > 1.5) { verdict = "  missed"; missed++ }
            printf "%-18s %12.2f %12.2f%s\n", kind, ours, theirs, verdict
        }
        exit missed > 0
    }' "$work/results"

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs vmstate.c on libsavevm and on QEMU 7.2's objects, in turns, and prints
# how many times faster libsavevm is. Fails if a goal is missed: a device four
# times when it is saved and three times when it is loaded, arrays ten times.
#
# usage: QEMU_BUILD=tree benches/vmstate.sh LIBDIR
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

"$tests/reference/link.sh" "$work" "$here/vmstate.c"
$CC -O2 -g -std=gnu11 -I"$here/../include" -I"$tests" -o "$work/vmstate-savevm" \
    "$here/vmstate.c" "$tests/trace.c" "$tests/side_savevm.c" "$lib/libsavevm.a" -lpthread -ldl -lm

run=0
while [ "$run" -lt "$RUNS" ]; do
    for side in savevm qemu; do
        "$work/vmstate-$side" | awk -F'\t' -v side="$side" 'NF == 2 { print side "\t" $0 }' >>"$work/results"
    done
    run=$((run + 1))
done

awk -F'\t' '
    {
        key = $1 "/" $2
        if (!(key in time) || $3 + 0 < time[key]) time[key] = $3 + 0
        if (!($2 in seen)) { seen[$2] = 1; order[++count] = $2 }
    }
    END {
        printf "%-20s %12s %12s %9s %7s\n", "", "libsavevm ns", "QEMU ns", "times", "goal"
        for (i = 1; i <= count; i++) {
            name = order[i]
            goal = name == "save card" ? 4 : name == "load card" ? 3 : name ~ /array/ ? 10 : ""
            ratio = time["qemu/" name] / time["savevm/" name]
            verdict = ""
            if (goal != "" && ratio < goal) { verdict = "  missed"; missed++ }
            printf "%-20s %12.1f %12.1f %9.2f %7s%s\n", name, time["savevm/" name], time["qemu/" name], ratio, goal, verdict
        }
        exit missed > 0
    }' "$work/results"

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The same objects on libsavevm and on a version of QEMU, side by side:
#
#   on-qemu.sh check VERSION ARCHIVE PROGRAM EXPECTED_DIR
#   on-qemu.sh write VERSION ARCHIVE PROGRAM EXPECTED_DIR
#
# lib/qemu-tree.sh says which variable names the built tree of a version. ARCHIVE has the cases, compiled for the version; PROGRAM is them linked with
# libsavevm. `check` wants the same traces from both, also for random
# descriptions that nothing was written down about: RANDOM_SEEDS (default: today
# and two more) and RANDOM_CASES for each (default 2000). A difference there is
# made as small as possible and shown. `write` writes QEMU 7.2's traces to
# EXPECTED_DIR, and the differences of another version's to EXPECTED_DIR/VERSION.
set -u

mode=$1 version=$2 archive=$3 program=$4 expected=$5
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/qemu-tree.sh"
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT INT TERM
qemu=$work/vmstate-qemu

QEMU_LINK_OPTIONS=-Wl,--wrap=error_setg_internal "$here/link-qemu.sh" "$qemu" "$archive" || exit 1
failed=0

# $1 a group, $2 QEMU's trace: writes it down, or compares it with the expected one.
recorded() {
    if [ "$version" = 7.2 ]; then
        if [ "$mode" = write ]; then
            cp "$2" "$expected/$1.txt"
        else
            cmp "$expected/$1.txt" "$2"
        fi
        return
    fi
    differences=$expected/$version/$1.diff
    diff "$expected/$1.txt" "$2" >"$work/diff"
    if [ "$mode" = check ]; then
        [ -e "$differences" ] || differences=/dev/null
        cmp "$differences" "$work/diff"
    elif [ -s "$work/diff" ]; then
        mkdir -p "$expected/$version"
        cp "$work/diff" "$differences"
    else
        rm -f "$differences"
    fi
}

for group in scalars arrays structs hooks subsections containers devices descriptors; do
    if ! "$qemu" "$group" >"$work/qemu" 2>"$work/err"; then
        echo "$group: QEMU's side failed"
        tail -n 5 "$work/err"
        exit 1
    fi
    recorded "$group" "$work/qemu" || failed=1
    if [ "$mode" = check ] && ! "$here/trace.sh" "$program" "$work/qemu" "$group"; then
        echo "$group differs"
        failed=1
    fi
done

if [ "$mode" = write ]; then
    "$qemu" random sums 1 600 >"$work/qemu" 2>/dev/null
    recorded random "$work/qemu"
    exit
fi

day=$(date +%j)
for seed in ${RANDOM_SEEDS:-1 "$day" $((day + 1000))}; do
    cases=${RANDOM_CASES:-2000}
    "$qemu" random sums "$seed" "$cases" >"$work/qemu" 2>/dev/null
    "$program" random sums "$seed" "$cases" >"$work/savevm" 2>/dev/null
    if cmp -s "$work/qemu" "$work/savevm"; then
        echo "seed $seed: $(wc -l <"$work/qemu") random descriptions alike"
        continue
    fi
    failed=1
    number=$(diff "$work/qemu" "$work/savevm" | sed -n 's/^[<>] //p' |
        awk '{ print $2 }' | sort -n | head -n 1)
    echo "seed $seed, case $number differs; the smallest that does:"
    "$here/shrink.py" "$qemu" "$program" "$seed" "$number"
done
exit $failed

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The same objects on libsavevm and on QEMU 7.2, side by side:
#
#   QEMU_BUILD=tree on-qemu.sh check ARCHIVE PROGRAM EXPECTED_DIR
#   QEMU_BUILD=tree on-qemu.sh write ARCHIVE PROGRAM EXPECTED_DIR
#
# ARCHIVE has the cases, PROGRAM is them linked with libsavevm. `check` wants
# the same traces from both, also for random descriptions that nothing was
# written down about: RANDOM_SEEDS (default: today and two more) and
# RANDOM_CASES for each (default 2000). A difference there is made as small as
# possible and shown. `write` writes QEMU's traces to EXPECTED_DIR.
set -u

if [ -z "${QEMU_BUILD:-}" ]; then
    echo "QEMU_BUILD does not name a built QEMU 7.2 tree: nothing to compare with"
    exit 77
fi
mode=$1 archive=$2 program=$3 expected=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT INT TERM
qemu=$work/vmstate-qemu

"$here/link-qemu.sh" "$qemu" "$archive" || exit 1
failed=0

for group in scalars arrays structs hooks subsections containers devices; do
    if ! "$qemu" "$group" >"$work/qemu" 2>"$work/err"; then
        echo "$group: QEMU's side failed"
        tail -n 5 "$work/err"
        exit 1
    fi
    if [ "$mode" = write ]; then
        cp "$work/qemu" "$expected/$group.txt"
    elif "$here/trace.sh" "$program" "$work/qemu" "$group"; then
        # The expected traces must be QEMU's, too.
        cmp "$expected/$group.txt" "$work/qemu" || failed=1
    else
        echo "$group differs"
        failed=1
    fi
done

if [ "$mode" = write ]; then
    "$qemu" random sums 1 600 >"$expected/random.txt" 2>/dev/null
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

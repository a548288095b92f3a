#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The tables in the headers of a QEMU version have the layout of QEMU's own
# headers: sizes, offsets, types and constants. The trees need not be built.
#
# usage: QEMU_TREES="502=TREE 1000=TREE" layouts-of-trees.sh INCLUDE_DIR
# Without QEMU_TREES the test is skipped.
set -u

if [ -z "${QEMU_TREES:-}" ]; then
    echo "QEMU_TREES names no source trees of QEMU, such as 1000=/path: skipped"
    exit 77
fi
: "${CC:=cc}"
here=$(cd "$(dirname "$0")" && pwd)
include=$1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT INT TERM
failed=0

for entry in $QEMU_TREES; do
    version=${entry%%=*} tree=${entry#*=}
    if [ ! -e "$tree/include/migration/vmstate.h" ]; then
        echo "$tree is not a source tree of QEMU"
        exit 1
    fi
    options="-std=gnu11 -DSAVEVM_QEMU_VERSION=$version"
    # shellcheck disable=SC2086
    $CC $options -DSAVEVM_PLAIN_NAMES -I"$include" -o "$work/ours" "$here/members.c" &&
        $CC $options -DMEMBERS_OF_TREE -I"$tree/include" -I"$include" -o "$work/theirs" "$here/members.c" || exit 1
    "$work/ours" >"$work/ours.txt"
    "$work/theirs" >"$work/theirs.txt"
    if diff -u "$work/theirs.txt" "$work/ours.txt"; then
        echo "QEMU $version: $(wc -l <"$work/ours.txt") sizes, members and constants are the same"
    else
        failed=1
    fi
done
exit $failed

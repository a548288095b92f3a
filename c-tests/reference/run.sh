#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs trace programs on QEMU 7.2's own objects and compares what they print
# with the committed traces; libsavevm's traces are compared with the same.
#
# usage: QEMU_BUILD=tree run.sh [--update] EXPECTED_DIR SOURCE...
# --update writes the traces instead: that is where those in expected/ came
# from. Without QEMU_BUILD the test is skipped.
set -eu

if [ -z "${QEMU_BUILD:-}" ]; then
    echo "QEMU_BUILD names no built QEMU 7.2 tree: skipped"
    exit 77
fi
update=
if [ "$1" = --update ]; then
    update=yes
    shift
fi
here=$(cd "$(dirname "$0")" && pwd)
expected=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

"$here/link.sh" "$work" "$@"
failed=0
for source in "$@"; do
    name=$(basename "$source" .c)
    if ! "$work/$name-qemu" >"$work/$name.txt" 2>"$work/$name.err"; then
        cat "$work/$name.err"
        failed=1
    elif [ -n "$update" ]; then
        cp "$work/$name.txt" "$expected/$name.txt"
    elif ! diff -u "$expected/$name.txt" "$work/$name.txt"; then
        failed=1
    else
        echo "$name: $(wc -l <"$work/$name.txt") lines, the same"
    fi
done
exit $failed

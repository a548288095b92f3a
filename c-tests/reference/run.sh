#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs trace programs on QEMU's own objects and compares what they print with the
# committed traces; libsavevm's traces are compared with the same.
#
# usage: run.sh [--update] VERSION EXPECTED_DIR SOURCE...
# lib/qemu-tree.sh says which variable names the built tree of a version.
#
# --update writes the traces instead: that is where those in expected/ came from.
# The traces of 7.2 are in EXPECTED_DIR. EXPECTED_DIR/VERSION has the differences
# of another version from them, and whole traces of programs that 7.2 does not
# have. Without a built tree the test is skipped.
set -eu

update=
if [ "$1" = --update ]; then
    update=yes
    shift
fi
here=$(cd "$(dirname "$0")" && pwd)
version=$1 expected=$2
shift 2
. "$here/../lib/qemu-tree.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# Writes down the trace of program $1.
write_trace() {
    if [ "$version" = 7.2 ]; then
        cp "$work/$1.txt" "$expected/$1.txt"
        return
    fi
    mkdir -p "$expected/$version"
    if [ ! -e "$expected/$1.txt" ]; then
        cp "$work/$1.txt" "$expected/$version/$1.txt"
    elif diff "$expected/$1.txt" "$work/$1.txt" >"$work/diff"; then
        rm -f "$expected/$version/$1.diff"
    else
        cp "$work/diff" "$expected/$version/$1.diff"
    fi
}

# Compares the trace of program $1 with the one that was written down.
compare_trace() {
    if [ "$version" = 7.2 ]; then
        diff -u "$expected/$1.txt" "$work/$1.txt"
    elif [ ! -e "$expected/$1.txt" ]; then
        diff -u "$expected/$version/$1.txt" "$work/$1.txt"
    else
        differences=$expected/$version/$1.diff
        [ -e "$differences" ] || differences=/dev/null
        diff "$expected/$1.txt" "$work/$1.txt" >"$work/diff" || true
        diff -u "$differences" "$work/diff"
    fi
}

"$here/link.sh" "$work" "$@"
failed=0
for source in "$@"; do
    name=$(basename "$source" .c)
    if ! "$work/$name-qemu" >"$work/$name.txt" 2>"$work/$name.err"; then
        cat "$work/$name.err"
        failed=1
    elif [ -n "$update" ]; then
        write_trace "$name"
    elif ! compare_trace "$name"; then
        failed=1
    else
        echo "$name: $(wc -l <"$work/$name.txt") lines, the same"
    fi
done
exit $failed

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs one group of cases, and compares its trace with the one that QEMU 7.2's
# objects left. With -d, the differences from it must be those in DIFF, which
# the objects of another version left; a file that does not exist means none.
#
#   trace.sh [-d DIFF] PROGRAM EXPECTED GROUP [ARGUMENT...]
set -u

differences=
if [ "$1" = -d ]; then
    differences=$2
    shift 2
fi
program=$1 expected=$2
shift 2
got=$(mktemp) || exit 1
trap 'rm -f "$got" "$got.err" "$got.diff"' EXIT INT TERM

"$program" "$@" >"$got" 2>"$got.err"
result=$?
if [ $result -eq 77 ]; then
    cat "$got"
    exit 77
fi
if [ $result -ne 0 ]; then
    echo "$program $* ended with $result:"
    tail -n 20 "$got.err"
    echo "its last lines:"
    tail -n 5 "$got"
    exit 1
fi
if [ -n "$differences" ]; then
    [ -e "$differences" ] || differences=/dev/null
    diff "$expected" "$got" >"$got.diff"
    if ! diff "$differences" "$got.diff" >"$got.err"; then
        echo "the differences from QEMU 7.2's trace are others than in $differences:"
        cut -c 1-400 "$got.err" | head -n 60
        exit 1
    fi
elif ! diff -u "$expected" "$got" >"$got.err"; then
    echo "the trace differs from QEMU 7.2's ($expected):"
    cut -c 1-400 "$got.err" | head -n 60
    exit 1
fi
echo "$(wc -l <"$got") lines as with QEMU"

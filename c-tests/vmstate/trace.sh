#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs one group of cases, and compares its trace with the one that QEMU 7.2's
# objects left:
#
#   trace.sh PROGRAM EXPECTED GROUP [ARGUMENT...]
set -u

program=$1 expected=$2
shift 2
got=$(mktemp) || exit 1
trap 'rm -f "$got" "$got.err"' EXIT INT TERM

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
if ! diff -u "$expected" "$got" >"$got.err"; then
    echo "the trace differs from QEMU 7.2's ($expected):"
    cut -c 1-400 "$got.err" | head -n 60
    exit 1
fi
echo "$(wc -l <"$got") lines as with QEMU 7.2"

#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs a trace program and compares what it prints with what it printed when it
# was linked with QEMU 7.2's objects (reference/run.sh --update).
#
# usage: same-trace.sh EXPECTED PROGRAM [ARGUMENT...]
set -u

expected=$1
shift
got=$(mktemp)
trap 'rm -f "$got"' EXIT INT TERM

"$@" >"$got"
code=$?
if ! diff -u "$expected" "$got"; then
    echo "the trace differs from QEMU's"
    exit 1
fi
exit $code

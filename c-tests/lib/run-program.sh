#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs a test program. With -t what it prints is compared with what it printed
# when it was linked with QEMU 7.2's objects (reference/run.sh --update). With -d,
# the differences from that must be those in DIFF, which the objects of another
# version left; a file that does not exist means none.
# SAVEVM_TEST_WRAP is put before the program, as with meson's valgrind setup.
#
# usage: run-program.sh [-t TRACE [-d DIFF]] PROGRAM [ARGUMENT...]
set -u

trace='' differences=''
if [ "$1" = -t ]; then
    trace=$2
    shift 2
fi
if [ "$1" = -d ]; then
    differences=$2
    shift 2
fi
if [ -z "$trace" ]; then
    # shellcheck disable=SC2086
    exec ${SAVEVM_TEST_WRAP:-} "$@"
fi
got=$(mktemp)
trap 'rm -f "$got" "$got.diff"' EXIT INT TERM

# shellcheck disable=SC2086
${SAVEVM_TEST_WRAP:-} "$@" >"$got"
code=$?
if [ -n "$differences" ]; then
    [ -e "$differences" ] || differences=/dev/null
    diff "$trace" "$got" >"$got.diff"
    if ! diff -u "$differences" "$got.diff"; then
        echo "the differences from QEMU 7.2's trace are others than in $differences"
        exit 1
    fi
elif ! diff -u "$trace" "$got"; then
    echo "the trace differs from QEMU's"
    exit 1
fi
exit $code

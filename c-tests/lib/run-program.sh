#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs a test program. With -t what it prints is compared with what it printed
# when it was linked with QEMU 7.2's objects (reference/run.sh --update).
# SAVEVM_TEST_WRAP is put before the program, as with meson's valgrind setup.
#
# usage: run-program.sh [-t TRACE] PROGRAM [ARGUMENT...]
set -u

trace=
if [ "$1" = -t ]; then
    trace=$2
    shift 2
fi
if [ -z "$trace" ]; then
    # shellcheck disable=SC2086
    exec ${SAVEVM_TEST_WRAP:-} "$@"
fi
got=$(mktemp)
trap 'rm -f "$got"' EXIT INT TERM

# shellcheck disable=SC2086
${SAVEVM_TEST_WRAP:-} "$@" >"$got"
code=$?
if ! diff -u "$trace" "$got"; then
    echo "the trace differs from QEMU's"
    exit 1
fi
exit $code

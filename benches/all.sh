#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every measurement that has a goal, how cost grows, and where the time of the
# worst one goes; as Markdown, with date and machine, for docs/performance.md.
# Fails if a goal is missed. It wants a machine that does nothing else.
#
# usage: QEMU_BUILD=tree QEMU_SCRIPT=analyze-migration.py all.sh LIBDIR SAVEVM [STREAM...]
# QEMU_PORTED, if set, is a qemu-system-x86_64 that ports/qemu-7.2/run has built.
# LIBDIR holds libsavevm.a, built for release; SAVEVM is the command, to read
# the STREAMs too, such as QEMU's.
set -u

: "${QEMU_BUILD:?names the built QEMU 7.2 tree}"
: "${QEMU_SCRIPT:?names scripts/analyze-migration.py of that tree}"
lib=${1:?the directory of libsavevm.a}
savevm=${2:?the savevm command}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
programs=${TMPDIR:-/tmp}/savevm-bench
missed=0

# Compiles NAME.c to $programs-NAME.
build() {
    "${CC:-cc}" -O2 -std=gnu11 -I"$here/../include" -o "$programs-$1" "$here/$1.c" "$lib/libsavevm.a" -lpthread -ldl -lm
}

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "$(date +%F), $(nproc) of $processor, Linux $(uname -r | sed 's/-.*//'), load $(cut -d ' ' -f 1 /proc/loadavg)"
printf '\n## Engine and VMState\n\n'
"$here/compare.py" "$lib" --growth --profile || missed=1
if [ -n "${QEMU_BUILD_10_2:-}" ]; then
    printf '\n## VMState under the layouts of newer versions\n\n'
    "$here/versions.py" "$lib" || missed=1
fi
printf '\n## RAM over a unix socket\n\n'
"$here/ram.py" "$lib" --growth || missed=1
printf '\n## RAM over several connections\n\n'
"$here/multifd.py" "$lib" || missed=1
printf '\n## Estimates of the time to the end\n\n'
build estimate && "$programs-estimate" 50 || missed=1
printf '\n## TLS\n\n'
"$here/tls.py" "$lib" || missed=1
printf '\n## Migrations over network links\n\n'
"$here/links.py" "$lib" || missed=1
printf '\n## Downtime of postcopy\n\n'
build downtime || missed=1
for busy in 0 2 6; do
    "$programs-downtime" 16384 15 "$busy" || missed=1
done
if [ -n "${QEMU_PORTED:-}" ]; then
    printf '\n## Downtime of QEMU with other work on the machine\n\n'
    "$here/contention.py" "$QEMU_PORTED" "$QEMU_BUILD/qemu-system-x86_64" --dirty 32 --devices 60 || missed=1
fi
printf '\n## Snapshots\n'
"$here/snapshot.py" "$lib"
printf '\n## Checkpoints in the process\n'
build checkpoint && "$programs-checkpoint" || missed=1
printf '\n## Live update\n\n'
build live-update && "$programs-live-update" || missed=1
printf '\n## Preflight and rehearsal\n\n'
build preflight && "$programs-preflight" || missed=1
printf '\n## The savevm command\n\n'
"$here/inspect.py" "$savevm" --script "$QEMU_SCRIPT" "$@" || missed=1
exit $missed

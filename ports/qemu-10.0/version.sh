# SPDX-License-Identifier: LGPL-2.1-or-later
# QEMU 10.0, for ../common/run.sh.
version=10.0
suite=trixie
glue="newer.h file.c layout-file.c host.c incoming.c listen.c newer-file.c newer-phases.c program-file.c snapshot.c snapshot-commands.c xen.c"
options=(--disable-install-blobs)
quick_cases=(precopy/unix/plain precopy/tcp/tls/psk/match postcopy/plain postcopy/recovery/plain
             multifd/file/mapped-ram/dio multifd/tcp/plain/cancel)
cases=14
own_tests="snapshot damaged colo"

# SPDX-License-Identifier: LGPL-2.1-or-later
# QEMU 7.2, for ../common/run.sh.
version=7.2
suite=
glue="older.h compressed-file.c file.c host.c incoming.c listen.c older-run.c program-file.c snapshot.c snapshot-commands.c xen.c"
options=(--disable-blobs)
skipped=(vcpu_dirty_limit)
quick_cases=(precopy/unix/plain precopy/tcp/tls/x509/default-host precopy/unix/xbzrle postcopy/plain
             postcopy/recovery/plain multifd/tcp/plain/none validate_uuid bad_dest)
cases=41  # with zstd 42
own_tests="hooks snapshot damaged colo"

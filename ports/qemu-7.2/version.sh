# SPDX-License-Identifier: LGPL-2.1-or-later
# QEMU 7.2, for ../common/run.sh.
version=7.2
suite=
glue="file.c hooks-file.c host.c incoming.c program-file.c snapshot.c snapshot-commands.c xen.c"
options=(--disable-blobs)
skipped=(vcpu_dirty_limit)
quick_cases=(precopy/unix/plain precopy/tcp/tls/x509/default-host precopy/unix/xbzrle postcopy/plain
             postcopy/recovery/plain multifd/tcp/plain/none validate_uuid bad_dest)
cases=42
image_tests="007 015 068 091 181 194 201 203 234 262 267 280 286 300 backing-file-invalidation export-incoming-iothread
             migrate-bitmaps-postcopy-test migrate-bitmaps-test migrate-during-backup qcow2-internal-snapshots"
quick_image_tests="267 286 qcow2-internal-snapshots"
raw_image_tests=migration-permissions
own_tests="hooks snapshot damaged colo"

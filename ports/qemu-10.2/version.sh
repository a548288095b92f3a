# SPDX-License-Identifier: LGPL-2.1-or-later
# QEMU 10.2, for ../common/run.sh.
version=10.2
suite=
package=qemu_10.2.2+ds-1
package_sha256=f1684b3aa5ec500c3389d346c6501dee45041ea91656c6556d4da9023b7987dd
glue="newer.h file.c layout-file.c host.c incoming.c newer-file.c newer-phases.c program-file.c snapshot.c snapshot-commands.c xen.c"
options=(--disable-install-blobs)
quick_cases=(precopy/unix/plain precopy/tcp/tls/psk/match postcopy/plain postcopy/recovery/plain
             multifd/file/mapped-ram/dio)
cases=15
own_tests="snapshot damaged colo"

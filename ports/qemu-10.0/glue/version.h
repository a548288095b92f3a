/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QEMU 10.0, for the common files of the glue. */
#ifndef MIGRATION_LIBSAVEVM_VERSION_H
#define MIGRATION_LIBSAVEVM_VERSION_H

#include "newer.h"

#define GLUE_VERSION 1000

/* No capability excludes snapshots. */
#define migrate_can_snapshot(errp) true

/* Functions that report their errors themselves. */
#define ram_postcopy_incoming_init(mis, errp) ram_postcopy_incoming_init(mis)
#define migration_incoming_enable_colo(errp) migration_incoming_enable_colo()
#define colo_init_ram_cache(errp) colo_init_ram_cache()

#endif /* MIGRATION_LIBSAVEVM_VERSION_H */

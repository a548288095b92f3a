/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QEMU 10.0 and newer: headers that have other names in older versions. */
#ifndef MIGRATION_LIBSAVEVM_NEWER_H
#define MIGRATION_LIBSAVEVM_NEWER_H

#include "io/channel.h"
#include "migration/misc.h"
#include "migration/options.h"
#include "migration/yank_functions.h"
#include "qemu/yank.h"
#include "system/cpus.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "system/system.h"
#include "system/xen.h"

typedef bool GlueRunning;

/* The context of a disk needs no lock any more. */
#define LOCK_CONTEXT(bs) do { } while (0)
#define UNLOCK_CONTEXT(bs) do { } while (0)

/* It cannot fail any more. */
#define GLOBAL_STATE_STORE() (global_state_store(), 0)

#endif /* MIGRATION_LIBSAVEVM_NEWER_H */

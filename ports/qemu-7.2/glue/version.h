/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QEMU 7.2: what the common files of the glue call by another name later. */
#ifndef MIGRATION_LIBSAVEVM_VERSION_H
#define MIGRATION_LIBSAVEVM_VERSION_H

#include "migration/yank_functions.h"
#include "qemu/yank.h"
#include "older.h"

#define GLUE_VERSION 702

typedef bool GlueRunning;

#endif /* MIGRATION_LIBSAVEVM_VERSION_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QEMU 10.2, for the common files of the glue. */
#ifndef MIGRATION_LIBSAVEVM_VERSION_H
#define MIGRATION_LIBSAVEVM_VERSION_H

#include "newer.h"

#define GLUE_VERSION 1002

#endif /* MIGRATION_LIBSAVEVM_VERSION_H */

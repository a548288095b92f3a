/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QEMU 7.2: what the common files of the glue call by another name later. */
#ifndef MIGRATION_LIBSAVEVM_VERSION_H
#define MIGRATION_LIBSAVEVM_VERSION_H

#define GLUE_VERSION 702

#define bql_lock() qemu_mutex_lock_iothread()
#define bql_unlock() qemu_mutex_unlock_iothread()
#define bql_locked() qemu_mutex_iothread_locked()

#endif /* MIGRATION_LIBSAVEVM_VERSION_H */

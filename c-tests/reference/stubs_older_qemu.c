/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* As stubs_qemu.c: what only the savevm.c of QEMU 5.2 and 7.2 calls. */
#include "qemu/osdep.h"
#include "block/block.h"
#include "exec/target_page.h"
#include "migration/colo.h"
#include "migration/migration.h"
#include "migration/postcopy-ram.h"
#include "migration/ram.h"
#include "qemu/timer.h"

#include "reference/host_qemu.h"

void host_refresh(void)
{
}

/* The machine's properties */

size_t qemu_target_page_size(void)
{
    return (size_t)1 << backend.page_bits;
}

int qemu_target_page_bits(void)
{
    return backend.page_bits;
}

int qemu_target_page_bits_min(void)
{
    return backend.page_bits_min;
}

bool migrate_dirty_bitmaps(void)
{
    return false;
}

int bdrv_inactivate_all(void)
{
    trace("host: disks_inactivate");
    return backend.disks_inactivate;
}

/* What commands ask for */

bool postcopy_ram_supported_by_host(MigrationIncomingState *mis)
{
    return true;
}

int ram_postcopy_incoming_init(MigrationIncomingState *mis)
{
    trace("host: postcopy_advise");
    return 0;
}

int postcopy_ram_incoming_setup(MigrationIncomingState *mis)
{
    return 0;
}

/* Instead of the thread that would read on. */
#if SAVEVM_QEMU_VERSION >= 700
void postcopy_thread_create(MigrationIncomingState *mis, QemuThread *thread,
                            const char *name, void *(*fn)(void *), int joinable)
{
    trace("host: postcopy_listen");
}
#else
void __real_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*fn)(void *), void *arg, int mode);
void __wrap_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*fn)(void *), void *arg, int mode);

void __wrap_qemu_thread_create(QemuThread *thread, const char *name,
                               void *(*fn)(void *), void *arg, int mode)
{
    if (strcmp(name, "postcopy/listen")) {
        __real_qemu_thread_create(thread, name, fn, arg, mode);
        return;
    }
    trace("host: postcopy_listen");
    qemu_sem_post(&migration_incoming_get_current()->listen_thread_sem);
}
#endif

/* The bottom half that starts the guest is taken for the start. */
void __wrap_qemu_bh_schedule(QEMUBH *bh);

#if SAVEVM_QEMU_VERSION >= 700
QEMUBH *__wrap_qemu_bh_new_full(QEMUBHFunc *cb, void *opaque, const char *name,
                                MemReentrancyGuard *guard);

QEMUBH *__wrap_qemu_bh_new_full(QEMUBHFunc *cb, void *opaque, const char *name,
                                MemReentrancyGuard *guard)
#else
QEMUBH *__wrap_qemu_bh_new(QEMUBHFunc *cb, void *opaque);

QEMUBH *__wrap_qemu_bh_new(QEMUBHFunc *cb, void *opaque)
#endif
{
    return opaque;
}

void __wrap_qemu_bh_schedule(QEMUBH *bh)
{
    trace("host: postcopy_run");
}

void migrate_set_state(int *state, int old_state, int new_state)
{
    if (new_state == MIGRATION_STATUS_POSTCOPY_ACTIVE) {
        trace("host: postcopy_resume");
    }
}

int migration_incoming_enable_colo(void)
{
    trace("host: enable_colo");
    return backend.enable_colo;
}

int colo_init_ram_cache(void)
{
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread that loads the main stream while the guest runs in postcopy. From
 * QEMU 10.2 on it is in postcopy-ram.c.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/postcopy-ram.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "glue.h"

/* Returns whether QEMU can continue after the load returned `ret`. */
static bool listening_survived(MigrationIncomingState *mis, int ret)
{
    if (ret >= 0) {
        return true;
    }
    dirty_bitmap_mig_cancel_incoming();
    if (postcopy_state_get() == POSTCOPY_INCOMING_RUNNING &&
        !migrate_postcopy_ram() && migrate_dirty_bitmaps()) {
        error_report("loadvm failed during postcopy: %d. All states are "
                     "migrated except dirty bitmaps. Some dirty bitmaps may be "
                     "lost, and present migrated dirty bitmaps are correctly "
                     "migrated and valid.", ret);
        return true;
    }
    error_report("loadvm failed in the postcopy listen thread: %d", ret);
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_ACTIVE,
                      MIGRATION_STATUS_FAILED);
    return false;
}

/* The semaphore that a new thread posts when it has started. */
static QemuSemaphore *started(MigrationIncomingState *mis)
{
#if GLUE_VERSION >= 700
    return &mis->thread_sync_sem;
#else
    return &mis->listen_thread_sem;
#endif
}

static void *listen_thread(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    MigrationState *outgoing = migrate_get_current();
    bool survived;
    int ret;

    object_ref(OBJECT(outgoing));
    migrate_set_state(&mis->state, MIGRATION_STATUS_ACTIVE,
                      MIGRATION_STATUS_POSTCOPY_ACTIVE);
    qemu_sem_post(started(mis));
    trace_postcopy_ram_listen_thread_start();
    rcu_register_thread();

    /* The coroutine that read the stream before yields; a thread blocks. */
    qemu_file_set_blocking(mis->from_src_file, true);
    ret = qemu_loadvm_state_main(mis->from_src_file, mis);
    /* After a recovery, this is the file of another connection. */
    qemu_file_set_blocking(mis->from_src_file, false);
    trace_postcopy_ram_listen_thread_exit();
    if (ret < 0) {
        qemu_file_set_error(mis->from_src_file, ret);
    }

    survived = listening_survived(mis, ret);
    if (survived) {
        /* The main thread may still be loading devices. */
        qemu_event_wait(&mis->main_thread_load_event);
    }
    postcopy_ram_incoming_cleanup(mis);
    if (!survived) {
        /* A part of the guest's memory is lost, and the guest may run. */
        rcu_unregister_thread();
        exit(EXIT_FAILURE);
    }
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_ACTIVE,
                      MIGRATION_STATUS_COMPLETED);
#if GLUE_VERSION >= 1000
    bql_lock();
    migration_incoming_state_destroy();
    bql_unlock();
#else
    migration_incoming_state_destroy();
    qemu_loadvm_state_cleanup();
#endif

    rcu_unregister_thread();
    mis->have_listen_thread = false;
    postcopy_state_set(POSTCOPY_INCOMING_END);
    object_unref(OBJECT(outgoing));
    return NULL;
}

static void start_listening(MigrationIncomingState *mis, const char *name)
{
#if GLUE_VERSION >= 700
    postcopy_thread_create(mis, &mis->listen_thread, name, listen_thread,
                           QEMU_THREAD_DETACHED);
#else
    qemu_sem_init(started(mis), 0);
    qemu_thread_create(&mis->listen_thread, name, listen_thread, mis,
                       QEMU_THREAD_DETACHED);
    qemu_sem_wait(started(mis));
    qemu_sem_destroy(started(mis));
#endif
}

int glue_start_listening(MigrationIncomingState *mis, Error **errp)
{
    if (migrate_postcopy_ram() && postcopy_ram_incoming_setup(mis)) {
        postcopy_ram_incoming_cleanup(mis);
        return -EPERM;
    }
    trace_loadvm_postcopy_handle_listen("after uffd");
    if (postcopy_notify(POSTCOPY_NOTIFY_INBOUND_LISTEN, errp) < 0) {
        return -EPERM;
    }
    mis->have_listen_thread = true;
    start_listening(mis, GLUE_VERSION >= 1000 ? "mig/dst/listen"
                                              : "postcopy/listen");
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands of an incoming stream. libsavevm reads the commands and checks
 * them and their order. The functions here call QEMU's migration and postcopy
 * code.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "block/block.h"
#include "migration/colo.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/postcopy-ram.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "net/announce.h"
#include "migration/trace.h"
#include "glue.h"
#if GLUE_VERSION >= 1000
#include "migration/options.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/system.h"
#else
#include "sysemu/cpus.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#endif
#if GLUE_VERSION >= 600
#include "migration/yank_functions.h"
#endif

/* Functions that report their errors themselves in older versions. */
#if GLUE_VERSION >= 1000
#define POSTCOPY_SUPPORTED(mis, errp) postcopy_ram_supported_by_host(mis, errp)
#else
#define POSTCOPY_SUPPORTED(mis, errp) postcopy_ram_supported_by_host(mis)
#endif
#if GLUE_VERSION >= 1002
#define POSTCOPY_INIT(mis, errp) ram_postcopy_incoming_init(mis, errp)
#define ENABLE_COLO(errp) migration_incoming_enable_colo(errp)
#define INIT_COLO_CACHE(errp) colo_init_ram_cache(errp)
#else
#define POSTCOPY_INIT(mis, errp) ram_postcopy_incoming_init(mis)
#define ENABLE_COLO(errp) migration_incoming_enable_colo()
#define INIT_COLO_CACHE(errp) colo_init_ram_cache()
#endif

static int open_return_path(void *host, QEMUFile *f)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (mis->to_src_file) {
        error_report("CMD_OPEN_RETURN_PATH called when RP already open");
        return 0;
    }
    mis->to_src_file = qemu_file_get_return_path(f);
    return mis->to_src_file ? 0 : -EPERM;
}

static int pong(void *host, uint32_t value)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (!mis->to_src_file) {
        error_report("CMD_PING (0x%x) received with no return path", value);
        return -EPERM;
    }
    migrate_send_rp_pong(mis, value);
    return 0;
}

/* SaveVMPostcopyState has the numbers of QEMU's PostcopyState. */
static SaveVMPostcopyState postcopy_set_state(void *host,
                                              SaveVMPostcopyState state)
{
    PostcopyState before = state == SAVEVM_POSTCOPY_STATE_QUERY
        ? postcopy_state_get() : postcopy_state_set((PostcopyState)state);

    return (SaveVMPostcopyState)before;
}

/* Reports an error, if there is one. Returns 0 or -EPERM. */
static int reported(Error *err)
{
    if (err) {
        error_report_err(err);
    }
    return err ? -EPERM : 0;
}

static int notify_postcopy(enum PostcopyNotifyReason reason)
{
    Error *err = NULL;

    postcopy_notify(reason, &err);
    return reported(err);
}

static int postcopy_advise(void *host, bool ram)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    Error *err = NULL;

    if (!ram) {
        return 0;
    }
    if (!POSTCOPY_SUPPORTED(mis, &err)) {
        reported(err);
        postcopy_state_set(POSTCOPY_INCOMING_NONE);
        return -EPERM;
    }
    if (notify_postcopy(POSTCOPY_NOTIFY_INBOUND_ADVISE) < 0) {
        return -EPERM;
    }
    if (POSTCOPY_INIT(mis, &err)) {
        reported(err);
        return -EPERM;
    }
    return 0;
}

static int postcopy_prepare_discard(void *host)
{
    return postcopy_ram_prepare_discard(migration_incoming_get_current());
}

static int postcopy_discard(void *host, const char *block, uint64_t start,
                            uint64_t length)
{
    int ret = ram_discard_range(block, start, length);

    return ret > 0 ? -EPERM : ret;
}

/*
 * The listening thread loads the main stream while the guest runs. From 10.2 on
 * it is in postcopy-ram.c.
 */
#if GLUE_VERSION < 1002

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

static int set_up_listening(MigrationIncomingState *mis)
{
    if (migrate_postcopy_ram() && postcopy_ram_incoming_setup(mis)) {
        postcopy_ram_incoming_cleanup(mis);
        return -EPERM;
    }
    trace_loadvm_postcopy_handle_listen("after uffd");
    if (notify_postcopy(POSTCOPY_NOTIFY_INBOUND_LISTEN) < 0) {
        return -EPERM;
    }
    mis->have_listen_thread = true;
    start_listening(mis, GLUE_VERSION >= 1000 ? "mig/dst/listen"
                                              : "postcopy/listen");
    return 0;
}
#else
static int set_up_listening(MigrationIncomingState *mis)
{
    Error *err = NULL;

    postcopy_incoming_setup(mis, &err);
    return reported(err);
}
#endif

static int postcopy_listen(void *host)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

#if GLUE_VERSION >= 1000
    /*
     * The devices that follow may touch missing pages, which come over the
     * channel for urgent pages. The main loop accepts that channel.
     */
    while (migrate_postcopy_preempt() && qemu_in_coroutine() &&
           !mis->postcopy_qemufile_dst) {
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
#endif
    trace_loadvm_postcopy_handle_listen("after discard");
    return set_up_listening(mis);
}

#if GLUE_VERSION >= 1000
/* Starts the guest. Runs in the main loop, outside of the load. */
static void run_bh(void *opaque)
{
    MigrationIncomingState *mis = opaque;

    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-enter");
    cpu_synchronize_all_post_init();
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-cpu-synced");
    qemu_announce_self(&mis->announce_timer, migrate_announce_params());
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-announced");
    dirty_bitmap_mig_before_vm_start();
    if (!autostart) {
        runstate_set(RUN_STATE_PAUSED);
    } else if (migration_block_activate(NULL)) {
        /* Without disks the guest stays paused until the user continues it. */
        trace_vmstate_downtime_checkpoint("dst-postcopy-bh-cache-invalidated");
        vm_start();
    }
    trace_vmstate_downtime_checkpoint("dst-postcopy-bh-vm-started");
}

static int postcopy_run(void *host)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

#if GLUE_VERSION >= 1002
    /* Without a return path, the state is POSTCOPY_ACTIVE already. */
    if (mis->state == MIGRATION_STATUS_POSTCOPY_DEVICE) {
        migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_DEVICE,
                          MIGRATION_STATUS_POSTCOPY_ACTIVE);
    }
#endif
    migration_bh_schedule(run_bh, mis);
    return 0;
}
#else
/* Starts the guest. Runs in the main loop, outside of the load. */
static void run_bh(void *opaque)
{
    MigrationIncomingState *mis = opaque;
    Error *err = NULL;

    trace_loadvm_postcopy_handle_run_bh("enter");
    cpu_synchronize_all_post_init();
    trace_loadvm_postcopy_handle_run_bh("after cpu sync");
    qemu_announce_self(&mis->announce_timer, migrate_announce_params());
    trace_loadvm_postcopy_handle_run_bh("after announce");
    bdrv_activate_all(&err);
    if (err) {
        /* Without disks the guest stays paused until the user continues it. */
        error_report_err(err);
        autostart = false;
    }
    trace_loadvm_postcopy_handle_run_bh("after invalidate cache");
    dirty_bitmap_mig_before_vm_start();
    if (autostart) {
        vm_start();
    } else {
        runstate_set(RUN_STATE_PAUSED);
    }
    qemu_bh_delete(mis->bh);
    trace_loadvm_postcopy_handle_run_bh("return");
}

static int postcopy_run(void *host)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    mis->bh = qemu_bh_new(run_bh, mis);
    qemu_bh_schedule(mis->bh);
    return 0;
}
#endif

/* Recovery of a broken postcopy */

static gboolean request_page_again(gpointer key, gpointer value, gpointer data)
{
    ram_addr_t offset;
    RAMBlock *block = qemu_ram_block_from_host(key, true, &offset);

    if (!block) {
        error_report("requested page at %p is in no RAM block", key);
    } else if (migrate_send_rp_message_req_pages(data, block, offset)) {
        error_report("requesting the page at %p again failed", key);
    } else {
        trace_postcopy_page_req_sync(key);
    }
    return FALSE;
}

static int postcopy_resume(void *host)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (mis->state != MIGRATION_STATUS_POSTCOPY_RECOVER) {
        error_report("illegal resume received");
        return 0;
    }
    /* The source has no last block and no page requests after a recovery. */
    mis->last_rb = NULL;
    migrate_set_state(&mis->state, MIGRATION_STATUS_POSTCOPY_RECOVER,
                      MIGRATION_STATUS_POSTCOPY_ACTIVE);
    migrate_send_rp_resume_ack(mis, MIGRATION_RESUME_ACK_VALUE);
    WITH_QEMU_LOCK_GUARD(&mis->page_request_mutex) {
        g_tree_foreach(mis->page_requested, request_page_again, mis);
    }
    /* From here on, the other threads may use the return path. */
    qemu_sem_post(&mis->postcopy_pause_sem_fault);
#if GLUE_VERSION >= 702
    if (migrate_postcopy_preempt()) {
#if GLUE_VERSION >= 1000
        qemu_sem_wait(&mis->postcopy_qemufile_dst_done);
#endif
        assert(mis->postcopy_qemufile_dst);
        qemu_sem_post(&mis->postcopy_pause_sem_fast_load);
    }
#endif
    return 0;
}

static void shut_and_close(QEMUFile **f, QemuMutex *mutex, bool yank)
{
    QEMUFile *closing = *f;

    qemu_file_shutdown(closing);
    /* The shutdown wakes the thread that holds the mutex. */
    if (mutex) {
        qemu_mutex_lock(mutex);
    }
    if (yank) {
        migration_ioc_unregister_yank_from_file(closing);
    }
    qemu_fclose(closing);
    *f = NULL;
    if (mutex) {
        qemu_mutex_unlock(mutex);
    }
}

static QEMUFile *recover(void *host)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    trace_postcopy_pause_incoming();
    shut_and_close(&mis->from_src_file, NULL, true);
    shut_and_close(&mis->to_src_file, &mis->rp_mutex, false);
#if GLUE_VERSION >= 702
    if (mis->postcopy_qemufile_dst) {
        shut_and_close(&mis->postcopy_qemufile_dst,
                       &mis->postcopy_prio_thread_mutex, true);
    }
#else
    mis->postcopy_recover_triggered = false;
#endif
    migrate_set_state(&mis->state, mis->state,
                      MIGRATION_STATUS_POSTCOPY_PAUSED);
    postcopy_fault_thread_notify(mis);
#if GLUE_VERSION >= 702
    /* The source sends a page again that arrived only in part. */
    for (int i = 0; i < mis->postcopy_channels; i++) {
        postcopy_temp_page_reset(&mis->postcopy_tmp_pages[i]);
    }
#endif
    error_report("Detected IO failure for postcopy. Migration paused.");
#if GLUE_VERSION >= 1000
    do {
        qemu_sem_wait(&mis->postcopy_pause_sem_dst);
    } while (postcopy_is_paused(mis->state));
#else
    while (mis->state == MIGRATION_STATUS_POSTCOPY_PAUSED) {
        qemu_sem_wait(&mis->postcopy_pause_sem_dst);
    }
#endif
    trace_postcopy_pause_incoming_continued();
    return mis->from_src_file;
}

static int recv_bitmap(void *host, const char *block)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (!qemu_ram_block_by_name(block)) {
        error_report("block '%s' not found", block);
        return -EINVAL;
    }
    migrate_send_rp_recv_bitmap(mis, (char *)block);
    return 0;
}

static int enable_colo(void *host)
{
    Error *err = NULL;
    int ret = ENABLE_COLO(&err);

    if (ret) {
        reported(err);
        return ret;
    }
    ret = INIT_COLO_CACHE(&err);
    if (ret) {
        reported(err);
        migration_incoming_disable_colo();
    }
    return ret;
}

#if GLUE_VERSION >= 702
static int further_error(void *host)
{
    QEMUFile *f = migration_incoming_get_current()->postcopy_qemufile_dst;

    return f ? qemu_file_get_error(f) : 0;
}
#endif

static void load_failed(void *host, int error)
{
    dirty_bitmap_mig_cancel_incoming();
}

static bool main_loop_done(void *host)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    qemu_event_set(&mis->main_thread_load_event);
    return mis->have_listen_thread;
}

#if GLUE_VERSION >= 1000
static int switchover_ack(void *host)
{
    return migrate_send_rp_switchover_ack(migration_incoming_get_current());
}
#endif

const SaveVMIncomingOps glue_incoming_ops = {
    .size = sizeof(SaveVMIncomingOps),
    .open_return_path = open_return_path,
    .pong = pong,
    .postcopy_state = postcopy_set_state,
    .postcopy_advise = postcopy_advise,
    .postcopy_prepare_discard = postcopy_prepare_discard,
    .postcopy_discard = postcopy_discard,
    .postcopy_listen = postcopy_listen,
    .postcopy_run = postcopy_run,
    .postcopy_resume = postcopy_resume,
    .recv_bitmap = recv_bitmap,
    .enable_colo = enable_colo,
    .load_failed = load_failed,
    .recover = recover,
    .main_loop_done = main_loop_done,
#if GLUE_VERSION >= 702
    .further_error = further_error,
#endif
#if GLUE_VERSION >= 1000
    .switchover_ack = switchover_ack,
#endif
};

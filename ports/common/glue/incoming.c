/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands of an incoming stream. libsavevm reads the commands and checks
 * them and their order. The functions here call QEMU's migration and postcopy
 * code.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "migration/colo.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/postcopy-ram.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/trace.h"
#include "glue.h"

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

static int postcopy_advise(void *host, bool ram, Error **errp)
{
    MigrationIncomingState *mis = migration_incoming_get_current();

    if (!ram) {
        return 0;
    }
    if (!postcopy_ram_supported_by_host(mis, errp)) {
        postcopy_state_set(POSTCOPY_INCOMING_NONE);
        return -EPERM;
    }
    return postcopy_notify(POSTCOPY_NOTIFY_INBOUND_ADVISE, errp) < 0 ||
           ram_postcopy_incoming_init(mis, errp) ? -EPERM : 0;
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

static int postcopy_listen(void *host, Error **errp)
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
    return glue_start_listening(mis, errp);
}

static int postcopy_run(void *host)
{
    glue_start_guest(migration_incoming_get_current());
    return 0;
}

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

static int enable_colo(void *host, Error **errp)
{
    int ret = migration_incoming_enable_colo(errp);

    if (!ret) {
        ret = colo_init_ram_cache(errp);
        if (ret) {
            migration_incoming_disable_colo();
        }
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

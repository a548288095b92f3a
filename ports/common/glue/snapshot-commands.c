/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QEMU's functions and jobs for snapshots, as they are from QEMU 7.1 on. */
#include "qemu/osdep.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-builtin-visit.h"
#include "qapi/qapi-commands-migration.h"
#include "qemu/job.h"
#include "qemu/main-loop.h"
#include "block/block_int-common.h"
#include "migration/channel-block.h"
#include "migration/qemu-file.h"
#include "migration/snapshot.h"
#include "glue.h"

QEMUFile *glue_vmstate_file(BlockDriverState *bs, bool writable)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_block_new(bs));
    QEMUFile *f = writable ? qemu_file_new_output(ioc)
                           : qemu_file_new_input(ioc);

    object_unref(OBJECT(ioc));
    return f;
}

bool delete_snapshot(const char *name, bool has_devices, strList *devices,
                     Error **errp)
{
    return bdrv_all_can_snapshot(has_devices, devices, errp) &&
           bdrv_all_delete_snapshot(name, has_devices, devices, errp) >= 0;
}

/* Jobs. The main loop does the work while the job's coroutine waits. */

typedef struct SnapshotJob {
    Job common;
    char *tag;
    char *vmstate;
    strList *devices;
    Coroutine *co;
    Error **errp;
    bool done;
} SnapshotJob;

static bool job_load(SnapshotJob *s)
{
    RunState before = runstate_get();
    bool loaded;

    vm_stop(RUN_STATE_RESTORE_VM);
    loaded = load_snapshot(s->tag, s->vmstate, true, s->devices, s->errp);
    if (loaded) {
        load_snapshot_resume(before);
    }
    return loaded;
}

static void job_in_main_loop(void *opaque)
{
    SnapshotJob *s = opaque;

    job_progress_set_remaining(&s->common, 1);
    switch (job_type(&s->common)) {
    case JOB_TYPE_SNAPSHOT_SAVE:
        s->done = save_snapshot(s->tag, false, s->vmstate, true, s->devices,
                                s->errp);
        break;
    case JOB_TYPE_SNAPSHOT_LOAD:
        s->done = job_load(s);
        break;
    case JOB_TYPE_SNAPSHOT_DELETE:
        s->done = delete_snapshot(s->tag, true, s->devices, s->errp);
        break;
    default:
        g_assert_not_reached();
    }
    job_progress_update(&s->common, 1);
    g_free(s->tag);
    g_free(s->vmstate);
    qapi_free_strList(s->devices);
    aio_co_wake(s->co);
}

static int coroutine_fn job_run_snapshot(Job *job, Error **errp)
{
    SnapshotJob *s = container_of(job, SnapshotJob, common);

    s->errp = errp;
    s->co = qemu_coroutine_self();
    aio_bh_schedule_oneshot(qemu_get_aio_context(), job_in_main_loop, s);
    qemu_coroutine_yield();
    return s->done ? 0 : -1;
}

#define SNAPSHOT_JOB(name, type)                                   \
    static const JobDriver name = {                                \
        .instance_size = sizeof(SnapshotJob), .job_type = type,    \
        .run = job_run_snapshot }

SNAPSHOT_JOB(save_job_driver, JOB_TYPE_SNAPSHOT_SAVE);
SNAPSHOT_JOB(load_job_driver, JOB_TYPE_SNAPSHOT_LOAD);
SNAPSHOT_JOB(delete_job_driver, JOB_TYPE_SNAPSHOT_DELETE);

static void start_job(const JobDriver *driver, const char *id, const char *tag,
                      const char *vmstate, strList *devices, Error **errp)
{
    SnapshotJob *s = job_create(id, driver, NULL, qemu_get_aio_context(),
                                JOB_MANUAL_DISMISS, NULL, NULL, errp);

    if (s) {
        s->tag = g_strdup(tag);
        s->vmstate = g_strdup(vmstate);
        s->devices = QAPI_CLONE(strList, devices);
        job_start(&s->common);
    }
}

void qmp_snapshot_save(const char *job_id, const char *tag,
                       const char *vmstate, strList *devices, Error **errp)
{
    start_job(&save_job_driver, job_id, tag, vmstate, devices, errp);
}

void qmp_snapshot_load(const char *job_id, const char *tag,
                       const char *vmstate, strList *devices, Error **errp)
{
    start_job(&load_job_driver, job_id, tag, vmstate, devices, errp);
}

void qmp_snapshot_delete(const char *job_id, const char *tag,
                         strList *devices, Error **errp)
{
    start_job(&delete_job_driver, job_id, tag, NULL, devices, errp);
}

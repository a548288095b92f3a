/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The phases that QEMU 10.0 and 7.2 have with other arguments, and new ones. */
#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/snapshot.h"
#include "system/runstate.h"
#include "glue.h"

int qemu_savevm_state_prepare(Error **errp)
{
    return savevm_state_prepare(errp);
}

int qemu_savevm_state_setup(QEMUFile *f, Error **errp)
{
    return savevm_state_setup(f, errp);
}

void qemu_savevm_state_pending_exact(uint64_t *must_precopy,
                                     uint64_t *can_postcopy)
{
    savevm_state_pending(true, must_precopy, can_postcopy);
}

void qemu_savevm_state_pending_estimate(uint64_t *must_precopy,
                                        uint64_t *can_postcopy)
{
    savevm_state_pending(false, must_precopy, can_postcopy);
}

bool should_send_vmdesc(void)
{
    return !MACHINE(qdev_get_machine())->suppress_vmdesc;
}

int qemu_savevm_state_complete_precopy_iterable(QEMUFile *f, bool in_postcopy)
{
    return savevm_state_complete_precopy_iterable(f, in_postcopy);
}

/* Keeps the error of a file for query-migrate. */
static int failed(QEMUFile *f, int ret)
{
    Error *err = NULL;

    qemu_file_get_error_obj(f, &err);
    if (err) {
        migrate_set_error(migrate_get_current(), err);
        error_free(err);
    }
    return ret;
}

int qemu_savevm_state_complete_precopy_non_iterable(QEMUFile *f,
                                                    bool in_postcopy)
{
    int ret = savevm_state_complete_precopy_non_iterable(f, in_postcopy);

    return ret ? failed(f, ret) : 0;
}

int qemu_savevm_state_complete_precopy(QEMUFile *f, bool iterable_only)
{
    int ret = savevm_state_complete_precopy_iterable(f, false);

    if (!ret && !iterable_only) {
        ret = qemu_savevm_state_complete_precopy_non_iterable(f, false);
    }
    return ret ? ret : qemu_fflush(f);
}

#if GLUE_VERSION >= 1002
bool qemu_savevm_state_postcopy_prepare(QEMUFile *f, Error **errp)
{
    return savevm_state_postcopy_prepare(f, errp) == 0;
}
#endif

void qemu_savevm_maybe_send_switchover_start(QEMUFile *f)
{
    savevm_send_switchover_start(f);
}

int qemu_loadvm_approve_switchover(void)
{
    return savevm_approve_switchover();
}

bool qemu_loadvm_load_state_buffer(const char *idstr, uint32_t instance_id,
                                   char *buf, size_t len, Error **errp)
{
    return !savevm_load_state_buffer(idstr, instance_id, buf, len, errp);
}

void qemu_loadvm_start_load_thread(MigrationLoadThread function, void *opaque)
{
    savevm_start_load_thread(function, opaque);
}

void load_snapshot_resume(RunState state)
{
    vm_resume(state);
    if (state == RUN_STATE_RUNNING && runstate_get() == RUN_STATE_SUSPENDED) {
        qemu_system_wakeup_request(QEMU_WAKEUP_REASON_OTHER, &error_abort);
    }
}

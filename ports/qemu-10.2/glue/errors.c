/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Functions that have an Error **, or exist, since QEMU 10.2. */
#include "qemu/osdep.h"
#include "migration/migration.h"
#include "migration/postcopy-ram.h"
#include "migration/savevm.h"
#include "glue.h"

int qemu_loadvm_state(QEMUFile *f, Error **errp)
{
    return savevm_load_state(f, errp);
}

int qemu_loadvm_state_main(QEMUFile *f, MigrationIncomingState *mis,
                           Error **errp)
{
    return savevm_load_state_main(f, errp);
}

int qemu_load_device_state(QEMUFile *f, Error **errp)
{
    return savevm_load_device_state(f, errp);
}

int glue_start_listening(MigrationIncomingState *mis, Error **errp)
{
    return postcopy_incoming_setup(mis, errp) ? -EPERM : 0;
}

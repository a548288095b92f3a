/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions that have an Error ** since QEMU 10.2. The unit tests link this
 * file as well.
 */
#include "qemu/osdep.h"
#include "io/channel.h"
#include "migration/qemu-file.h"
#include "migration/vmstate.h"
#include "glue.h"
#include "savevm/abi.h"
#include "savevm/file.h"

int vmstate_load_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, int version_id, Error **errp)
{
    return savevm_abi_vmstate_load(glue_layout(), f, vmsd, opaque, version_id,
                                   errp);
}

int vmstate_save_state(QEMUFile *f, const VMStateDescription *vmsd,
                       void *opaque, JSONWriter *vmdesc, Error **errp)
{
    return savevm_abi_vmstate_save(glue_layout(), f, vmsd, opaque, vmdesc,
                                   SAVEVM_ABI_OWN_VERSION, errp);
}

int vmstate_save_state_v(QEMUFile *f, const VMStateDescription *vmsd,
                         void *opaque, JSONWriter *vmdesc, int version_id,
                         Error **errp)
{
    return savevm_abi_vmstate_save(glue_layout(), f, vmsd, opaque, vmdesc,
                                   version_id, errp);
}

bool qemu_file_set_blocking(QEMUFile *f, bool block, Error **errp)
{
    return qio_channel_set_blocking(savevm_file_channel(f), block, errp);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The layout of QEMU's tables, if it is not that of QEMU 7.2. The unit tests
 * link this file as well.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "glue.h"
#include "savevm/abi.h"
#include "layout.h"

static const SaveVMAbi *abi;

const SaveVMAbi *glue_layout(void)
{
    return abi;
}

void glue_set_layout(void)
{
    SaveVMAbiDescription layout = SAVEVM_ABI_DESCRIPTION_INIT;
    Error *err = NULL;

    layout.qemu_version = GLUE_VERSION;
    layout.semantics = SAVEVM_SEMANTICS_OF_VERSION;
    layout.handlers_size = sizeof(SaveVMHandlers);
    layout.description_size = sizeof(VMStateDescription);
    layout.field_size = sizeof(VMStateField);
    layout.info_size = sizeof(VMStateInfo);
    layout.members = layout_members;
    layout.member_count = ARRAY_SIZE(layout_members);
    layout.constants = layout_constants;
    layout.constant_count = ARRAY_SIZE(layout_constants);
    abi = savevm_abi_new(&layout, &err);
    if (!abi) {
        error_reportf_err(err, "libsavevm: ");
        exit(EXIT_FAILURE);
    }
    savevm_set_abi(savevm_default(), abi, &error_fatal);
}

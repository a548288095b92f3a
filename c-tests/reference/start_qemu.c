/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * backend_start() for programs that use files and VMState only. Compiled with
 * the flags of QEMU, together with backend_files_qemu.c.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"

#include "reference/host_qemu.h"

void backend_start(void)
{
    module_call_init(MODULE_INIT_QOM);
}

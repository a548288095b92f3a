/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between side_qemu.c and stubs_qemu.c. Its SideHost is side.h's. */
#ifndef REFERENCE_HOST_QEMU_H
#define REFERENCE_HOST_QEMU_H

#include "side.h"

/* Gives the objects their state; after QOM's types are there. */
void host_start(void);

#endif

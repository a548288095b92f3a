/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between backend_qemu.c and stubs_qemu.c. Its BackendHost is backend.h's. */
#ifndef REFERENCE_HOST_QEMU_H
#define REFERENCE_HOST_QEMU_H

#include "backend.h"

/* Gives the objects their state; after QOM's types are there. */
void host_start(void);

#endif

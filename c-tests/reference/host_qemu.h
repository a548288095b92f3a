/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between backend_qemu.c, phases_qemu.c and stubs_qemu.c. Its BackendHost is backend.h's. */
#ifndef REFERENCE_HOST_QEMU_H
#define REFERENCE_HOST_QEMU_H

#include "backend.h"
#include "reference/files_5_2_qemu.h"

/* Gives the objects their state; after QOM's types are there. */
void host_start(void);

/* Has QEMU's objects see what the test has set in `backend`. */
void host_refresh(void);

/* Forgets the error of the last migration. From 10.0 on. */
void host_forget_error(void);

/* Makes `f` the stream of the incoming migration, and returns that. */
MigrationIncomingState *host_incoming(QEMUFile *f);

#endif

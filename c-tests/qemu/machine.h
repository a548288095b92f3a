/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine "none" of QEMU, which has RAM and one device, for programs that exchange snapshots with a QEMU. */
#ifndef MACHINE_H
#define MACHINE_H

#include "savevm.h"
#include "savevm/ram.h"

typedef struct Machine {
    SaveVM *vm;
    SaveVMRam *ram;
} Machine;

/* Prints why something failed. Returns 1. */
int fail(const char *what, const Error *err);

/* Makes the machine with the name `name`, which must stay valid. `ram` is NULL with an error on failure. */
Machine machine_new(const char *name, Error **errp);
void machine_free(Machine machine);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine that has RAM only, in programs that save snapshots for another program to load. */
#ifndef SAVER_H
#define SAVER_H

#include "savevm.h"
#include "savevm/ram.h"

typedef struct Saver {
    SaveVM *vm;
    SaveVMRam *ram;
} Saver;

/* Prints why something failed. Returns 1. */
int fail(const char *what, const Error *err);

/* Makes the machine with the name `machine`, which must stay valid. `ram` is NULL with an error on failure. */
Saver saver_new(const char *machine, Error **errp);
void saver_free(Saver saver);

#endif

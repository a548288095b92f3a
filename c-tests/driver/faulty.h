/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A channel of the host's that fails at a call. */
#ifndef DRIVER_FAULTY_H
#define DRIVER_FAULTY_H

#include "side.h"
#include "savevm/file.h"

/* What a call that fails does. */
typedef enum Failure {
    /* An error, this time. */
    ONCE,
    /* An error from then on. */
    FOR_GOOD,
    /* No byte, from then on: the end where something is read. */
    NOTHING,
} Failure;

/* One end of a socket, or bytes in memory. */
typedef struct Faulty {
    int fd;
    const uint8_t *bytes;
    size_t len, at;
    /* Bytes that a call takes at most. */
    size_t step;
    Failure failure;
    /* The number of the call that fails, from 1 on; 0: none. */
    int fail_at;
    atomic_int calls, frees;
} Faulty;

extern const SaveVMChannelOps faulty_ops;

/* With no bytes in memory. */
void faulty_init(Faulty *channel, int fd, size_t step, Failure failure, int fail_at);

#endif

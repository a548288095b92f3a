/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A random session: some contexts, and one random call after another on them. */
#ifndef FAULTS_SESSION_H
#define FAULTS_SESSION_H

#include "savevm.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define MAX_THREADS 4
#define RECENT 12

/* What a session did; shared with the process that watches it. */
typedef struct Journal {
    atomic_uint violations;
    atomic_uint completed, failed, paused, recovered; /* statuses that migrations had, at either end */
    unsigned count[MAX_THREADS];
    const char *recent[MAX_THREADS][RECENT]; /* names are constants of the program */
} Journal;

Journal *journal_new(void);

typedef struct Session Session;

Session *session_new(uint64_t seed, const char *directory, Journal *journal);
void session_step(Session *session, unsigned thread, uint64_t *seed);
/* Ends all migrations and frees all contexts. No thread uses the session any more. */
void session_free(Session *session);

#endif

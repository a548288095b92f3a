/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For cases that save snapshots of guests: guests with a log of their writes, and numbered files in a directory of the case. */
#ifndef SNAPSHOTS_H
#define SNAPSHOTS_H

#include "guest.h"

/* A stopped guest whose writes are logged. Skips the case if there is no such memory. */
Guest *logged_guest(Memory kind, size_t length);

/* As logged_guest(), also for lazy loads. Skips the case if they are not possible here. */
Guest *lazy_guest(Memory kind, size_t length);

/* Waits until a guest that runs has made more than `steps` further steps. */
void wait_for_steps(const Guest *guest, uint64_t steps);

/* The same for a guest that may be stopped: starts it first. */
void run_on(Guest *guest, uint64_t steps);

/* Copies the guest's memory to `*copy`, which is allocated if it is NULL. */
void keep_memory(uint8_t **copy, const Guest *guest);

/* Requires success; otherwise the case fails with the error's text. Frees the error. */
void good(int ret, Error *err);

/* The directory of the case, which the first call makes. */
const char *snapshot_directory(void);

/* "file:" and the path of a snapshot of the case. The text is valid until the fourth next call. */
const char *snapshot_uri(int number);
const char *snapshot_path(int number);

/* Removes the snapshots below `count` and the directory. Fails if another file is in it. */
void remove_snapshots(int count);

#endif

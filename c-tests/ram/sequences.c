/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random sequences of restores, runs, saves, rollbacks and merges of a guest that checks its own memory.
 *
 * SAVEVM_SEQUENCES is their number (default 20), SAVEVM_SEED the number of the first (default 1). The command `savevm`,
 * which merges, is SAVEVM_COMMAND; without it nothing is merged. 1,000 sequences need SAVEVM_TEST_SLOW=20, which raises the
 * deadline.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "savevm.h"
#include "snapshots.h"

#define LENGTH (1 << 20)
#define FILES 10
#define CHECKPOINTS 3
#define STEPS 30

typedef struct Snapshot {
    bool exists;
    uint8_t *memory; /* what it must have; NULL if the guest ran while it was saved */
} Snapshot;

typedef struct Sequence {
    Guest *guest;
    Snapshot files[FILES];
    SaveVMCheckpoint *checkpoints[CHECKPOINTS];
    uint8_t *kept[CHECKPOINTS]; /* the memory of the checkpoints */
    int current;                /* the file since which changes are known, or -1 */
    bool lazy;                  /* pages may still be read */
    unsigned seed, state;
    char log[4096];             /* what was done, for a failure */
} Sequence;

static int pick(Sequence *s, int count)
{
    return rand_r(&s->state) % count;
}

static void note(Sequence *s, const char *what, int number)
{
    size_t end = strlen(s->log);
    snprintf(s->log + end, sizeof(s->log) - end, " %s%d", what, number);
}

/* As good(), and prints what was done before a failure. */
static void went_well(Sequence *s, int ret, Error *err)
{
    if (ret != 0 || err) {
        fprintf(stderr, "sequence %u:%s\n", s->seed, s->log);
    }
    good(ret, err);
}

static void finish_restore(Sequence *s)
{
    Error *err = NULL;

    if (s->lazy) {
        int ret = savevm_restore_wait(s->guest->vm, &err);
        went_well(s, ret, err);
        s->lazy = false;
    }
}

static void free_checkpoint(Sequence *s, int at)
{
    savevm_checkpoint_free(s->checkpoints[at]);
    s->checkpoints[at] = NULL;
}

static void free_checkpoints(Sequence *s)
{
    for (int at = 0; at < CHECKPOINTS; at++) {
        free_checkpoint(s, at);
    }
}

static void forget(Snapshot *file)
{
    free(file->memory);
    *file = (Snapshot){ 0 };
}

static void *cancel_soon(void *opaque)
{
    Sequence *s = opaque;
    struct timespec nap = { .tv_nsec = rand() % 2000000 };

    nanosleep(&nap, NULL);
    savevm_snapshot_cancel(s->guest->vm);
    return NULL;
}

/* A full or an incremental snapshot, in either format, of a stopped or a running guest, which may be cancelled. */
static void save(Sequence *s)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    int number = pick(s, FILES);
    bool runs = s->guest->run, chained = pick(s, 4) > 0, cancels = pick(s, 5) == 0;
    pthread_t thread;
    Error *err = NULL;

    if (s->files[number].exists) {
        return; /* it may be another one's parent */
    }
    finish_restore(s);
    options.format = pick(s, 2) ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM;
    options.threads = (uint32_t)pick(s, 4);
    options.background = pick(s, 2);
    if (chained) {
        options.parent = s->current >= 0 && pick(s, 5) ? snapshot_uri(s->current) : "";
    }
    note(s, cancels ? "save?" : options.parent && *options.parent ? "child" : "save", number);
    if (cancels) {
        REQUIRE(pthread_create(&thread, NULL, cancel_soon, s) == 0);
    }
    int ret = savevm_snapshot_save(s->guest->vm, snapshot_uri(number), &options, &err);
    if (cancels) {
        pthread_join(thread, NULL);
    }
    if (cancels && ret == -ECANCELED) {
        error_free(err);
        CHECK(access(snapshot_path(number), F_OK) != 0);
        /* The chain before goes on, also if this snapshot was to begin another one. */
        return;
    }
    went_well(s, ret, err);
    s->files[number] = (Snapshot){ .exists = true };
    if (!runs) {
        keep_memory(&s->files[number].memory, s->guest);
    }
    if (chained) {
        s->current = number;
    }
}

static void restore(Sequence *s)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    int number = pick(s, FILES);
    bool runs = s->guest->run, lazy = pick(s, 2);
    Error *err = NULL;

    if (!s->files[number].exists) {
        return;
    }
    free_checkpoints(s);
    note(s, lazy ? "lazy" : "load", number);
    options.lazy = lazy;
    options.parent = lazy ? NULL : "";
    int ret = savevm_snapshot_load(s->guest->vm, snapshot_uri(number), &options, &err);
    went_well(s, ret, err);
    s->lazy = lazy;
    s->current = lazy ? -1 : number;
    if (!runs && s->files[number].memory) {
        /* Reads pages that are not there yet. */
        CHECK(memcmp(s->guest->memory, s->files[number].memory, LENGTH) == 0);
    }
}

static void run(Sequence *s)
{
    int steps = pick(s, 100);

    note(s, "run", steps);
    run_on(s->guest, (uint64_t)steps);
    if (pick(s, 3)) {
        guest_stop(s->guest);
    }
}

static void checkpoint(Sequence *s)
{
    int at = pick(s, CHECKPOINTS);
    Error *err = NULL;

    finish_restore(s);
    guest_stop(s->guest);
    free_checkpoint(s, at);
    note(s, "checkpoint", at);
    s->checkpoints[at] = savevm_checkpoint(s->guest->vm, &err);
    went_well(s, s->checkpoints[at] ? 0 : -1, err);
    keep_memory(&s->kept[at], s->guest);
}

static void roll_back(Sequence *s)
{
    int at = pick(s, CHECKPOINTS);
    Error *err = NULL;

    if (s->checkpoints[at]) {
        guest_stop(s->guest);
        note(s, "rollback", at);
        int ret = savevm_rollback(s->checkpoints[at], &err);
        went_well(s, ret, err);
        CHECK(memcmp(s->guest->memory, s->kept[at], LENGTH) == 0);
    }
}

/* Writes a full snapshot with the contents of another one. */
static void merge(Sequence *s)
{
    const char *command = getenv("SAVEVM_COMMAND");
    int from = pick(s, FILES), to = pick(s, FILES), status;
    bool mapped = pick(s, 2);

    if (!command || !s->files[from].exists || s->files[to].exists) {
        return;
    }
    note(s, "merge", from * FILES + to);
    fflush(NULL);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (!freopen("/dev/null", "w", stdout)) {
            _exit(2);
        }
        execl(command, command, "merge", snapshot_path(from), "--format", mapped ? "mapped" : "stream", "-o", snapshot_path(to),
              NULL);
        _exit(2);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        fprintf(stderr, "sequence %u:%s\n", s->seed, s->log);
        return;
    }
    s->files[to] = (Snapshot){ .exists = true };
    if (s->files[from].memory) {
        s->files[to].memory = malloc(LENGTH);
        memcpy(s->files[to].memory, s->files[from].memory, LENGTH);
    }
}

static void check_all(Sequence *s)
{
    Guest *other = logged_guest(MEMORY_PRIVATE, LENGTH);

    for (int number = 0; number < FILES; number++) {
        for (int lazy = 0; s->files[number].exists && lazy < 2; lazy++) {
            SaveVMSnapshotOptions load = SAVEVM_SNAPSHOT_OPTIONS_INIT;
            Error *err = NULL;

            memset(other->memory, 0xee, LENGTH);
            load.lazy = lazy;
            int ret = savevm_snapshot_load(other->vm, snapshot_uri(number), &load, &err);
            went_well(s, ret, err);
            ret = savevm_restore_wait(other->vm, &err);
            went_well(s, ret, err);
            bool same = !s->files[number].memory || memcmp(other->memory, s->files[number].memory, LENGTH) == 0;
            if (!CHECK(guest_whole(other) && same)) {
                fprintf(stderr, "sequence %u, file %d:%s\n", s->seed, number, s->log);
            }
        }
    }
    guest_free(other);
}

static void run_sequence(unsigned seed)
{
    static void (*const steps[])(Sequence *) = { save, save, save, restore, restore, run, run, checkpoint, roll_back, merge };
    Sequence s = { .current = -1, .seed = seed, .state = seed, .guest = lazy_guest(MEMORY_PRIVATE, LENGTH) };

    guest_fill(s.guest);
    for (int step = 0; step < STEPS; step++) {
        steps[pick(&s, sizeof(steps) / sizeof(steps[0]))](&s);
        if (!CHECK(!atomic_load(&s.guest->broken))) {
            fprintf(stderr, "sequence %u:%s\n", s.seed, s.log);
            break;
        }
    }
    finish_restore(&s);
    guest_stop(s.guest);
    CHECK(guest_whole(s.guest));
    check_all(&s);
    free_checkpoints(&s);
    guest_free(s.guest);
    for (int number = 0; number < FILES; number++) {
        forget(&s.files[number]);
    }
    for (int at = 0; at < CHECKPOINTS; at++) {
        free(s.kept[at]);
    }
    remove_snapshots(FILES);
}

TEST(random_sequences_keep_the_memory_of_the_guest)
{
    const char *number = getenv("SAVEVM_SEQUENCES"), *first = getenv("SAVEVM_SEED");
    unsigned seed = first ? (unsigned)strtoul(first, NULL, 10) : 1;
    int count = number ? atoi(number) : 20 / (int)harness_slow() + 1;

    for (int at = 0; at < count; at++) {
        run_sequence(seed + (unsigned)at);
    }
}

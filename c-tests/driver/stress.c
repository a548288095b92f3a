/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole migrations over sockets while other threads cancel, pause, recover,
 * query and change parameters at random times. However a migration ends, the
 * guest is in one place. SAVEVM_STRESS_RUNS is the number of migrations,
 * SAVEVM_STRESS_SEED the seed of the first.
 */
#include "side.h"
#include "savevm/ram.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Stress {
    Side source, destination;
    SaveVMMigration *out;
    SaveVMMigration *in;
    /* Nothing ends this migration or breaks its connection: however slow the machine is, some guests move. */
    bool is_left_alone;
} Stress;

typedef struct Disturber {
    Stress *stress;
    uint64_t seed;
    pthread_t thread;
} Disturber;

static uint64_t below(uint64_t *seed, uint64_t limit)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed % limit;
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* Checks that the counts of both ends never fall; returns whether the source is still active. */
static bool still_active(Stress *stress, uint64_t seen[2])
{
    SaveVMInfo out = SAVEVM_INFO_INIT, in = SAVEVM_INFO_INIT;

    savevm_migration_query(stress->out, &out);
    savevm_migration_query(stress->in, &in);
    CHECK(out.transferred >= seen[0] && in.transferred >= seen[1]);
    seen[0] = out.transferred;
    seen[1] = in.transferred;
    return out.status != SAVEVM_STATUS_COMPLETED && out.status != SAVEVM_STATUS_FAILED &&
        out.status != SAVEVM_STATUS_CANCELLED;
}

/* Operations. A refusal is no failure: whether one is possible depends on the moment. */

static void cancel_source(Stress *stress, uint64_t *seed)
{
    /* Rarely: most migrations should end in another way. */
    if (below(seed, 4) == 0) {
        savevm_migration_cancel(stress->out);
    }
}

static void cancel_destination(Stress *stress, uint64_t *seed)
{
    if (below(seed, 4) == 0) {
        savevm_migration_cancel(stress->in);
    }
}

/* As a monitor that holds the lock. */
static void cancel_with_lock(Stress *stress, uint64_t *seed)
{
    harness_lock(&stress->source.lock);
    cancel_source(stress, seed);
    harness_unlock(&stress->source.lock);
}

static void start_postcopy(Stress *stress, uint64_t *seed)
{
    (void)seed;
    savevm_migration_start_postcopy(stress->out);
}

static void pause_source(Stress *stress, uint64_t *seed)
{
    (void)seed;
    savevm_migration_pause(stress->out);
}

static void pause_destination(Stress *stress, uint64_t *seed)
{
    (void)seed;
    savevm_migration_pause(stress->in);
}

static void recover(Stress *stress, uint64_t *seed)
{
    char uri[64];

    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-stress-%d-%jx", (int)getpid(), (uintmax_t)*seed);
    savevm_migration_recover(stress->in, uri, NULL);
    savevm_migration_recover(stress->out, uri, NULL);
}

static void set_params(Stress *stress, uint64_t *seed)
{
    SaveVMParams params = SAVEVM_PARAMS_INIT;

    params.max_bandwidth = below(seed, 1 << 20);
    params.downtime_limit_ms = 1 + below(seed, 300);
    params.recover_timeout_ms = 50 * harness_slow();
    savevm_migration_set_params(stress->out, &params, NULL);
}

static void request_page(Stress *stress, uint64_t *seed)
{
    savevm_request_pages(atomic_load(&stress->destination.source), "pc.ram", below(seed, PAGES), 1);
}

static void go_on(Stress *stress, uint64_t *seed)
{
    (void)seed;
    savevm_migration_continue(stress->out);
}

static const struct {
    void (*run)(Stress *stress, uint64_t *seed);
    unsigned weight;
    bool may_end;
} operations[] = {
    { cancel_source, 1, true },
    { cancel_destination, 1, true },
    { cancel_with_lock, 1, true },
    { start_postcopy, 2, true },
    { pause_source, 1, true },
    { pause_destination, 1, true },
    { recover, 1, true },
    { set_params, 1, false },
    { request_page, 1, false },
    { go_on, 14, false },
};

static void run_operation(Stress *stress, uint64_t *seed)
{
    unsigned sum = 0, at = 0;
    uint64_t chosen;

    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        sum += operations[i].weight;
    }
    for (chosen = below(seed, sum); chosen >= operations[at].weight; at++) {
        chosen -= operations[at].weight;
    }
    if (!stress->is_left_alone || !operations[at].may_end) {
        operations[at].run(stress, seed);
    }
}

static void *disturb(void *opaque)
{
    Disturber *disturber = opaque;
    uint64_t seen[2] = { 0, 0 };

    while (still_active(disturber->stress, seen)) {
        usleep(below(&disturber->seed, 300) * harness_slow());
        run_operation(disturber->stress, &disturber->seed);
    }
    return NULL;
}

static void begin(Stress *stress, uint64_t *seed)
{
    bool postcopy = below(seed, 2);
    stress->is_left_alone = below(seed, 4) == 0;
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    params.postcopy = postcopy;
    params.no_extensions = below(seed, 4) == 0;
    params.pause_before_switchover = below(seed, 3) == 0;
    params.recover_timeout_ms = 50 * harness_slow();
    params.handshake_timeout_ms = 5000 * harness_slow();
    params.switchover_timeout_ms = 5000 * harness_slow();
    params.connect_timeout_ms = 5000 * harness_slow();
    const char *uri = side_uri();

    sides_init(&stress->source, &stress->destination, postcopy);
    stress->source.keep_dirty = !stress->is_left_alone && below(seed, 2);
    stress->in = savevm_incoming(stress->destination.vm, uri, &params, NULL);
    stress->out = savevm_migrate(stress->source.vm, uri, &params, NULL);
    REQUIRE(stress->in && stress->out);
}

/* Counts how it ended: the guest moved, stayed, or is where only an operator can find out. */
static void end(Stress *stress, unsigned counts[3])
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL;
    int out = savevm_migration_wait(stress->out, NULL);

    savevm_migration_query(stress->out, &info);
    if (out == 0 && !CHECK_EQ(savevm_migration_wait(stress->in, &err), 0)) {
        fprintf(stderr, "source %s, destination %s: %s\n", stress->source.statuses, stress->destination.statuses,
                error_get_pretty(err));
        error_free(err);
    }
    savevm_migration_free(stress->out);
    savevm_migration_free(stress->in);
    if (out == 0) {
        CHECK_EQ(info.owner, SAVEVM_OWNER_THERE);
        check_moved(&stress->source, &stress->destination);
    } else if (info.owner == SAVEVM_OWNER_HERE) {
        CHECK(stress->source.runs && !stress->destination.runs);
    } else {
        CHECK(!stress->source.runs);
    }
    CHECK_EQ(stress->source.cleanups, stress->source.setups);
    counts[out == 0 ? 0 : info.owner == SAVEVM_OWNER_HERE ? 1 : 2]++;
    guests = 0;
    sides_free(&stress->source, &stress->destination);
}

/* Entries of a directory of this process: its descriptors, or its threads. */
static int count_of(const char *what)
{
    DIR *directory = opendir(what);
    int count = 0;

    while (directory && readdir(directory)) {
        count++;
    }
    if (directory) {
        closedir(directory);
    }
    return count;
}

TEST(the_guest_is_in_one_place)
{
    uint64_t runs = number_of("SAVEVM_STRESS_RUNS", 100), first = number_of("SAVEVM_STRESS_SEED", 1);
    unsigned counts[3] = { 0 };
    int files = 0, threads = 0;

    for (uint64_t run = 0; run < runs; run++) {
        static Stress stress;
        uint64_t seed = (first + run) * 0x9e3779b97f4a7c15u | 1;
        Disturber disturbers[2];

        /* The deadline is that of a run, however many there are. */
        alarm(HARNESS_DEADLINE * harness_slow());
        begin(&stress, &seed);
        for (int i = 0; i < 2; i++) {
            disturbers[i] = (Disturber){ .stress = &stress, .seed = (seed + i) * 0xbf58476d1ce4e5b9u | 1 };
            pthread_create(&disturbers[i].thread, NULL, disturb, &disturbers[i]);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(disturbers[i].thread, NULL);
        }
        end(&stress, counts);
        if (run == 0) {
            /* Not before: a sanitizer has a thread of its own from the first one on. */
            files = count_of("/proc/self/fd");
            threads = count_of("/proc/self/task");
        }
    }
    /* The last threads may not have ended yet. */
    WAIT_FOR(count_of("/proc/self/task") <= threads && count_of("/proc/self/fd") <= files);
    printf("moved %u, stayed %u, neither %u\n", counts[0], counts[1], counts[2]);
    CHECK(runs < 50 || (counts[0] > 0 && counts[1] > 0));
}

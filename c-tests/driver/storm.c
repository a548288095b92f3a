/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole migrations over sockets while other threads cancel, pause, recover, ask
 * and change parameters at moments that look random. Whatever comes of it, the
 * guest is in one place. SAVEVM_STORM_RUNS says how many, SAVEVM_STORM_SEED
 * where to begin.
 */
#include "side.h"
#include "savevm/ram.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Storm {
    Side source, destination;
    SaveVMMigration *out;
    SaveVMMigration *in;
} Storm;

typedef struct Gust {
    Storm *storm;
    uint64_t seed;
    pthread_t thread;
} Gust;

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

/* What both ends say never falls; whether the source is still at it. */
static bool look(Storm *storm, uint64_t seen[2])
{
    SaveVMInfo out = SAVEVM_INFO_INIT, in = SAVEVM_INFO_INIT;

    savevm_migration_query(storm->out, &out);
    savevm_migration_query(storm->in, &in);
    CHECK(out.transferred >= seen[0] && in.transferred >= seen[1]);
    seen[0] = out.transferred;
    seen[1] = in.transferred;
    return out.status != SAVEVM_STATUS_COMPLETED && out.status != SAVEVM_STATUS_FAILED &&
        out.status != SAVEVM_STATUS_CANCELLED;
}

/* Refusals are part of it: each is about the moment. */
static void blow(Storm *storm, uint64_t *seed)
{
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    char uri[64];

    switch (below(seed, 24)) {
    case 0:
        /* Most should come to another end. */
        if (below(seed, 4) == 0) {
            savevm_migration_cancel(storm->out);
        }
        break;
    case 1:
        if (below(seed, 4) == 0) {
            savevm_migration_cancel(storm->in);
        }
        break;
    case 2:
    case 3:
        savevm_migration_start_postcopy(storm->out);
        break;
    case 4:
        savevm_migration_pause(storm->out);
        break;
    case 5:
        savevm_migration_pause(storm->in);
        break;
    case 6:
        snprintf(uri, sizeof(uri), "unix:/tmp/savevm-storm-%d-%jx", (int)getpid(), (uintmax_t)*seed);
        savevm_migration_recover(storm->in, uri, NULL);
        savevm_migration_recover(storm->out, uri, NULL);
        break;
    case 7:
        /* As a monitor that holds the lock. */
        harness_lock(&storm->source.lock);
        if (below(seed, 4) == 0) {
            savevm_migration_cancel(storm->out);
        }
        harness_unlock(&storm->source.lock);
        break;
    case 8:
        params.max_bandwidth = below(seed, 1 << 20);
        params.downtime_limit_ms = 1 + below(seed, 300);
        params.recover_timeout_ms = 50 * harness_slow();
        savevm_migration_set_params(storm->out, &params, NULL);
        break;
    case 9:
        savevm_request_pages(atomic_load(&storm->destination.source), "pc.ram", below(seed, PAGES), 1);
        break;
    default:
        savevm_migration_continue(storm->out);
        break;
    }
}

static void *gust(void *opaque)
{
    Gust *gust = opaque;
    uint64_t seen[2] = { 0, 0 };

    while (look(gust->storm, seen)) {
        usleep(below(&gust->seed, 300) * harness_slow());
        blow(gust->storm, &gust->seed);
    }
    return NULL;
}

static void begin(Storm *storm, uint64_t *seed)
{
    bool postcopy = below(seed, 2);
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    params.postcopy = postcopy;
    params.no_extensions = below(seed, 4) == 0;
    params.pause_before_switchover = below(seed, 3) == 0;
    params.recover_timeout_ms = 50 * harness_slow();
    params.handshake_timeout_ms = 5000 * harness_slow();
    params.switchover_timeout_ms = 5000 * harness_slow();
    params.connect_timeout_ms = 5000 * harness_slow();
    const char *uri = side_uri();

    side_init(&storm->source, true, postcopy);
    side_init(&storm->destination, false, postcopy);
    storm->source.keep_dirty = below(seed, 2);
    storm->in = savevm_incoming(storm->destination.vm, uri, &params, NULL);
    storm->out = savevm_migrate(storm->source.vm, uri, &params, NULL);
    REQUIRE(storm->in && storm->out);
}

/* Counts how it ended: moved, stayed, or where only an operator can say. */
static void end(Storm *storm, unsigned counts[3])
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL;
    int out = savevm_migration_wait(storm->out, NULL);

    savevm_migration_query(storm->out, &info);
    if (out == 0 && !CHECK_EQ(savevm_migration_wait(storm->in, &err), 0)) {
        fprintf(stderr, "source %s, destination %s: %s\n", storm->source.statuses, storm->destination.statuses,
                error_get_pretty(err));
        error_free(err);
    }
    savevm_migration_free(storm->out);
    savevm_migration_free(storm->in);
    if (out == 0) {
        CHECK_EQ(info.owner, SAVEVM_OWNER_THERE);
        check_moved(&storm->source, &storm->destination);
    } else if (info.owner == SAVEVM_OWNER_HERE) {
        CHECK(storm->source.runs && !storm->destination.runs);
    } else {
        CHECK(!storm->source.runs);
    }
    CHECK_EQ(storm->source.cleanups, storm->source.setups);
    counts[out == 0 ? 0 : info.owner == SAVEVM_OWNER_HERE ? 1 : 2]++;
    guests = 0;
    side_free(&storm->source);
    side_free(&storm->destination);
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
    uint64_t runs = number_of("SAVEVM_STORM_RUNS", 100), first = number_of("SAVEVM_STORM_SEED", 1);
    unsigned counts[3] = { 0 };
    int files = 0, threads = 0;

    for (uint64_t run = 0; run < runs; run++) {
        static Storm storm;
        uint64_t seed = (first + run) * 0x9e3779b97f4a7c15u | 1;
        Gust gusts[2];

        /* The deadline is that of a run, however many there are. */
        alarm(HARNESS_DEADLINE * harness_slow());
        begin(&storm, &seed);
        for (int i = 0; i < 2; i++) {
            gusts[i] = (Gust){ .storm = &storm, .seed = (seed + i) * 0xbf58476d1ce4e5b9u | 1 };
            pthread_create(&gusts[i].thread, NULL, gust, &gusts[i]);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(gusts[i].thread, NULL);
        }
        end(&storm, counts);
        if (run == 0) {
            /* Not before: a sanitizer has a thread of its own from the first one on. */
            files = count_of("/proc/self/fd");
            threads = count_of("/proc/self/task");
        }
    }
    /* The last threads may be on their way out still, with what they hold. */
    WAIT_FOR(count_of("/proc/self/task") <= threads && count_of("/proc/self/fd") <= files);
    printf("moved %u, stayed %u, neither %u\n", counts[0], counts[1], counts[2]);
    CHECK(runs < 50 || (counts[0] > 0 && counts[1] > 0));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshots of a running guest, their progress and cancellation, and chains with files of both formats, good and damaged. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "savevm.h"
#include "snapshots.h"

#define LENGTH (4 << 20)
#define FILES 4

static SaveVMSnapshotOptions options_of(bool mapped, bool background, const char *parent)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;

    options.format = mapped ? SAVEVM_SNAPSHOT_MAPPED : SAVEVM_SNAPSHOT_STREAM;
    options.threads = 2;
    options.background = background;
    options.parent = parent;
    return options;
}

static void save(Guest *guest, int number, bool mapped, bool background, const char *parent)
{
    SaveVMSnapshotOptions options = options_of(mapped, background, parent);
    Error *err = NULL;
    int ret = savevm_snapshot_save(guest->vm, snapshot_uri(number), &options, &err);

    good(ret, err);
}

static int load(Guest *guest, int number, bool lazy, Error **err)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;

    options.lazy = lazy;
    return savevm_snapshot_load(guest->vm, snapshot_uri(number), &options, err);
}

static void loaded(Guest *guest, int number, bool lazy)
{
    Error *err = NULL;
    int ret = load(guest, number, lazy, &err);

    good(ret, err);
}

/* A chain whose file `number` has fixed places if that bit is set in `formats`. */
static void mixed_chain(Memory kind, unsigned formats)
{
    Guest *guest = lazy_guest(kind, LENGTH), *other = lazy_guest(kind, LENGTH);
    uint8_t *copies[FILES];

    guest_fill(guest);
    for (int number = 0; number < FILES; number++) {
        run_on(guest, 30);
        guest_stop(guest);
        /* A page that becomes zero, and one that is filled with another byte. */
        if (number == 2) {
            memset(guest->memory + LENGTH - 2 * GUEST_PAGE, 0, GUEST_PAGE);
        }
        copies[number] = malloc(LENGTH);
        memcpy(copies[number], guest->memory, LENGTH);
        save(guest, number, formats >> number & 1, number % 2, number ? snapshot_uri(number - 1) : "");
    }
    for (int number = 0; number < FILES; number++) {
        for (int lazy = 0; lazy < 2; lazy++) {
            memset(other->memory, 0xee, LENGTH);
            loaded(other, number, lazy);
            CHECK(memcmp(other->memory, copies[number], LENGTH) == 0);
            CHECK_EQ(savevm_restore_wait(other->vm, NULL), 0);
            CHECK(memcmp(other->memory, copies[number], LENGTH) == 0);
        }
        free(copies[number]);
    }
    guest_free(guest);
    guest_free(other);
    remove_snapshots(FILES);
}

TEST(chain_with_a_mapped_base_loads)
{
    mixed_chain(MEMORY_PRIVATE, 1);
}

TEST(chain_with_mapped_children_loads)
{
    mixed_chain(MEMORY_PRIVATE, 14);
}

TEST(chain_of_both_formats_loads_into_shared_memory)
{
    mixed_chain(MEMORY_SHARED, 5);
}

TEST(chain_of_both_formats_loads_into_huge_pages)
{
    mixed_chain(MEMORY_HUGE, 10);
}

/* A guest that runs on a lazily loaded chain finds its own memory. */
TEST(guest_runs_while_pages_come_from_several_files)
{
    Guest *guest = lazy_guest(MEMORY_PRIVATE, LENGTH), *other = lazy_guest(MEMORY_PRIVATE, LENGTH);

    guest_fill(guest);
    for (int number = 0; number < FILES; number++) {
        run_on(guest, 200);
        save(guest, number, number % 2, false, number ? snapshot_uri(number - 1) : "");
    }
    guest_stop(guest);
    for (int time = 0; time < 5; time++) {
        loaded(other, FILES - 1, true);
        run_on(other, 300);
        CHECK_EQ(savevm_restore_wait(other->vm, NULL), 0);
        guest_stop(other);
        CHECK(guest_whole(other));
    }
    guest_free(guest);
    guest_free(other);
    remove_snapshots(FILES);
}

/* Saves in a thread of its own. */
typedef struct Job {
    Guest *guest;
    SaveVMSnapshotOptions options;
    const char *uri;
    int ret;
    Error *err;
    atomic_bool ended;
    pthread_t thread;
} Job;

static void *do_save(void *opaque)
{
    Job *job = opaque;

    job->ret = savevm_snapshot_save(job->guest->vm, job->uri, &job->options, &job->err);
    atomic_store(&job->ended, true);
    return NULL;
}

static void start_job(Job *job, Guest *guest, const char *uri, bool mapped, const char *parent)
{
    *job = (Job){ .guest = guest, .uri = uri, .options = options_of(mapped, true, parent) };
    REQUIRE(pthread_create(&job->thread, NULL, do_save, job) == 0);
}

static void background_save(bool mapped)
{
    enum { MEMORY = 8 << 20 };
    Guest *guest = lazy_guest(MEMORY_PRIVATE, MEMORY), *other = lazy_guest(MEMORY_PRIVATE, MEMORY);
    SaveVMSnapshotInfo info = SAVEVM_SNAPSHOT_INFO_INIT;
    uint64_t before = 0;
    char where[128];
    Job job;

    CHECK_EQ(savevm_snapshot_query(guest->vm, &info), 0);
    CHECK(!info.active && info.total_bytes == 0);
    guest_fill(guest);
    snprintf(where, sizeof(where), "%s", snapshot_uri(0));
    for (int time = 0; time < 3; time++) {
        run_on(guest, 100);
        start_job(&job, guest, where, mapped, NULL);
        for (before = 0; !atomic_load(&job.ended);) {
            CHECK_EQ(savevm_snapshot_query(guest->vm, &info), 0);
            CHECK(!info.active || info.saved_bytes <= info.total_bytes);
            harness_sleep_ms(1);
        }
        pthread_join(job.thread, NULL);
        good(job.ret, job.err);
        CHECK_EQ(savevm_snapshot_query(guest->vm, &info), 0);
        CHECK(!info.active && info.total_bytes == MEMORY && info.saved_bytes == MEMORY);
        CHECK(info.total_time_us > 0 && info.stopped_time_us <= info.total_time_us);
        before = atomic_load(&guest->steps);
        WAIT_FOR(atomic_load(&guest->steps) > before);
        loaded(other, 0, time == 1);
        CHECK_EQ(savevm_restore_wait(other->vm, NULL), 0);
        CHECK(guest_whole(other));
    }
    guest_stop(guest);
    CHECK(guest_whole(guest));
    guest_free(guest);
    guest_free(other);
    remove_snapshots(FILES);
}

TEST(running_guest_is_saved_as_a_stream)
{
    background_save(false);
}

TEST(running_guest_is_saved_to_fixed_places)
{
    background_save(true);
}

/* The reader of the pipe does not read, so the save waits until it is cancelled. */
TEST(cancelled_save_to_a_pipe_returns_and_the_guest_continues)
{
    Guest *guest = lazy_guest(MEMORY_PRIVATE, LENGTH);
    SaveVMSnapshotInfo info = SAVEVM_SNAPSHOT_INFO_INIT;
    Job job;

    CHECK_EQ(savevm_snapshot_cancel(guest->vm), -ENOENT);
    guest_fill(guest);
    run_on(guest, 10);
    for (int background = 0; background < 2; background++) {
        start_job(&job, guest, "exec:sleep 60", false, NULL);
        if (background) {
            WAIT_FOR(atomic_load(&job.ended) || (savevm_snapshot_query(guest->vm, &info) == 0 && info.saved_bytes > 0));
        }
        WAIT_FOR(atomic_load(&job.ended) || savevm_snapshot_cancel(guest->vm) == 0);
        pthread_join(job.thread, NULL);
        if (job.ret != -ECANCELED) {
            good(job.ret, job.err);
        }
        CHECK_EQ(job.ret, -ECANCELED);
        CHECK_HAS(error_get_pretty(job.err), "the snapshot was cancelled");
        error_free(job.err);
        uint64_t before = atomic_load(&guest->steps);
        WAIT_FOR(atomic_load(&guest->steps) > before + 10);
    }
    guest_stop(guest);
    CHECK(guest_whole(guest));
    guest_free(guest);
}

/* A cancelled save leaves the file of that name as it was, and no other. The next child has the changes. */
static void cancelled_child(bool mapped)
{
    enum { MEMORY = 8 << 20, TRIES = 60 };
    Guest *guest = lazy_guest(MEMORY_PRIVATE, MEMORY), *other = lazy_guest(MEMORY_PRIVATE, MEMORY);
    int cancelled = 0;
    char where[128];
    Job job;

    guest_fill(guest);
    save(guest, 0, mapped, false, "");
    snprintf(where, sizeof(where), "%s", snapshot_uri(1));
    for (int time = 0; time < TRIES && cancelled < 2; time++) {
        /* Much is changed. */
        run_on(guest, 1000);
        start_job(&job, guest, where, mapped, time % 2 ? snapshot_uri(0) : NULL);
        WAIT_FOR(atomic_load(&job.ended) || savevm_snapshot_cancel(guest->vm) == 0);
        pthread_join(job.thread, NULL);
        if (job.ret == -ECANCELED) {
            cancelled += time % 2;
            CHECK(access(snapshot_path(1), F_OK) != 0);
        } else {
            good(job.ret, job.err);
            /* It came too late. The chain begins anew. */
            unlink(snapshot_path(1));
            save(guest, 0, mapped, false, "");
        }
        error_free(job.err);
    }
    CHECK(cancelled > 0);
    run_on(guest, 100);
    guest_stop(guest);
    save(guest, 1, !mapped, false, snapshot_uri(0));
    loaded(other, 1, false);
    CHECK(memcmp(other->memory, guest->memory, MEMORY) == 0);
    CHECK(guest_whole(other));
    guest_free(guest);
    guest_free(other);
    remove_snapshots(FILES);
}

TEST(cancelled_stream_leaves_no_file_and_loses_no_change)
{
    cancelled_child(false);
}

TEST(cancelled_mapped_file_leaves_no_file_and_loses_no_change)
{
    cancelled_child(true);
}

TEST(wrong_use_of_background_saves_is_refused)
{
    Guest *guest = lazy_guest(MEMORY_PRIVATE, LENGTH);
    SaveVMSnapshotOptions options = options_of(false, true, NULL);
    SaveVMSnapshotInfo info = { .size = 8 };
    Error *err = NULL;

    CHECK_EQ(savevm_snapshot_load(guest->vm, "file:/nowhere", &options, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "the option `background` is for saving");
    error_free(err);
    CHECK_EQ(savevm_snapshot_query(guest->vm, &info), -EINVAL);
    CHECK_EQ(savevm_snapshot_query(guest->vm, NULL), -EINVAL);
    guest_free(guest);
}

/* A way to damage a file. */
typedef enum { FLIP, CUT, PAD, EMPTY, REMOVE, OTHER, DAMAGES } Damage;

static void damage(int number, Damage how, off_t at)
{
    int fd = open(snapshot_path(number), O_RDWR);
    uint8_t byte;

    REQUIRE(fd >= 0);
    switch (how) {
    case FLIP:
        CHECK_EQ(pread(fd, &byte, 1, at), 1);
        byte ^= (uint8_t)(1 << rand() % 8);
        CHECK_EQ(pwrite(fd, &byte, 1, at), 1);
        break;
    case CUT:
        CHECK_EQ(ftruncate(fd, at), 0);
        break;
    case PAD:
        CHECK_EQ(lseek(fd, 0, SEEK_END) >= 0 && write(fd, "x", 1) == 1, true);
        break;
    case EMPTY:
        CHECK_EQ(ftruncate(fd, 0), 0);
        break;
    case REMOVE:
        CHECK_EQ(unlink(snapshot_path(number)), 0);
        break;
    default: /* another file of the chain in its place */
        CHECK_EQ(unlink(snapshot_path(number)), 0);
        CHECK_EQ(link(snapshot_path((number + 1) % FILES), snapshot_path(number)), 0);
    }
    close(fd);
}

static char *read_file(int number, size_t *size)
{
    struct stat data;
    int fd = open(snapshot_path(number), O_RDONLY);

    REQUIRE(fd >= 0 && fstat(fd, &data) == 0);
    *size = (size_t)data.st_size;
    char *bytes = malloc(*size);
    REQUIRE(read(fd, bytes, *size) == (ssize_t)*size);
    close(fd);
    return bytes;
}

static void write_file(int number, const char *bytes, size_t size)
{
    unlink(snapshot_path(number));
    int fd = open(snapshot_path(number), O_RDWR | O_CREAT, 0600);

    REQUIRE(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    close(fd);
}

/* Whatever is done to a file of the chain: it is refused while the guest runs on, or the memory is right, since only bytes
 * were changed that no reader uses. A lazy load reads the pages later, and stops the guest before it uses a damaged one. */
static void damaged_chain(unsigned formats)
{
    enum { MEMORY = 512 << 10 };
    Guest *guest = lazy_guest(MEMORY_PRIVATE, MEMORY), *other = lazy_guest(MEMORY_PRIVATE, MEMORY);
    int rounds = 50 / (int)harness_slow(), refused = 0;
    char *bytes[FILES];
    size_t sizes[FILES];

    srand((unsigned)getpid());
    guest_fill(guest);
    for (int number = 0; number < FILES; number++) {
        run_on(guest, 100);
        if (number == FILES - 1) {
            guest_stop(guest);
        }
        save(guest, number, formats >> number & 1, false, number ? snapshot_uri(number - 1) : "");
        bytes[number] = read_file(number, &sizes[number]);
    }
    guest_fill(other);
    other->pause_us = 1000;
    other->leaves = true;
    for (int round = 0; round < rounds; round++) {
        int number = rand() % FILES;
        Damage how = round < 2 * DAMAGES ? (Damage)(round % DAMAGES) : rand() % 2 ? FLIP : CUT;
        off_t at = (off_t)((size_t)rand() % sizes[number]);
        Error *err = NULL;
        bool torn = false;

        guest_start(other);
        damage(number, how, at);
        int ret = load(other, FILES - 1, round % 2, &err);
        if (ret == 0 && savevm_restore_wait(other->vm, &err) < 0) {
            torn = true;
            guest_stop(other);
            CHECK(round % 2 && !atomic_load(&other->broken));
            CHECK_EQ(savevm_owner(other->vm), SAVEVM_OWNER_TORN);
            CHECK_HAS(error_get_pretty(err), snapshot_directory());
            refused++;
        } else if (ret == 0) {
            guest_stop(other);
            bool may_load = how == FLIP || (how == OTHER && number == FILES - 1); /* it is a full snapshot then */
            if (!CHECK(may_load && guest_whole(other))) {
                fprintf(stderr, "damage %d of file %d at %jd\n", how, number, (intmax_t)at);
            }
        } else {
            uint64_t steps = atomic_load(&other->steps);
            CHECK_EQ(savevm_owner(other->vm), SAVEVM_OWNER_HERE);
            WAIT_FOR(atomic_load(&other->steps) > steps);
            /* Without its head the youngest file is not known to be one of a chain. */
            if (number < FILES - 1) {
                CHECK_HAS(error_get_pretty(err), snapshot_directory());
            }
            refused++;
        }
        error_free(err);
        for (int file = 0; file < FILES && how == OTHER; file++) {
            write_file(file, bytes[file], sizes[file]);
        }
        write_file(number, bytes[number], sizes[number]);
        if (torn) {
            loaded(other, FILES - 1, false);
        }
    }
    CHECK(refused > rounds / 4);
    guest_stop(other);
    loaded(other, FILES - 1, false);
    CHECK(memcmp(guest->memory, other->memory, MEMORY) == 0);
    for (int number = 0; number < FILES; number++) {
        free(bytes[number]);
    }
    guest_free(guest);
    guest_free(other);
    remove_snapshots(FILES);
}

TEST(damaged_chain_of_streams_is_refused)
{
    damaged_chain(0);
}

TEST(damaged_chain_with_mapped_files_is_refused)
{
    damaged_chain(5);
}

/* A file that is changed after the check: the guest stops before it uses a wrong page, and the error names file and offset. */
static int change_while_it_is_read(Guest *guest, Guest *other, unsigned formats, bool cut, Error **err)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    char set[128];

    for (int number = 0; number < 2; number++) {
        run_on(guest, 100);
        save(guest, number, formats >> number & 1, false, number ? snapshot_uri(number - 1) : "");
    }
    guest_stop(guest);
    /* While the working set is recorded, only touched pages are read for a second. */
    snprintf(set, sizeof(set), "%s.set", snapshot_path(0));
    options.lazy = true;
    options.working_set = set;
    int ret = savevm_snapshot_load(other->vm, snapshot_uri(1), &options, err);
    good(ret, *err);
    int fd = open(snapshot_path(0), O_RDWR);
    REQUIRE(fd >= 0);
    if (cut) {
        REQUIRE(ftruncate(fd, 4096) == 0);
    } else {
        /* All pages of the base. */
        char zeros[4096] = { 0 };
        struct stat data;
        REQUIRE(fstat(fd, &data) == 0);
        for (off_t at = 8192; at < data.st_size - 8192; at += 4096) {
            REQUIRE(pwrite(fd, zeros, sizeof(zeros), at) == sizeof(zeros));
        }
    }
    close(fd);
    guest_start(other);
    ret = savevm_restore_wait(other->vm, err);
    unlink(set);
    return ret;
}

static void changed_while_it_is_read(unsigned formats, bool cut)
{
    enum { MEMORY = 2 << 20, TRIES = 5 };
    Guest *guest = lazy_guest(MEMORY_PRIVATE, MEMORY), *other = lazy_guest(MEMORY_PRIVATE, MEMORY);
    Error *err = NULL;

    other->pause_us = 1000;
    other->leaves = true;
    guest_fill(guest);
    /* On a busy machine all pages may be read before the file is changed. */
    for (int time = 0; time < TRIES && change_while_it_is_read(guest, other, formats, cut, &err) == 0; time++) {
        guest_stop(other);
        CHECK(guest_whole(other));
    }
    if (!err) {
        remove_snapshots(FILES);
        harness_skip("this machine is too busy: all pages were read before the file was changed");
    }
    CHECK_HAS(error_get_pretty(err), snapshot_path(0));
    CHECK_HAS(error_get_pretty(err), "offset 0x");
    CHECK_HAS(error_get_pretty(err), cut ? "the file ends at" : "does not have the hash in the list of pages");
    error_free(err);
    CHECK_EQ(savevm_owner(other->vm), SAVEVM_OWNER_TORN);
    guest_stop(other);
    CHECK(!atomic_load(&other->broken));
    /* The machine is as good as new after another load. */
    save(guest, 2, false, false, "");
    loaded(other, 2, true);
    run_on(other, 100);
    CHECK_EQ(savevm_restore_wait(other->vm, NULL), 0);
    guest_stop(other);
    CHECK(guest_whole(other));
    guest_free(guest);
    guest_free(other);
    remove_snapshots(FILES);
}

TEST(stream_that_changes_while_it_is_read_stops_the_guest)
{
    changed_while_it_is_read(0, false);
}

TEST(mapped_file_that_changes_while_it_is_read_stops_the_guest)
{
    changed_while_it_is_read(3, false);
}

TEST(stream_that_shrinks_while_it_is_read_stops_the_guest)
{
    changed_while_it_is_read(2, true);
}

TEST(mapped_file_that_shrinks_while_it_is_read_stops_the_guest)
{
    changed_while_it_is_read(1, true);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Chains of incremental snapshots of a guest that checks its own memory, and chains that must be refused. */
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
#define SNAPSHOTS 24
#define STEPS 150

/* Saves a snapshot; `parent` NULL begins a chain. */
static int save(Guest *guest, int number, const char *parent, Error **err)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;

    options.parent = parent ? parent : "";
    return savevm_snapshot_save(guest->vm, snapshot_uri(number), &options, err);
}

static void check_saved(int ret, Error *err)
{
    if (err && strstr(error_get_pretty(err), "userfaultfd")) {
        harness_skip(error_get_pretty(err));
    }
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    CHECK_EQ(ret, 0);
}

static void saved(Guest *guest, int number, const char *parent)
{
    Error *err = NULL;

    check_saved(save(guest, number, parent, &err), err);
}

static int load(Guest *guest, int number, bool may_be_parent, Error **err)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;

    options.parent = may_be_parent ? "" : NULL;
    return savevm_snapshot_load(guest->vm, snapshot_uri(number), &options, err);
}

static void loaded(Guest *guest, int number)
{
    Error *err = NULL;

    CHECK_EQ(load(guest, number, true, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
}

/* The guest runs while pages come from the files of the chain. */
static void loaded_lazily(Guest *guest, int number)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;

    options.lazy = true;
    CHECK_EQ(savevm_snapshot_load(guest->vm, snapshot_uri(number), &options, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
}

static off_t size(int number)
{
    struct stat file = { .st_size = -1 };

    stat(snapshot_path(number), &file);
    return file.st_size;
}

static void save_and_load_chain(Memory kind)
{
    Guest *guest = logged_guest(kind, LENGTH), *other = logged_guest(kind, LENGTH);
    uint8_t *copies[4];

    guest_fill(guest);
    for (int number = 0; number < 4; number++) {
        run_on(guest, 20);
        guest_stop(guest);
        saved(guest, number, number ? snapshot_uri(number - 1) : NULL);
        copies[number] = malloc(LENGTH);
        memcpy(copies[number], guest->memory, LENGTH);
    }
    /* Nothing changed. */
    saved(guest, 6, snapshot_uri(3));
    CHECK(size(6) < 4096);
    saved(guest, 7, snapshot_uri(6));
    /* The guest writes while this one is saved. */
    run_on(guest, 20);
    saved(guest, 4, snapshot_uri(7));
    run_on(guest, 20);
    guest_stop(guest);
    CHECK(guest_whole(guest));
    for (int number = 4; number >= 0; number--) {
        memset(other->memory, 0xee, LENGTH);
        loaded(other, number);
        CHECK(guest_whole(other));
        CHECK(number == 4 || memcmp(other->memory, copies[number], LENGTH) == 0);
        memset(other->memory, 0xee, LENGTH);
        loaded_lazily(other, number);
        CHECK_EQ(savevm_restore_wait(other->vm, NULL), 0);
        CHECK(guest_whole(other));
        CHECK(number == 4 || memcmp(other->memory, copies[number], LENGTH) == 0);
        loaded_lazily(other, number);
        run_on(other, 200);
        CHECK_EQ(savevm_restore_wait(other->vm, NULL), 0);
        guest_stop(other);
        CHECK(guest_whole(other));
    }
    /* A chain goes on from a snapshot that was loaded, also from one that is not the youngest. */
    loaded(other, 2);
    run_on(other, 50);
    guest_stop(other);
    saved(other, 5, snapshot_uri(2));
    memset(guest->memory, 0xee, LENGTH);
    loaded(guest, 5);
    CHECK(memcmp(guest->memory, other->memory, LENGTH) == 0);
    run_on(guest, 50);
    guest_stop(guest);
    CHECK(guest_whole(guest));
    for (int number = 0; number < 4; number++) {
        free(copies[number]);
    }
    guest_free(guest);
    guest_free(other);
    remove_snapshots(SNAPSHOTS);
}

TEST(every_snapshot_of_a_chain_loads)
{
    save_and_load_chain(MEMORY_PRIVATE);
}

TEST(every_snapshot_of_a_chain_of_shared_memory_loads)
{
    save_and_load_chain(MEMORY_SHARED);
}

TEST(every_snapshot_of_a_chain_of_huge_pages_loads)
{
    save_and_load_chain(MEMORY_HUGE);
}

/* The snapshots of a case that were saved, with the memory that they must have. */
typedef struct Model {
    uint8_t *memory[SNAPSHOTS];
    SaveVMCheckpoint *checkpoint[4];
    uint8_t *at_checkpoint[4];
    int current; /* the snapshot since which changes are known, or -1 */
} Model;

static int pick(int count)
{
    return rand() % count;
}

static void free_checkpoint(Model *model, int at)
{
    savevm_checkpoint_free(model->checkpoint[at]);
    model->checkpoint[at] = NULL;
}

static void random_step(Model *model, Guest *guest)
{
    int number = pick(SNAPSHOTS), at = pick(4);
    Error *err = NULL;

    switch (pick(6)) {
    case 0: /* a full snapshot, or an incremental one */
        if (model->memory[number]) {
            break; /* it may be another one's parent */
        }
        saved(guest, number, model->current >= 0 && pick(4) ? snapshot_uri(model->current) : NULL);
        model->current = number;
        keep_memory(&model->memory[number], guest);
        break;
    case 1:
        for (int i = 0; i < 4; i++) {
            free_checkpoint(model, i);
        }
        if (model->memory[number]) {
            loaded(guest, number);
            CHECK(memcmp(guest->memory, model->memory[number], LENGTH) == 0);
            model->current = number;
        }
        break;
    case 2:
        free_checkpoint(model, at);
        model->checkpoint[at] = savevm_checkpoint(guest->vm, &err);
        REQUIRE(model->checkpoint[at] != NULL);
        keep_memory(&model->at_checkpoint[at], guest);
        break;
    case 3:
        if (model->checkpoint[at]) {
            CHECK_EQ(savevm_rollback(model->checkpoint[at], &err), 0);
            CHECK(memcmp(guest->memory, model->at_checkpoint[at], LENGTH) == 0);
        }
        break;
    case 4:
        free_checkpoint(model, at);
        break;
    default:
        run_on(guest, pick(30));
        guest_stop(guest);
    }
}

TEST(random_saves_loads_and_rollbacks_keep_every_state)
{
    Guest *guest = logged_guest(MEMORY_PRIVATE, LENGTH), *other = logged_guest(MEMORY_PRIVATE, LENGTH);
    Model model = { .current = -1 };

    srand(20261130);
    guest_fill(guest);
    for (int step = 0; step < STEPS; step++) {
        random_step(&model, guest);
    }
    for (int number = 0; number < SNAPSHOTS; number++) {
        if (model.memory[number]) {
            loaded(other, number);
            CHECK(memcmp(other->memory, model.memory[number], LENGTH) == 0);
            CHECK(guest_whole(other));
        }
        free(model.memory[number]);
    }
    for (int at = 0; at < 4; at++) {
        free_checkpoint(&model, at);
        free(model.at_checkpoint[at]);
    }
    CHECK(guest_whole(guest));
    guest_free(guest);
    guest_free(other);
    remove_snapshots(SNAPSHOTS);
}

static void expect_refusal(Guest *guest, int number, const char *reason)
{
    Error *err = NULL;
    uint64_t steps = atomic_load(&guest->steps);

    CHECK(load(guest, number, false, &err) < 0);
    if (CHECK(err != NULL)) {
        CHECK_HAS(error_get_pretty(err), reason);
    }
    error_free(err);
    CHECK_EQ(savevm_owner(guest->vm), SAVEVM_OWNER_HERE);
    WAIT_FOR(atomic_load(&guest->steps) > steps);
}

static void change_byte(int number, off_t offset)
{
    int fd = open(snapshot_path(number), O_RDWR);
    uint8_t byte = 0;

    CHECK_EQ(pread(fd, &byte, 1, offset), 1);
    byte ^= 0x10;
    CHECK_EQ(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

TEST(chains_with_a_wrong_file_are_refused_and_the_guest_continues)
{
    Guest *guest = logged_guest(MEMORY_PRIVATE, LENGTH), *other = logged_guest(MEMORY_PRIVATE, LENGTH);

    guest_fill(guest);
    guest_fill(other);
    saved(guest, 0, NULL);
    for (int number = 1; number < 4; number++) {
        run_on(guest, 20);
        saved(guest, number, snapshot_uri(number - 1));
    }
    guest_stop(guest);
    guest_start(other);
    for (int number = 0; number < 4; number++) {
        off_t step = size(number) / 2;
        for (off_t at = step; at < size(number); at += step) {
            change_byte(number, at);
            expect_refusal(other, 3, "");
            change_byte(number, at);
        }
    }
    char kept[128];
    snprintf(kept, sizeof(kept), "%s.kept", snapshot_path(1));
    CHECK_EQ(rename(snapshot_path(1), kept), 0);
    expect_refusal(other, 3, "can't be opened");
    CHECK_EQ(link(snapshot_path(3), snapshot_path(1)), 0);
    expect_refusal(other, 3, "the chain leads back to this file");
    unlink(snapshot_path(1));
    CHECK_EQ(link(snapshot_path(0), snapshot_path(1)), 0);
    expect_refusal(other, 3, "is not the parent of");
    unlink(snapshot_path(1));
    CHECK_EQ(mkfifo(snapshot_path(1), 0600), 0);
    expect_refusal(other, 3, "not a regular file");
    CHECK_EQ(rename(kept, snapshot_path(1)), 0);
    CHECK_EQ(truncate(snapshot_path(3), size(3) - 1), 0);
    expect_refusal(other, 3, "");
    loaded(other, 2);
    guest_stop(other);
    CHECK(guest_whole(other));
    guest_free(guest);
    guest_free(other);
    remove_snapshots(SNAPSHOTS);
}

static void expect_stale(Guest *guest, int number, const char *parent, int code, const char *reason)
{
    Error *err = NULL;

    CHECK_EQ(save(guest, number, parent, &err), code);
    if (CHECK(err != NULL)) {
        CHECK_HAS(error_get_pretty(err), reason);
    }
    error_free(err);
    CHECK_EQ(size(number), number ? -1 : size(0));
}

TEST(snapshot_is_refused_unless_changes_since_its_parent_are_known)
{
    Guest *guest = logged_guest(MEMORY_PRIVATE, LENGTH);
    Error *err = NULL;

    guest_fill(guest);
    CHECK_EQ(savevm_snapshot_save(guest->vm, snapshot_uri(0), NULL, &err), 0);
    expect_stale(guest, 5, snapshot_uri(0), -ESTALE, "it is not known what changed since");
    expect_stale(guest, 5, snapshot_uri(9), -ENOENT, "the parent");
    expect_stale(guest, 5, "unix:/x", -EINVAL, "the parent of a snapshot is file:PATH");
    saved(guest, 0, NULL);
    run_on(guest, 10);
    saved(guest, 1, snapshot_uri(0));
    expect_stale(guest, 5, snapshot_uri(0), -ESTALE, "changes are known since");
    CHECK_EQ(save(guest, 0, snapshot_uri(1), &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "is an ancestor of the new snapshot");
    error_free(err);
    err = NULL;
    /* A full disk: the pages that were not saved are part of the next one. */
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    options.parent = snapshot_uri(1);
    CHECK_EQ(savevm_snapshot_save(guest->vm, "file:/dev/full", &options, &err), -ENOSPC);
    error_free(err);
    err = NULL;
    guest_stop(guest);
    saved(guest, 2, snapshot_uri(1));
    uint8_t *copy = malloc(LENGTH);
    memcpy(copy, guest->memory, LENGTH);
    loaded(guest, 2);
    CHECK(memcmp(copy, guest->memory, LENGTH) == 0);
    free(copy);
    change_byte(2, 100);
    expect_stale(guest, 5, snapshot_uri(2), -ESTALE, "was changed or replaced");
    change_byte(2, 100);
    /* Other work with the memory ends the log. */
    savevm_ram_snapshot(guest->ram, "file:/dev/null", NULL);
    expect_stale(guest, 5, snapshot_uri(2), -ESTALE, "it is not known what changed since");
    guest_free(guest);
    remove_snapshots(SNAPSHOTS);
}

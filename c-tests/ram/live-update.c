/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A new process takes a running guest over with its memory in place. The guest checks its memory and measures its own gaps.
 * The new process fails at each of its steps: the guest always has one owner.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"
#include "harness.h"
#include "migration/qemu-file-types.h"
#include "migration/register.h"
#include "savevm.h"

#define LENGTH (16 << 20)

/* At which step the new process ends, or fails. */
typedef enum { NEVER, BEFORE_ACCEPT, AFTER_ACCEPT, BEFORE_LOAD, IN_DEVICE, AS_DEVICE_FAILS } Failure;

static char uri[64];
static Failure failure;
static uint32_t device_value;
/* Whether the guest made a step in the new process; in memory of both processes. */
static atomic_bool *ran_there;

static void device_save(QEMUFile *f, void *opaque)
{
    qemu_put_be32(f, *(uint32_t *)opaque);
}

static int device_load(QEMUFile *f, void *opaque, int version)
{
    (void)version;
    *(uint32_t *)opaque = qemu_get_be32(f);
    if (failure == IN_DEVICE) {
        _exit(3);
    }
    return failure == AS_DEVICE_FAILS ? -EINVAL : 0;
}

static const SaveVMHandlers device = { .save_state = device_save, .load_state = device_load };

static void add_device(SaveVM *vm)
{
    SaveVM *before = savevm_set_current(vm);

    REQUIRE(register_savevm_live("device", 0, 1, &device, &device_value) == 0);
    savevm_set_current(before);
}

/* A guest whose memory is the file. */
static Guest *guest_in(int memory, size_t length)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    Error *err = NULL;

    options.log = SAVEVM_RAM_LOG_MARKS;
    Guest *guest = guest_new(MEMORY_SHARED, length, &options);
    REQUIRE(guest != NULL);
    CHECK_EQ(savevm_ram_remove_block(guest->ram, "pc.ram", &err), 0);
    void *place = mmap(guest->memory, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0);
    REQUIRE(place == guest->memory);
    block.name = "pc.ram";
    block.host = guest->memory;
    block.length = length;
    block.shared = true;
    CHECK_EQ(savevm_ram_add_block(guest->ram, &block, &err), 0);
    CHECK_EQ(savevm_ram_set_descriptor(guest->ram, "pc.ram", memory, &err), 0);
    add_device(guest->vm);
    return guest;
}

/* The new process. Its exit status is 0 if the guest is whole and runs. */
static void new_process(void)
{
    SaveVMPassedBlock block = SAVEVM_PASSED_BLOCK_INIT;
    Error *err = NULL;

    if (failure == BEFORE_ACCEPT) {
        _exit(3);
    }
    SaveVMLiveUpdate *update = savevm_live_update_accept(uri, &err);
    if (failure == AFTER_ACCEPT || !update) {
        _exit(3);
    }
    if (savevm_live_update_block(update, 0, &block) != 0 || savevm_live_update_block(update, 1, &block) != -ENOENT ||
        strcmp(block.name, "pc.ram") != 0 || block.length != LENGTH) {
        _exit(4);
    }
    Guest *guest = guest_in(block.descriptor, block.length);
    guest->ran = ran_there;
    if (failure == BEFORE_LOAD) {
        _exit(3);
    }
    SaveVMMigration *in = savevm_live_update_load(update, guest->vm, NULL, &err);
    savevm_live_update_free(update);
    if (!in || savevm_migration_wait(in, &err) != 0) {
        fprintf(stderr, "new process: %s\n", error_get_pretty(err));
        _exit(savevm_may_run(guest->vm) ? 5 : 3);
    }
    for (int waited = 0; atomic_load(&guest->steps) < 200 && waited < 10000; waited++) {
        usleep(1000);
    }
    guest_stop(guest);
    fprintf(stderr, "longest gap of the guest: %ju ms\n", (uintmax_t)guest_gap_ms(guest));
    _exit(guest_whole(guest) && device_value == 77 && atomic_load(&guest->steps) >= 200 ? 0 : 6);
}

static pid_t start_new_process(void)
{
    static int number;

    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-live-%d-%d", (int)getpid(), number++);
    pid_t child = fork();
    if (child == 0) {
        new_process();
    }
    if (failure != BEFORE_ACCEPT) {
        WAIT_FOR(harness_listens(uri + strlen("unix:")));
    }
    return child;
}

static int end_of(pid_t child)
{
    int status = -1;

    waitpid(child, &status, 0);
    unlink(uri + strlen("unix:"));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(guest_has_one_owner_at_each_failure_and_moves_in_the_end)
{
    int memory = memfd_create("guest", MFD_CLOEXEC);
    Error *err = NULL;

    REQUIRE(memory >= 0 && ftruncate(memory, LENGTH) == 0);
    /* The new process must not have threads of this one, so all are started before. */
    Guest *guest = guest_in(memory, LENGTH);
    guest_fill(guest);
    guest_start(guest);
    device_value = 77;
    for (failure = BEFORE_ACCEPT; failure <= AS_DEVICE_FAILS; failure++) {
        uint64_t steps = atomic_load(&guest->steps);
        pid_t child = start_new_process();
        if (failure == BEFORE_ACCEPT) {
            CHECK_EQ(end_of(child), 3);
        }
        SaveVMMigration *out = savevm_live_update(guest->ram, uri, NULL, &err);
        if (out) {
            CHECK(savevm_migration_wait(out, &err) < 0);
            savevm_migration_free(out);
        }
        if (CHECK(err != NULL)) {
            fprintf(stderr, "failure %d: %s\n", failure, error_get_pretty(err));
        }
        error_free(err);
        err = NULL;
        CHECK_EQ(savevm_owner(guest->vm), SAVEVM_OWNER_HERE);
        CHECK(savevm_may_run(guest->vm));
        WAIT_FOR(atomic_load(&guest->steps) > steps + 50);
        if (failure != BEFORE_ACCEPT) {
            CHECK_EQ(end_of(child), 3);
        }
    }
    guest_stop(guest);
    CHECK(guest_whole(guest));
    guest_start(guest);
    failure = NEVER;
    pid_t child = start_new_process();
    SaveVMMigration *out = savevm_live_update(guest->ram, uri, NULL, &err);
    REQUIRE(out != NULL);
    CHECK_EQ(savevm_migration_wait(out, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    SaveVMInfo info = SAVEVM_INFO_INIT;
    CHECK_EQ(savevm_migration_query(out, &info), 0);
    CHECK(info.transferred < LENGTH / 16);
    savevm_migration_free(out);
    CHECK_EQ(savevm_owner(guest->vm), SAVEVM_OWNER_THERE);
    CHECK(!savevm_may_run(guest->vm));
    CHECK_EQ(end_of(child), 0);
    /* A later migration sends shared memory again. */
    CHECK(savevm_live_update(guest->ram, uri, NULL, &err) == NULL);
    error_free(err);
    guest_free(guest);
}

static void *kill_later(void *opaque)
{
    pid_t child = *(pid_t *)opaque;
    usleep((useconds_t)(rand() % 40000));
    kill(child, SIGKILL);
    return NULL;
}

static int new_memory(void)
{
    int memory = memfd_create("guest", MFD_CLOEXEC);
    REQUIRE(memory >= 0 && ftruncate(memory, LENGTH) == 0);
    return memory;
}

TEST(new_process_killed_at_any_moment_leaves_one_owner)
{
    int rounds = 40 / (int)harness_slow(), stayed = 0, moved = 0;

    ran_there = mmap(NULL, sizeof(*ran_there), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(ran_there != MAP_FAILED);
    srand((unsigned)getpid());
    failure = NEVER;
    for (int round = 0; round < rounds; round++) {
        int memory = new_memory();
        Guest *guest = guest_in(memory, LENGTH);
        pthread_t killer;
        Error *err = NULL;

        atomic_store(ran_there, false);
        device_value = 77;
        guest_fill(guest);
        guest_start(guest);
        pid_t child = start_new_process();
        REQUIRE(pthread_create(&killer, NULL, kill_later, &child) == 0);
        SaveVMMigration *out = savevm_live_update(guest->ram, uri, NULL, &err);
        int moves = out ? savevm_migration_wait(out, &err) : -1;
        savevm_migration_free(out);
        pthread_join(killer, NULL);
        int end = end_of(child);
        if (moves == 0) {
            moved++;
            CHECK_EQ(savevm_owner(guest->vm), SAVEVM_OWNER_THERE);
            CHECK(!savevm_may_run(guest->vm));
        } else if (savevm_may_run(guest->vm)) {
            stayed++;
            uint64_t steps = atomic_load(&guest->steps);
            WAIT_FOR(atomic_load(&guest->steps) > steps + 50);
            CHECK(!atomic_load(ran_there));
            guest_stop(guest);
            CHECK(guest_whole(guest));
        }
        /* Otherwise it is unknown whether the new process has started the guest, so it does not run here. */
        CHECK(savevm_may_run(guest->vm) == (savevm_owner(guest->vm) == SAVEVM_OWNER_HERE));
        CHECK(end == 0 || end == 128 + SIGKILL);
        error_free(err);
        guest_free(guest);
        close(memory);
    }
    fprintf(stderr, "of %d guests, %d stayed and %d moved\n", rounds, stayed, moved);
    CHECK(stayed + moved > 0);
}

/* The old process, which is killed after a time, or ends when the guest has moved. */
static void old_process(void)
{
    int memory = new_memory();
    Guest *guest = guest_in(memory, LENGTH);
    pid_t self = getpid();
    pthread_t killer;
    Error *err = NULL;

    guest_fill(guest);
    guest_start(guest);
    device_value = 77;
    while (!harness_listens(uri + strlen("unix:"))) {
        usleep(1000);
    }
    srand((unsigned)self);
    SaveVMMigration *out = savevm_live_update(guest->ram, uri, NULL, &err);
    if (!out || pthread_create(&killer, NULL, kill_later, &self) != 0) {
        _exit(3);
    }
    _exit(savevm_migration_wait(out, &err) == 0 ? 0 : 4);
}

TEST(old_process_killed_at_any_moment_leaves_at_most_one_owner)
{
    int rounds = 30 / (int)harness_slow(), arrived = 0;

    failure = NEVER;
    for (int round = 0; round < rounds; round++) {
        SaveVMPassedBlock block = SAVEVM_PASSED_BLOCK_INIT;
        Error *err = NULL;

        snprintf(uri, sizeof(uri), "unix:/tmp/savevm-live-old-%d-%d", (int)getpid(), round);
        pid_t child = fork();
        if (child == 0) {
            old_process();
        }
        device_value = 0;
        SaveVMLiveUpdate *update = savevm_live_update_accept(uri, &err);
        REQUIRE(update != NULL);
        CHECK_EQ(savevm_live_update_block(update, 0, &block), 0);
        Guest *guest = guest_in(block.descriptor, block.length);
        SaveVMMigration *in = savevm_live_update_load(update, guest->vm, NULL, &err);
        savevm_live_update_free(update);
        REQUIRE(in != NULL);
        if (savevm_migration_wait(in, &err) == 0) {
            arrived++;
            CHECK(savevm_may_run(guest->vm));
            WAIT_FOR(atomic_load(&guest->steps) > 50);
            guest_stop(guest);
            CHECK(guest_whole(guest) && device_value == 77);
        } else {
            CHECK(!savevm_may_run(guest->vm) && atomic_load(&guest->steps) == 0);
        }
        int end = end_of(child);
        CHECK(end == 0 || end == 128 + SIGKILL);
        error_free(err);
        savevm_migration_free(in);
        guest_free(guest);
    }
    fprintf(stderr, "%d of %d guests arrived\n", arrived, rounds);
}

TEST(live_update_needs_descriptors_and_a_unix_socket)
{
    Error *err = NULL;
    Guest *guest = guest_new(MEMORY_SHARED, LENGTH, NULL), *private = guest_new(MEMORY_PRIVATE, LENGTH, NULL);

    CHECK(savevm_live_update(guest->ram, "unix:/tmp/savevm-live-none", NULL, &err) == NULL);
    CHECK_HAS(error_get_pretty(err), "block 'pc.ram' has no descriptor");
    error_free(err);
    err = NULL;
    CHECK_EQ(savevm_ram_set_descriptor(guest->ram, "other", 0, &err), -ENOENT);
    error_free(err);
    err = NULL;
    CHECK_EQ(savevm_ram_set_descriptor(private->ram, "pc.ram", 0, &err), -EINVAL);
    error_free(err);
    err = NULL;
    CHECK(savevm_live_update(private->ram, "file:/dev/null", NULL, &err) == NULL);
    CHECK_HAS(error_get_pretty(err), "a live update needs a Unix socket");
    error_free(err);
    err = NULL;
    CHECK(savevm_live_update(NULL, "unix:/x", NULL, &err) == NULL);
    error_free(err);
    err = NULL;
    CHECK(savevm_live_update_load(NULL, guest->vm, NULL, &err) == NULL);
    error_free(err);
    savevm_live_update_free(NULL);
    CHECK_EQ(savevm_live_update_block(NULL, 0, NULL), -EINVAL);
    CHECK_EQ(savevm_owner(guest->vm), SAVEVM_OWNER_HERE);
    guest_free(guest);
    guest_free(private);
}

/* What an old process of another kind, or a damaged one, could send. */
static void refuse(const void *bytes, size_t length, const char *reason)
{
    failure = NEVER;
    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-live-bad-%d", (int)getpid());
    pid_t child = fork();
    if (child == 0) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        strcpy(address.sun_path, uri + strlen("unix:"));
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        while (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
            usleep(1000);
        }
        _exit(write(fd, bytes, length) != (ssize_t)length);
    }
    Error *err = NULL;
    CHECK(savevm_live_update_accept(uri, &err) == NULL);
    if (CHECK(err != NULL)) {
        CHECK_HAS(error_get_pretty(err), reason);
    }
    error_free(err);
    CHECK_EQ(end_of(child), 0);
}

TEST(wrong_messages_of_the_old_process_are_refused)
{
    uint8_t message[12 + 272] = "SVMLIVE1\0\0\0\1";

    refuse("QEVM\0\0\0\3\0\0\0\0", 12, "expected 'SVMLIVE1'");
    refuse("SVMLIVE1\xff\0\0\0", 12, "blocks, expected at most");
    refuse("SVMLIVE1", 8, "receiving memory from the old process");
    refuse(message, sizeof(message), "did not come with one descriptor");
}

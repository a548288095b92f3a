/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The big lock, and other threads: which lock callbacks run under, and that no
 * callback runs once its device is unregistered.
 */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "savevm.h"
#include "savevm/file.h"
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static HarnessLock lock = HARNESS_LOCK_INIT;
static atomic_bool guest_runs;
static atomic_uint unlocked_calls, locked_calls;

static void host_lock(void *host)
{
    (void)host;
    harness_lock(&lock);
}

static void host_unlock(void *host)
{
    (void)host;
    harness_unlock(&lock);
}

static bool host_locked(void *host)
{
    (void)host;
    return harness_locked(&lock);
}

static int host_stop(void *host)
{
    (void)host;
    CHECK(harness_locked(&lock));
    guest_runs = false;
    return 0;
}

static int host_start(void *host)
{
    (void)host;
    CHECK(harness_locked(&lock));
    guest_runs = true;
    return 0;
}

static bool host_running(void *host)
{
    (void)host;
    return guest_runs;
}

static const SaveVMHostOps ops = {
    .size = sizeof(SaveVMHostOps),
    .lock = host_lock,
    .unlock = host_unlock,
    .locked = host_locked,
    .vm_stop = host_stop,
    .vm_start = host_start,
    .vm_running = host_running,
};

static void before_each(void)
{
    savevm_set_host(savevm_default(), &ops, NULL);
    guest_runs = true;
}

__attribute__((constructor)) static void before(void)
{
    harness_before = before_each;
}

/* What a migration does to each callback's lock is its rule in register.h. */
static void check_lock(Device *device, const char *callback, QEMUFile *f)
{
    static const char *const with[] = { "save_state",  "save_cleanup", "save_live_complete_postcopy",
                                        "save_live_complete_precopy", "load_setup", "load_state", "load_cleanup" };
    const char *without = device->data;

    (void)f;
    if (strcmp(callback, "save_live_iterate") == 0) {
        device->pending[0] = 0;
    }
    for (unsigned i = 0; i < sizeof(with) / sizeof(with[0]); i++) {
        if (strcmp(callback, with[i]) == 0) {
            locked_calls++;
            if (!CHECK(harness_locked(&lock))) {
                trace("without the lock: %s", callback);
            }
        }
    }
    if (without && strstr(without, callback)) {
        unlocked_calls++;
        if (!CHECK(!harness_locked(&lock))) {
            trace("with the lock: %s", callback);
        }
    }
}

static void *loads(void *opaque)
{
    Error *err = NULL;
    SaveVM *vm = savevm_new(&ops, NULL);
    Device device;

    savevm_set_current(vm);
    device_init(&device, "dev", HAS_ALL);
    register_savevm_live("dev", 0, 1, &device.ops, &device);
    device.hook = check_lock;
    if (!CHECK_EQ(savevm_snapshot_load(vm, opaque, NULL, &err), 0)) {
        trace("%s", error_get_pretty(err));
        error_free(err);
    }
    CHECK(device.loads > 0);
    unregister_savevm(NULL, "dev", &device);
    savevm_set_current(NULL);
    savevm_free(vm);
    return NULL;
}

/* A snapshot stops the guest, and lets it run again. */
TEST(a_snapshot)
{
    char path[] = "/tmp/savevm-locks-XXXXXX";
    char uri[64] = "file:";
    Error *err = NULL;
    Device device;

    close(mkstemp(path));
    strcat(uri, path);
    device_add(&device, "dev", 0, 1, HAS_ALL);
    device.hook = check_lock;
    /* With the lock, an iteration has it too; setup never. */
    device.data = "save_setup";
    CHECK_EQ(savevm_snapshot_save(NULL, uri, NULL, &err), 0);
    CHECK(err == NULL);
    CHECK(guest_runs);
    CHECK(!harness_locked(&lock));
    CHECK(locked_calls > 0);
    loads(uri);
    CHECK(!harness_locked(&lock));
    unlink(path);
}

/* In a file of the caller, which has stopped the guest and holds the lock. */
TEST(a_snapshot_in_a_file)
{
    char path[] = "/tmp/savevm-locks-XXXXXX";
    char uri[64] = "file:";
    QEMUFile *f = savevm_file_from_fd(mkstemp(path), true);
    Device device;

    strcat(uri, path);
    device_add(&device, "dev", 0, 1, HAS_ALL);
    device.hook = check_lock;
    device.data = "save_setup";
    harness_lock(&lock);
    CHECK_EQ(savevm_snapshot_save_file(NULL, f), 0);
    CHECK(harness_locked(&lock));
    CHECK_EQ(qemu_fclose(f), 0);
    CHECK(unlocked_calls > 0);

    f = savevm_file_from_fd(open("/dev/full", O_WRONLY), true);
    CHECK_EQ(savevm_snapshot_save_file(NULL, f), -EIO);
    CHECK_EQ(qemu_fclose(f), -EIO);
    CHECK_EQ(savevm_snapshot_save_file(NULL, NULL), -EINVAL);
    harness_unlock(&lock);
    loads(uri);
    unlink(path);
}

static char pipe_uri[80];

/* Gets the lock while the library waits for the other end of a pipe, and ends that wait. */
static void *ends_the_wait(void *opaque)
{
    int (*end)(void) = *(int (**)(void))opaque;

    harness_lock(&lock);
    while (end() < 0) {
        harness_unlock(&lock);
        harness_sleep_ms(1);
        harness_lock(&lock);
    }
    harness_unlock(&lock);
    return NULL;
}

static int cancel_save(void)
{
    return savevm_snapshot_cancel(NULL);
}

static int end_stream(void)
{
    int fd = open(pipe_uri + strlen("file:"), O_WRONLY | O_NONBLOCK);

    return fd < 0 ? fd : close(fd);
}

static int begin_to_read(void)
{
    return open(pipe_uri + strlen("file:"), O_RDONLY | O_NONBLOCK);
}

/* A pipe may have no other end for a long time. Other threads run the guest meanwhile. */
TEST(wait_for_the_other_end_of_a_pipe_releases_the_lock)
{
    int (*ends[])(void) = { cancel_save, end_stream, begin_to_read };
    char place[] = "/tmp/savevm-locks-XXXXXX";
    pthread_t thread;
    Device device;

    REQUIRE(mkdtemp(place) != NULL);
    snprintf(pipe_uri, sizeof(pipe_uri), "file:%s/pipe", place);
    REQUIRE(mkfifo(pipe_uri + strlen("file:"), 0600) == 0);
    device_add(&device, "dev", 0, 1, HAS_ALL);
    for (unsigned i = 0; i < 3; i++) {
        Error *err = NULL;

        harness_lock(&lock);
        pthread_create(&thread, NULL, ends_the_wait, &ends[i]);
        if (i == 0) {
            CHECK_EQ(savevm_snapshot_save(NULL, pipe_uri, NULL, &err), -ECANCELED);
        } else if (i == 1) {
            CHECK_EQ(savevm_snapshot_load(NULL, pipe_uri, NULL, &err), -EINVAL);
        } else {
            CHECK_EQ(qemu_fclose(savevm_file_open(pipe_uri, true, &err)), 0);
            CHECK(err == NULL);
        }
        CHECK(harness_locked(&lock));
        CHECK(guest_runs);
        harness_unlock(&lock);
        pthread_join(thread, NULL);
        error_free(err);
    }
    unlink(pipe_uri + strlen("file:"));
    rmdir(place);
}

static char socket_uri[80];

/* Connects and sends nothing until it gets the lock. */
static void *connects_and_is_silent(void *opaque)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)opaque;
    strcpy(address.sun_path, socket_uri + strlen("unix:"));
    WAIT_FOR(harness_listens(address.sun_path));
    CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    /* The library has accepted the connection. */
    WAIT_FOR(!harness_listens(address.sun_path));
    harness_lock(&lock);
    close(fd);
    harness_unlock(&lock);
    return NULL;
}

TEST(wait_for_the_first_bytes_of_a_snapshot_releases_the_lock)
{
    char place[] = "/tmp/savevm-locks-XXXXXX";
    Error *err = NULL;
    pthread_t thread;

    REQUIRE(mkdtemp(place) != NULL);
    snprintf(socket_uri, sizeof(socket_uri), "unix:%s/socket", place);
    harness_lock(&lock);
    pthread_create(&thread, NULL, connects_and_is_silent, NULL);
    CHECK_EQ(savevm_snapshot_load(NULL, socket_uri, NULL, &err), -EINVAL);
    CHECK(harness_locked(&lock));
    CHECK(guest_runs);
    harness_unlock(&lock);
    pthread_join(thread, NULL);
    error_free(err);
    rmdir(place);
}

static char migration_uri[64];

static void *receives(void *opaque)
{
    SaveVM *vm = savevm_new(&ops, NULL);
    SaveVMMigration *in;
    Device *device = opaque;
    Error *err = NULL;

    savevm_set_current(vm);
    register_savevm_live("dev", 0, 1, &device->ops, device);
    in = savevm_incoming(vm, migration_uri, NULL, &err);
    if (CHECK(in != NULL)) {
        if (!CHECK_EQ(savevm_migration_wait(in, &err), 0)) {
            trace("%s", error_get_pretty(err));
        }
        savevm_migration_free(in);
    }
    error_free(err);
    unregister_savevm(NULL, "dev", device);
    savevm_set_current(NULL);
    savevm_free(vm);
    return NULL;
}

/* A live migration: setup and iterations run without the lock. */
TEST(a_migration)
{
    char path[64] = "/tmp/savevm-locks-XXXXXX";
    Device out, in;
    pthread_t thread;
    SaveVMMigration *m = NULL;
    Error *err = NULL;

    REQUIRE(mkdtemp(path) != NULL);
    strcpy(migration_uri, "unix:");
    strcat(migration_uri, path);
    strcat(migration_uri, "/socket");
    device_add(&out, "dev", 0, 1, HAS_ALL);
    out.hook = check_lock;
    out.pending[0] = 1ull << 40;
    out.data = "save_setup save_live_iterate save_live_pending";
    device_init(&in, "dev", HAS_ALL);
    in.hook = check_lock;
    pthread_create(&thread, NULL, receives, &in);
    WAIT_FOR(harness_listens(migration_uri + 5));
    m = savevm_migrate(NULL, migration_uri, NULL, &err);
    if (CHECK(m != NULL)) {
        if (!CHECK_EQ(savevm_migration_wait(m, &err), 0)) {
            trace("%s", error_get_pretty(err));
        }
        savevm_migration_free(m);
    }
    pthread_join(thread, NULL);
    CHECK(unlocked_calls >= 3);
    CHECK_EQ(in.loads, 4);
    CHECK(!harness_locked(&lock));
    error_free(err);
    unlink(migration_uri + 5);
    rmdir(path);
}

/* Unregistering while a callback runs */

static atomic_int in_callback, leave_callback, calls;

static void stays(QEMUFile *f, void *opaque)
{
    (void)f;
    (void)opaque;
    calls++;
    in_callback = 1;
    while (!leave_callback) {
        harness_sleep_ms(1);
    }
    in_callback = 0;
}

static const SaveVMHandlers staying = { .save_state = stays };

static void *saves(void *opaque)
{
    QEMUFile *f = savevm_file_to_buffer();

    qemu_save_device_state(f);
    qemu_fclose(f);
    (void)opaque;
    return NULL;
}

static atomic_int unregistered;

static void *unregisters(void *opaque)
{
    harness_lock(&lock);
    unregister_savevm(NULL, "staying", opaque);
    CHECK(harness_locked(&lock));
    CHECK_EQ(in_callback, 0);
    unregistered = 1;
    harness_unlock(&lock);
    return NULL;
}

TEST(unregister_waits_for_a_running_callback)
{
    pthread_t saver, remover;
    int opaque = 0;

    register_savevm_live("staying", 0, 1, &staying, &opaque);
    pthread_create(&saver, NULL, saves, NULL);
    WAIT_FOR(in_callback);
    pthread_create(&remover, NULL, unregisters, &opaque);
    harness_sleep_ms(50);
    CHECK(!unregistered);
    /* While it waits, others get the lock. */
    harness_lock(&lock);
    harness_unlock(&lock);
    leave_callback = 1;
    pthread_join(remover, NULL);
    pthread_join(saver, NULL);
    CHECK(unregistered);
    saves(NULL);
    CHECK_EQ(calls, 1);
}

static atomic_bool stop;
static atomic_uint after_removal;

typedef struct Guarded {
    atomic_bool alive;
    unsigned long calls;
} Guarded;

static void counts(QEMUFile *f, void *opaque)
{
    Guarded *guarded = opaque;

    if (!guarded->alive) {
        after_removal++;
    }
    qemu_put_be32(f, 1);
    guarded->calls++;
}

static const SaveVMHandlers counting = { .save_state = counts };

static void *saves_until_stopped(void *opaque)
{
    while (!stop) {
        saves(opaque);
    }
    return NULL;
}

/* Devices come and go in two threads while a third saves. */
static void *comes_and_goes(void *opaque)
{
    Guarded *list = opaque;

    for (unsigned round = 0; round < 300; round++) {
        for (unsigned i = 0; i < 8; i++) {
            list[i].alive = true;
            register_savevm_live("counting", -1, 1, &counting, &list[i]);
        }
        for (unsigned i = 0; i < 8; i++) {
            unregister_savevm(NULL, "counting", &list[i]);
            list[i].alive = false;
        }
    }
    return NULL;
}

TEST(no_callback_after_unregister)
{
    static Guarded lists[2][8];
    pthread_t saver, threads[2];

    pthread_create(&saver, NULL, saves_until_stopped, NULL);
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, comes_and_goes, lists[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    stop = true;
    pthread_join(saver, NULL);
    CHECK_EQ(after_removal, 0);
}

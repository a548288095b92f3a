/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "side.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define END 0xffffffffu

atomic_int guests;

static int vm_stop(void *host)
{
    Side *side = host;

    CHECK(harness_locked(&side->lock));
    if (atomic_exchange(&side->runs, false)) {
        guests--;
    }
    return 0;
}

static int vm_start(void *host)
{
    Side *side = host;

    CHECK(harness_locked(&side->lock));
    if (!atomic_exchange(&side->runs, true)) {
        CHECK_EQ(guests++, 0);
    }
    return 0;
}

static bool vm_running(void *host)
{
    return ((Side *)host)->runs;
}

static void reset(void *host)
{
    Side *side = host;

    CHECK(harness_locked(&side->lock) && !side->runs);
    side->resets++;
    side->state = 0;
}

static void migration_event(void *host, const SaveVMEvent *event)
{
    Side *side = host;

    side->events++;
    CHECK(event->size == sizeof(*event) && event->migration);
    /* A recovery that fails at once is reported on the thread that asked for it. */
    pthread_mutex_lock(&side->mutex);
    size_t used = strlen(side->statuses);
    snprintf(side->statuses + used, sizeof(side->statuses) - used, "%s%s", used ? " " : "", event->status_name);
    pthread_mutex_unlock(&side->mutex);
}

/* On the driver's threads the library's calls must find their machine, and signals must not come. */
static void check_thread(Side *side)
{
    SaveVM *current = savevm_set_current(side->vm);
    sigset_t blocked;

    CHECK(current == side->vm);
    savevm_set_current(current);
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    CHECK_EQ(sigismember(&blocked, SIGUSR1), !pthread_equal(pthread_self(), side->maker));
    CHECK(!sigismember(&blocked, SIGSEGV));
}

static int ram_setup(QEMUFile *f, void *opaque)
{
    Side *side = opaque;

    CHECK(!harness_locked(&side->lock));
    check_thread(side);
    side->setups++;
    memset(side->dirty, 1, sizeof(side->dirty));
    qemu_put_be32(f, END);
    return 0;
}

static void put_page(Side *side, QEMUFile *f, int page)
{
    qemu_put_be32(f, page);
    qemu_put_be64(f, side->pages[page]);
    side->dirty[page] = false;
}

/* Sends up to `most` pages, those that were asked for first; whether that was all. */
static bool put_pages(Side *side, QEMUFile *f, int most)
{
    bool all = true;

    pthread_mutex_lock(&side->mutex);
    for (unsigned i = 0; i < side->request_count; i++) {
        if (side->dirty[side->requests[i]]) {
            put_page(side, f, side->requests[i]);
        }
    }
    side->request_count = 0;
    for (int page = 0; page < PAGES; page++) {
        if (side->dirty[page] && most-- > 0) {
            put_page(side, f, page);
        }
        all = all && !side->dirty[page];
    }
    if (side->keep_dirty && side->runs) {
        side->pages[1]++;
        side->dirty[1] = true;
    }
    pthread_mutex_unlock(&side->mutex);
    qemu_put_be32(f, END);
    return all;
}

static int ram_iterate(QEMUFile *f, void *opaque)
{
    Side *side = opaque;

    CHECK_EQ(harness_locked(&side->lock), side->snapshot);
    if (side->hold && !side->runs) {
        qemu_put_be32(f, END);
        return 0;
    }
    return put_pages(side, f, 2);
}

static int ram_complete(QEMUFile *f, void *opaque)
{
    CHECK(harness_locked(&((Side *)opaque)->lock));
    put_pages(opaque, f, PAGES);
    return 0;
}

static void ram_pending(QEMUFile *f, void *opaque, uint64_t threshold, uint64_t *precopy, uint64_t *compatible,
                        uint64_t *postcopy)
{
    Side *side = opaque;

    (void)f, (void)threshold, (void)precopy, (void)postcopy;
    CHECK(!harness_locked(&side->lock));
    pthread_mutex_lock(&side->mutex);
    for (int page = 0; page < PAGES; page++) {
        *compatible += side->dirty[page] ? 12 : 0;
    }
    /* It writes faster than any link carries: precopy never gets there. */
    *compatible += side->keep_dirty && side->runs ? UINT64_C(1) << 40 : 0;
    pthread_mutex_unlock(&side->mutex);
}

static bool ram_has_postcopy(void *opaque)
{
    return ((Side *)opaque)->postcopy;
}

static void ram_cleanup(void *opaque)
{
    Side *side = opaque;

    CHECK(harness_locked(&side->lock));
    side->cleanups++;
}

static int ram_load(QEMUFile *f, void *opaque, int version)
{
    Side *side = opaque;

    CHECK_EQ(version, 1);
    CHECK(harness_locked(&side->lock) == !side->listening);
    for (;;) {
        uint32_t page = qemu_get_be32(f);
        uint64_t number = page == END ? 0 : qemu_get_be64(f);

        /* A page counts as received only where it is whole. */
        if (qemu_file_get_error(f)) {
            return qemu_file_get_error(f);
        }
        if (page == END) {
            return 0;
        }
        if (page >= PAGES) {
            return -22;
        }
        side->pages[page] = number;
        pthread_mutex_lock(&side->mutex);
        side->received[page] = true;
        pthread_mutex_unlock(&side->mutex);
    }
}

static const SaveVMHandlers ram_ops = {
    .save_setup = ram_setup,
    .save_live_iterate = ram_iterate,
    .save_live_pending = ram_pending,
    .save_live_complete_precopy = ram_complete,
    .save_live_complete_postcopy = ram_complete,
    .save_cleanup = ram_cleanup,
    .has_postcopy = ram_has_postcopy,
    .load_state = ram_load,
};

static void device_save(QEMUFile *f, void *opaque)
{
    Side *side = opaque;

    CHECK(harness_locked(&side->lock) && !side->runs);
    check_thread(side);
    qemu_put_be64(f, side->state);
}

static int device_load(QEMUFile *f, void *opaque, int version)
{
    Side *side = opaque;

    (void)version;
    CHECK(harness_locked(&side->lock));
    check_thread(side);
    if (side->fail_load) {
        return -5;
    }
    side->state = qemu_get_be64(f);
    return qemu_file_get_error(f);
}

static const SaveVMHandlers device_ops = { .save_state = device_save, .load_state = device_load };

static const char *const *ram_blocks(void *host)
{
    static const char *const names[] = { "pc.ram", NULL };

    (void)host;
    return names;
}

static int send_discards(void *host, QEMUFile *f)
{
    Side *side = host;
    uint64_t start, length = 1;

    CHECK(harness_locked(&side->lock));
    for (start = 0; start < PAGES; start++) {
        if (side->dirty[start]) {
            qemu_savevm_send_postcopy_ram_discard(f, "pc.ram", 1, &start, &length);
        }
    }
    return 0;
}

static int pages_requested(void *host, const char *block, uint64_t start, uint32_t length)
{
    Side *side = host;

    if (strcmp(block, "pc.ram") != 0 || start >= PAGES || length != 1) {
        return -22;
    }
    pthread_mutex_lock(&side->mutex);
    if (side->request_count < sizeof(side->requests) / sizeof(side->requests[0])) {
        side->requests[side->request_count++] = start;
    }
    pthread_mutex_unlock(&side->mutex);
    return 0;
}

static int ram_received(void *host, const char *block, const uint8_t *bits, size_t length)
{
    Side *side = host;

    if (strcmp(block, "pc.ram") != 0 || length != 8) {
        return -22;
    }
    pthread_mutex_lock(&side->mutex);
    for (int page = 0; page < PAGES; page++) {
        side->dirty[page] = !(bits[page / 8] >> page % 8 & 1);
    }
    pthread_mutex_unlock(&side->mutex);
    return 0;
}

static int ram_discard(void *host, const char *block, uint64_t start, uint64_t length)
{
    Side *side = host;

    if (strcmp(block, "pc.ram") != 0 || start >= PAGES || length > PAGES - start) {
        return -22;
    }
    pthread_mutex_lock(&side->mutex);
    for (; length; length--, start++) {
        side->received[start] = false;
        side->pages[start] = 0xdead;
    }
    pthread_mutex_unlock(&side->mutex);
    return 0;
}

static int ram_listen(void *host, MigrationIncomingState *migration)
{
    Side *side = host;

    side->source = migration;
    side->listening = true;
    return 0;
}

static ssize_t received_bits(void *host, const char *block, const uint8_t **bits)
{
    Side *side = host;

    if (strcmp(block, "pc.ram") != 0) {
        return -22;
    }
    memset(side->bits, 0, sizeof(side->bits));
    pthread_mutex_lock(&side->mutex);
    for (int page = 0; page < PAGES; page++) {
        side->bits[page / 8] |= side->received[page] << page % 8;
    }
    pthread_mutex_unlock(&side->mutex);
    *bits = side->bits;
    return sizeof(side->bits);
}

static void ram_end(void *host, bool complete)
{
    Side *side = host;

    CHECK_EQ(side->ended, 0);
    side->ended = complete ? 1 : -1;
}

static const SaveVMPostcopyOps postcopy_ops = {
    .size = sizeof(SaveVMPostcopyOps),
    .blocks = ram_blocks,
    .send_discards = send_discards,
    .pages_requested = pages_requested,
    .received = ram_received,
    .discard = ram_discard,
    .listen = ram_listen,
    .received_bits = received_bits,
    .end = ram_end,
};

void side_init(Side *side, bool runs, bool postcopy)
{
    static const HarnessLock fresh = HARNESS_LOCK_INIT;
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;
    ops.lock = harness_host_lock;
    ops.unlock = harness_host_unlock;
    ops.locked = harness_host_locked;
    ops.vm_stop = vm_stop;
    ops.vm_start = vm_start;
    ops.vm_running = vm_running;
    ops.migration_event = migration_event;
    ops.postcopy = postcopy ? &postcopy_ops : NULL;
    ops.reset = reset;

    memset(side, 0, sizeof(*side));
    side->lock = fresh;
    pthread_mutex_init(&side->mutex, NULL);
    side->postcopy = postcopy;
    side->vm = savevm_new(&ops, side);
    side->maker = pthread_self();
    side->runs = runs;
    guests += runs;
    side->state = runs ? 77 : 0;
    for (int page = 0; page < PAGES; page++) {
        side->pages[page] = runs ? 1000 + page : 0;
    }
    savevm_set_current(side->vm);
    CHECK_EQ(register_savevm_live("ram", 0, 1, &ram_ops, side), 0);
    CHECK_EQ(register_savevm_live("dev", 0, 1, &device_ops, side), 0);
    savevm_set_current(NULL);
}

void side_free(Side *side)
{
    CHECK(!side->lock.held);
    savevm_free(side->vm);
    pthread_mutex_destroy(&side->mutex);
}

void sides_init(Side *source, Side *destination, bool postcopy)
{
    side_init(source, true, postcopy);
    side_init(destination, false, postcopy);
}

void sides_free(Side *source, Side *destination)
{
    side_free(source);
    side_free(destination);
}

void check_moved(Side *from, Side *to)
{
    CHECK(!from->runs);
    CHECK(to->runs);
    CHECK_EQ(to->state, from->state);
    for (int page = 0; page < PAGES; page++) {
        CHECK_EQ(to->pages[page], from->pages[page]);
    }
    CHECK_EQ(from->cleanups, from->setups);
}

const char *side_uri(void)
{
    static char uri[64];
    static unsigned count;

    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-driver-%d-%u", (int)getpid(), count++);
    return uri;
}

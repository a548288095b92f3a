/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "guest.h"
#include "savevm/ram.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* The first page: the number of the guest's steps, the time of the last one, and the longest stop. */
typedef struct Head {
    uint64_t steps;
    uint64_t random;
    uint64_t beat_ns;
    uint64_t gap_ns;
} Head;

/* Any other page: how often it was visited, and what follows from that at its end. */
typedef struct Page {
    uint64_t visits;
    uint8_t rest[GUEST_PAGE - 16];
    uint64_t seal;
} Page;

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    return x ^ x >> 29;
}

static uint64_t seal_of(size_t page, uint64_t visits)
{
    return visits ? mix(page * 0x9e3779b97f4a7c15ULL + visits) : 0;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void wrote(Guest *guest, size_t page)
{
    if (guest->mark) {
        savevm_ram_set_dirty(guest->ram, guest->memory + page * GUEST_PAGE, GUEST_PAGE);
    }
    if (guest->log) {
        atomic_fetch_or(&guest->dirty[page / 64], UINT64_C(1) << page % 64);
    }
}

static void step(Guest *guest)
{
    volatile Head *head = (Head *)guest->memory;
    uint64_t random = head->random * 6364136223846793005ULL + 1442695040888963407ULL;
    size_t page = 1 + (random >> 33) % (guest->length / GUEST_PAGE - 1);
    volatile Page *at = (Page *)(guest->memory + page * GUEST_PAGE);
    uint64_t visits = at->visits;

    if (at->seal != seal_of(page, visits)) {
        atomic_store(&guest->broken, true);
    }
    at->visits = visits + 1;
    at->seal = seal_of(page, visits + 1);
    wrote(guest, page);
    uint64_t now = now_ns();
    if (head->beat_ns && now - head->beat_ns > head->gap_ns) {
        head->gap_ns = now - head->beat_ns;
    }
    head->beat_ns = now;
    head->random = random;
    head->steps++;
    wrote(guest, 0);
    atomic_fetch_add(&guest->steps, 1);
    if (guest->ran) {
        atomic_store(guest->ran, true);
    }
}

static _Thread_local sigjmp_buf leave;

static void left(int signal)
{
    (void)signal;
    siglongjmp(leave, 1);
}

/* As step(). If the memory is unreadable, the CPU stops. */
static void step_or_leave(Guest *guest)
{
    struct sigaction action = { .sa_handler = left };

    sigaction(SIGBUS, &action, NULL);
    if (sigsetjmp(leave, 1) == 0) {
        step(guest);
        return;
    }
    pthread_mutex_lock(&guest->lock);
    guest->run = false;
    pthread_mutex_unlock(&guest->lock);
}

static void *cpu(void *opaque)
{
    Guest *guest = opaque;
    uint64_t before = 0;

    pthread_mutex_lock(&guest->lock);
    while (!guest->quit) {
        if (!guest->run) {
            guest->runs = false;
            pthread_cond_broadcast(&guest->changed);
            pthread_cond_wait(&guest->changed, &guest->lock);
            before = 0;
            continue;
        }
        guest->runs = true;
        pthread_mutex_unlock(&guest->lock);
        if (guest->leaves) {
            step_or_leave(guest);
        } else {
            step(guest);
        }
        uint64_t now = now_ns();
        if (before && now - before > atomic_load(&guest->longest_ns)) {
            atomic_store(&guest->longest_ns, now - before);
        }
        before = now;
        if (guest->pause_us) {
            usleep(guest->pause_us * 100 / (100 - (guest->obeys ? atomic_load(&guest->throttle) : 0)));
        }
        pthread_mutex_lock(&guest->lock);
    }
    pthread_mutex_unlock(&guest->lock);
    return NULL;
}

static void set_run(Guest *guest, bool run)
{
    pthread_mutex_lock(&guest->lock);
    guest->run = run;
    pthread_cond_broadcast(&guest->changed);
    while (!run && guest->runs) {
        pthread_cond_wait(&guest->changed, &guest->lock);
    }
    pthread_mutex_unlock(&guest->lock);
}

void guest_start(Guest *guest)
{
    set_run(guest, true);
}

void guest_stop(Guest *guest)
{
    set_run(guest, false);
}

static int vm_start(void *host)
{
    guest_start(host);
    return 0;
}

static int vm_stop(void *host)
{
    guest_stop(host);
    return 0;
}

static bool vm_running(void *host)
{
    return ((Guest *)host)->run;
}

static void throttle(void *host, int percent)
{
    Guest *guest = host;
    int before = atomic_exchange(&guest->throttle, percent);

    if (percent > before) {
        atomic_store(&guest->most_throttle, percent);
    }
}

static uint64_t page_sizes(void *host)
{
    Guest *guest = host;
    return guest->ram ? savevm_ram_page_sizes(guest->ram) : 0;
}

static int log_start(void *opaque)
{
    Guest *guest = opaque;
    atomic_fetch_add(&guest->logs, 1);
    return 0;
}

static int log_sync(void *opaque, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    Guest *guest = opaque;
    if (block->opaque != guest || words != (guest->length / GUEST_PAGE + 63) / 64) {
        return -22;
    }
    for (size_t i = 0; i < words; i++) {
        bitmap[i] = atomic_exchange(&guest->dirty[i], 0);
    }
    return 0;
}

static void log_stop(void *opaque)
{
    Guest *guest = opaque;
    atomic_fetch_sub(&guest->logs, 1);
}

static void *map(Memory kind, size_t length)
{
    int flags = MAP_ANONYMOUS | (kind == MEMORY_SHARED ? MAP_SHARED : MAP_PRIVATE) |
        (kind == MEMORY_HUGE ? MAP_HUGETLB : 0);
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

Guest *guest_new(Memory kind, size_t length, const SaveVMRamOptions *options)
{
    static const SaveVMHostOps host = {
        .size = sizeof(host), .vm_start = vm_start, .vm_stop = vm_stop,
        .vm_running = vm_running, .ram_page_sizes = page_sizes, .throttle = throttle,
    };
    Guest *guest = calloc(1, sizeof(*guest));
    SaveVMRamOps with_log = SAVEVM_RAM_OPS_INIT;
    Error *err = NULL;

    guest->length = length;
    guest->memory = map(kind, length);
    if (!guest->memory) {
        free(guest);
        return NULL;
    }
    guest->dirty = calloc(length / GUEST_PAGE / 64 + 1, sizeof(uint64_t));
    pthread_mutex_init(&guest->lock, NULL);
    pthread_cond_init(&guest->changed, NULL);
    guest->vm = savevm_new(&host, guest);
    guest->mark = options && options->log == SAVEVM_RAM_LOG_MARKS;
    guest->log = options && options->log == SAVEVM_RAM_LOG_HOST;
    if (guest->log) {
        with_log.log_start = log_start;
        with_log.log_sync = log_sync;
        with_log.log_stop = log_stop;
    }
    guest->ram = savevm_ram_new(guest->vm, options, &with_log, guest, &err);
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "pc.ram";
    block.host = guest->memory;
    block.length = length;
    block.page_size = kind == MEMORY_HUGE ? 2 << 20 : 0;
    block.shared = kind == MEMORY_SHARED;
    block.opaque = guest;
    if (!guest->ram || savevm_ram_add_block(guest->ram, &block, &err) != 0) {
        fprintf(stderr, "%s\n", error_get_pretty(err));
        abort();
    }
    pthread_create(&guest->cpu, NULL, cpu, guest);
    return guest;
}

void guest_free(Guest *guest)
{
    pthread_mutex_lock(&guest->lock);
    guest->quit = true;
    pthread_cond_broadcast(&guest->changed);
    pthread_mutex_unlock(&guest->lock);
    pthread_join(guest->cpu, NULL);
    savevm_ram_free(guest->ram);
    if (atomic_load(&guest->logs) != 0) {
        fprintf(stderr, "the RAM is busy still\n");
        abort();
    }
    savevm_free(guest->vm);
    munmap(guest->memory, guest->length);
    free(guest->dirty);
    free(guest);
}

uint64_t guest_gap_ms(const Guest *guest)
{
    return ((const Head *)guest->memory)->gap_ns / 1000000;
}

void guest_fill(Guest *guest)
{
    Head *head = (Head *)guest->memory;
    for (size_t page = 1; page < guest->length / GUEST_PAGE; page += 2) {
        Page *at = (Page *)(guest->memory + page * GUEST_PAGE);
        memset(at->rest, (int)page | 1, sizeof(at->rest));
        at->visits = page % 5 + 1;
        at->seal = seal_of(page, at->visits);
        head->steps += at->visits;
    }
    head->random = 1;
}

bool memory_whole(const uint8_t *memory, size_t length)
{
    uint64_t visits = 0;
    for (size_t page = 1; page < length / GUEST_PAGE; page++) {
        const Page *at = (const Page *)(memory + page * GUEST_PAGE);
        uint8_t rest = page % 2 ? (uint8_t)(page | 1) : 0;
        visits += at->visits;
        if (at->seal != seal_of(page, at->visits) || at->rest[0] != rest ||
            memcmp(at->rest, at->rest + 1, sizeof(at->rest) - 1) != 0) {
            fprintf(stderr, "page %zu is broken: %ju visits\n", page, (uintmax_t)at->visits);
            return false;
        }
    }
    if (visits != ((const Head *)memory)->steps) {
        fprintf(stderr, "%ju visits in %ju steps\n", (uintmax_t)visits, (uintmax_t)((const Head *)memory)->steps);
        return false;
    }
    return true;
}

bool guest_whole(Guest *guest)
{
    return !atomic_load(&guest->broken) && memory_whole(guest->memory, guest->length);
}

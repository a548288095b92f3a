/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory, migrated while the guest writes to it: a live device.
 *
 * Setup marks all pages as dirty and has the CPU take note of those that it writes. Each round sends dirty pages and
 * marks them clean; when the library asks how much is left and it looks like little, the CPU's notes are added. When that
 * is little enough the guest is stopped, and what is dirty then is sent at last.
 *
 * A section is a sequence of runs of pages, each behind a 64-bit word: the address of the first page, flags, and how
 * many pages they are.
 */
#include "minivmm.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RAM_VERSION 1
#define RUN_ZERO 0x100  /* the pages are all zero and do not follow */
#define RUN_DATA 0x200  /* the pages follow */
#define RUN_SIZE 0x400  /* instead of an address: the size of the memory */
#define RUN_END 0x800   /* of this section */
#define RUN_PAGES 255   /* at most so many in a run: the lowest byte of the word */
#define PART_PAGES 8192 /* at most so many in a section, so that the driver can look at its clock */

typedef struct Ram {
    Machine *m;
    uint64_t pages;
    uint64_t *dirty;      /* a bit for each page; NULL while nothing is migrated */
    uint64_t dirty_pages; /* how many bits are set */
    uint64_t next;        /* the page at which the next run is looked for */
} Ram;

static bool is_dirty(const Ram *r, uint64_t page)
{
    return r->dirty[page / 64] >> page % 64 & 1;
}

/* The first dirty page from `page` on, or r->pages. */
static uint64_t find_dirty(const Ram *r, uint64_t page)
{
    while (page < r->pages) {
        uint64_t rest = r->dirty[page / 64] >> page % 64;
        if (rest) {
            return page + (uint64_t)__builtin_ctzll(rest);
        }
        page = (page / 64 + 1) * 64;
    }
    return r->pages;
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

/* Adds what the CPU took note of. That empties its log before the pages are read: what is written later is in it again. */
static bool take_dirty(Ram *r)
{
    bool good = r->m->accel->take_dirty(r->m, r->dirty);
    r->dirty_pages = 0;
    for (uint64_t word = 0; word < r->pages / 64; word++) {
        r->dirty_pages += (uint64_t)__builtin_popcountll(r->dirty[word]);
    }
    return good;
}

/* Sends the run of dirty pages at `first`. What the guest writes to them meanwhile is in the CPU's log, and goes again. */
static uint64_t send_run(Ram *r, QEMUFile *f, uint64_t first)
{
    const uint8_t *memory = r->m->ram + first * PAGE_SIZE;
    bool zero = is_zero(memory);
    uint64_t count = 0;
    do {
        r->dirty[(first + count) / 64] &= ~(1ull << (first + count) % 64);
        count++;
    } while (count < RUN_PAGES && first + count < r->pages && is_dirty(r, first + count) &&
             is_zero(memory + count * PAGE_SIZE) == zero);
    r->dirty_pages -= count;
    qemu_put_be64(f, first * PAGE_SIZE | (zero ? RUN_ZERO : RUN_DATA) | count);
    if (!zero) {
        qemu_put_buffer_async(f, memory, count * PAGE_SIZE, false);
    }
    return count;
}

/* Sends at most `limit` pages, or until the driver's rate limit is reached. Whether nothing is dirty any more. */
static bool send_dirty(Ram *r, QEMUFile *f, uint64_t limit, bool limit_rate)
{
    for (uint64_t sent = 0; r->dirty_pages > 0 && sent < limit; ) {
        if (limit_rate && qemu_file_rate_limit(f)) {
            break;
        }
        uint64_t first = find_dirty(r, r->next);
        if (first == r->pages) {
            first = find_dirty(r, 0);
        }
        uint64_t count = send_run(r, f, first);
        r->next = first + count;
        sent += count;
    }
    qemu_put_be64(f, RUN_END);
    return r->dirty_pages == 0;
}

static void ram_save_cleanup(void *opaque)
{
    Ram *r = opaque;
    if (r->dirty) {
        r->m->accel->log_dirty(r->m, false);
        free(r->dirty);
        r->dirty = NULL;
    }
}

static int ram_save_setup(QEMUFile *f, void *opaque)
{
    Ram *r = opaque;
    r->dirty = malloc(r->pages / 8);
    if (!r->dirty || !r->m->accel->log_dirty(r->m, true)) {
        return -ENOMEM;
    }
    memset(r->dirty, 0xff, r->pages / 8);
    r->dirty_pages = r->pages;
    r->next = 0;
    qemu_put_be64(f, r->m->ram_size | RUN_SIZE);
    qemu_put_be64(f, RUN_END);
    return qemu_file_get_error(f);
}

static void ram_save_pending(QEMUFile *f, void *opaque, uint64_t threshold_size, uint64_t *precopy_only,
                             uint64_t *compatible, uint64_t *postcopy_only)
{
    Ram *r = opaque;
    (void)compatible, (void)postcopy_only;
    if (r->dirty_pages * PAGE_SIZE < threshold_size && !take_dirty(r)) {
        qemu_file_set_error(f, -EIO);
    }
    *precopy_only += r->dirty_pages * PAGE_SIZE;
}

static int ram_save_iterate(QEMUFile *f, void *opaque)
{
    bool done = send_dirty(opaque, f, PART_PAGES, true);
    int error = qemu_file_get_error(f);
    return error ? error : done;
}

static int ram_save_complete(QEMUFile *f, void *opaque)
{
    Ram *r = opaque;
    if (!take_dirty(r)) {
        return -EIO;
    }
    send_dirty(r, f, UINT64_MAX, false);
    return qemu_file_get_error(f);
}

static int load_run(Ram *r, QEMUFile *f, uint64_t run)
{
    uint64_t count = run & RUN_PAGES, first = run / PAGE_SIZE;
    uint8_t *memory = r->m->ram + first * PAGE_SIZE;
    if (count == 0 || first >= r->pages || count > r->pages - first) {
        fprintf(stderr, "minivmm: %u pages at 0x%llx are not within the memory\n", (unsigned int)count,
                (unsigned long long)(first * PAGE_SIZE));
        return -EINVAL;
    }
    if (run & RUN_DATA) {
        return qemu_get_buffer(f, memory, count * PAGE_SIZE) == count * PAGE_SIZE ? 0 : -EIO;
    }
    for (uint8_t *end = memory + count * PAGE_SIZE; memory < end; memory += PAGE_SIZE) {
        if (!is_zero(memory)) { /* one that was never touched takes no memory: leave it so */
            memset(memory, 0, PAGE_SIZE);
        }
    }
    return 0;
}

static int ram_load(QEMUFile *f, void *opaque, int version_id)
{
    Ram *r = opaque;
    if (version_id != RAM_VERSION) {
        return -EINVAL;
    }
    for (;;) {
        uint64_t run = qemu_get_be64(f);
        int error = qemu_file_get_error(f);
        if (error) {
            return error;
        }
        switch (run & (PAGE_SIZE - 1) & ~(uint64_t)RUN_PAGES) {
        case RUN_END:
            return 0;
        case RUN_SIZE:
            if ((run & ~(uint64_t)RUN_SIZE) != r->m->ram_size) {
                fprintf(stderr, "minivmm: the memory that comes in is %llu MiB, ours is %llu MiB\n",
                        (unsigned long long)run >> 20, (unsigned long long)r->m->ram_size >> 20);
                return -EINVAL;
            }
            break;
        case RUN_ZERO:
        case RUN_DATA:
            error = load_run(r, f, run);
            break;
        default:
            error = -EINVAL;
        }
        if (error) {
            return error;
        }
    }
}

static const SaveVMHandlers ram_handlers = {
    .save_setup = ram_save_setup,
    .save_live_pending = ram_save_pending,
    .save_live_iterate = ram_save_iterate,
    .save_live_complete_precopy = ram_save_complete,
    .save_cleanup = ram_save_cleanup,
    .load_state = ram_load,
};

bool ram_init(Machine *m)
{
    m->ram = mmap(NULL, m->ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->ram == MAP_FAILED) {
        perror("minivmm: memory");
        return false;
    }
    madvise(m->ram, m->ram_size, MADV_HUGEPAGE);
    Ram *r = m->memory = calloc(1, sizeof(*r));
    r->m = m;
    r->pages = m->ram_size / PAGE_SIZE;
    register_savevm_live("memory", 0, RAM_VERSION, &ram_handlers, r);
    return true;
}

void ram_destroy(Machine *m)
{
    unregister_savevm(NULL, "memory", m->memory);
    free(m->memory);
    munmap(m->ram, m->ram_size);
}

/* Four sums side by side, because one alone would wait for each multiplication. */
uint64_t ram_hash(Machine *m)
{
    uint64_t sum[4] = { 1, 2, 3, 4 };
    for (uint64_t at = 0; at < m->ram_size; at += sizeof(sum)) {
        uint64_t word[4];
        memcpy(word, m->ram + at, sizeof(word));
        for (int lane = 0; lane < 4; lane++) {
            sum[lane] = ((sum[lane] << 29 | sum[lane] >> 35) ^ word[lane]) * 0x9e3779b97f4a7c15u;
        }
    }
    return sum[0] ^ sum[1] << 1 ^ sum[2] << 2 ^ sum[3] << 3;
}

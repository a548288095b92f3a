/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk: a file that both sides of a migration see. One sector at a time goes through a buffer.
 *
 * Only the side that runs the guest may have the file. The source lets go of it before it says that its state ends, the
 * destination takes it before its guest starts.
 */
#define _GNU_SOURCE
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

typedef struct Disk {
    int fd; /* -1: the file is not ours now */
    uint32_t sectors;
    uint32_t sector;
    uint32_t at; /* in the buffer */
    uint32_t result;
    uint8_t buffer[SECTOR];
} Disk;

static Disk state = { .fd = -1 };

/* The word of the buffer that is next. */
static void *next_word(void)
{
    void *word = state.buffer + state.at;
    state.at = (state.at + (uint32_t)sizeof(uint32_t)) % SECTOR;
    return word;
}

static uint32_t disk_read(Machine *m, uint16_t port)
{
    (void)m;
    uint32_t value = port == DISK_COMMAND ? state.result : port == DISK_SECTORS ? state.sectors : UINT32_MAX;
    if (port == DISK_DATA) {
        memcpy(&value, next_word(), sizeof(value));
    }
    return value;
}

static void disk_write(Machine *m, uint16_t port, uint32_t value)
{
    (void)m;
    if (port == DISK_DATA) {
        memcpy(next_word(), &value, sizeof(value));
        return;
    }
    state.at = 0;
    if (port == DISK_SECTOR) {
        state.sector = value;
    } else if (port == DISK_COMMAND) {
        off_t offset = (off_t)state.sector * SECTOR;
        ssize_t done = state.sector >= state.sectors ? 0
                       : value == DISK_READ          ? pread(state.fd, state.buffer, SECTOR, offset)
                                                     : pwrite(state.fd, state.buffer, SECTOR, offset);
        state.result = done == SECTOR ? 0 : EIO;
    }
}

int disk_release(void *machine)
{
    (void)machine;
    int error = 0;
    if (state.fd >= 0) {
        error = fdatasync(state.fd) < 0 ? -errno : 0;
        close(state.fd);
        state.fd = -1;
    }
    return error;
}

int disk_acquire(void *machine)
{
    const char *path = ((Machine *)machine)->disk_path;
    if (!path || state.fd >= 0) {
        return 0;
    }
    state.fd = open(path, O_RDWR | O_CLOEXEC);
    if (state.fd < 0 || flock(state.fd, LOCK_EX | LOCK_NB) < 0) {
        int error = -errno;
        fprintf(stderr, "minivmm: %s: %s\n", path, strerror(-error));
        disk_release(machine);
        return error;
    }
    return 0;
}

static int disk_post_load(void *opaque, int version_id)
{
    (void)opaque, (void)version_id;
    return state.at < SECTOR && state.at % sizeof(uint32_t) == 0 ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_disk = {
    .name = "disk",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = disk_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(sectors, Disk, "start both sides with the same --disk"),
        VMSTATE_UINT32(sector, Disk),
        VMSTATE_UINT32(at, Disk),
        VMSTATE_UINT32(result, Disk),
        VMSTATE_BUFFER(buffer, Disk),
        VMSTATE_END_OF_LIST()
    }
};

static bool disk_init(Machine *m)
{
    struct stat file = { .st_size = 0 };
    if (m->disk_path && stat(m->disk_path, &file) < 0) {
        perror(m->disk_path);
        return false;
    }
    state.sectors = (uint32_t)(file.st_size / SECTOR);
    return vmstate_register(NULL, 0, &vmstate_disk, &state) == 0;
}

const Device disk = { DISK_SECTOR, 16, disk_init, disk_read, disk_write };

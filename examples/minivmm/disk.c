/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk: a file that both sides of a migration see. One sector at a time goes through a buffer.
 *
 * Only the side that runs the guest may use the file. The source gives its lock back before it says that its state ends,
 * the destination takes it before its guest starts.
 */
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512
#define WORDS (SECTOR / sizeof(uint32_t))

typedef struct Disk {
    int fd; /* -1: there is no disk */
    uint32_t sectors;
    uint32_t sector;
    uint32_t result;
    uint32_t buffer[WORDS];
    uint32_t at; /* words that went into the buffer, or out of it; may be any number */
} Disk;

static Disk state = { .fd = -1 };

static uint32_t *next_word(void)
{
    return &state.buffer[state.at++ % WORDS];
}

static uint32_t disk_read(Machine *m, uint16_t port)
{
    switch (port) {
    case DISK_COMMAND: return state.result;
    case DISK_DATA: return *next_word();
    case DISK_SECTORS: return state.sectors;
    default: return UINT32_MAX;
    }
}

static uint32_t run_command(uint32_t command)
{
    off_t offset = (off_t)state.sector * SECTOR;
    if (state.sector >= state.sectors) {
        return EINVAL;
    }
    ssize_t done = command == DISK_READ ? pread(state.fd, state.buffer, SECTOR, offset)
                                        : pwrite(state.fd, state.buffer, SECTOR, offset);
    return done == SECTOR ? 0 : EIO;
}

static void disk_write(Machine *m, uint16_t port, uint32_t value)
{
    if (port == DISK_DATA) {
        *next_word() = value;
    } else if (port == DISK_SECTOR) {
        state.sector = value;
        state.at = 0;
    } else if (port == DISK_COMMAND) {
        state.result = run_command(value);
        state.at = 0;
    }
}

int disk_release(void *machine)
{
    return state.fd < 0 || (fdatasync(state.fd) == 0 && flock(state.fd, LOCK_UN) == 0) ? 0 : -errno;
}

int disk_acquire(void *machine)
{
    if (state.fd < 0 || flock(state.fd, LOCK_EX | LOCK_NB) == 0) {
        return 0;
    }
    int error = errno;
    fprintf(stderr, "minivmm: the disk: %s\n", error == EWOULDBLOCK ? "another process uses it" : strerror(error));
    return -error;
}

static const VMStateDescription vmstate_disk = {
    .name = "disk",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(sectors, Disk, "start both sides with the same --disk"),
        VMSTATE_UINT32(sector, Disk),
        VMSTATE_UINT32(result, Disk),
        VMSTATE_UINT32_ARRAY(buffer, Disk, WORDS),
        VMSTATE_UINT32(at, Disk),
        VMSTATE_END_OF_LIST()
    }
};

static bool disk_init(Machine *m)
{
    struct stat file = { .st_size = 0 };
    if (m->disk_path && ((state.fd = open(m->disk_path, O_RDWR | O_CLOEXEC)) < 0 || fstat(state.fd, &file) < 0)) {
        perror(m->disk_path);
        return false;
    }
    state.sectors = (uint32_t)(file.st_size / SECTOR);
    return vmstate_register(NULL, 0, &vmstate_disk, &state) == 0;
}

const Device disk = { DISK_SECTOR, 16, disk_init, disk_read, disk_write };

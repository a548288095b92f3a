/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk: a file that both sides of a migration use. The guest reads and writes it through a port, 4 bytes at a time.
 *
 * Only the side that runs the guest may use the file. The source unlocks it before it sends the end of its state. The
 * destination locks it before its guest starts.
 */
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512
#define WORD sizeof(uint32_t)

typedef struct Disk {
    int fd; /* -1: there is no disk */
    uint32_t sectors;
    uint64_t next; /* index of the next word to read or write */
} Disk;

static Disk state = { .fd = -1 };

static void disk_port(Machine *m, uint16_t port, bool write, uint32_t *value)
{
    if (port == DISK_SECTORS) {
        *value = state.sectors;
    } else if (port == DISK_SECTOR) {
        state.next = (uint64_t)*value * (SECTOR / WORD);
    } else if (state.next / (SECTOR / WORD) < state.sectors) {
        off_t offset = (off_t)(state.next++ * WORD);
        ssize_t done = write ? pwrite(state.fd, value, WORD, offset) : pread(state.fd, value, WORD, offset);
        if (done != WORD) {
            perror("minivmm: the disk");
        }
    }
}

static void disk_reset(void)
{
    state.next = 0;
}

int disk_release(void *machine)
{
    return state.fd < 0 || (fdatasync(state.fd) == 0 && flock(state.fd, LOCK_UN) == 0) ? 0 : -errno;
}

int disk_acquire(void *machine)
{
    if (state.fd >= 0 && flock(state.fd, LOCK_EX | LOCK_NB) < 0) {
        int error = errno;
        perror("minivmm: cannot lock the disk; another process may use it");
        return -error;
    }
    return 0;
}

static const VMStateDescription vmstate_disk = {
    .name = "disk",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(sectors, Disk, "start both sides with the same --disk"),
        VMSTATE_UINT64(next, Disk),
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

const Device disk = { DISK_SECTOR, 12, disk_init, disk_port, disk_reset };

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
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

typedef struct Disk {
    const char *path;
    int fd; /* -1: the file is not ours now */
    uint32_t sectors;
    uint32_t sector;
    uint32_t at; /* in the buffer */
    uint32_t result;
    uint8_t buffer[SECTOR];
} Disk;

static uint32_t transfer(Disk *d, uint32_t command)
{
    off_t offset = (off_t)d->sector * SECTOR;
    d->at = 0;
    if (d->fd < 0 || d->sector >= d->sectors) {
        return EIO;
    }
    ssize_t done = command == DISK_READ    ? pread(d->fd, d->buffer, SECTOR, offset)
                   : command == DISK_WRITE ? pwrite(d->fd, d->buffer, SECTOR, offset)
                                           : 0;
    return done == SECTOR ? 0 : EIO;
}

static uint32_t disk_read(void *opaque, unsigned int offset)
{
    Disk *d = opaque;
    uint32_t value = UINT32_MAX;
    switch (DISK_SECTOR + offset) {
    case DISK_COMMAND:
        return d->result;
    case DISK_SECTORS:
        return d->sectors;
    case DISK_DATA:
        memcpy(&value, d->buffer + d->at, sizeof(value));
        d->at = (d->at + (uint32_t)sizeof(value)) % SECTOR;
        return value;
    default:
        return value;
    }
}

static void disk_write(void *opaque, unsigned int offset, uint32_t value)
{
    Disk *d = opaque;
    switch (DISK_SECTOR + offset) {
    case DISK_SECTOR:
        d->sector = value;
        d->at = 0;
        break;
    case DISK_COMMAND:
        d->result = transfer(d, value);
        break;
    case DISK_DATA:
        memcpy(d->buffer + d->at, &value, sizeof(value));
        d->at = (d->at + (uint32_t)sizeof(value)) % SECTOR;
        break;
    }
}

int disk_release(void *machine)
{
    Disk *d = ((Machine *)machine)->disk;
    int error = 0;
    if (d->fd >= 0) {
        error = fdatasync(d->fd) < 0 ? -errno : 0;
        close(d->fd);
        d->fd = -1;
    }
    return error;
}

int disk_acquire(void *machine)
{
    Disk *d = ((Machine *)machine)->disk;
    if (!d->path || d->fd >= 0) {
        return 0;
    }
    d->fd = open(d->path, O_RDWR | O_CLOEXEC);
    if (d->fd < 0 || flock(d->fd, LOCK_EX | LOCK_NB) < 0) {
        int error = -errno;
        fprintf(stderr, "minivmm: %s: %s\n", d->path, strerror(-error));
        disk_release(machine);
        return error;
    }
    return 0;
}

static int disk_post_load(void *opaque, int version_id)
{
    Disk *d = opaque;
    (void)version_id;
    return d->at < SECTOR && d->at % sizeof(uint32_t) == 0 ? 0 : -EINVAL;
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

static const Ports disk_ports = { DISK_SECTOR, 16, disk_read, disk_write };

bool disk_init(Machine *m)
{
    Disk *d = m->disk = calloc(1, sizeof(*d));
    struct stat file = { .st_size = 0 };
    d->path = m->disk_path;
    d->fd = -1;
    if (d->path && stat(d->path, &file) < 0) {
        perror(d->path);
        return false;
    }
    d->sectors = (uint32_t)(file.st_size / SECTOR);
    machine_map_ports(m, &disk_ports, d);
    vmstate_register(NULL, 0, &vmstate_disk, d);
    return true;
}

void disk_destroy(Machine *m)
{
    disk_release(m);
    vmstate_unregister(NULL, &vmstate_disk, m->disk);
    free(m->disk);
}

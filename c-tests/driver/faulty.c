/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "faulty.h"
#include "savevm/file.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static bool fails(Faulty *channel)
{
    int call = ++channel->calls;

    return channel->fail_at && (call == channel->fail_at || (channel->failure != ONCE && call > channel->fail_at));
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static ptrdiff_t faulty_read(void *opaque, uint8_t *into, size_t len, Error **errp)
{
    Faulty *channel = opaque;
    ssize_t ret;

    (void)errp;
    if (fails(channel)) {
        return channel->failure == NOTHING ? 0 : -ECONNRESET;
    }
    len = smaller(len, channel->step);
    if (channel->bytes) {
        len = smaller(len, channel->len - channel->at);
        memcpy(into, channel->bytes + channel->at, len);
        channel->at += len;
        return (ptrdiff_t)len;
    }
    ret = recv(channel->fd, into, len, 0);
    return ret < 0 ? -errno : ret;
}

static ptrdiff_t faulty_writev(void *opaque, const struct iovec *iov, int count, Error **errp)
{
    Faulty *channel = opaque;
    ssize_t ret;

    (void)errp;
    CHECK(count > 0);
    if (fails(channel)) {
        return channel->failure == NOTHING ? 0 : -ECONNRESET;
    }
    if (channel->fd < 0) {
        return (ptrdiff_t)smaller(iov[0].iov_len, channel->step);
    }
    ret = send(channel->fd, iov[0].iov_base, smaller(iov[0].iov_len, channel->step), MSG_NOSIGNAL);
    return ret < 0 ? -errno : ret;
}

static int faulty_shutdown(void *opaque)
{
    Faulty *channel = opaque;

    if (fails(channel)) {
        return -EIO;
    }
    return channel->fd >= 0 && shutdown(channel->fd, SHUT_RDWR) < 0 ? -errno : 0;
}

static int faulty_close(void *opaque)
{
    return fails(opaque) ? -EIO : 0;
}

static void faulty_free(void *opaque)
{
    Faulty *channel = opaque;

    if (channel->fd >= 0) {
        close(channel->fd);
    }
    channel->frees++;
}

const SaveVMChannelOps faulty_ops = {
    .size = sizeof(SaveVMChannelOps),
    .read = faulty_read,
    .writev = faulty_writev,
    .shutdown = faulty_shutdown,
    .close = faulty_close,
    .free = faulty_free,
};

void faulty_init(Faulty *channel, int fd, size_t step, Failure failure, int fail_at)
{
    memset(channel, 0, sizeof(*channel));
    channel->fd = fd;
    channel->step = step;
    channel->failure = failure;
    channel->fail_at = fail_at;
}

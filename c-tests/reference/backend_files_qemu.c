/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files of backend.h on top of QEMU's own objects. Compiled with QEMU's
 * flags against QEMU's headers.
 */
#include "qemu/osdep.h"
#include "io/channel-buffer.h"
#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "migration/qemu-file.h"
#include "qapi/error.h"

#include "reference/host_qemu.h"

static QEMUFile *open_channel(QIOChannel *channel, bool writable)
{
    QEMUFile *f;

    f = writable ? qemu_file_new_output(channel) : qemu_file_new_input(channel);
    object_unref(OBJECT(channel));
    return f;
}

QEMUFile *backend_writer(void)
{
    return open_channel(QIO_CHANNEL(qio_channel_buffer_new(64)), true);
}

QEMUFile *backend_reader(const void *bytes, size_t len)
{
    QIOChannelBuffer *buffer = qio_channel_buffer_new(len + 1);

    if (len) {
        memcpy(buffer->data, bytes, len);
        buffer->usage = len;
    }
    return open_channel(QIO_CHANNEL(buffer), false);
}

const uint8_t *backend_bytes(QEMUFile *f, size_t *len)
{
    QIOChannelBuffer *buffer;

    qemu_fflush(f);
    buffer = QIO_CHANNEL_BUFFER(qemu_file_get_ioc(f));
    *len = buffer->usage;
    return buffer->data;
}

QEMUFile *backend_fd(int fd, bool writable)
{
    struct stat about;

    if (fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode)) {
        QIOChannelSocket *socket = qio_channel_socket_new_fd(fd, &error_abort);

        return open_channel(QIO_CHANNEL(socket), writable);
    }
    return open_channel(QIO_CHANNEL(qio_channel_file_new_fd(fd)), writable);
}

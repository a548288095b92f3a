/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compressed pages, which QEMU has up to 8.2. The unit tests link this file as well. */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "migration/qemu-file.h"
#include "glue.h"
#include "savevm/file.h"

/* Writes a page as be32 length and deflated bytes; -1 if the buffer is full. */
ssize_t qemu_put_compression_data(QEMUFile *f, z_stream *stream,
                                  const uint8_t *p, size_t size)
{
    uLong room = compressBound(size);
    uint8_t *to = savevm_file_reserve(f, sizeof(uint32_t) + room);
    size_t len;

    if (!to || deflateReset(stream) != Z_OK) {
        return -1;
    }
    stream->next_in = (uint8_t *)p;
    stream->avail_in = size;
    stream->next_out = to + sizeof(uint32_t);
    stream->avail_out = room;
    if (deflate(stream, Z_FINISH) != Z_STREAM_END) {
        return -1;
    }
    len = room - stream->avail_out;
    stl_be_p(to, len);
    savevm_file_commit(f, sizeof(uint32_t) + len);
    return sizeof(uint32_t) + len;
}

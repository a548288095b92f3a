/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parts of QEMUFile that QEMU has up to 8.0 and 8.2: the hooks of RDMA and
 * compressed pages. The unit tests link this file as well.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "migration/qemu-file.h"
#include "glue.h"
#include "savevm/file.h"

/* Up to QEMU 7.0, hooks also get the channel that the file was opened with. */
#if GLUE_VERSION < 701
#define CHANNEL_OF(f) glue_opaque(f),
#else
#define CHANNEL_OF(f)
#endif

/* RAM hooks (RDMA) */

static const QEMUFileHooks *file_hooks(QEMUFile *f)
{
    static const QEMUFileHooks none;
    const QEMUFileHooks *hooks = savevm_file_data(f);

    return hooks ? hooks : &none;
}

void qemu_file_set_hooks(QEMUFile *f, const QEMUFileHooks *hooks)
{
    savevm_file_set_data(f, hooks);
}

static void run_hook(QEMUFile *f, QEMURamHookFunc *hook, uint64_t flags,
                     void *data)
{
    int ret = hook ? hook(f, CHANNEL_OF(f) flags, data) : 0;

    if (ret < 0) {
        qemu_file_set_error(f, ret);
    }
}

void ram_control_before_iterate(QEMUFile *f, uint64_t flags)
{
    run_hook(f, file_hooks(f)->before_ram_iterate, flags, NULL);
}

void ram_control_after_iterate(QEMUFile *f, uint64_t flags)
{
    run_hook(f, file_hooks(f)->after_ram_iterate, flags, NULL);
}

void ram_control_load_hook(QEMUFile *f, uint64_t flags, void *data)
{
    QEMURamHookFunc *hook = file_hooks(f)->hook_ram_load;

    run_hook(f, hook, flags, data);
    if (!hook && flags == RAM_CONTROL_HOOK) {
        /* The source requires a hook that this side does not have. */
        qemu_file_set_error(f, -EINVAL);
    }
}

size_t ram_control_save_page(QEMUFile *f, ram_addr_t block_offset,
                             ram_addr_t offset, size_t size,
                             uint64_t *bytes_sent)
{
    QEMURamSaveFunc *save = file_hooks(f)->save_page;
    int ret = save ? save(f, CHANNEL_OF(f) block_offset, offset, size,
                          bytes_sent)
                   : RAM_SAVE_CONTROL_NOT_SUPP;

    if (ret == RAM_SAVE_CONTROL_NOT_SUPP) {
        return ret;
    }
    qemu_file_acct_rate_limit(f, size);
    if (ret != RAM_SAVE_CONTROL_DELAYED) {
        if (bytes_sent && *bytes_sent > 0) {
            qemu_file_credit_transfer(f, *bytes_sent);
        } else if (ret < 0) {
            qemu_file_set_error(f, ret);
        }
    }
    return ret;
}

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

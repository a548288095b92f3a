/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What later versions do with a channel and QEMU 7.2 does not. */
#include "qemu/osdep.h"
#include "migration/qemu-file.h"
#include "glue.h"

ssize_t glue_read(GlueChannel *c, uint8_t *buf, size_t len, Error **errp)
{
    return qio_channel_read(c->ioc, (char *)buf, len, errp);
}

void glue_channel_clear(GlueChannel *c)
{
}

void glue_account(uint64_t bytes)
{
}

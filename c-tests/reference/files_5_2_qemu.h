/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files of QEMU 5.2 by the names of 7.2; empty for newer versions. After
 * QEMU's own headers.
 */
#ifndef REFERENCE_FILES_5_2_QEMU_H
#define REFERENCE_FILES_5_2_QEMU_H

#if QEMU_VERSION_MAJOR < 6

#include "migration/qemu-file-channel.h"

/* 5.2 does not return the channel of a file. A closed file leaves its entry to
 * the next one at the same address. */
static GHashTable *channels;

static inline QEMUFile *with_channel(QEMUFile *f, QIOChannel *channel)
{
    if (!channels) {
        channels = g_hash_table_new(NULL, NULL);
    }
    g_hash_table_insert(channels, f, channel);
    return f;
}

static inline QEMUFile *qemu_file_new_input(QIOChannel *channel)
{
    return with_channel(qemu_fopen_channel_input(channel), channel);
}

static inline QEMUFile *qemu_file_new_output(QIOChannel *channel)
{
    return with_channel(qemu_fopen_channel_output(channel), channel);
}

static inline QIOChannel *qemu_file_get_ioc(QEMUFile *f)
{
    return g_hash_table_lookup(channels, f);
}

#define qemu_file_total_transferred_fast qemu_ftell_fast

#endif
#endif

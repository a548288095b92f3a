/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a stream of an unmodified QEMU. What its devices mean is not known here,
 * only how many bytes each has: a table has that, which qemu-stream.py takes
 * from the description at the end of a stream. So this is about all that is
 * around them: header, configuration, commands, sections, footers, the end.
 *
 * usage: qemu-stream MACHINE TABLE URI [UUID] [CAPABILITY]
 * Every line of the table: name, instance, version, bytes, separated by tabs.
 * file: is loaded as a snapshot; other URIs are waited at for a live migration.
 */
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "savevm.h"
#include "savevm/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Sink {
    char name[256];
    int instance;
    int version;
    size_t size;
    unsigned loads;
} Sink;

enum { SINKS_MAX = 256, PAGE = 4096 };

static Sink sinks[SINKS_MAX];
static unsigned count;
static unsigned wrong;

static const char *machine;
static uint8_t uuid[16];
static bool has_uuid;
static const char *capabilities[2];

/* RAM: QEMU's "ram" section of version 4, as far as a plain migration uses it. */

typedef struct Ram {
    uint64_t announced;
    uint64_t pages;
    unsigned sections;
    unsigned setups;
    unsigned cleanups;
} Ram;

static Ram ram;

enum { ZERO = 0x02, SIZES = 0x04, PLAIN = 0x08, EOS = 0x10, CONTINUE = 0x20, FLAGS = 0xfff };

static void read_sizes(QEMUFile *f, uint64_t total, bool with_addresses)
{
    while (total > 0 && qemu_file_get_error(f) == 0) {
        char name[256];
        uint64_t size;

        qemu_get_counted_string(f, name);
        size = qemu_get_be64(f);
        if (with_addresses) {
            qemu_get_be64(f);
        }
        printf("block %s: %llu bytes\n", name, (unsigned long long)size);
        ram.announced += size;
        total = size > total ? 0 : total - size;
    }
}

static int load_ram(QEMUFile *f, void *opaque, int version_id)
{
    (void)opaque;
    if (version_id != 4) {
        return -1;
    }
    ram.sections++;
    for (;;) {
        uint64_t word = qemu_get_be64(f);
        unsigned flags = word & FLAGS;
        char name[256];
        uint8_t page[PAGE];

        if (qemu_file_get_error(f)) {
            return qemu_file_get_error(f);
        }
        if (flags & EOS) {
            return 0;
        }
        if (flags & SIZES) {
            read_sizes(f, word & ~(uint64_t)FLAGS, capabilities[0] != NULL);
            continue;
        }
        if (!(flags & (ZERO | PLAIN))) {
            fprintf(stderr, "flags 0x%x are not known here\n", flags);
            return -1;
        }
        if (!(flags & CONTINUE)) {
            qemu_get_counted_string(f, name);
        }
        if (flags & ZERO) {
            qemu_get_byte(f);
        } else {
            qemu_get_buffer(f, page, sizeof(page));
        }
        ram.pages++;
    }
}

static int ram_setup(QEMUFile *f, void *opaque)
{
    (void)f;
    (void)opaque;
    ram.setups++;
    return 0;
}

static int ram_cleanup(void *opaque)
{
    (void)opaque;
    ram.cleanups++;
    return 0;
}

static const SaveVMHandlers ram_handlers = {
    .load_state = load_ram,
    .load_setup = ram_setup,
    .load_cleanup = ram_cleanup,
};

/* All other devices */

static int load_sink(QEMUFile *f, void *opaque, int version_id)
{
    Sink *sink = opaque;

    sink->loads++;
    if (version_id != sink->version) {
        fprintf(stderr, "%s has version %d, expected %d\n", sink->name, version_id, sink->version);
        wrong++;
    }
    for (size_t left = sink->size; left > 0;) {
        uint8_t bytes[512];
        size_t some = left < sizeof(bytes) ? left : sizeof(bytes);

        if (qemu_get_buffer(f, bytes, some) != some) {
            return qemu_file_get_error(f);
        }
        left -= some;
    }
    return 0;
}

static const SaveVMHandlers sink_handlers = { .load_state = load_sink };

static bool read_table(const char *path)
{
    FILE *table = fopen(path, "r");
    char line[512];

    if (!table) {
        perror(path);
        return false;
    }
    while (fgets(line, sizeof(line), table) && count < SINKS_MAX) {
        Sink *sink = &sinks[count++];

        if (sscanf(line, "%255[^\t]\t%d\t%d\t%zu", sink->name, &sink->instance, &sink->version, &sink->size) != 4) {
            fprintf(stderr, "not a line of a table: %s", line);
            fclose(table);
            return false;
        }
        register_savevm_live(sink->name, sink->instance, 1000, &sink_handlers, sink);
    }
    fclose(table);
    return true;
}

/* The host */

static const char *host_machine(void *host)
{
    (void)host;
    return machine;
}

static bool host_uuid(void *host, uint8_t *bytes)
{
    (void)host;
    memcpy(bytes, uuid, sizeof(uuid));
    return has_uuid;
}

static const char *const *host_capabilities(void *host)
{
    (void)host;
    return capabilities;
}

static unsigned started;

static int host_start(void *host)
{
    (void)host;
    started++;
    return 0;
}

static void host_report(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    fprintf(stderr, "%s: %s\n", level == SAVEVM_REPORT_ERROR ? "error" : "warning", text);
}

static const SaveVMHostOps ops = {
    .size = sizeof(SaveVMHostOps),
    .machine_name = host_machine,
    .uuid = host_uuid,
    .capabilities = host_capabilities,
    .vm_start = host_start,
    .report = host_report,
};

static bool parse_uuid(const char *text)
{
    unsigned digits = 0;

    for (; *text; text++) {
        unsigned byte;

        if (*text != '-') {
            if (digits >= sizeof(uuid) || sscanf(text, "%2x", &byte) != 1) {
                return false;
            }
            uuid[digits++] = (uint8_t)byte;
            text++;
        }
    }
    return digits == sizeof(uuid);
}

static int load_file(const char *uri)
{
    Error *err = NULL;
    QEMUFile *f = savevm_file_open(uri, false, &err);
    int ret;

    if (!f) {
        fprintf(stderr, "%s\n", error_get_pretty(err));
        return -1;
    }
    ret = qemu_loadvm_state(f);
    if (ret == 0) {
        /* The description was read to its last byte, and nothing follows. */
        qemu_get_byte(f);
        if (qemu_file_get_error(f) == 0) {
            fprintf(stderr, "there is more behind the description\n");
            wrong++;
        }
    }
    qemu_fclose(f);
    return ret;
}

static int receive(const char *uri)
{
    Error *err = NULL;
    SaveVMMigration *in = savevm_incoming(NULL, uri, NULL, &err);
    int ret = in ? savevm_migration_wait(in, &err) : -1;

    if (err) {
        fprintf(stderr, "%s\n", error_get_pretty(err));
        error_free(err);
    }
    savevm_migration_free(in);
    if (ret == 0 && started != 1) {
        fprintf(stderr, "the guest was started %u times\n", started);
        wrong++;
    }
    return ret;
}

int main(int argc, char **argv)
{
    int ret;

    if (argc < 4) {
        fprintf(stderr, "usage: qemu-stream MACHINE TABLE URI [UUID] [CAPABILITY]\n");
        return 2;
    }
    machine = argv[1];
    has_uuid = argc > 4 && parse_uuid(argv[4]);
    capabilities[0] = argc > 5 ? argv[5] : NULL;
    savevm_set_host(savevm_default(), &ops, NULL);
    register_savevm_live("ram", 0, 4, &ram_handlers, NULL);
    if (!read_table(argv[2])) {
        return 2;
    }
    ret = strncmp(argv[3], "file:", 5) == 0 ? load_file(argv[3]) : receive(argv[3]);
    if (ret != 0) {
        fprintf(stderr, "the load returned %d\n", ret);
        return 1;
    }
    for (unsigned i = 0; i < count; i++) {
        if (sinks[i].loads != 1) {
            fprintf(stderr, "%s was loaded %u times\n", sinks[i].name, sinks[i].loads);
            wrong++;
        }
    }
    if (ram.sections < 2 || ram.pages * PAGE < ram.announced || ram.setups != 1 || ram.cleanups != 1) {
        fprintf(stderr, "ram: %u sections, %llu pages, %u load_setup, %u load_cleanup\n", ram.sections,
                (unsigned long long)ram.pages, ram.setups, ram.cleanups);
        wrong++;
    }
    printf("%u devices, %u sections of ram, %llu pages\n", count, ram.sections, (unsigned long long)ram.pages);
    return wrong ? 1 : 0;
}

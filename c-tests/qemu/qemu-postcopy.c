/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One end of a migration whose other end is a QEMU with the machine "none":
 *     qemu-postcopy in|out URI CONTENT DUMP [TLS-DIRECTORY]
 *     qemu-postcopy has-tls        status 0 if the library has TLS
 * CONTENT is the initial guest memory. On the destination, the guest reads
 * all pages in an order that looks random as soon as it runs, and compares them.
 * On the source, it writes to pages until it is stopped, and what was left is
 * written to DUMP.
 *
 * Commands on stdin: postcopy, precopy (end it without a limit on the bandwidth), pause, recover URI, wait. On stdout: one line
 * for each status, and what was found.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migration/qemu-file.h"
#include "migration/register.h"
#include "savevm.h"
#include "savevm/ram.h"

#define PAGE 4096

typedef struct Machine {
    bool incoming;
    SaveVM *vm;
    SaveVMRam *ram;
    const uint8_t *content;
    uint8_t *memory;
    size_t length;
    atomic_bool runs;
    atomic_int writes;
    pthread_t guest;
    pthread_mutex_t lock;
    SaveVMMigration *out;
    SaveVMMigration *in;
    SaveVMParams params;
} Machine;

static int fail(const char *what, const Error *err)
{
    printf("failed %s: %s\n", what, err ? error_get_pretty(err) : "?");
    return 1;
}

/* A number below `limit` that looks random. */
static size_t next_number(uint64_t *seed, size_t limit)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 33) % limit;
}

/* The guest */

static void read_all(Machine *m)
{
    size_t pages = m->length / PAGE, wrong = 0, page = 0;

    /* A step that has no divisor in common with the number of pages visits each once. */
    for (size_t i = 0; i < pages; i++) {
        page = (page + 7919) % pages;
        wrong += memcmp(m->memory + page * PAGE, m->content + page * PAGE, PAGE) != 0;
    }
    printf("read %zu wrong %zu\n", pages, wrong);
}

static void write_some(Machine *m)
{
    uint64_t seed = 1;

    while (atomic_load(&m->runs)) {
        uint8_t *page = m->memory + next_number(&seed, m->length / PAGE) * PAGE;

        pthread_mutex_lock(&m->lock);
        if (atomic_load(&m->runs)) {
            ++*(volatile uint64_t *)page;
            savevm_ram_set_dirty(m->ram, page, PAGE);
            m->writes++;
        }
        pthread_mutex_unlock(&m->lock);
        usleep(100);
    }
}

/* Until the guest has written to some more pages. */
static void let_it_write(Machine *m)
{
    int until = m->writes + 16;

    while (m->runs && m->writes < until) {
        usleep(1000);
    }
}

static void *guest(void *opaque)
{
    Machine *m = opaque;

    if (m->incoming) {
        read_all(m);
    } else {
        write_some(m);
    }
    return NULL;
}

/* The host */

static int vm_start(void *host)
{
    Machine *m = host;

    m->runs = true;
    return -pthread_create(&m->guest, NULL, guest, m);
}

static int vm_stop(void *host)
{
    Machine *m = host;

    pthread_mutex_lock(&m->lock);
    m->runs = false;
    pthread_mutex_unlock(&m->lock);
    return -pthread_join(m->guest, NULL);
}

static bool vm_running(void *host)
{
    return ((Machine *)host)->runs;
}

static void migration_event(void *host, const SaveVMEvent *event)
{
    (void)host;
    printf("status %s\n", event->status_name);
}

static void report(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    printf("report %d %s\n", level, text);
}

/* What QEMU's machine sends beside its RAM: so many bytes each. */
static int skip(QEMUFile *f, void *opaque, int version)
{
    uint8_t bytes[128];

    (void)version;
    qemu_get_buffer(f, bytes, (size_t)(uintptr_t)opaque);
    return qemu_file_get_error(f);
}

static const SaveVMHandlers skip_ops = { .load_state = skip };

static int make(Machine *m, const char *content)
{
    static const SaveVMHostOps ops = {
        .size = sizeof(ops), .vm_start = vm_start, .vm_stop = vm_stop, .vm_running = vm_running,
        .migration_event = migration_event, .report = report,
    };
    SaveVMRamOptions ram = SAVEVM_RAM_OPTIONS_INIT;
    ram.log = SAVEVM_RAM_LOG_MARKS;
    Error *err = NULL;
    struct stat info;
    int file = open(content, O_RDONLY | O_CLOEXEC);

    if (file < 0 || fstat(file, &info) != 0) {
        return fail(content, NULL);
    }
    m->length = info.st_size;
    m->content = mmap(NULL, m->length, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    m->memory = mmap(NULL, m->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->content == MAP_FAILED || m->memory == MAP_FAILED) {
        return fail("memory", NULL);
    }
    memset(m->memory, 0xa5, m->length);
    if (!m->incoming) {
        memcpy(m->memory, m->content, m->length);
    }
    pthread_mutex_init(&m->lock, NULL);
    m->vm = savevm_new(&ops, m);
    savevm_set_current(m->vm);
    /* Before the RAM: QEMU takes parts of a section 0 for its own first device's. */
    register_savevm_live("timer", 0, 2, &skip_ops, (void *)24);
    m->ram = savevm_ram_new(m->vm, &ram, NULL, m, &err);
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    block.name = "ram";
    block.host = m->memory;
    block.length = m->length;
    if (!m->ram || savevm_ram_add_block(m->ram, &block, &err) != 0) {
        return fail("RAM", err);
    }
    return 0;
}

static int begin(Machine *m, const char *uri, const char *directory)
{
    SaveVMTls tls = SAVEVM_TLS_INIT;
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    tls.dir = directory;
    tls.hostname = "localhost";
    params.tls = directory ? &tls : NULL;
    params.postcopy = true;
    params.max_bandwidth = 4 << 20;
    params.max_postcopy_bandwidth = 4 << 20;
    params.downtime_limit_ms = 20;
    params.recover_timeout_ms = 30000;
    Error *err = NULL;

    if (m->incoming) {
        m->in = savevm_incoming(m->vm, uri, &params, &err);
    } else {
        vm_start(m);
        m->out = savevm_migrate(m->vm, uri, &params, &err);
    }
    params.tls = NULL;
    m->params = params;
    return m->in || m->out ? 0 : fail("begin", err);
}

static int finish(Machine *m, const char *dump)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL;
    int ret = m->incoming ? savevm_migration_wait(m->in, &err) : savevm_migration_wait(m->out, &err);

    if (m->incoming) {
        savevm_migration_query(m->in, &info);
        if (m->runs) {
            pthread_join(m->guest, NULL);
        }
    } else {
        savevm_migration_query(m->out, &info);
        FILE *file = fopen(dump, "w");
        if (!file || fwrite(m->memory, 1, m->length, file) != m->length || fclose(file) != 0) {
            return fail(dump, NULL);
        }
    }
    printf("requests %ju\nrecoveries %ju\ntransferred %ju\n", (uintmax_t)info.page_requests,
           (uintmax_t)info.recoveries, (uintmax_t)info.transferred);
    printf("end %d %s\n", ret, err ? error_get_pretty(err) : "well");
    error_free(err);
    savevm_migration_free(m->out);
    savevm_migration_free(m->in);
    savevm_ram_free(m->ram);
    savevm_free(m->vm);
    return ret ? 1 : 0;
}

static int command(Machine *m, char *line)
{
    Error *err = NULL;
    int ret = -1;

    if (!m->incoming) {
        let_it_write(m);
    }
    if (strcmp(line, "postcopy") == 0) {
        ret = savevm_migration_start_postcopy(m->out);
    } else if (strcmp(line, "precopy") == 0) {
        m->params.max_bandwidth = 0;
        m->params.downtime_limit_ms = 2000;
        ret = savevm_migration_set_params(m->out, &m->params, &err);
    } else if (strcmp(line, "pause") == 0) {
        ret = m->incoming ? savevm_migration_pause(m->in) : savevm_migration_pause(m->out);
    } else if (strncmp(line, "recover ", 8) == 0) {
        ret = m->incoming ? savevm_migration_recover(m->in, line + 8, &err)
                          : savevm_migration_recover(m->out, line + 8, &err);
    }
    return ret ? fail(line, err) : 0;
}

static bool has_tls(void)
{
    SaveVMTls tls = SAVEVM_TLS_INIT;
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    Error *err = NULL;

    tls.dir = "/nowhere";
    params.tls = &tls;
    SaveVM *vm = savevm_new(NULL, NULL);
    savevm_migrate(vm, "unix:/nowhere", &params, &err);
    const SaveVMErrorInfo *why = savevm_error_info(err);
    bool has = why && why->error != ENOTSUP;
    error_free(err);
    savevm_free(vm);
    return has;
}

int main(int argc, char **argv)
{
    static Machine m;
    char line[4096];

    if (argc == 2 && strcmp(argv[1], "has-tls") == 0) {
        return !has_tls();
    }
    if (argc != 5 && argc != 6) {
        return fail("qemu-postcopy in|out URI CONTENT DUMP [TLS-DIRECTORY]", NULL);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    m.incoming = strcmp(argv[1], "in") == 0;
    if (make(&m, argv[3]) || begin(&m, argv[2], argc == 6 ? argv[5] : NULL)) {
        return 1;
    }
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "wait") == 0) {
            return finish(&m, argv[4]);
        }
        command(&m, line);
    }
    return fail("no thread waits", NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* backend.h on top of libsavevm. */
#include "backend.h"

#include "migration/qemu-file.h"
#include "savevm.h"
#include "savevm/host-driver.h"
#include "savevm/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

BackendHost backend = {
    .machine = "box",
    .page_bits = 12,
    .page_bits_min = 12,
    .ram_page_sizes = 4096,
};

static int postcopy;
static bool return_path;

const char *backend_name(void)
{
    return "savevm";
}

static const char *machine_name(void *host)
{
    (void)host;
    return backend.machine;
}

static unsigned page_bits(void *host)
{
    (void)host;
    return backend.page_bits;
}

static unsigned page_bits_min(void *host)
{
    (void)host;
    return backend.page_bits_min;
}

static const char *const *capabilities(void *host)
{
    static const char *const none[] = { NULL };
    static const char *const one[] = { "x-ignore-shared", NULL };

    (void)host;
    return backend.x_ignore_shared ? one : none;
}

static bool uuid(void *host, uint8_t *bytes)
{
    (void)host;
    if (backend.uuid) {
        memcpy(bytes, backend.uuid, 16);
    }
    return backend.uuid != NULL;
}

static uint32_t stream_flags(void *host)
{
    (void)host;
    return (backend.no_configuration ? SAVEVM_FLAG_NO_CONFIGURATION : 0) |
           (backend.no_footers ? SAVEVM_FLAG_NO_FOOTERS : 0) |
           (backend.no_vmdesc ? SAVEVM_FLAG_NO_VMDESC : 0) |
           (backend.in_postcopy ? SAVEVM_FLAG_IN_POSTCOPY : 0) |
           (backend.in_colo ? SAVEVM_FLAG_IN_COLO : 0) |
           (backend.postcopy_ram ? SAVEVM_FLAG_POSTCOPY_RAM : 0);
}

static uint64_t ram_page_sizes(void *host)
{
    (void)host;
    return backend.ram_page_sizes;
}

static void cpu_synchronize_states(void *host)
{
    (void)host;
    trace("host: cpu_synchronize_states");
}

static void cpu_synchronize_pre_load(void *host)
{
    (void)host;
    trace("host: cpu_synchronize_pre_load");
}

static void cpu_synchronize_post_load(void *host)
{
    (void)host;
    trace("host: cpu_synchronize_post_load");
}

static int disks_inactivate(void *host)
{
    (void)host;
    trace("host: disks_inactivate");
    return backend.disks_inactivate;
}

static int precopy_notify(void *host, SaveVMPrecopyNotice notice)
{
    (void)host;
    trace("host: precopy_notify %d", notice);
    return 0;
}

static void report(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    fprintf(stderr, "%s: %s\n", level == SAVEVM_REPORT_ERROR ? "error" : "warning", text);
}

static char *object_path(void *host, VMStateIf *object)
{
    const char *path = (const char *)object;

    (void)host;
    return *path ? strdup(path) : NULL;
}

/* What commands ask for */

static int open_return_path(void *host, QEMUFile *f)
{
    (void)host;
    (void)f;
    if (!return_path) {
        trace("host: open_return_path");
    }
    return_path = true;
    return 0;
}

static int pong(void *host, uint32_t value)
{
    (void)host;
    if (!return_path) {
        return -1;
    }
    trace("host: pong 0x%x", value);
    return 0;
}

static SaveVMPostcopyState postcopy_state(void *host, SaveVMPostcopyState state)
{
    int before = postcopy;

    (void)host;
    postcopy = state < 0 ? before : state;
    return before;
}

static int postcopy_advise(void *host, bool ram)
{
    (void)host;
    if (ram) {
        trace("host: postcopy_advise");
    }
    return 0;
}

static int postcopy_prepare_discard(void *host)
{
    (void)host;
    trace("host: postcopy_prepare_discard");
    postcopy = 2;
    return 0;
}

static int postcopy_discard(void *host, const char *block, uint64_t start, uint64_t length)
{
    (void)host;
    trace("host: postcopy_discard %s 0x%llx 0x%llx", block, (unsigned long long)start, (unsigned long long)length);
    return backend.discard;
}

static int postcopy_listen(void *host)
{
    (void)host;
    trace("host: postcopy_listen");
    return 0;
}

static int postcopy_run(void *host)
{
    (void)host;
    trace("host: postcopy_run");
    return 0;
}

static int postcopy_resume(void *host)
{
    (void)host;
    trace("host: postcopy_resume");
    return 0;
}

static int recv_bitmap(void *host, const char *block)
{
    (void)host;
    trace("host: recv_bitmap %s", block);
    return 0;
}

static int enable_colo(void *host)
{
    (void)host;
    trace("host: enable_colo");
    return backend.enable_colo;
}

/* A thread reads on once there was a LISTEN. */
static bool main_loop_done(void *host)
{
    (void)host;
    return postcopy >= 3;
}

static const SaveVMIncomingOps incoming = {
    .size = sizeof(SaveVMIncomingOps),
    .open_return_path = open_return_path,
    .pong = pong,
    .postcopy_state = postcopy_state,
    .postcopy_advise = postcopy_advise,
    .postcopy_prepare_discard = postcopy_prepare_discard,
    .postcopy_discard = postcopy_discard,
    .postcopy_listen = postcopy_listen,
    .postcopy_run = postcopy_run,
    .postcopy_resume = postcopy_resume,
    .recv_bitmap = recv_bitmap,
    .enable_colo = enable_colo,
    .main_loop_done = main_loop_done,
};

void backend_start(void)
{
    SaveVMHostOps ops;

    memset(&ops, 0, sizeof(ops));
    ops.size = sizeof(ops);
    ops.cpu_synchronize_states = cpu_synchronize_states;
    ops.cpu_synchronize_pre_load = cpu_synchronize_pre_load;
    ops.cpu_synchronize_post_load = cpu_synchronize_post_load;
    ops.machine_name = machine_name;
    ops.uuid = uuid;
    ops.target_page_bits = page_bits;
    ops.target_page_bits_min = page_bits_min;
    ops.capabilities = capabilities;
    ops.stream_flags = stream_flags;
    ops.ram_page_sizes = ram_page_sizes;
    ops.object_path = object_path;
    ops.disks_inactivate = disks_inactivate;
    ops.precopy_notify = precopy_notify;
    ops.report = report;
    ops.incoming = &incoming;
    savevm_set_host(savevm_default(), &ops, NULL);
}

QEMUFile *backend_writer(void)
{
    return savevm_file_to_buffer();
}

QEMUFile *backend_reader(const void *bytes, size_t len)
{
    return savevm_file_from_buffer(bytes, len);
}

const uint8_t *backend_bytes(QEMUFile *f, size_t *len)
{
    return savevm_file_buffer(f, len);
}

QEMUFile *backend_fd(int fd, bool writable)
{
    return savevm_file_from_fd(fd, writable);
}

VMStateIf *backend_object(const char *path)
{
    return (VMStateIf *)(path ? path : "");
}

MigrationIncomingState *backend_incoming(QEMUFile *f)
{
    (void)f;
    return NULL;
}

int backend_postcopy_state(int state)
{
    return postcopy_state(NULL, state);
}

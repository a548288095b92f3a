/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* backend.h on top of libsavevm. */
#include "backend.h"

#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "savevm.h"
#include "savevm/abi.h"
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
#if SAVEVM_QEMU_VERSION >= 1000
static bool described;     /* the driver has begun a description */
static bool loading;
static bool thread_failed;
#endif

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
    static const char *names[3];
    unsigned count = 0;

    (void)host;
    if (backend.x_ignore_shared) {
        names[count++] = "x-ignore-shared";
    }
    if (backend.mapped_ram) {
        names[count++] = "mapped-ram";
    }
    names[count] = NULL;
    return names;
}

static bool uuid(void *host, uint8_t *bytes)
{
    (void)host;
    if (backend.uuid) {
        memcpy(bytes, backend.uuid, 16);
    }
    return backend.uuid != NULL;
}

/* In newer versions, the driver decides whether a save is described. */
static bool describes(void)
{
#if SAVEVM_QEMU_VERSION >= 1000
    return described || loading;
#else
    return true;
#endif
}

static uint32_t stream_flags(void *host)
{
    (void)host;
    return (backend.no_configuration ? SAVEVM_FLAG_NO_CONFIGURATION : 0) |
           (backend.no_footers ? SAVEVM_FLAG_NO_FOOTERS : 0) |
#if SAVEVM_QEMU_VERSION >= 1000
           (backend.switchover_ack ? SAVEVM_FLAG_SWITCHOVER_ACK : 0) |
           (backend.no_switchover_start ? SAVEVM_FLAG_NO_SWITCHOVER_START : 0) | SAVEVM_FLAG_HOST_CLEANS_LOAD |
#endif
           (backend.no_vmdesc || !describes() ? SAVEVM_FLAG_NO_VMDESC : 0) |
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
    if (SAVEVM_QEMU_VERSION >= 1000 && notice == SAVEVM_PRECOPY_COMPLETE) {
        /* The driver sends this notice itself. */
        return 0;
    }
    trace("host: precopy_notify %d", notice);
    return backend.precopy_notify;
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

static int postcopy_advise(void *host, bool ram, Error **errp)
{
    (void)errp;
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

static int postcopy_listen(void *host, Error **errp)
{
    (void)errp;
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

static int enable_colo(void *host, Error **errp)
{
    (void)errp;
    (void)host;
    trace("host: enable_colo");
    return backend.enable_colo;
}

static int switchover_ack(void *host)
{
    (void)host;
    trace("host: switchover_ack");
    return 0;
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
    .switchover_ack = switchover_ack,
};

#if SAVEVM_QEMU_VERSION >= 1000
/* Threads of devices run at once. */

static bool device_threads(void *host)
{
    (void)host;
    return backend.device_threads;
}

static void device_thread_start(void *host, void *function, const char *idstr, uint32_t instance_id, void *device)
{
    Error *err = NULL;
#if SAVEVM_QEMU_VERSION >= 1001
    SaveCompletePrecopyThreadData data = { NULL, (char *)idstr, instance_id, device };
#else
    SaveLiveCompletePrecopyThreadData data = { NULL, (char *)idstr, instance_id, device };
#endif

    (void)host;
    trace("host: thread of %s %u", idstr, instance_id);
    memcpy(&data.hdlr, &function, sizeof(function));
    thread_failed |= !data.hdlr(&data, &err);
    error_free(err);
}

static void device_threads_abort(void *host)
{
    (void)host;
    trace("host: threads_abort");
}

static bool device_threads_join(void *host)
{
    bool failed = thread_failed;

    (void)host;
    if (failed) {
        device_threads_abort(host);
    }
    trace("host: threads_join");
    thread_failed = false;
    return !failed;
}
#endif

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
#if SAVEVM_QEMU_VERSION >= 1000
    ops.device_threads = device_threads;
    ops.device_thread_start = device_thread_start;
    ops.device_threads_abort = device_threads_abort;
    ops.device_threads_join = device_threads_join;
#endif
    savevm_set_host(savevm_default(), &ops, NULL);
    savevm_set_abi(savevm_default(), SAVEVM_QEMU_ABI, NULL);
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

void backend_rate_set(QEMUFile *f, int64_t limit)
{
    qemu_file_set_rate_limit(f, limit);
}

void backend_rate_reset(QEMUFile *f)
{
    qemu_file_reset_rate_limit(f);
}

bool backend_rate_exceeded(QEMUFile *f)
{
    return qemu_file_rate_limit(f);
}

void backend_set_blocking(QEMUFile *f, bool block)
{
    qemu_file_set_blocking(f, block);
}

uint64_t backend_transferred(QEMUFile *f)
{
    return (uint64_t)qemu_file_total_transferred_fast(f);
}

int backend_postcopy_state(int state)
{
    return postcopy_state(NULL, state);
}

#if SAVEVM_QEMU_VERSION < 1000

void backend_header(QEMUFile *f)
{
    qemu_savevm_state_header(f);
}

void backend_setup(QEMUFile *f)
{
    qemu_savevm_state_setup(f);
}

void backend_pending(QEMUFile *f, uint64_t threshold)
{
    uint64_t sums[3];

    qemu_savevm_state_pending(f, threshold, &sums[0], &sums[1], &sums[2]);
    trace("pending %llu %llu %llu", (unsigned long long)sums[0], (unsigned long long)sums[1],
          (unsigned long long)sums[2]);
}

int backend_complete(QEMUFile *f, bool live_only, bool inactivate_disks)
{
    return qemu_savevm_state_complete_precopy(f, live_only, inactivate_disks);
}

#if SAVEVM_QEMU_VERSION >= 600
int backend_complete_devices(QEMUFile *f, bool in_postcopy, bool inactivate_disks)
{
    return qemu_savevm_state_complete_precopy_non_iterable(f, in_postcopy, inactivate_disks);
}
#else
int backend_complete_devices(QEMUFile *f, bool in_postcopy, bool inactivate_disks)
{
    bool before = backend.in_postcopy;
    int ret;

    backend.in_postcopy |= in_postcopy;
    ret = backend_complete(f, false, inactivate_disks);
    backend.in_postcopy = before;
    return ret;
}
#endif

int backend_load(QEMUFile *f)
{
    return qemu_loadvm_state(f);
}

int backend_load_sections(QEMUFile *f)
{
    return qemu_loadvm_state_main(f, NULL);
}

int backend_load_devices(QEMUFile *f)
{
    return qemu_load_device_state(f);
}

#else

static void failed(const char *phase, int ret, Error *err, const char *expected)
{
    trace("%s: %d", phase, ret);
    if (err && expected) {
        trace("its error is the device's: %d", strstr(error_get_pretty(err), expected) != NULL);
    }
    error_free(err);
}

void backend_prepare(const char *expected)
{
    Error *err = NULL;
    int ret = savevm_state_prepare(&err);

    failed("prepare", ret, err, expected);
}

void backend_header(QEMUFile *f)
{
    described = true;
    qemu_savevm_state_header(f);
}

void backend_setup_expecting(QEMUFile *f, const char *expected)
{
    Error *err = NULL;
    int ret = savevm_state_setup(f, &err);

    failed("setup", ret, err, expected);
}

void backend_setup(QEMUFile *f)
{
    backend_setup_expecting(f, NULL);
}

void backend_pending(QEMUFile *f, uint64_t threshold)
{
    (void)f;
    (void)threshold;
    for (int exact = 0; exact < 2; exact++) {
        uint64_t must, can;

        savevm_state_pending(exact, &must, &can);
        trace("%s %llu %llu", exact ? "exact" : "estimate", (unsigned long long)must, (unsigned long long)can);
    }
}

int backend_complete(QEMUFile *f, bool live_only, bool inactivate_disks)
{
    int ret = 0;

    if (!backend.in_postcopy || live_only) {
        ret = savevm_state_complete_precopy_iterable(f, backend.in_postcopy);
    }
    if (ret == 0 && !live_only) {
        ret = backend_complete_devices(f, backend.in_postcopy, inactivate_disks);
    }
    return ret ? ret : qemu_fflush(f);
}

int backend_complete_devices(QEMUFile *f, bool in_postcopy, bool inactivate_disks)
{
    int ret;

    (void)inactivate_disks;
    described &= !in_postcopy && !backend.in_postcopy;
    ret = savevm_state_complete_precopy_non_iterable(f, in_postcopy);
    described = false;
    return ret;
}

void backend_postcopy_prepare(QEMUFile *f, const char *expected)
{
    Error *err = NULL;
    int ret = savevm_state_postcopy_prepare(f, &err);

    failed("postcopy_prepare", ret == 0, err, expected);
}

void backend_switchover_start(QEMUFile *f)
{
    savevm_send_switchover_start(f);
}

void backend_approve_switchover(void)
{
    trace("approve: %d", savevm_approve_switchover());
}

void backend_load_buffer(const char *idstr, uint32_t instance_id, char *bytes, size_t len, const char *expected)
{
    Error *err = NULL;
    int ret = savevm_load_state_buffer(idstr, instance_id, bytes, len, &err);

    failed("load_buffer", ret == 0, err, expected);
}

void backend_load_thread(MigrationLoadThread function, void *opaque)
{
    savevm_start_load_thread(function, opaque);
}

void backend_error(Error **errp, const char *text)
{
    savevm_error_set(errp, 0, text);
}

int backend_load(QEMUFile *f)
{
    int ret;

    loading = true;
    ret = savevm_load_state(f, NULL);
    qemu_loadvm_state_cleanup();
    loading = false;
    return ret;
}

int backend_load_sections(QEMUFile *f)
{
    return savevm_load_state_main(f, NULL);
}

int backend_load_devices(QEMUFile *f)
{
    return savevm_load_device_state(f, NULL);
}
#endif

void backend_load_cleanup(void)
{
    qemu_loadvm_state_cleanup();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "devices.h"

#include "migration/qemu-file-types.h"
#include "migration/savevm.h"
#include "backend.h"

#include <stdio.h>
#include <string.h>

/*
 * The payload of every section: a letter for the callback, the device's name,
 * and the extra bytes with their number.
 */
static void put(QEMUFile *f, Device *device, char kind)
{
    qemu_put_byte(f, kind);
    qemu_put_counted_string(f, device->name);
    qemu_put_be16(f, device->extra);
    for (unsigned i = 0; i < device->extra; i++) {
        qemu_put_byte(f, (int)i & 0xff);
    }
}

static bool questions_hidden;

static void called(Device *device, const char *callback, QEMUFile *f)
{
    trace("%s: %s", device->name, callback);
    if (device->hook) {
        device->hook(device, callback, f);
    }
}

static void save_state(QEMUFile *f, void *opaque)
{
    called(opaque, "save_state", f);
    put(f, opaque, 'F');
}

static void save_cleanup(void *opaque)
{
    called(opaque, "save_cleanup", NULL);
}

#if SAVEVM_QEMU_VERSION >= 1001
static int save_complete(QEMUFile *f, void *opaque)
{
    Device *device = opaque;

    called(device, "save_complete", f);
    put(f, device, 'C');
    return device->save_live_complete_postcopy ? device->save_live_complete_postcopy
                                               : device->save_live_complete_precopy;
}
#else
static int save_live_complete_postcopy(QEMUFile *f, void *opaque)
{
    Device *device = opaque;

    called(device, "save_live_complete_postcopy", f);
    put(f, device, 'Q');
    return device->save_live_complete_postcopy;
}

static int save_live_complete_precopy(QEMUFile *f, void *opaque)
{
    Device *device = opaque;

    called(device, "save_live_complete_precopy", f);
    put(f, device, 'C');
    return device->save_live_complete_precopy;
}
#endif

static void asked(Device *device, const char *callback)
{
    if (!questions_hidden) {
        called(device, callback, NULL);
    }
}

static bool is_active(void *opaque)
{
    asked(opaque, "is_active");
    return ((Device *)opaque)->is_active;
}

static bool has_postcopy(void *opaque)
{
    asked(opaque, "has_postcopy");
    return ((Device *)opaque)->has_postcopy;
}

static bool is_active_iterate(void *opaque)
{
    asked(opaque, "is_active_iterate");
    return ((Device *)opaque)->is_active_iterate;
}

static int save_live_iterate(QEMUFile *f, void *opaque)
{
    Device *device = opaque;

    called(device, "save_live_iterate", f);
    put(f, device, 'I');
    return device->save_live_iterate;
}

#if SAVEVM_QEMU_VERSION >= 901
/* From 9.1 on, a failure comes with an error. */
#define ERRP , Error **errp
#define FAILED(ret) failed(errp, ret)

static int failed(Error **errp, int ret)
{
    if (ret < 0) {
        backend_error(errp, DEVICE_ERROR);
    }
    return ret;
}
#else
#define ERRP
#define FAILED(ret) (ret)
#endif

static int save_setup(QEMUFile *f, void *opaque ERRP)
{
    Device *device = opaque;

    called(device, "save_setup", f);
    put(f, device, 'S');
    return FAILED(device->save_setup);
}

#if SAVEVM_QEMU_VERSION >= 800
static void pending(Device *device, const char *callback, uint64_t *must_precopy, uint64_t *can_postcopy)
{
    trace("%s: %s, sums %llu %llu", device->name, callback, (unsigned long long)*must_precopy,
          (unsigned long long)*can_postcopy);
    if (device->hook) {
        device->hook(device, callback, NULL);
    }
    *must_precopy += device->pending[0];
    *can_postcopy += device->pending[1] + device->pending[2];
}

static void state_pending_estimate(void *opaque, uint64_t *must_precopy, uint64_t *can_postcopy)
{
    pending(opaque, "state_pending_estimate", must_precopy, can_postcopy);
}

static void state_pending_exact(void *opaque, uint64_t *must_precopy, uint64_t *can_postcopy)
{
    pending(opaque, "state_pending_exact", must_precopy, can_postcopy);
}
#else
static void save_live_pending(QEMUFile *f, void *opaque, uint64_t threshold_size, uint64_t *res_precopy_only,
                              uint64_t *res_compatible, uint64_t *res_postcopy_only)
{
    Device *device = opaque;

    trace("%s: save_live_pending %llu, sums %llu %llu %llu", device->name, (unsigned long long)threshold_size,
          (unsigned long long)*res_precopy_only, (unsigned long long)*res_compatible,
          (unsigned long long)*res_postcopy_only);
    if (device->hook) {
        device->hook(device, "save_live_pending", f);
    }
    *res_precopy_only += device->pending[0];
    *res_compatible += device->pending[1];
    *res_postcopy_only += device->pending[2];
}
#endif

static int load_state(QEMUFile *f, void *opaque, int version_id)
{
    Device *device = opaque;
    char kind, name[256];
    unsigned extra;

    kind = (char)qemu_get_byte(f);
    qemu_get_counted_string(f, name);
    extra = qemu_get_be16(f);
    for (unsigned i = 0; i < extra; i++) {
        qemu_get_byte(f);
    }
    snprintf(device->loaded, sizeof(device->loaded), "%c %s", kind, name);
    device->loads++;
    trace("%s: load_state version %d: %d '%s' + %u, error %d", device->name, version_id, kind, name, extra,
          qemu_file_get_error(f));
    if (device->hook) {
        device->hook(device, "load_state", f);
    }
    return device->load_state;
}

static int load_setup(QEMUFile *f, void *opaque ERRP)
{
    called(opaque, "load_setup", f);
    return FAILED(((Device *)opaque)->load_setup);
}

static int load_cleanup(void *opaque)
{
    called(opaque, "load_cleanup", NULL);
    return ((Device *)opaque)->load_cleanup;
}

static int resume_prepare(MigrationState *s, void *opaque)
{
    trace("%s: resume_prepare, its state %s", ((Device *)opaque)->name, s ? "is there" : "is NULL");
    return ((Device *)opaque)->resume_prepare;
}

#if SAVEVM_QEMU_VERSION >= 1000
static int save_prepare(void *opaque, Error **errp)
{
    called(opaque, "save_prepare", NULL);
    return failed(errp, ((Device *)opaque)->save_prepare);
}

static bool switchover_ack_needed(void *opaque)
{
    called(opaque, "switchover_ack_needed", NULL);
    return ((Device *)opaque)->switchover_ack_needed;
}

static int switchover_start(void *opaque)
{
    called(opaque, "switchover_start", NULL);
    return ((Device *)opaque)->switchover_start;
}

static bool load_state_buffer(void *opaque, char *buf, size_t len, Error **errp)
{
    Device *device = opaque;

    trace("%s: load_state_buffer '%.*s'", device->name, (int)len, buf);
    return failed(errp, device->buffer_fails ? -1 : 0) == 0;
}

#if SAVEVM_QEMU_VERSION >= 1001
static bool save_postcopy_prepare(QEMUFile *f, void *opaque, Error **errp)
{
    Device *device = opaque;

    called(device, "save_postcopy_prepare", f);
    put(f, device, 'P');
    return failed(errp, device->postcopy_prepare_fails ? -1 : 0) == 0;
}

static bool save_complete_precopy_thread(SaveCompletePrecopyThreadData *d, Error **errp)
#else
static bool save_live_complete_precopy_thread(SaveLiveCompletePrecopyThreadData *d, Error **errp)
#endif
{
    Device *device = d->handler_opaque;

    trace("%s: thread of %s %u", device->name, d->idstr, d->instance_id);
    return failed(errp, device->thread_fails ? -1 : 0) == 0;
}
#endif

void device_init(Device *device, const char *name, unsigned callbacks)
{
    memset(device, 0, sizeof(*device));
    device->name = name;
    device->is_active = true;
    device->has_postcopy = true;
    device->is_active_iterate = true;
    device->save_live_iterate = 1;
#define MEMBER(bit, member) device->ops.member = callbacks & (bit) ? member : NULL
    MEMBER(HAS_SAVE_STATE, save_state);
    MEMBER(HAS_SAVE_CLEANUP, save_cleanup);
#if SAVEVM_QEMU_VERSION >= 1001
    MEMBER(HAS_COMPLETE_PRECOPY, save_complete);
    MEMBER(HAS_POSTCOPY_PREPARE, save_postcopy_prepare);
    MEMBER(HAS_THREAD, save_complete_precopy_thread);
#else
    MEMBER(HAS_COMPLETE_POSTCOPY, save_live_complete_postcopy);
    MEMBER(HAS_COMPLETE_PRECOPY, save_live_complete_precopy);
#endif
#if SAVEVM_QEMU_VERSION >= 1000
    MEMBER(HAS_PREPARE, save_prepare);
    MEMBER(HAS_ACK_NEEDED, switchover_ack_needed);
    MEMBER(HAS_SWITCHOVER_START, switchover_start);
    MEMBER(HAS_LOAD_BUFFER, load_state_buffer);
#endif
#if SAVEVM_QEMU_VERSION == 1000
    MEMBER(HAS_THREAD, save_live_complete_precopy_thread);
#endif
    MEMBER(HAS_IS_ACTIVE, is_active);
    MEMBER(HAS_HAS_POSTCOPY, has_postcopy);
    MEMBER(HAS_IS_ACTIVE_ITERATE, is_active_iterate);
    MEMBER(HAS_ITERATE, save_live_iterate);
    MEMBER(HAS_SETUP, save_setup);
#if SAVEVM_QEMU_VERSION >= 800
    MEMBER(HAS_PENDING, state_pending_estimate);
    MEMBER(HAS_PENDING, state_pending_exact);
#else
    MEMBER(HAS_PENDING, save_live_pending);
#endif
    MEMBER(HAS_LOAD_STATE, load_state);
    MEMBER(HAS_LOAD_SETUP, load_setup);
    MEMBER(HAS_LOAD_CLEANUP, load_cleanup);
    MEMBER(HAS_RESUME_PREPARE, resume_prepare);
#undef MEMBER
}

void device_complete_postcopy(QEMUFile *f)
{
    questions_hidden = SAVEVM_QEMU_VERSION >= 1001;
    qemu_savevm_state_complete_postcopy(f);
    questions_hidden = false;
}

void device_add(Device *device, const char *name, int instance_id, int version_id, unsigned callbacks)
{
    device_init(device, name, callbacks);
    trace("register %s: %d", name, register_savevm_live(name, instance_id, version_id, &device->ops, device));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device as a device file of the QEMU version SAVEVM_QEMU_VERSION has it: all
 * callbacks of the version, and descriptions with its macros and calls.
 */
#include "versions.h"

#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "savevm/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SINCE(version) (SAVEVM_QEMU_VERSION >= (version))
#define TEXT_(value) #value
#define TEXT(value) TEXT_(value)
#define NAME(name) name "-" TEXT(SAVEVM_QEMU_VERSION)

#if SINCE(600)
typedef JSONWriter Description;
#else
typedef QJSON Description;
#endif

static void note(void *opaque, const char *call)
{
    State *state = opaque;

    strncat(state->log, call, sizeof(state->log) - strlen(state->log) - 1);
    strncat(state->log, " ", sizeof(state->log) - strlen(state->log) - 1);
}

/* The live device */

#if SINCE(802)
static int save_prepare(void *opaque, Error **errp)
{
    State *state = opaque;

    note(opaque, "prepare");
    if (state->fail) {
        error_setg(errp, "version %d is not ready", SAVEVM_QEMU_VERSION);
        return -EBUSY;
    }
    return 0;
}
#endif

#if SINCE(901)
static int save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    State *state = opaque;

    note(opaque, "setup");
    if (state->fail) {
        error_setg_errno(errp, ENOSPC, "no room in %d", SAVEVM_QEMU_VERSION);
        return -ENOSPC;
    }
    qemu_put_byte(f, 'S');
    return 0;
}

static int load_setup(QEMUFile *f, void *opaque, Error **errp)
{
    (void)errp;
    note(opaque, f ? "load_setup" : "no file");
    return 0;
}
#else
static int save_setup(QEMUFile *f, void *opaque)
{
    note(opaque, "setup");
    qemu_put_byte(f, 'S');
    return 0;
}

static int load_setup(QEMUFile *f, void *opaque)
{
    note(opaque, f ? "load_setup" : "no file");
    return 0;
}
#endif

static void save_cleanup(void *opaque)
{
    note(opaque, "cleanup");
}

static bool is_active(void *opaque)
{
    return opaque != NULL;
}

static int save_live_iterate(QEMUFile *f, void *opaque)
{
    note(opaque, "iterate");
    qemu_put_byte(f, 'I');
    return 1;
}

#if SINCE(800)
static void state_pending_estimate(void *opaque, uint64_t *must_precopy,
                                   uint64_t *can_postcopy)
{
    note(opaque, "estimate");
    *must_precopy += 1;
    *can_postcopy += 2;
}

static void state_pending_exact(void *opaque, uint64_t *must_precopy,
                                uint64_t *can_postcopy)
{
    note(opaque, "exact");
    *must_precopy += 10;
    *can_postcopy += 300;
}
#else
static void save_live_pending(QEMUFile *f, void *opaque, uint64_t threshold_size,
                              uint64_t *res_precopy_only, uint64_t *res_compatible,
                              uint64_t *res_postcopy_only)
{
    note(opaque, !f ? "no file" : threshold_size ? "exact" : "estimate");
    *res_precopy_only += threshold_size ? 10 : 1;
    *res_compatible += threshold_size ? 100 : 2;
    *res_postcopy_only += threshold_size ? 200 : 0;
}
#endif

static int save_complete(QEMUFile *f, void *opaque)
{
    State *state = opaque;

    note(opaque, "complete");
    qemu_put_byte(f, 'C');
    qemu_put_be64(f, state->ram);
    return 0;
}

#if SINCE(1001)
static bool save_thread(SaveCompletePrecopyThreadData *d, Error **errp)
#elif SINCE(1000)
static bool save_thread(SaveLiveCompletePrecopyThreadData *d, Error **errp)
#endif
#if SINCE(1000)
{
    (void)errp;
    note(d->handler_opaque, "thread");
    return d->instance_id == 0 && strcmp(d->idstr, NAME("live")) == 0;
}

static bool load_state_buffer(void *opaque, char *buf, size_t len, Error **errp)
{
    if (len != 3 || memcmp(buf, "abc", 3) != 0) {
        error_setg(errp, "a wrong buffer of %zu bytes", len);
        return false;
    }
    note(opaque, "buffer");
    return true;
}

static int switchover_start(void *opaque)
{
    note(opaque, "switchover");
    return 0;
}
#endif

#if SINCE(1001)
static bool save_postcopy_prepare(QEMUFile *f, void *opaque, Error **errp)
{
    (void)errp;
    note(opaque, "postcopy_prepare");
    qemu_put_byte(f, 'P');
    return true;
}
#endif

#if SINCE(801)
static bool switchover_ack_needed(void *opaque)
{
    note(opaque, "ack_needed");
    return true;
}
#endif

static int load_state(QEMUFile *f, void *opaque, int version_id)
{
    State *state = opaque;
    int kind = qemu_get_byte(f);

    if (kind == 'C') {
        state->ram = qemu_get_be64(f);
    }
    note(opaque, version_id == 4 ? "load" : "wrong version");
    return qemu_file_get_error(f);
}

static int load_cleanup(void *opaque)
{
    note(opaque, "load_cleanup");
    return 0;
}

static int resume_prepare(MigrationState *s, void *opaque)
{
    (void)s;
    note(opaque, "resume");
    return 0;
}

static const SaveVMHandlers handlers = {
    .is_active = is_active,
    .has_postcopy = is_active,
    .is_active_iterate = is_active,
    .save_setup = save_setup,
    .save_cleanup = save_cleanup,
    .save_live_iterate = save_live_iterate,
    .load_setup = load_setup,
    .load_state = load_state,
    .load_cleanup = load_cleanup,
    .resume_prepare = resume_prepare,
#if SINCE(800)
    .state_pending_estimate = state_pending_estimate,
    .state_pending_exact = state_pending_exact,
#else
    .save_live_pending = save_live_pending,
#endif
#if SINCE(801)
    .switchover_ack_needed = switchover_ack_needed,
#endif
#if SINCE(802)
    .save_prepare = save_prepare,
#endif
#if SINCE(1000)
    .load_state_buffer = load_state_buffer,
    .switchover_start = switchover_start,
#endif
#if SINCE(1001)
    .save_complete = save_complete,
    .save_complete_precopy_thread = save_thread,
    .save_postcopy_prepare = save_postcopy_prepare,
#else
    .save_live_complete_precopy = save_complete,
    .save_live_complete_postcopy = save_complete,
#if SINCE(1000)
    .save_live_complete_precopy_thread = save_thread,
#endif
#endif
};

/* The descriptions */

static const VMStateDescription vmstate_part = {
    .name = "part",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(a, Part),
        VMSTATE_UINT32(b, Part),
        VMSTATE_END_OF_LIST()
    },
};

static int save_part(QEMUFile *f, void *part, Description *vmdesc, Error **errp)
{
#if SINCE(1002)
    return vmstate_save_state(f, &vmstate_part, part, vmdesc, errp);
#elif SINCE(802)
    return vmstate_save_state_with_err(f, &vmstate_part, part, vmdesc, errp);
#else
    (void)errp;
    return vmstate_save_state(f, &vmstate_part, part, vmdesc);
#endif
}

static int load_part(QEMUFile *f, void *part, int version_id, Error **errp)
{
#if SINCE(1002)
    return vmstate_load_state(f, &vmstate_part, part, version_id, errp);
#else
    (void)errp;
    return vmstate_load_state(f, &vmstate_part, part, version_id);
#endif
}

static int get_nested(QEMUFile *f, void *pv, size_t size, const VMStateField *field)
{
    return size == sizeof(Part) && field->size == size ? load_part(f, pv, 1, NULL) : -EINVAL;
}

static int put_nested(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                      Description *vmdesc)
{
    return size == sizeof(Part) && field->size == size ? save_part(f, pv, vmdesc, NULL) : -EINVAL;
}

static const VMStateInfo info_nested = {
    .name = "nested",
    .get = get_nested,
    .put = put_nested,
};

typedef struct Doubled {
    State *parent;
    uint32_t value;
} Doubled;

static int doubled_pre_save(void *opaque)
{
    Doubled *tmp = opaque;

    tmp->value = tmp->parent->doubled * 2;
    return 0;
}

static int doubled_post_load(void *opaque, int version_id)
{
    Doubled *tmp = opaque;

    tmp->parent->doubled = tmp->value / 2;
    return version_id == 0 ? 0 : -EINVAL;
}

/* A temporary is loaded in the version of the field, 0. */
static const VMStateDescription vmstate_doubled = {
    .name = "doubled",
    .pre_save = doubled_pre_save,
    .post_load = doubled_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(value, Doubled),
        VMSTATE_END_OF_LIST()
    },
};

static bool late_needed(void *opaque)
{
    return ((State *)opaque)->late != 0;
}

static const VMStateDescription vmstate_late = {
    .name = NAME("device") "/late",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = late_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(late, State),
        VMSTATE_END_OF_LIST()
    },
};

#if SINCE(1002)
static bool device_pre_save(void *opaque, Error **errp)
{
    State *state = opaque;

    note(opaque, "pre_save");
    if (state->fail) {
        error_setg(errp, "device of %d is broken", SAVEVM_QEMU_VERSION);
        return false;
    }
    return true;
}

static bool device_pre_load(void *opaque, Error **errp)
{
    (void)errp;
    note(opaque, "pre_load");
    return true;
}

static bool device_post_load(void *opaque, int version_id, Error **errp)
{
    if (version_id != 3) {
        error_setg(errp, "version %d", version_id);
        return false;
    }
    note(opaque, "post_load");
    return true;
}
#else
static int device_pre_save(void *opaque)
{
    State *state = opaque;

    note(opaque, "pre_save");
    return state->fail ? -EIO : 0;
}

static int device_pre_load(void *opaque)
{
    note(opaque, "pre_load");
    return 0;
}

static int device_post_load(void *opaque, int version_id)
{
    note(opaque, version_id == 3 ? "post_load" : "wrong version");
    return 0;
}
#endif

static int device_post_save(void *opaque)
{
    note(opaque, "post_save");
    return 0;
}

static const VMStateDescription vmstate_device = {
    .name = NAME("device"),
    .version_id = 3,
    .minimum_version_id = 2,
#if SINCE(1002)
    .pre_save_errp = device_pre_save,
    .pre_load_errp = device_pre_load,
    .post_load_errp = device_post_load,
#else
    .pre_save = device_pre_save,
    .pre_load = device_pre_load,
    .post_load = device_post_load,
#endif
    .post_save = device_post_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(number, State),
        VMSTATE_UINT16_ARRAY(words, State, 4),
        VMSTATE_STRUCT(part, State, 0, vmstate_part, Part),
        VMSTATE_SINGLE(nested, State, 0, info_nested, Part),
        VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(parts, State, 3, 0, vmstate_part, Part),
        VMSTATE_WITH_TMP(State, Doubled, vmstate_doubled),
        VMSTATE_END_OF_LIST()
    },
#if SINCE(900)
    .subsections = (const VMStateDescription *const []) {
#else
    .subsections = (const VMStateDescription *[]) {
#endif
        &vmstate_late,
        NULL
    },
};

static int first_pre_save(void *opaque)
{
    note(opaque, "first");
    return 0;
}

static const VMStateDescription vmstate_first = {
    .name = NAME("first"),
    .version_id = 1,
    .minimum_version_id = 1,
    .priority = MIG_PRI_GICV3,
    .pre_save = first_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(first, State),
        VMSTATE_END_OF_LIST()
    },
};

static int early_pre_save(void *opaque)
{
    note(opaque, "early");
    return 0;
}

static const VMStateDescription vmstate_early = {
    .name = NAME("early"),
    .version_id = 1,
    .minimum_version_id = 1,
#if SINCE(800)
    .early_setup = true,
#endif
    .pre_save = early_pre_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(early, State),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_endless = {
    .name = NAME("endless"),
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(number, State),
        { 0 }
    },
};

static const VMStateDescription vmstate_blocker = {
    .name = NAME("blocker"),
#if SINCE(800)
    .unmigratable = true,
#else
    .unmigratable = 1,
#endif
};

/* What the test calls */

static int add(State *state)
{
    int ret = register_savevm_live(NAME("live"), 0, 4, &handlers, state);

    if (ret == 0) {
        ret = vmstate_register(NULL, 0, &vmstate_device, state);
    }
    if (ret == 0) {
        /* In a context that is named, and is not the current one. */
        SaveVM *vm = savevm_set_current(NULL);

        ret = savevm_register_vmstate(vm, NULL, 0, &vmstate_early, state, -1, 0, NULL);
        savevm_set_current(vm);
    }
#if SINCE(802)
    return ret ? ret : vmstate_register_any(NULL, &vmstate_first, state);
#else
    return ret ? ret : vmstate_register(NULL, VMSTATE_INSTANCE_ID_ANY, &vmstate_first, state);
#endif
}

static void del(State *state)
{
    unregister_savevm(NULL, NAME("live"), state);
    vmstate_unregister(NULL, &vmstate_device, state);
    vmstate_unregister(NULL, &vmstate_early, state);
    vmstate_unregister(NULL, &vmstate_first, state);
}

static int add_endless(State *state, char *text, size_t len)
{
    Error *err = NULL;
    int ret = vmstate_register_with_alias_id(NULL, 0, &vmstate_endless, state, -1, 0, &err);

    snprintf(text, len, "%s", err ? error_get_pretty(err) : "");
    error_free(err);
    vmstate_unregister(NULL, &vmstate_endless, state);
    return ret;
}

static int add_blocker(State *state)
{
    return vmstate_register(NULL, 0, &vmstate_blocker, state);
}

static void remove_blocker(State *state)
{
    vmstate_unregister(NULL, &vmstate_blocker, state);
}

static int copy(State *from, State *to)
{
    QEMUFile *f = savevm_file_to_buffer();
    Error *err = NULL;
    const uint8_t *bytes;
    QEMUFile *copied;
    size_t len;
    int ret;

#if SINCE(1002)
    ret = vmstate_save_state(f, &vmstate_device, from, NULL, &err);
#else
    ret = vmstate_save_state(f, &vmstate_device, from, NULL);
#endif
    if (ret == 0) {
#if SINCE(802)
        ret = vmstate_save_state_v(f, &vmstate_part, &from->part, NULL, 1, &err);
#else
        ret = vmstate_save_state_v(f, &vmstate_part, &from->part, NULL, 1);
#endif
    }
#if SINCE(802)
    ret = ret ? ret : qemu_fflush(f);
    if (!vmstate_section_needed(&vmstate_late, from) || migration_rate_exceeded(f)) {
        ret = -EINVAL;
    }
#else
    qemu_fflush(f);
    if (!vmstate_save_needed(&vmstate_late, from)) {
        ret = -EINVAL;
    }
#endif
    if (ret != 0) {
        error_free(err);
        qemu_fclose(f);
        return ret;
    }
    bytes = savevm_file_buffer(f, &len);
    copied = savevm_file_from_buffer(bytes, len);
#if SINCE(1002)
    ret = vmstate_load_state(copied, &vmstate_device, to, 3, &err);
    error_free(err);
#else
    ret = vmstate_load_state(copied, &vmstate_device, to, 3);
#endif
    qemu_fclose(copied);
    qemu_fclose(f);
    return ret;
}

static char *direct_error(State *state)
{
    QEMUFile *f = savevm_file_from_buffer("", 0);
    Error *err = NULL;
    char *text = NULL;
    int ret = load_part(f, &state->part, 7, &err);

    if (ret != -EINVAL) {
        text = strdup("no error");
    } else if (err) {
        text = strdup(error_get_pretty(err));
    }
    error_free(err);
    qemu_fclose(f);
    return text;
}

static int load_bytes(State *state, const void *bytes, size_t len, int *ret)
{
    QEMUFile *f = savevm_file_from_buffer(bytes, len);
    int error;

    *ret = load_part(f, &state->part, 1, NULL);
    error = qemu_file_get_error(f);
    qemu_fclose(f);
    return error;
}

#define DEVICE__(version) device_##version
#define DEVICE_(version) DEVICE__(version)

extern const VersionDevice DEVICE_(SAVEVM_QEMU_VERSION);
const VersionDevice DEVICE_(SAVEVM_QEMU_VERSION) = {
    .version = SAVEVM_QEMU_VERSION,
    .add = add,
    .remove = del,
    .add_endless = add_endless,
    .add_blocker = add_blocker,
    .remove_blocker = remove_blocker,
    .copy = copy,
    .direct_error = direct_error,
    .load_bytes = load_bytes,
};

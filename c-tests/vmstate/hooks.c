/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks and infos of the device's own: when they are called, with what, and
 * what their results lead to.
 */
#include <errno.h>

#include "files.h"
#include "groups.h"
#include "test-case.h"

typedef struct Dev {
    uint8_t a;
    uint8_t b;
    struct Sub {
        uint8_t c;
    } sub, subs[2];
} Dev;

/* What the hooks return in this case; 0 unless the case sets it. */
static struct {
    int pre_save, post_save, pre_load, post_load;
    int sub_pre_save, sub_post_save, sub_pre_load, sub_post_load;
    int get, put;
    int get_error, put_error; /* of the file */
} result;

static int pre_save(void *opaque)
{
    Dev *d = opaque;

    note("pre_save");
    d->b = (uint8_t)(d->a + 1);
    return result.pre_save;
}

static int post_save(void *opaque)
{
    (void)opaque;
    note("post_save");
    return result.post_save;
}

static int pre_load(void *opaque)
{
    Dev *d = opaque;

    note("pre_load");
    d->b = 0x11;
    return result.pre_load;
}

static int post_load(void *opaque, int version_id)
{
    Dev *d = opaque;

    note("post_load(%d,%02x%02x)", version_id, d->a, d->b);
    return result.post_load;
}

static int sub_pre_save(void *opaque)
{
    (void)opaque;
    note("sub_pre_save");
    return result.sub_pre_save;
}

static int sub_post_save(void *opaque)
{
    (void)opaque;
    note("sub_post_save");
    return result.sub_post_save;
}

static int sub_pre_load(void *opaque)
{
    (void)opaque;
    note("sub_pre_load");
    return result.sub_pre_load;
}

static int sub_post_load(void *opaque, int version_id)
{
    (void)opaque;
    note("sub_post_load(%d)", version_id);
    return result.sub_post_load;
}

/* Prints its arguments: the size, and whether there is a field. */
static int get_twice(QEMUFile *f, void *pv, size_t size,
                     const VMStateField *field)
{
    uint8_t *v = pv;

    note("get(%zu,%s)", size, field ? field->name : "none");
    *v = (uint8_t)qemu_get_byte(f);
    if ((uint8_t)qemu_get_byte(f) != (uint8_t)~*v) {
        return -EBADMSG;
    }
    if (result.get_error) {
        qemu_file_set_error(f, result.get_error);
    }
    return result.get;
}

static int put_twice(QEMUFile *f, void *pv, size_t size,
                     const VMStateField *field, JSONWriter *vmdesc)
{
    uint8_t *v = pv;

    (void)vmdesc;
    note("put(%zu,%s)", size, field ? field->name : "none");
    qemu_put_byte(f, *v);
    qemu_put_byte(f, ~*v);
    if (result.put_error) {
        qemu_file_set_error(f, result.put_error);
    }
    return result.put;
}

static const VMStateInfo info_twice = {
    .name = "twice",
    .get = get_twice,
    .put = put_twice,
};

/* An info without a name, that handles more than one element at once. */
static int get_all(QEMUFile *f, void *pv, size_t size,
                   const VMStateField *field)
{
    note("all(%zu,%d)", size, field->num);
    qemu_get_buffer(f, pv, size);
    return 0;
}

static int put_all(QEMUFile *f, void *pv, size_t size,
                   const VMStateField *field, JSONWriter *vmdesc)
{
    (void)vmdesc;
    note("all(%zu,%d)", size, field->num);
    qemu_put_buffer(f, pv, size);
    return 0;
}

static const VMStateInfo info_nameless = {
    .get = get_all,
    .put = put_all,
};

/* An info that uses VMState for what is inside. */
static const VMStateDescription vmstate_inside = {
    .name = "inside",
    .version_id = 2,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(a, Dev),
        VMSTATE_UINT8_V(b, Dev, 2),
        VMSTATE_END_OF_LIST()
    },
};

static int get_nested(QEMUFile *f, void *pv, size_t size,
                      const VMStateField *field)
{
    (void)size;
    (void)field;
    return LOAD(f, &vmstate_inside, pv, 1);
}

static int put_nested(QEMUFile *f, void *pv, size_t size,
                      const VMStateField *field, JSONWriter *vmdesc)
{
    (void)size;
    (void)field;
    return SAVE_VERSION(f, &vmstate_inside, pv, vmdesc, 1);
}

static const VMStateInfo info_nested = {
    .name = "nested",
    .get = get_nested,
    .put = put_nested,
};

static const VMStateDescription vmstate_sub = {
    .name = "sub",
    .version_id = 4,
    .minimum_version_id = 1,
    .pre_save = sub_pre_save,
    .post_save = sub_post_save,
    .pre_load = sub_pre_load,
    .post_load = sub_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_SINGLE(c, struct Sub, 0, info_twice, uint8_t),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_dev = {
    .name = "dev",
    .version_id = 2,
    .minimum_version_id = 1,
    .pre_save = pre_save,
    .post_save = post_save,
    .pre_load = pre_load,
    .post_load = post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(a, Dev),
        VMSTATE_STRUCT(sub, Dev, 0, vmstate_sub, struct Sub),
        VMSTATE_STRUCT_ARRAY(subs, Dev, 2, 0, vmstate_sub, struct Sub),
        VMSTATE_UINT8_V(b, Dev, 2),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_infos = {
    .name = "infos",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_SINGLE(a, Dev, 0, info_twice, uint8_t),
        VMSTATE_BUFFER_UNSAFE_INFO(sub, Dev, 0, info_nameless, 3),
        VMSTATE_BUFFER_UNSAFE_INFO(a, Dev, 0, info_nested, 2),
        VMSTATE_UINT8(b, Dev),
        VMSTATE_END_OF_LIST()
    },
};

static TestCase dev = { "dev", &vmstate_dev, sizeof(Dev), NULL, NULL, NULL,
                           NULL, false };
static const TestCase infos = { "infos", &vmstate_infos, sizeof(Dev), NULL, NULL,
                             NULL, NULL, false };

static const char good[] = "01 02fd 03fc 04fb 06";

/* Saves and loads with one of the results set. */
static void with(const char *what, int *hook, int value)
{
    uint8_t *bytes;
    size_t len;

    say("%s %d", what, value);
    *hook = value;
    case_save(&dev, 2, &bytes, &len);
    free(bytes);
    case_load_hex(&dev, 2, good);
    *hook = 0;
}

#define WITH(member, value) with(#member, &result.member, value)

static void results(void)
{
    static const int values[] = { -EPERM, 5 };

    for (size_t i = 0; i < COUNT(values); i++) {
        WITH(pre_save, values[i]);
        WITH(post_save, values[i]);
        WITH(pre_load, values[i]);
        WITH(post_load, values[i]);
        WITH(sub_pre_save, values[i]);
        WITH(sub_post_save, values[i]);
        WITH(sub_pre_load, values[i]);
        WITH(sub_post_load, values[i]);
        WITH(put, values[i]);
        WITH(get, values[i]);
    }
    WITH(put_error, -ENOSPC);
    WITH(get_error, -ENODATA);
    result.post_save = -EAGAIN;
    WITH(put, -EPERM);
    result.get_error = -ENODATA;
    WITH(get, -EPERM);
    memset(&result, 0, sizeof(result));
}

#if SAVEVM_QEMU_VERSION >= 1002
/* Hooks with an error. They fail if the result of the plain hook is set. */

static bool passed(int hook, Error **errp)
{
    if (hook) {
        files_error(errp, "refused");
    }
    return !hook;
}

static bool pre_save_errp(void *opaque, Error **errp)
{
    Dev *d = opaque;

    note("pre_save_errp");
    d->b = (uint8_t)(d->a + 1);
    return passed(result.pre_save, errp);
}

static bool pre_load_errp(void *opaque, Error **errp)
{
    Dev *d = opaque;

    note("pre_load_errp");
    d->b = 0x11;
    return passed(result.pre_load, errp);
}

static bool post_load_errp(void *opaque, int version_id, Error **errp)
{
    Dev *d = opaque;

    note("post_load_errp(%d,%02x%02x)", version_id, d->a, d->b);
    return passed(result.post_load, errp);
}

static bool sub_pre_save_errp(void *opaque, Error **errp)
{
    (void)opaque;
    note("sub_pre_save_errp");
    return passed(result.sub_pre_save, errp);
}

static bool sub_pre_load_errp(void *opaque, Error **errp)
{
    (void)opaque;
    note("sub_pre_load_errp");
    return passed(result.sub_pre_load, errp);
}

static bool sub_post_load_errp(void *opaque, int version_id, Error **errp)
{
    (void)opaque;
    note("sub_post_load_errp(%d)", version_id);
    return passed(result.sub_post_load, errp);
}

static const VMStateDescription vmstate_sub_errp = {
    .name = "sub",
    .version_id = 4,
    .minimum_version_id = 1,
    .pre_save_errp = sub_pre_save_errp,
    .post_save = sub_post_save,
    .pre_load_errp = sub_pre_load_errp,
    .post_load_errp = sub_post_load_errp,
    .fields = (const VMStateField[]) {
        VMSTATE_SINGLE(c, struct Sub, 0, info_twice, uint8_t),
        VMSTATE_END_OF_LIST()
    },
};

/* With both forms of a hook. The plain one is not called. */
static const VMStateDescription vmstate_dev_errp = {
    .name = "dev",
    .version_id = 2,
    .minimum_version_id = 1,
    .pre_save = pre_save,
    .pre_save_errp = pre_save_errp,
    .post_save = post_save,
    .pre_load = pre_load,
    .pre_load_errp = pre_load_errp,
    .post_load = post_load,
    .post_load_errp = post_load_errp,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(a, Dev),
        VMSTATE_STRUCT(sub, Dev, 0, vmstate_sub_errp, struct Sub),
        VMSTATE_STRUCT_ARRAY(subs, Dev, 2, 0, vmstate_sub_errp, struct Sub),
        VMSTATE_UINT8_V(b, Dev, 2),
        VMSTATE_END_OF_LIST()
    },
};

static void hooks_with_errors(void)
{
    say("hooks with an error");
    dev.vmsd = &vmstate_dev_errp;
    case_all(&dev);
    results();
}
#endif

#if SAVEVM_QEMU_VERSION < 700
/* A function that reads the streams of older versions. */

static int load_old(QEMUFile *f, void *opaque, int version_id)
{
    note("load_state_old(%d)", version_id);
    ((uint8_t *)opaque)[0] = (uint8_t)qemu_get_byte(f);
    return result.get;
}

static const VMStateDescription vmstate_sub_old = {
    .name = "sub",
    .version_id = 4,
    .minimum_version_id = 3,
    .minimum_version_id_old = 2,
    .load_state_old = load_old,
    .pre_load = sub_pre_load,
    .post_load = sub_post_load,
    .fields = (VMStateField[]) {
        VMSTATE_SINGLE(c, struct Sub, 0, info_twice, uint8_t),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_extra_old = {
    .name = "dev/extra",
    .version_id = 9,
    .minimum_version_id = 9,
    .minimum_version_id_old = 7,
    .load_state_old = load_old,
    .fields = (VMStateField[]) {
        VMSTATE_UINT8(b, Dev),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_dev_old = {
    .name = "dev",
    .version_id = 5,
    .minimum_version_id = 4,
    .minimum_version_id_old = 2,
    .load_state_old = load_old,
    .pre_load = pre_load,
    .post_load = post_load,
    .fields = (VMStateField[]) {
        VMSTATE_UINT8(a, Dev),
        VMSTATE_VSTRUCT(sub, Dev, vmstate_sub_old, struct Sub, 2),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription * []) { &vmstate_extra_old, NULL },
};

static void older_streams(void)
{
    say("streams of older versions");
    dev.vmsd = &vmstate_dev_old;
    case_all(&dev);
    for (int version = 1; version <= 6; version++) {
        case_load_hex(&dev, version, "01 02 05 09 6465762f6578747261 00000009 0a");
        case_load_hex(&dev, version, "");
    }
    for (int version = 6; version <= 10; version++) {
        char hex[64];

        snprintf(hex, sizeof(hex), "01 02 05 09 6465762f6578747261 %08x 0a", version);
        case_load_hex(&dev, 5, hex);
    }
    result.get = -EPERM;
    case_load_hex(&dev, 3, "01");
    case_load_hex(&dev, 4, "01 02");
    result.get = 0;
}
#endif

int group_hooks(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    case_all(&dev);
    case_all(&infos);
    results();
    say("an info that refuses");
    case_load_hex(&dev, 2, "01 02fd 03ff 04fb 05");
    case_load_hex(&infos, 1, "01fe 000102 07 09");
    case_load_hex(&infos, 1, "0101 000102 07 09");
#if SAVEVM_QEMU_VERSION < 700
    older_streams();
#endif
#if SAVEVM_QEMU_VERSION >= 1002
    hooks_with_errors();
#endif
    return 0;
}

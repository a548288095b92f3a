/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The place in an error, as text and in parts. Only the first error counts. */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/file.h"
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

/* The error of a file, which is closed. */
static Error *error_of(QEMUFile *f)
{
    Error *err = NULL;
    int code = qemu_file_get_error_obj(f, &err);

    REQUIRE(err != NULL);
    CHECK_EQ(savevm_error_info(err)->error, -code);
    CHECK_EQ(savevm_error_info(err)->size, sizeof(SaveVMErrorInfo));
    CHECK_HAS(error_get_pretty(err), savevm_error_info(err)->message);
    CHECK_EQ(qemu_fclose(f), code);
    return err;
}

static Error *error_of_load(QEMUFile *from, int want)
{
    size_t len = 0;
    const uint8_t *bytes = savevm_file_buffer(from, &len);
    QEMUFile *f = savevm_file_from_buffer(bytes, len);

    CHECK_EQ(qemu_loadvm_state(f), want);
    qemu_fclose(from);
    return error_of(f);
}

TEST(nothing_is_there)
{
    QEMUFile *f = savevm_file_to_buffer();
    Error *err = NULL;

    CHECK(savevm_error_info(NULL) == NULL);
    CHECK(error_get_pretty(NULL) == NULL);
    error_free(NULL);
    CHECK_EQ(qemu_file_get_error_obj(f, &err), 0);
    CHECK(err == NULL);
    qemu_fclose(f);
}

TEST(a_plain_number)
{
    QEMUFile *f = savevm_file_to_buffer();
    const SaveVMErrorInfo *info;
    Error *err;

    qemu_file_set_error(f, -ENOSPC);
    err = error_of(f);
    info = savevm_error_info(err);
    CHECK_EQ(info->error, ENOSPC);
    CHECK_EQ(info->section_type, -1);
    CHECK_EQ(info->section_id, -1);
    CHECK_EQ(info->instance_id, -1);
    CHECK_EQ(info->version_have, -1);
    CHECK_EQ(info->version_want, -1);
    CHECK(info->idstr == NULL);
    CHECK(info->path == NULL);
    error_free(err);
}

/* An error goes into a file, the file gives copies of it out. */
TEST(an_error_with_words)
{
    QEMUFile *f = savevm_file_to_buffer(), *g = savevm_file_to_buffer();
    Error *err = NULL, *again = NULL;

    CHECK(savevm_file_open("nothing", true, &err) == NULL);
    qemu_file_set_error_obj(f, -EPROTO, err);
    CHECK_EQ(qemu_file_get_error_obj(f, &again), -EPROTO);
    CHECK_EQ(savevm_error_info(again)->error, EPROTO);
    CHECK_HAS(error_get_pretty(again), "nothing");
    /* This one is too late. */
    qemu_file_set_error_obj(f, -EIO, again);
    again = NULL;
    CHECK_EQ(qemu_file_get_error_obj_any(g, f, &again), -EPROTO);
    CHECK_HAS(error_get_pretty(again), "nothing");
    error_free(again);
    again = NULL;
    qemu_file_set_error_obj(g, 0, NULL);
    CHECK_EQ(qemu_file_get_error(g), 0);
    qemu_fclose(f);
    qemu_fclose(g);
}

static Device dev;

static void check_place(const SaveVMErrorInfo *info, SaveVMSide side_, SaveVMPhase phase, int type, int64_t id)
{
    CHECK_EQ(info->side, side_);
    CHECK_EQ(info->phase, phase);
    CHECK(info->phase_name != NULL);
    CHECK_EQ(info->section_type, type);
    CHECK_EQ(info->section_id, id);
    CHECK_STR(info->idstr, "dev");
    CHECK_EQ(info->instance_id, 6);
}

TEST(saving)
{
    static const struct {
        SaveVMPhase phase;
        int type;
        const char *callback;
    } list[] = {
        { SAVEVM_PHASE_SETUP, QEMU_VM_SECTION_START, "save_setup" },
        { SAVEVM_PHASE_ITERATE, QEMU_VM_SECTION_PART, "save_live_iterate" },
        { SAVEVM_PHASE_COMPLETE, QEMU_VM_SECTION_END, "save_live_complete_precopy" },
        { SAVEVM_PHASE_COMPLETE_POSTCOPY, QEMU_VM_SECTION_END, "save_live_complete_postcopy" },
    };

    device_add(&dev, "dev", 6, 1, HAS_LIVE);
    dev.save_setup = dev.save_live_iterate = -EBUSY;
    dev.save_live_complete_precopy = dev.save_live_complete_postcopy = -EBUSY;
    for (unsigned i = 0; i < 4; i++) {
        QEMUFile *f = savevm_file_to_buffer();
        Error *err;

        switch (i) {
        case 0:
            qemu_savevm_state_setup(f);
            break;
        case 1:
            CHECK_EQ(qemu_savevm_state_iterate(f, false), -EBUSY);
            break;
        case 2:
            CHECK_EQ(qemu_savevm_state_complete_precopy(f, true, false), -1);
            break;
        default:
            qemu_savevm_state_complete_postcopy(f);
            break;
        }
        err = error_of(f);
        check_place(savevm_error_info(err), SAVEVM_SIDE_SOURCE, list[i].phase, list[i].type, 0);
        CHECK_EQ(savevm_error_info(err)->error, EBUSY);
        CHECK_HAS(error_get_pretty(err), list[i].callback);
        CHECK(savevm_error_info(err)->offset > 0);
        error_free(err);
    }
}

/* A stream with one section, behind a header of 16 bytes. */
static QEMUFile *one_section(uint32_t instance, uint32_t version, int mark, uint32_t footer)
{
    QEMUFile *f = savevm_file_to_buffer();

    qemu_savevm_state_header(f);
    qemu_put_byte(f, QEMU_VM_SECTION_FULL);
    qemu_put_be32(f, 42);
    qemu_put_counted_string(f, "dev");
    qemu_put_be32(f, instance);
    qemu_put_be32(f, version);
    qemu_put_byte(f, 'F');
    qemu_put_counted_string(f, "");
    qemu_put_be16(f, 0);
    qemu_put_byte(f, mark);
    qemu_put_be32(f, footer);
    qemu_put_byte(f, QEMU_VM_EOF);
    return f;
}

TEST(loading)
{
    const SaveVMErrorInfo *info;
    Error *err;

    device_add(&dev, "dev", 6, 3, HAS_LEGACY);
    dev.load_state = -ESTALE;
    err = error_of_load(one_section(6, 2, QEMU_VM_SECTION_FOOTER, 42), -ESTALE);
    info = savevm_error_info(err);
    check_place(info, SAVEVM_SIDE_DESTINATION, SAVEVM_PHASE_LOAD, QEMU_VM_SECTION_FULL, 42);
    CHECK_EQ(info->version_have, 3);
    CHECK_EQ(info->version_want, 2);
    CHECK_HAS(info->message, "load_state");
    error_free(err);
}

TEST(a_version_from_the_future)
{
    Error *err;

    device_add(&dev, "dev", 6, 3, HAS_LEGACY);
    err = error_of_load(one_section(6, 9, QEMU_VM_SECTION_FOOTER, 42), -EINVAL);
    check_place(savevm_error_info(err), SAVEVM_SIDE_DESTINATION, SAVEVM_PHASE_LOAD, QEMU_VM_SECTION_FULL, 42);
    CHECK_EQ(savevm_error_info(err)->version_want, 9);
    CHECK_EQ(savevm_error_info(err)->version_have, 3);
    CHECK_HAS(error_get_pretty(err), "9");
    error_free(err);
}

TEST(wrong_footers)
{
    Error *err;

    device_add(&dev, "dev", 6, 3, HAS_LEGACY);
    err = error_of_load(one_section(6, 3, 0x55, 42), -EINVAL);
    check_place(savevm_error_info(err), SAVEVM_SIDE_DESTINATION, SAVEVM_PHASE_LOAD, QEMU_VM_SECTION_FULL, 42);
    /* Header 16, head of the section 17, payload 4. */
    CHECK_EQ(savevm_error_info(err)->offset, 37);
    CHECK_HAS(error_get_pretty(err), "0x55");
    CHECK_HAS(error_get_pretty(err), "0x7e");
    error_free(err);
    err = error_of_load(one_section(6, 3, QEMU_VM_SECTION_FOOTER, 0xabc), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "0xabc");
    CHECK_HAS(error_get_pretty(err), "0x2a");
    error_free(err);
}

TEST(unknown_devices)
{
    Error *err;

    device_add(&dev, "dev", 6, 3, HAS_LEGACY);
    err = error_of_load(one_section(5, 3, QEMU_VM_SECTION_FOOTER, 42), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "'dev' 5");
    CHECK_EQ(savevm_error_info(err)->side, 2);
    CHECK_EQ(savevm_error_info(err)->offset, 21);
    error_free(err);
}

TEST(the_stream_ends)
{
    QEMUFile *f = savevm_file_to_buffer();
    Error *err;

    device_add(&dev, "dev", 6, 3, HAS_LEGACY);
    qemu_savevm_state_header(f);
    err = error_of_load(f, -EIO);
    CHECK_EQ(savevm_error_info(err)->offset, 16);
    CHECK_EQ(savevm_error_info(err)->error, EIO);
    error_free(err);
}

TEST(another_format)
{
    QEMUFile *f = savevm_file_to_buffer();
    Error *err;

    qemu_put_be32(f, 0x7f454c46);
    qemu_put_be32(f, 3);
    err = error_of_load(f, -EINVAL);
    CHECK_EQ(savevm_error_info(err)->offset, 0);
    CHECK_HAS(error_get_pretty(err), "0x7f454c46");
    CHECK_HAS(error_get_pretty(err), "0x5145564d");
    error_free(err);
}

TEST(another_machine)
{
    QEMUFile *f = savevm_file_to_buffer();
    Error *err;

    backend.machine = "there";
    qemu_savevm_state_header(f);
    qemu_put_byte(f, 0);
    backend.machine = "here";
    err = error_of_load(f, -EINVAL);
    CHECK_EQ(savevm_error_info(err)->phase, SAVEVM_PHASE_CONFIGURATION);
    CHECK_STR(savevm_error_info(err)->phase_name, "configuration");
    CHECK_HAS(error_get_pretty(err), "there");
    CHECK_HAS(error_get_pretty(err), "here");
    error_free(err);
}

/* The path to a field inside a description */

typedef struct Inner {
    uint32_t low;
    uint32_t high;
} Inner;

typedef struct Outer {
    uint8_t kind;
    Inner inner[3];
} Outer;

static bool inner_is_right(void *opaque, int version_id)
{
    (void)version_id;
    return ((Inner *)opaque)->low < 100;
}

static const VMStateDescription vmstate_inner = {
    .name = "inner",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (VMStateField[]) {
        VMSTATE_UINT32(low, Inner),
        VMSTATE_VALIDATE("low is small", inner_is_right),
        VMSTATE_UINT32(high, Inner),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_outer = {
    .name = "outer",
    .version_id = 4,
    .minimum_version_id = 2,
    .fields = (VMStateField[]) {
        VMSTATE_UINT8(kind, Outer),
        VMSTATE_STRUCT_ARRAY(inner, Outer, 3, 1, vmstate_inner, Inner),
        VMSTATE_END_OF_LIST()
    },
};

TEST(a_field)
{
    Outer outer = { 1, { { 2, 3 }, { 4, 5 }, { 6, 7 } } };
    QEMUFile *f = savevm_file_to_buffer();
    const SaveVMErrorInfo *info;
    Error *err;

    REQUIRE(vmstate_register(NULL, 0, &vmstate_outer, &outer) == 0);
    qemu_savevm_state_header(f);
    qemu_put_byte(f, QEMU_VM_SECTION_FULL);
    qemu_put_be32(f, 8);
    qemu_put_counted_string(f, "outer");
    qemu_put_be32(f, 0);
    qemu_put_be32(f, 4);
    qemu_put_byte(f, 1);
    qemu_put_be32(f, 10);
    qemu_put_be32(f, 11);
    qemu_put_be32(f, 100);
    qemu_put_be32(f, 13);
    err = error_of_load(f, -1);
    info = savevm_error_info(err);
    CHECK_STR(info->idstr, "outer");
    CHECK_HAS(info->path, "inner");
    CHECK_HAS(error_get_pretty(err), "low is small");
    error_free(err);
}

TEST(the_same_twice_in_a_row)
{
    QEMUFile *f = savevm_file_to_buffer();
    Error *one = NULL, *two = NULL;

    qemu_file_set_error(f, -EIO);
    qemu_file_get_error_obj(f, &one);
    qemu_file_get_error_obj(f, &two);
    CHECK(one != two);
    CHECK_STR(error_get_pretty(one), error_get_pretty(two));
    error_free(one);
    CHECK_EQ(savevm_error_info(two)->error, EIO);
    error_free(two);
    qemu_fclose(f);
}

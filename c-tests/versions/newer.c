/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program describes the tables of a QEMU that the library does not know, with
 * the headers of that QEMU (newer.h), and registers devices of it. Wrong
 * descriptions are refused with the name of the member.
 */
#include "harness.h"
#include "newer.h"

#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "qapi/error.h"
#include "savevm/abi.h"
#include "savevm/file.h"
#include "savevm/host-driver.h"

#include <errno.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const SaveVMAbiMember members[] = {
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_state),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_prepare),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_setup),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_cleanup),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_complete),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, is_active),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, has_postcopy),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, is_active_iterate),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_live_iterate),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_postcopy_prepare),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, save_query_pending),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, load_state),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, load_state_buffer),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, load_setup),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, load_cleanup),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, resume_prepare),
    SAVEVM_ABI_MEMBER(SaveVMHandlers, switchover_start),
    SAVEVM_ABI_MEMBER(VMStateDescription, name),
    SAVEVM_ABI_MEMBER(VMStateDescription, unmigratable),
    SAVEVM_ABI_MEMBER(VMStateDescription, early_setup),
    SAVEVM_ABI_MEMBER(VMStateDescription, version_id),
    SAVEVM_ABI_MEMBER(VMStateDescription, minimum_version_id),
    SAVEVM_ABI_MEMBER(VMStateDescription, priority),
    SAVEVM_ABI_MEMBER(VMStateDescription, pre_save_errp),
    SAVEVM_ABI_MEMBER(VMStateDescription, post_load_errp),
    SAVEVM_ABI_MEMBER(VMStateDescription, needed),
    SAVEVM_ABI_MEMBER(VMStateDescription, fields),
    SAVEVM_ABI_MEMBER(VMStateDescription, subsections),
    SAVEVM_ABI_MEMBER(VMStateField, name),
    SAVEVM_ABI_MEMBER(VMStateField, offset),
    SAVEVM_ABI_MEMBER(VMStateField, size),
    SAVEVM_ABI_MEMBER(VMStateField, size_offset),
    SAVEVM_ABI_MEMBER(VMStateField, start),
    SAVEVM_ABI_MEMBER(VMStateField, num),
    SAVEVM_ABI_MEMBER(VMStateField, num_offset),
    SAVEVM_ABI_MEMBER(VMStateField, info),
    SAVEVM_ABI_MEMBER(VMStateField, flags),
    SAVEVM_ABI_MEMBER(VMStateField, vmsd),
    SAVEVM_ABI_MEMBER(VMStateField, version_id),
    SAVEVM_ABI_MEMBER(VMStateField, struct_version_id),
    SAVEVM_ABI_MEMBER(VMStateField, field_exists),
    SAVEVM_ABI_MEMBER(VMStateInfo, name),
    SAVEVM_ABI_MEMBER(VMStateInfo, get),
    SAVEVM_ABI_MEMBER(VMStateInfo, put),
    SAVEVM_ABI_MEMBER(VMStateInfo, load),
    SAVEVM_ABI_MEMBER(VMStateInfo, save),
    SAVEVM_ABI_MEMBER(MigPendingData, precopy_bytes),
    SAVEVM_ABI_MEMBER(MigPendingData, stopcopy_bytes),
    SAVEVM_ABI_MEMBER(MigPendingData, postcopy_bytes),
};

static const SaveVMAbiConstant constants[] = {
    SAVEVM_ABI_CONSTANT(MIG_PRI_UNINITIALIZED),
    SAVEVM_ABI_CONSTANT(MIG_PRI_LOW),
    SAVEVM_ABI_CONSTANT(MIG_PRI_DEFAULT),
    SAVEVM_ABI_CONSTANT(MIG_PRI_MAX),
    SAVEVM_ABI_CONSTANT(VMS_SINGLE),
    SAVEVM_ABI_CONSTANT(VMS_POINTER),
    SAVEVM_ABI_CONSTANT(VMS_ARRAY),
    SAVEVM_ABI_CONSTANT(VMS_STRUCT),
    SAVEVM_ABI_CONSTANT(VMS_VARRAY_UINT32),
    SAVEVM_ABI_CONSTANT(VMS_END),
};

static SaveVMAbiDescription description_of_newer(void)
{
    SaveVMAbiDescription description = SAVEVM_ABI_DESCRIPTION_INIT;

    description.qemu_version = 1199;
    description.semantics = SAVEVM_SEMANTICS_OF_VERSION;
    description.handlers_size = sizeof(SaveVMHandlers);
    description.description_size = sizeof(VMStateDescription);
    description.field_size = sizeof(VMStateField);
    description.info_size = sizeof(VMStateInfo);
    description.pending_size = sizeof(MigPendingData);
    description.members = members;
    description.member_count = COUNT(members);
    description.constants = constants;
    description.constant_count = COUNT(constants);
    return description;
}

/* A device of that version */

typedef struct Part {
    uint32_t value;
} Part;

typedef struct State {
    uint64_t ram;
    uint32_t number;
    uint32_t count;
    uint32_t words[4];
    uint8_t volume;
    Part part;
    unsigned exact, estimates, finals;
} State;

static int save_setup(QEMUFile *f, void *opaque, Error **errp)
{
    (void)opaque;
    (void)errp;
    qemu_put_byte(f, 'S');
    return 0;
}

static int save_complete(QEMUFile *f, void *opaque)
{
    State *state = opaque;

    qemu_put_byte(f, 'C');
    qemu_put_be64(f, state->ram);
    return 0;
}

static void save_query_pending(void *opaque, MigPendingData *pending, bool exact, bool final)
{
    State *state = opaque;

    state->exact += exact;
    state->estimates += !exact;
    state->finals += final;
    pending->precopy_bytes += exact ? 100 : 1;
    pending->stopcopy_bytes += exact ? 20 : 2;
    pending->postcopy_bytes += exact ? 3000 : 4;
}

static int load_state(QEMUFile *f, void *opaque, int version_id)
{
    State *state = opaque;

    if (qemu_get_byte(f) == 'C') {
        state->ram = qemu_get_be64(f);
    }
    return version_id == 2 ? qemu_file_get_error(f) : -EINVAL;
}

static const SaveVMHandlers handlers = {
    .save_setup = save_setup,
    .save_complete = save_complete,
    .save_query_pending = save_query_pending,
    .load_state = load_state,
};

static bool save_volume(QEMUFile *f, void *pv, size_t size, const VMStateField *field, JSONWriter *vmdesc, Error **errp)
{
    uint8_t *volume = pv;

    (void)vmdesc;
    if (size != 1 || field->offset != offsetof(State, volume) || *volume > 11) {
        error_setg(errp, "volume %u is too loud", *volume);
        return false;
    }
    qemu_put_byte(f, *volume);
    return true;
}

static bool load_volume(QEMUFile *f, void *pv, size_t size, const VMStateField *field, Error **errp)
{
    uint8_t *volume = pv;

    (void)size;
    (void)field;
    *volume = (uint8_t)qemu_get_byte(f);
    if (*volume > 11) {
        error_setg(errp, "volume %u in the stream is too loud", *volume);
        return false;
    }
    return true;
}

static const VMStateInfo info_volume = {
    .name = "volume",
    .save = save_volume,
    .load = load_volume,
};

static const VMStateDescription vmstate_part = {
    .name = "part",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        { .name = "value", .offset = offsetof(Part, value), .size = 4, .info = &vmstate_info_uint32, .flags = VMS_SINGLE },
        { .flags = VMS_END }
    },
};

#define FIELDS                                                                                                         \
    { .name = "number", .offset = offsetof(State, number), .size = 4, .info = &vmstate_info_uint32,                    \
      .flags = VMS_SINGLE },                                                                                           \
    { .name = "count", .offset = offsetof(State, count), .size = 4, .info = &vmstate_info_uint32,                      \
      .flags = VMS_SINGLE },                                                                                           \
    { .name = "words", .offset = offsetof(State, words), .size = 4, .num_offset = offsetof(State, count),              \
      .info = &vmstate_info_uint32, .flags = VMS_VARRAY_UINT32 },                                                      \
    { .name = "volume", .offset = offsetof(State, volume), .size = 1, .info = &info_volume, .flags = VMS_SINGLE },     \
    { .name = "part", .offset = offsetof(State, part), .size = sizeof(Part), .vmsd = &vmstate_part,                    \
      .flags = VMS_STRUCT }

static const VMStateDescription vmstate_newer = {
    .name = "newer",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) { FIELDS, { .flags = VMS_END } },
};

static const VMStateDescription vmstate_endless = {
    .name = "endless",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) { FIELDS, { .flags = 0x10000 } },
};

static int add(const SaveVMAbi *abi, State *state)
{
    int ret = savevm_abi_register_savevm_live(abi, "live", 0, 2, &handlers, state);

    return ret ? ret : savevm_abi_vmstate_register(abi, NULL, 0, &vmstate_newer, state, -1, 0, NULL);
}

static QEMUFile *save(void)
{
    QEMUFile *f = savevm_file_to_buffer();
    uint64_t must, can;

    qemu_savevm_state_header(f);
    CHECK_EQ(savevm_state_setup(f, NULL), 0);
    savevm_state_pending(false, &must, &can);
    CHECK_EQ(must, 3);
    CHECK_EQ(can, 4);
    savevm_state_pending(true, &must, &can);
    CHECK_EQ(must, 120);
    CHECK_EQ(can, 3000);
    CHECK_EQ(savevm_state_complete_precopy_iterable(f, false), 0);
    CHECK_EQ(savevm_state_complete_precopy_non_iterable(f, false), 0);
    return f;
}

/* The layout of newer.h. A layout is never freed, so the pointer stays for the memory checkers. */
static const SaveVMAbi *newer_abi(void)
{
    static const SaveVMAbi *abi;
    const SaveVMAbiDescription description = description_of_newer();

    if (!abi) {
        abi = savevm_abi_new(&description, NULL);
    }
    REQUIRE(abi != NULL);
    return abi;
}

TEST(devices_of_a_described_version_are_saved_and_loaded)
{
    const SaveVMAbi *abi = newer_abi();
    State source = { .ram = 7, .number = 8, .count = 2, .words = { 1, 2, 3, 4 }, .volume = 11, .part = { 9 } };
    State destination = { 0 };
    SaveVM *vm = savevm_new(NULL, NULL);
    Error *err = NULL;
    const uint8_t *bytes;
    QEMUFile *f, *copy;
    size_t len;

    savevm_set_current(vm);
    CHECK_EQ(savevm_set_abi(vm, abi, NULL), 0);
    REQUIRE(add(abi, &source) == 0);
    f = save();
    CHECK_EQ(qemu_file_get_error(f), 0);
    CHECK_EQ(source.exact, 1);
    CHECK_EQ(source.estimates, 1);
    CHECK_EQ(source.finals, 0);
    source.volume = 12;
    copy = savevm_file_to_buffer();
    CHECK(savevm_abi_vmstate_save(abi, copy, &vmstate_newer, &source, NULL, SAVEVM_ABI_OWN_VERSION, &err) < 0);
    CHECK_HAS(error_get_pretty(err), "volume 12 is too loud");
    error_free(err);
    qemu_fclose(copy);
    savevm_set_current(NULL);
    savevm_free(vm);

    vm = savevm_new(NULL, NULL);
    savevm_set_current(vm);
    savevm_set_abi(vm, abi, NULL);
    REQUIRE(add(abi, &destination) == 0);
    bytes = savevm_file_buffer(f, &len);
    copy = savevm_file_from_buffer(bytes, len);
    CHECK_EQ(qemu_loadvm_state(copy), 0);
    CHECK_EQ(destination.ram, 7);
    CHECK_EQ(destination.number, 8);
    CHECK_EQ(destination.words[1], 2);
    CHECK_EQ(destination.words[2], 0);
    CHECK_EQ(destination.volume, 11);
    CHECK_EQ(destination.part.value, 9);
    qemu_fclose(copy);
    qemu_fclose(f);
    savevm_set_current(NULL);
    savevm_free(vm);
}

TEST(list_that_ends_with_another_flag_is_refused)
{
    const SaveVMAbi *abi = newer_abi();
    Error *err = NULL;
    State state;

    CHECK_EQ(savevm_abi_vmstate_register(abi, NULL, 0, &vmstate_endless, &state, -1, 0, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "'endless'");
    CHECK_HAS(error_get_pretty(err), "VMS_END");
    error_free(err);
}

/* Refused descriptions */

static SaveVMAbiMember changed[COUNT(members) + 1];
static SaveVMAbiConstant changed_constants[COUNT(constants)];

static SaveVMAbiMember *member(SaveVMAbiMemberId id)
{
    for (size_t i = 0; i < COUNT(members); i++) {
        if (changed[i].member == id) {
            return &changed[i];
        }
    }
    REQUIRE(!"the member is there");
    return NULL;
}

static SaveVMAbiDescription fresh(void)
{
    SaveVMAbiDescription description = description_of_newer();

    memcpy(changed, members, sizeof(members));
    memcpy(changed_constants, constants, sizeof(constants));
    description.members = changed;
    description.constants = changed_constants;
    return description;
}

static void refused(const SaveVMAbiDescription *description, const char *what)
{
    Error *err = NULL;

    CHECK(savevm_abi_new(description, &err) == NULL);
    CHECK_HAS(error_get_pretty(err), "layout of QEMU 11.99");
    CHECK_HAS(error_get_pretty(err), what);
    error_free(err);
}

/* Replaces a member by another one that is there already, at the end. */
static void without(SaveVMAbiDescription *description, SaveVMAbiMemberId id)
{
    *member(id) = changed[COUNT(members) - 1];
    description->member_count--;
}

TEST(wrong_descriptions_are_refused_with_the_name_of_the_member)
{
    SaveVMAbiDescription description = fresh();

    member(SAVEVM_ABI_SaveVMHandlers_load_state)->offset = member(SAVEVM_ABI_SaveVMHandlers_is_active)->offset;
    refused(&description, "SaveVMHandlers.load_state at offset 40 overlaps SaveVMHandlers.is_active");

    description = fresh();
    member(SAVEVM_ABI_VMStateField_flags)->offset = sizeof(VMStateField);
    refused(&description, "VMStateField.flags at offset");

    description = fresh();
    member(SAVEVM_ABI_VMStateField_flags)->offset = SIZE_MAX - 3;
    refused(&description, "VMStateField.flags at offset");

    description = fresh();
    member(SAVEVM_ABI_SaveVMHandlers_save_complete)->kind = (SaveVMAbiKind)99;
    refused(&description, "SaveVMHandlers.save_complete has the type 99");

    description = fresh();
    member(SAVEVM_ABI_VMStateDescription_needed)->kind = SAVEVM_ABI_VOID;
    refused(&description, "VMStateDescription.needed has the type");

    description = fresh();
    member(SAVEVM_ABI_VMStateDescription_needed)->member = (SaveVMAbiMemberId)500;
    refused(&description, "unknown member 500");

    description = fresh();
    without(&description, SAVEVM_ABI_VMStateField_info);
    refused(&description, "VMStateField.info is missing");

    description = fresh();
    without(&description, SAVEVM_ABI_SaveVMHandlers_switchover_start);
    refused(&description, "SWITCHOVER_START need SaveVMHandlers.switchover_start");

    description = fresh();
    changed[COUNT(members) - 1] = changed[0];
    refused(&description, "SaveVMHandlers.save_state is described twice");

    description = fresh();
    description.member_count--;
    refused(&description, "MigPendingData.postcopy_bytes");

    description = fresh();
    description.pending_size = 8;
    refused(&description, "MigPendingData.precopy_bytes at offset");

    description = fresh();
    description.handlers_size = 0;
    refused(&description, "sizeof(SaveVMHandlers) is 0");

    description = fresh();
    description.constant_count--;
    refused(&description, "CHECK_DESCRIPTIONS need VMS_END");

    description = fresh();
    changed_constants[COUNT(constants) - 1].value = 0x30000;
    refused(&description, "VMS_END is 0x30000");

    description = fresh();
    description.semantics |= (uint64_t)1 << 40;
    refused(&description, "unknown semantics");

    description = fresh();
    description.members = NULL;
    refused(&description, "SaveVMAbiDescription.members is NULL");
}

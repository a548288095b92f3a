/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Device files of all QEMU versions in one program: each device has the
 * callbacks, descriptions and calls of its version (device.c).
 */
#include "harness.h"
#include "versions.h"

#include "migration/savevm.h"
#include "savevm.h"
#include "savevm/abi.h"
#include "savevm/file.h"
#include "savevm/host-driver.h"
#include "migration/qemu-file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

extern const VersionDevice device_500, device_502, device_601, device_700, device_702, device_800, device_801,
    device_802, device_900, device_901, device_902, device_1000, device_1001, device_1002;

static const VersionDevice *const devices[] = {
    &device_500, &device_502, &device_601, &device_700, &device_702, &device_800, &device_801,
    &device_802, &device_900, &device_901, &device_902, &device_1000, &device_1001, &device_1002,
};

/* The host runs threads of devices at once. */
typedef struct ThreadData {
    bool (*function)(struct ThreadData *d, Error **errp);
    char *idstr;
    uint32_t instance_id;
    void *opaque;
} ThreadData;

static bool threads_failed;

static bool device_threads(void *host)
{
    (void)host;
    return true;
}

static void thread_start(void *host, void *function, const char *idstr, uint32_t instance_id, void *device)
{
    ThreadData data = { NULL, (char *)idstr, instance_id, device };
    Error *err = NULL;

    (void)host;
    memcpy(&data.function, &function, sizeof(function));
    threads_failed = !data.function(&data, &err);
}

static bool threads_join(void *host)
{
    (void)host;
    return !threads_failed;
}

static uint32_t stream_flags(void *host)
{
    (void)host;
    return SAVEVM_FLAG_SWITCHOVER_ACK;
}

static SaveVM *new_context(unsigned semantics)
{
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;
    SaveVM *vm;

    ops.device_threads = device_threads;
    ops.device_thread_start = thread_start;
    ops.device_threads_join = threads_join;
    ops.stream_flags = stream_flags;
    vm = savevm_new(&ops, NULL);
    REQUIRE(vm != NULL);
    savevm_set_current(vm);
    if (semantics) {
        CHECK_EQ(savevm_set_abi(vm, savevm_abi_of_qemu(semantics), NULL), 0);
    }
    return vm;
}

static void free_context(SaveVM *vm)
{
    savevm_set_current(NULL);
    savevm_free(vm);
}

/* The state of the source, and of a destination before the load. */
static void fill(State *state, bool source)
{
    memset(state, 0, sizeof(*state));
    state->parts[0] = &state->part_a;
    state->parts[2] = &state->part_c;
    if (source) {
        state->ram = 0x1122334455667788;
        state->number = 5;
        state->words[3] = 7;
        state->part = (Part){ 1, 2 };
        state->nested = (Part){ 3, 4 };
        state->part_a = (Part){ 5, 6 };
        state->part_c = (Part){ 7, 8 };
        state->late = 9;
        state->doubled = 10;
        state->first = 11;
        state->early = 12;
    }
}

static bool same_part(const Part *a, const Part *b)
{
    return a->a == b->a && a->b == b->b;
}

static bool described_alike(const State *a, const State *b)
{
    return a->number == b->number && memcmp(a->words, b->words, sizeof(a->words)) == 0 &&
           same_part(&a->part, &b->part) && same_part(&a->nested, &b->nested) &&
           same_part(&a->part_a, &b->part_a) && same_part(&a->part_c, &b->part_c) && a->late == b->late &&
           a->doubled == b->doubled;
}

static bool alike(const State *a, const State *b)
{
    return described_alike(a, b) && a->ram == b->ram && a->first == b->first && a->early == b->early;
}

/* All phases of a precopy. */
static QEMUFile *save(void)
{
    QEMUFile *f = savevm_file_to_buffer();
    uint64_t must, can;
    Error *err = NULL;

    CHECK_EQ(savevm_state_prepare(&err), 0);
    qemu_savevm_state_header(f);
    CHECK_EQ(savevm_state_setup(f, &err), 0);
    CHECK_EQ(qemu_savevm_state_iterate(f, false), 1);
    savevm_state_pending(false, &must, &can);
    savevm_state_pending(true, &must, &can);
    CHECK_EQ(must % 10, 0);
    CHECK_EQ(can, must * 30);
    CHECK_EQ(savevm_state_postcopy_prepare(f, &err), 0);
    savevm_send_switchover_start(f);
    CHECK_EQ(savevm_state_complete_precopy_iterable(f, false), 0);
    CHECK_EQ(savevm_state_complete_precopy_non_iterable(f, false), 0);
    qemu_savevm_state_cleanup();
    CHECK_EQ(qemu_file_get_error(f), 0);
    CHECK(err == NULL);
    return f;
}

static void load(QEMUFile *f)
{
    size_t len;
    const uint8_t *bytes = savevm_file_buffer(f, &len);
    QEMUFile *copy = savevm_file_from_buffer(bytes, len);
    Error *err = NULL;

    if (!CHECK_EQ(savevm_load_state(copy, &err), 0)) {
        fprintf(stderr, "%s\n", error_get_pretty(err));
    }
    error_free(err);
    qemu_fclose(copy);
}

/* The calls of a device while it is saved and loaded. */
static void expect_calls(const VersionDevice *device, unsigned semantics, const char *saved, const char *loaded)
{
    unsigned v = device->version;
    char want[1024];

    snprintf(want, sizeof(want), "%ssetup %siterate estimate exact %s%scomplete first pre_save post_save %scleanup ",
             v >= 802 ? "prepare " : "", v >= 800 ? "early " : "", v >= 1001 ? "postcopy_prepare " : "",
             v >= 1000 ? "thread " : "", v >= 800 ? "" : "early ");
    CHECK_STR(saved, want);
    snprintf(want, sizeof(want), "load_setup %sload load %s%sload pre_load post_load load_cleanup ",
             v >= 801 ? "ack_needed " : "", v >= 1001 ? "load " : "",
             v >= 1000 && semantics >= 1000 ? "switchover " : "");
    CHECK_STR(loaded, want);
}

static void save_and_load(const VersionDevice *device, unsigned semantics)
{
    State source, destination;
    SaveVM *vm = new_context(semantics);
    QEMUFile *f;

    fprintf(stderr, "version %u with the semantics of %u\n", device->version, semantics);
    fill(&source, true);
    fill(&destination, false);
    REQUIRE(device->add(&source) == 0);
    f = save();
    CHECK_EQ(qemu_savevm_state_resume_prepare(NULL), 0);
    CHECK_HAS(source.log, "cleanup resume ");
    source.log[strlen(source.log) - strlen("resume ")] = '\0';
    device->remove(&source);
    free_context(vm);

    vm = new_context(semantics);
    REQUIRE(device->add(&destination) == 0);
    load(f);
    CHECK(alike(&source, &destination));
    expect_calls(device, semantics, source.log, destination.log);
    device->remove(&destination);
    free_context(vm);
    qemu_fclose(f);
}

TEST(device_of_each_version_is_saved_and_loaded)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        save_and_load(devices[i], 0);
    }
}

TEST(device_of_each_version_is_saved_and_loaded_with_its_semantics)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        save_and_load(devices[i], devices[i]->version);
    }
}

static void share_a_context(unsigned semantics)
{
    static State sources[COUNT(devices)], destinations[COUNT(devices)];
    SaveVM *vm = new_context(semantics);
    QEMUFile *f;

    fprintf(stderr, "semantics of %u\n", semantics);
    for (size_t i = 0; i < COUNT(devices); i++) {
        fill(&sources[i], true);
        sources[i].number += i;
        sources[i].ram += i;
        REQUIRE(devices[i]->add(&sources[i]) == 0);
    }
    f = save();
    free_context(vm);
    vm = new_context(semantics);
    /* In another order. */
    for (size_t i = COUNT(devices); i-- > 0;) {
        fill(&destinations[i], false);
        REQUIRE(devices[i]->add(&destinations[i]) == 0);
    }
    load(f);
    for (size_t i = 0; i < COUNT(devices); i++) {
        CHECK(alike(&sources[i], &destinations[i]));
        devices[i]->remove(&destinations[i]);
    }
    free_context(vm);
    qemu_fclose(f);
}

TEST(devices_of_all_versions_share_a_context)
{
    share_a_context(0);
}

TEST(devices_of_all_versions_share_a_context_of_each_version)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        share_a_context(devices[i]->version);
    }
}

/* A context of one version, and a device of another one. */
TEST(direct_calls_use_the_layout_of_their_file)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        SaveVM *vm = new_context(devices[COUNT(devices) - 1 - i]->version);
        State from, to;
        char *text;

        fill(&from, true);
        fill(&to, false);
        CHECK_EQ(devices[i]->copy(&from, &to), 0);
        CHECK(described_alike(&from, &to));
        CHECK_HAS(from.log, "pre_save post_save ");
        text = devices[i]->direct_error(&to);
        if (devices[i]->version >= 1002) {
            CHECK_HAS(text, "part");
        } else {
            CHECK(text == NULL);
        }
        free(text);
        free_context(vm);
    }
}

TEST(list_without_its_end_marker_is_refused_from_8_0_on)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        SaveVM *vm = new_context(0);
        char text[256], name[32];
        State state;

        fill(&state, true);
        snprintf(name, sizeof(name), "'endless-%u'", devices[i]->version);
        CHECK_EQ(devices[i]->add_endless(&state, text, sizeof(text)), devices[i]->version >= 800 ? -EINVAL : 0);
        CHECK_HAS(text, devices[i]->version >= 800 ? name : "");
        CHECK_HAS(text, devices[i]->version >= 800 ? "VMS_END" : "");
        free_context(vm);
    }
}

TEST(unknown_subsection_sets_the_error_of_the_file_from_8_2_on)
{
    static const char stream[] = "\1\0\0\0\2\5\6part/x\0\0\0\1";

    for (size_t i = 0; i < COUNT(devices); i++) {
        SaveVM *vm = new_context(devices[i]->version);
        State state;
        int ret;

        CHECK_EQ(devices[i]->load_bytes(&state, stream, sizeof(stream), &ret),
                 devices[i]->version >= 802 ? -ENOENT : 0);
        CHECK_EQ(ret, -ENOENT);
        CHECK_EQ(state.part.b, 2);
        free_context(vm);
    }
}

TEST(unmigratable_device_blocks_in_each_version)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        SaveVM *vm = new_context(0);
        Error *err = NULL;
        char name[32];
        State state;

        fill(&state, true);
        CHECK(!qemu_savevm_state_blocked(NULL));
        CHECK_EQ(devices[i]->add_blocker(&state), 0);
        CHECK(qemu_savevm_state_blocked(&err));
        snprintf(name, sizeof(name), "blocker-%u", devices[i]->version);
        CHECK_HAS(error_get_pretty(err), name);
        error_free(err);
        devices[i]->remove_blocker(&state);
        CHECK(!qemu_savevm_state_blocked(NULL));
        free_context(vm);
    }
}

TEST(errors_of_callbacks_reach_the_caller)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        unsigned version = devices[i]->version;
        SaveVM *vm = new_context(version);
        QEMUFile *f = savevm_file_to_buffer();
        Error *err = NULL;
        State state;

        fill(&state, true);
        REQUIRE(devices[i]->add(&state) == 0);
        state.fail = true;
        CHECK_EQ(savevm_state_prepare(&err), version >= 802 ? -EBUSY : 0);
        if (version >= 802) {
            CHECK_HAS(error_get_pretty(err), "is not ready");
        }
        error_free(err);
        err = NULL;
        CHECK_EQ(savevm_state_setup(f, &err), version >= 901 ? -ENOSPC : 0);
        if (version >= 901) {
            CHECK_HAS(error_get_pretty(err), "no room in");
        }
        error_free(err);
        err = NULL;
        qemu_fclose(f);
        f = savevm_file_to_buffer();
        CHECK(savevm_state_complete_precopy_non_iterable(f, false) < 0);
        CHECK(qemu_file_get_error_obj(f, &err) < 0);
        CHECK_HAS(error_get_pretty(err), version >= 1002 ? "is broken" : "device");
        error_free(err);
        qemu_fclose(f);
        devices[i]->remove(&state);
        free_context(vm);
    }
}

TEST(buffer_reaches_the_device_from_10_0_on)
{
    for (size_t i = 0; i < COUNT(devices); i++) {
        SaveVM *vm = new_context(0);
        bool has = devices[i]->version >= 1000;
        Error *err = NULL;
        char name[32];
        State state;

        snprintf(name, sizeof(name), "live-%u", devices[i]->version);
        fill(&state, false);
        REQUIRE(devices[i]->add(&state) == 0);
        CHECK_EQ(savevm_load_state_buffer(name, 0, (char[]){ 'a', 'b', 'c' }, 3, NULL), has ? 0 : -EINVAL);
        CHECK_STR(state.log, has ? "buffer " : "");
        CHECK_EQ(savevm_load_state_buffer(name, 0, (char[]){ 'x' }, 1, &err), -EINVAL);
        CHECK_HAS(error_get_pretty(err), has ? "a wrong buffer of 1 bytes" : "no load state buffer");
        error_free(err);
        devices[i]->remove(&state);
        free_context(vm);
    }
}

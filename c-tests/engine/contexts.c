/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many machines in one process: which call acts on which machine, from which thread. */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/file.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void save_value(QEMUFile *f, void *opaque)
{
    qemu_put_be32(f, *(uint32_t *)opaque);
}

static int load_value(QEMUFile *f, void *opaque, int version_id)
{
    (void)version_id;
    *(uint32_t *)opaque = qemu_get_be32(f);
    return 0;
}

static const SaveVMHandlers value = { .save_state = save_value, .load_state = load_value };

/* The device states of a context. */
static QEMUFile *saved(SaveVM *vm)
{
    SaveVM *before = savevm_set_current(vm);
    QEMUFile *f = savevm_file_to_buffer();

    CHECK_EQ(qemu_save_device_state(f), 0);
    savevm_set_current(before);
    return f;
}

static int loaded(SaveVM *vm, QEMUFile *from)
{
    SaveVM *before = savevm_set_current(vm);
    size_t len = 0;
    const uint8_t *bytes = savevm_file_buffer(from, &len);
    QEMUFile *f = savevm_file_from_buffer(bytes + 8, len - 8);
    int ret = qemu_load_device_state(f);

    qemu_fclose(f);
    savevm_set_current(before);
    return ret;
}

TEST(version)
{
    char expected[40];

    snprintf(expected, sizeof(expected), "%d.%d.%d", SAVEVM_VERSION_MAJOR, SAVEVM_VERSION_MINOR, SAVEVM_VERSION_PATCH);
    CHECK_STR(savevm_version(), expected);
}

TEST(there_is_one_default)
{
    SaveVM *vm = savevm_new(NULL, NULL);

    CHECK(savevm_default() != NULL);
    CHECK(savevm_default() == savevm_default());
    CHECK(savevm_set_current(vm) == savevm_default());
    CHECK(savevm_set_current(NULL) == vm);
    CHECK(savevm_set_current(NULL) == savevm_default());
    savevm_free(vm);
    savevm_free(NULL);
}

TEST(contexts_do_not_see_each_other)
{
    uint32_t here = 1, there = 2;
    SaveVM *a = savevm_new(NULL, NULL), *b = savevm_new(NULL, NULL);
    QEMUFile *f;
    size_t len = 0;

    savevm_set_current(a);
    register_savevm_live("dev", 0, 1, &value, &here);
    savevm_set_current(b);
    register_savevm_live("dev", 0, 1, &value, &there);
    savevm_set_current(NULL);
    f = saved(savevm_default());
    savevm_file_buffer(f, &len);
    CHECK_EQ(len, 9);
    qemu_fclose(f);
    f = saved(a);
    CHECK_EQ(loaded(b, f), 0);
    CHECK_EQ(there, 1);
    CHECK(loaded(NULL, f) < 0);
    qemu_fclose(f);
    savevm_set_current(b);
    unregister_savevm(NULL, "dev", &here);
    savevm_set_current(NULL);
    f = saved(a);
    savevm_file_buffer(f, &len);
    CHECK(len > 9);
    qemu_fclose(f);
    savevm_free(a);
    savevm_free(b);
}

typedef struct Worker {
    unsigned number;
    bool right;
} Worker;

/* Each thread has a machine of its own, and 50 devices. */
static void *machine_main(void *opaque)
{
    Worker *worker = opaque;
    SaveVM *vm = savevm_new(NULL, NULL);
    uint32_t out[50], in[50] = { 0 };
    QEMUFile *f;

    CHECK(savevm_set_current(vm) == savevm_default());
    worker->right = true;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 50; i++) {
            out[i] = worker->number * 1000 + i + round;
            register_savevm_live("dev", -1, 1, &value, &out[i]);
        }
        f = saved(vm);
        for (unsigned i = 0; i < 50; i++) {
            unregister_savevm(NULL, "dev", &out[i]);
        }
        for (unsigned i = 0; i < 50; i++) {
            register_savevm_live("dev", -1, 1, &value, &in[i]);
        }
        worker->right &= loaded(vm, f) == 0 && memcmp(in, out, sizeof(in)) == 0;
        for (unsigned i = 0; i < 50; i++) {
            unregister_savevm(NULL, "dev", &in[i]);
        }
        qemu_fclose(f);
    }
    savevm_set_current(NULL);
    savevm_free(vm);
    return NULL;
}

TEST(a_machine_per_thread)
{
    pthread_t threads[8];
    Worker workers[8];

    for (unsigned i = 0; i < 8; i++) {
        workers[i].number = i;
        pthread_create(&threads[i], NULL, machine_main, &workers[i]);
    }
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        CHECK(workers[i].right);
    }
}

TEST(many_contexts)
{
    enum { COUNT = 500 };
    static SaveVM *list[COUNT];
    static uint32_t states[COUNT];

    for (unsigned i = 0; i < COUNT; i++) {
        list[i] = savevm_new(NULL, NULL);
        savevm_set_current(list[i]);
        states[i] = i;
        register_savevm_live("dev", 0, 1, &value, &states[i]);
    }
    savevm_set_current(NULL);
    for (unsigned i = 0; i + 1 < COUNT; i++) {
        QEMUFile *f = saved(list[i]);

        CHECK_EQ(loaded(list[i + 1], f), 0);
        CHECK_EQ(states[i + 1], 0);
        qemu_fclose(f);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        savevm_free(list[i]);
    }
}

static unsigned reports;
static int report_level;

static void count_report(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    CHECK(text != NULL);
    reports++;
    report_level = level;
}

static const SaveVMHostOps reporting = { .size = sizeof(SaveVMHostOps), .report = count_report };

TEST(strict_registration)
{
    SaveVM *vm = savevm_new(&reporting, NULL);
    uint32_t state = 0;
    char name[300];

    savevm_set_current(vm);
    memset(name, 'x', 256);
    name[256] = 0;
    CHECK_EQ(register_savevm_live("dev", 0, 1, &value, &state), 0);
    CHECK_EQ(reports, 0);
    CHECK_EQ(register_savevm_live("dev", 0, 1, &value, &state), 0);
    CHECK_EQ(reports, 1);
    CHECK_EQ(report_level, SAVEVM_REPORT_WARNING);
    CHECK_EQ(register_savevm_live(name, 0, 1, &value, &state), 0);
    CHECK_EQ(reports, 2);
    savevm_set_strict(vm, true);
    CHECK_EQ(register_savevm_live("dev", 0, 1, &value, &state), -17);
    CHECK_EQ(reports, 3);
    CHECK_EQ(report_level, SAVEVM_REPORT_ERROR);
    CHECK_EQ(register_savevm_live("dev", 1, 1, &value, &state), 0);
    CHECK_EQ(register_savevm_live("dev", -1, 1, &value, &state), 0);
    CHECK_EQ(register_savevm_live(name, 1, 1, &value, &state), -36);
    savevm_set_strict(NULL, false);
    CHECK_EQ(register_savevm_live("dev", 0, 1, &value, &state), 0);
    savevm_set_current(NULL);
    savevm_free(vm);
}

TEST(a_description_that_does_not_read_its_own_version)
{
    static VMStateField fields[] = { VMSTATE_END_OF_LIST() };
    static const VMStateDescription wrong = {
        .name = "wrong", .version_id = 1, .minimum_version_id = 2, .fields = fields,
    };
    SaveVM *vm = savevm_new(&reporting, NULL);
    uint32_t state = 0;

    savevm_set_current(vm);
    CHECK_EQ(vmstate_register(NULL, 0, &wrong, &state), 0);
    CHECK_EQ(reports, 1);
    CHECK_EQ(report_level, SAVEVM_REPORT_WARNING);
    savevm_set_strict(vm, true);
    CHECK_EQ(vmstate_register(NULL, 1, &wrong, &state), -EINVAL);
    CHECK_EQ(reports, 2);
    CHECK_EQ(report_level, SAVEVM_REPORT_ERROR);
    savevm_set_current(NULL);
    savevm_free(vm);
}

/* Tables of an older program, which end sooner, and of a newer one. */
TEST(tables_of_other_sizes)
{
    struct {
        SaveVMHostOps ops;
        void *more[8];
    } newer;
    SaveVMHostOps older;
    SaveVM *vm;

    memset(&newer, 0xff, sizeof(newer));
    memset(&newer.ops, 0, sizeof(newer.ops));
    newer.ops.size = sizeof(newer);
    newer.ops.report = count_report;
    vm = savevm_new(&newer.ops, NULL);
    savevm_set_current(vm);
    CHECK(register_savevm_live(NULL, 0, 1, &value, NULL) < 0);
    CHECK_EQ(reports, 1);
    savevm_set_current(NULL);
    savevm_free(vm);

    /* A size below that of the first release was forgotten, not meant: nothing is begun with half a table. */
    memset(&older, 0xff, sizeof(older));
    for (older.size = 0; older.size < sizeof(older); older.size += sizeof(void *)) {
        CHECK(savevm_new(&older, NULL) == NULL);
    }
    vm = savevm_new(&reporting, NULL);
    older.size = 0;
    reports = 0;
    CHECK_EQ(savevm_set_host(vm, &older, NULL), -EINVAL);
    CHECK_EQ(reports, 1);
    CHECK_EQ(savevm_set_host(vm, &reporting, NULL), 0);
    savevm_free(vm);
}

TEST(limits)
{
    SaveVMLimits limits = SAVEVM_LIMITS_INIT;
    limits.packaged = 100;
    SaveVM *vm = savevm_new(&reporting, NULL);
    static const uint8_t package[] = { 8, 0, 7, 0, 4, 0, 0, 0, 101 };
    QEMUFile *f;

    savevm_set_current(vm);
    CHECK(savevm_set_limits(vm, NULL) < 0);
    CHECK_EQ(savevm_set_limits(NULL, &limits), 0);
    f = savevm_file_from_buffer(package, sizeof(package));
    CHECK_EQ(qemu_loadvm_state_main(f, NULL), -1);
    qemu_fclose(f);
    savevm_set_current(NULL);
    savevm_free(vm);
}

static unsigned told;

static void check_text(const char *text)
{
    told++;
    for (; *text; text++) {
        CHECK((unsigned char)*text >= ' ' && *text != 0x7f);
    }
}

static void look_at_report(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    (void)level;
    check_text(text);
}

static bool wants_traces(void *host, const char *event)
{
    (void)host;
    (void)event;
    return true;
}

static void look_at_trace(void *host, const char *event, const char *text)
{
    (void)host;
    (void)event;
    check_text(text);
}

/* They could move the cursor of a terminal, or forge a line of a log. */
TEST(names_of_a_stream_are_told_without_control_characters)
{
    static const SaveVMHostOps ops = {
        .size = sizeof(ops), .report = look_at_report, .trace_wanted = wants_traces, .trace = look_at_trace,
    };
    static const uint8_t unknown[] = { 4, 0, 0, 0, 1, 5, 0x1b, '[', '2', 'J', '\n', 0, 0, 0, 0, 0, 0, 0, 1 };
    SaveVM *vm = savevm_new(&ops, NULL);
    Error *err = NULL;
    QEMUFile *f;

    savevm_set_current(vm);
    f = savevm_file_from_buffer(unknown, sizeof(unknown));
    CHECK(qemu_loadvm_state_main(f, NULL) < 0);
    CHECK(told >= 2);
    CHECK_EQ(qemu_file_get_error_obj(f, &err), -EINVAL);
    REQUIRE(err != NULL);
    check_text(error_get_pretty(err));
    CHECK(strstr(error_get_pretty(err), "[2J") != NULL);
    error_free(err);
    qemu_fclose(f);
    savevm_set_current(NULL);
    savevm_free(vm);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that the library refuses with a reason: verbs of the other direction, formats and enum values; and the log. */
#include "side.h"
#include "savevm/file.h"
#include "savevm/inspect.h"
#include "savevm/ram.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char reported[1024];

static void keep_report(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    CHECK_EQ(level, SAVEVM_REPORT_ERROR);
    snprintf(reported, sizeof(reported), "%s", text);
}

static const SaveVMHostOps reporting = { .size = sizeof(SaveVMHostOps), .report = keep_report };

/* Checks that the error has `part` in its text, and frees it. */
static void check_error(Error **err, int code, const char *part)
{
    REQUIRE(*err != NULL);
    CHECK_HAS(error_get_pretty(*err), part);
    CHECK_EQ(savevm_error_info(*err)->error, code);
    error_free(*err);
    *err = NULL;
}

/* Checks the result of a function without `errp`, which reports its error. */
static void check_report(int ret, const char *part)
{
    CHECK_EQ(ret, -EINVAL);
    CHECK_HAS(reported, part);
    reported[0] = 0;
}

TEST(verb_of_other_direction_is_refused)
{
    SaveVM *from = savevm_new(&reporting, NULL), *to = savevm_new(&reporting, NULL);
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    const char *uri = side_uri();
    Error *err = NULL;
    char text[128];

    params.no_thread = true;
    SaveVMMigration *in = savevm_incoming(to, uri, NULL, &err);
    SaveVMMigration *out = savevm_migrate(from, uri, &params, &err);
    REQUIRE(in && out && !err);
    check_report(savevm_migration_uri(out, text, sizeof(text)), "savevm_migration_uri() acts on an incoming migration only");
    check_report(savevm_migration_step(in), "savevm_migration_step() acts on an outgoing migration only");
    check_report(savevm_migration_continue(in), "savevm_migration_continue() acts on an outgoing migration only");
    check_report(savevm_migration_start_postcopy(in),
                 "savevm_migration_start_postcopy() acts on an outgoing migration only");
    CHECK_EQ(savevm_migration_set_params(in, &params, &err), -EINVAL);
    check_error(&err, EINVAL, "savevm_migration_set_params() acts on an outgoing migration only");
    /* The refusals changed nothing. */
    while (savevm_migration_step(out) == 1) {
    }
    CHECK_EQ(savevm_migration_wait(out, NULL), 0);
    CHECK_EQ(savevm_migration_wait(in, NULL), 0);
    savevm_migration_free(out);
    savevm_migration_free(in);
    savevm_free(from);
    savevm_free(to);
}

TEST(mapped_snapshots_need_the_librarys_ram)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    SaveVM *vm = savevm_new(&reporting, NULL);
    char path[64], uri[80];
    Error *err = NULL;

    snprintf(path, sizeof(path), "/tmp/savevm-mapped-%d", (int)getpid());
    snprintf(uri, sizeof(uri), "file:%s", path);
    options.format = SAVEVM_SNAPSHOT_MAPPED;
    CHECK_EQ(savevm_snapshot_save(vm, uri, &options, &err), -ENOTSUP);
    check_error(&err, ENOTSUP, "savevm_ram_new()");
    CHECK_EQ(access(path, F_OK), -1);
    options.format = SAVEVM_SNAPSHOT_STREAM;
    options.direct = true;
    CHECK_EQ(savevm_snapshot_save(vm, uri, &options, &err), -EINVAL);
    check_error(&err, EINVAL, "SAVEVM_SNAPSHOT_MAPPED");
    CHECK_EQ(access(path, F_OK), -1);
    savevm_free(vm);
}

/* Without `errp` the error of a snapshot is reported once. With it, or if a function only answers a question, nothing is
 * reported. */
TEST(error_that_the_caller_does_not_take_is_reported)
{
    SaveVM *vm = savevm_new(&reporting, NULL);
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    Error *err = NULL;

    reported[0] = 0;
    CHECK_EQ(savevm_snapshot_save(vm, "file:/nonexistent/x", NULL, NULL), -ENOENT);
    CHECK_HAS(reported, "file:/nonexistent/x");
    reported[0] = 0;
    CHECK_EQ(savevm_snapshot_load(vm, "file:/nonexistent/y", NULL, NULL), -ENOENT);
    CHECK_HAS(reported, "file:/nonexistent/y");
    reported[0] = 0;
    options.lazy = true;
    check_report(savevm_snapshot_save(vm, "file:/nonexistent/z", &options, NULL), "are for loading");
    CHECK(savevm_migrate(vm, "nonsense:x", NULL, NULL) == NULL);
    CHECK_HAS(reported, "nonsense:x");
    reported[0] = 0;

    CHECK_EQ(savevm_snapshot_save(vm, "file:/nonexistent/x", NULL, &err), -ENOENT);
    check_error(&err, ENOENT, "file:/nonexistent/x");
    CHECK_EQ(savevm_snapshot_check_file(vm, NULL, 0, NULL), -EINVAL);
    CHECK_EQ(savevm_ram_check_postcopy(NULL, NULL), -EINVAL);
    CHECK_EQ(reported[0], 0);
    savevm_free(vm);
}

TEST(tls_without_its_files_is_refused)
{
    static const char *const no_peers[] = { NULL };
    SaveVMTls tls = SAVEVM_TLS_INIT;
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    SaveVM *vm = savevm_new(&reporting, NULL);
    Error *err = NULL;

    CHECK(tls.verify_peer);
    params.tls = &tls;
    CHECK(!savevm_migrate(vm, side_uri(), &params, &err));
    check_error(&err, EINVAL, "SaveVMTls.dir is not set");
    tls.size = 8;
    CHECK(!savevm_migrate(vm, side_uri(), &params, &err));
    check_error(&err, EINVAL, "SAVEVM_TLS_INIT");
    tls.size = sizeof(tls);
    tls.dir = "/no-such-directory";
    tls.allowed_peers = no_peers;
    CHECK(!savevm_incoming(vm, side_uri(), &params, &err));
    REQUIRE(err != NULL);
    if (savevm_error_info(err)->error == ENOTSUP) {
        check_error(&err, ENOTSUP, "build it with `meson setup -Dtls=enabled`");
    } else {
        check_error(&err, ENOENT, "TLS: /no-such-directory/ca-cert.pem is missing");
    }
    CHECK(!savevm_migrate(vm, side_uri(), &params, &err));
    error_free(err);
    CHECK_EQ(savevm_owner(vm), SAVEVM_OWNER_HERE);
    savevm_free(vm);
}

TEST(unknown_enum_values_are_refused)
{
    SaveVMSnapshotOptions options = SAVEVM_SNAPSHOT_OPTIONS_INIT;
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    SaveVMRamOptions ram = SAVEVM_RAM_OPTIONS_INIT;
    SaveVM *vm = savevm_new(&reporting, NULL);
    static const uint8_t stream[] = { 'Q', 'E', 'V', 'M', 0, 0, 0, 3, 0 };
    Error *err = NULL;

    options.format = (SaveVMSnapshotFormat)99;
    CHECK_EQ(savevm_snapshot_save(vm, "file:/nowhere/x", &options, &err), -EINVAL);
    check_error(&err, EINVAL, "99 is no value of SaveVMSnapshotFormat");
    CHECK_EQ(savevm_snapshot_load(vm, "file:/nowhere/x", &options, &err), -EINVAL);
    check_error(&err, EINVAL, "99 is no value of SaveVMSnapshotFormat");
    params.return_path = (SaveVMReturnPath)99;
    CHECK(!savevm_migrate(vm, side_uri(), &params, &err));
    check_error(&err, EINVAL, "99 is no value of SaveVMReturnPath");
    CHECK(!savevm_incoming(vm, side_uri(), &params, &err));
    check_error(&err, EINVAL, "99 is no value of SaveVMReturnPath");
    CHECK_EQ(savevm_override_owner(vm, (SaveVMOwner)99, &err), -EINVAL);
    check_error(&err, EINVAL, "99 is no value of SaveVMOwner");
    CHECK_EQ(savevm_owner(vm), SAVEVM_OWNER_HERE);
    ram.log = (SaveVMRamLog)99;
    CHECK(!savevm_ram_new(vm, &ram, NULL, NULL, &err));
    check_error(&err, EINVAL, "99 is no value of SaveVMRamLog");

    SaveVMInspect *inspected = savevm_inspect_buffer(stream, sizeof(stream), 0, &err);
    QEMUFile *out = savevm_file_to_buffer();
    REQUIRE(inspected && out);
    CHECK_EQ(savevm_inspect_document(inspected, (SaveVMInspectFormat)99, out), -EINVAL);
    CHECK_EQ(savevm_inspect_document(inspected, SAVEVM_INSPECT_JSON, out), 0);
    qemu_fclose(out);
    savevm_inspect_free(inspected);
    savevm_free(vm);
}

typedef struct Log {
    unsigned errors, warnings, others;
    char last[1024];
} Log;

static void keep_message(void *opaque, SaveVMLogLevel level, const char *text)
{
    Log *log = opaque;

    switch (level) {
    case SAVEVM_LOG_ERROR:
        log->errors++;
        break;
    case SAVEVM_LOG_WARN:
        log->warnings++;
        break;
    default:
        log->others++;
        break;
    }
    snprintf(log->last, sizeof(log->last), "%s", text);
}

/* Notes a message that has one of the marks; several threads may call it. */
typedef struct Marks {
    const char *marks[3];
    _Atomic unsigned found;
} Marks;

static void find_marks(void *opaque, SaveVMLogLevel level, const char *text)
{
    Marks *marks = opaque;

    for (unsigned i = 0; level == SAVEVM_LOG_INFO && i < 3; i++) {
        marks->found |= strstr(text, marks->marks[i]) ? 1u << i : 0;
    }
}

TEST(the_log_has_the_life_of_a_migration_at_the_level_info)
{
    static Marks marks = { .marks = { "outgoing migration to file:/dev/null: setup",
                                      "outgoing migration to file:/dev/null: completed",
                                      "the owner of the guest changes from Unknown to There" } };
    SaveVM *vm = savevm_new(NULL, NULL);
    Error *err = NULL;

    savevm_log_set(find_marks, &marks, SAVEVM_LOG_INFO);
    SaveVMMigration *m = savevm_migrate(vm, "file:/dev/null", NULL, &err);
    REQUIRE(m);
    CHECK_EQ(savevm_migration_wait(m, &err), 0);
    savevm_migration_free(m);
    CHECK_EQ(marks.found, 7);
    savevm_log_set(NULL, NULL, SAVEVM_LOG_OFF);
    savevm_free(vm);
}

static void save_nothing(QEMUFile *f, void *opaque)
{
    (void)f;
    (void)opaque;
}

TEST(log_messages_reach_the_callback_up_to_the_level)
{
    static const SaveVMHandlers handlers = { .save_state = save_nothing };
    /* Without SaveVMHostOps.report, reports go to the log. */
    SaveVM *vm = savevm_new(NULL, NULL);
    static Log first, second;

    savevm_set_current(vm);
    savevm_log_set(keep_message, &first, SAVEVM_LOG_WARN);
    CHECK_EQ(register_savevm_live(NULL, 0, 1, &handlers, NULL), -EINVAL);
    CHECK_EQ(first.errors, 1);
    CHECK_HAS(first.last, "idstr is NULL");
    CHECK_EQ(register_savevm_live("dev", 0, 1, &handlers, NULL), 0);
    CHECK_EQ(register_savevm_live("dev", 0, 1, &handlers, NULL), 0);
    CHECK_EQ(first.warnings, 1);
    CHECK_HAS(first.last, "dev");
    CHECK_EQ(first.others, 0);

    /* A callback replaces the earlier one, and its level that of the earlier one. */
    savevm_log_set(keep_message, &second, SAVEVM_LOG_ERROR);
    CHECK_EQ(register_savevm_live("dev", 0, 1, &handlers, NULL), 0);
    CHECK_EQ(second.warnings, 0);
    CHECK_EQ(register_savevm_live(NULL, 0, 1, &handlers, NULL), -EINVAL);
    CHECK_EQ(second.errors, 1);

    savevm_log_set(keep_message, &second, SAVEVM_LOG_OFF);
    CHECK_EQ(register_savevm_live(NULL, 0, 1, &handlers, NULL), -EINVAL);
    savevm_log_set(NULL, NULL, SAVEVM_LOG_TRACE);
    CHECK_EQ(register_savevm_live(NULL, 0, 1, &handlers, NULL), -EINVAL);
    CHECK_EQ(second.errors, 1);
    CHECK(first.errors == 1 && first.warnings == 1);
    savevm_set_current(NULL);
    savevm_free(vm);
}

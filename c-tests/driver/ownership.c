/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The context knows the owner of the guest: before, during and after migrations, also when their handles are freed. */
#include "side.h"
#include "savevm/file.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static void check_refused(SaveVM *vm, const char *reason)
{
    char path[64], uri[80];
    Error *err = NULL;
    QEMUFile *f = savevm_file_to_buffer();

    snprintf(path, sizeof(path), "/tmp/savevm-owner-%d", (int)getpid());
    snprintf(uri, sizeof(uri), "file:%s", path);
    CHECK(savevm_migrate(vm, "exec:cat >/dev/null", NULL, &err) == NULL);
    CHECK_EQ(savevm_error_info(err)->error, EPERM);
    CHECK_HAS(error_get_pretty(err), reason);
    error_free(err);
    err = NULL;
    CHECK_EQ(savevm_snapshot_save(vm, uri, NULL, &err), -EPERM);
    CHECK_HAS(error_get_pretty(err), reason);
    CHECK(access(path, F_OK) < 0);
    error_free(err);
    err = NULL;
    CHECK_EQ(savevm_check_may_run(vm, &err), -EPERM);
    CHECK_HAS(error_get_pretty(err), reason);
    error_free(err);
    CHECK(!savevm_may_run(vm));
    CHECK_EQ(savevm_snapshot_save_file(vm, f), -EPERM);
    qemu_fclose(f);
}

static int move(Side *from, Side *to, char *where, size_t length)
{
    const char *uri = side_uri();
    SaveVMMigration *in = savevm_incoming(to->vm, uri, NULL, NULL), *out;
    int ret;

    snprintf(where, length, "%s", uri);
    REQUIRE(in != NULL);
    CHECK_EQ(savevm_owner(to->vm), SAVEVM_OWNER_THERE);
    out = savevm_migrate(from->vm, uri, NULL, NULL);
    REQUIRE(out != NULL);
    ret = savevm_migration_wait(out, NULL);
    savevm_migration_wait(in, NULL);
    savevm_migration_free(out);
    savevm_migration_free(in);
    return ret;
}

TEST(a_guest_that_moved_is_not_moved_again)
{
    char where[64];
    Side a, b, c;

    side_init(&a, true, false);
    side_init(&b, false, false);
    side_init(&c, false, false);
    CHECK(savevm_may_run(a.vm));
    CHECK_EQ(move(&a, &b, where, sizeof(where)), 0);
    CHECK_EQ(savevm_owner(a.vm), SAVEVM_OWNER_THERE);
    check_refused(a.vm, where);
    CHECK_EQ(savevm_owner(b.vm), SAVEVM_OWNER_HERE);
    CHECK(savevm_may_run(b.vm));
    CHECK_EQ(move(&b, &c, where, sizeof(where)), 0);
    CHECK_EQ(guests, 1);
    CHECK(c.runs && !a.runs && !b.runs);
    side_free(&a);
    side_free(&b);
    side_free(&c);
}

TEST(half_a_guest_is_not_moved_or_saved)
{
    char where[64];
    Side a, b;

    side_init(&a, true, false);
    side_init(&b, false, false);
    b.fail_load = true;
    CHECK(move(&a, &b, where, sizeof(where)) < 0);
    CHECK_EQ(savevm_owner(a.vm), SAVEVM_OWNER_HERE);
    CHECK_EQ(savevm_owner(b.vm), SAVEVM_OWNER_TORN);
    check_refused(b.vm, "failed after it had changed devices");
    b.fail_load = false;
    CHECK_EQ(move(&a, &b, where, sizeof(where)), 0);
    CHECK_EQ(savevm_owner(b.vm), SAVEVM_OWNER_HERE);
    check_moved(&a, &b);
    side_free(&a);
    side_free(&b);
}

TEST(a_load_by_qemus_function_leaves_a_torn_guest_too)
{
    size_t length;
    const uint8_t *data;
    QEMUFile *f = savevm_file_to_buffer();
    Side a, b;

    side_init(&a, false, false);
    side_init(&b, false, false);
    a.snapshot = true;
    harness_lock(&a.lock);
    CHECK_EQ(savevm_snapshot_save_file(a.vm, f), 0);
    harness_unlock(&a.lock);
    data = savevm_file_buffer(f, &length);
    savevm_set_current(b.vm);
    for (int fails = 1; fails >= 0; fails--) {
        QEMUFile *in = savevm_file_from_buffer(data, length);
        int ret;

        b.fail_load = fails;
        harness_lock(&b.lock);
        ret = qemu_loadvm_state(in);
        harness_unlock(&b.lock);
        CHECK_EQ(ret < 0, fails);
        CHECK_EQ(savevm_owner(b.vm), fails ? SAVEVM_OWNER_TORN : SAVEVM_OWNER_HERE);
        qemu_fclose(in);
    }
    savevm_set_current(NULL);
    qemu_fclose(f);
    side_free(&a);
    side_free(&b);
}

TEST(an_operator_decides)
{
    Error *err = NULL;
    SaveVMMigration *in;
    Side b;

    side_init(&b, false, false);
    in = savevm_incoming(b.vm, side_uri(), NULL, NULL);
    REQUIRE(in != NULL);
    CHECK(!savevm_may_run(b.vm));
    CHECK_EQ(savevm_override_owner(b.vm, SAVEVM_OWNER_HERE, &err), -EBUSY);
    error_free(err);
    CHECK_CANCELLED(in);
    savevm_migration_free(in);
    check_refused(b.vm, "no guest has arrived from unix:");
    CHECK_EQ(savevm_override_owner(b.vm, (SaveVMOwner)9, NULL), -EINVAL);
    CHECK_EQ(savevm_override_owner(b.vm, SAVEVM_OWNER_HERE, NULL), 0);
    CHECK(savevm_may_run(b.vm));
    CHECK_EQ(savevm_override_owner(b.vm, SAVEVM_OWNER_UNKNOWN, NULL), 0);
    check_refused(b.vm, "an operator decided so");
    side_free(&b);
}

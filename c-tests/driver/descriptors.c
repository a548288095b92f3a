/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a caller hands over is closed in every case: the descriptor of `fd:N`, and a channel of the host. */
#include "side.h"
#include "savevm/file.h"
#include "savevm/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static SaveVM *vm;
static SaveVMParams params;
static int pair[2];
static char uri[32];
static struct stat identity;

/* A context, and a descriptor to hand over. */
static void begin(void)
{
    const SaveVMParams fresh = SAVEVM_PARAMS_INIT;

    params = fresh;
    vm = savevm_new(NULL, NULL);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && fstat(pair[0], &identity) == 0);
    snprintf(uri, sizeof(uri), "fd:%d", pair[0]);
}

static void end(void)
{
    struct stat now;

    CHECK(fstat(pair[0], &now) < 0 || now.st_ino != identity.st_ino);
    close(pair[1]);
    savevm_free(vm);
}

#define MANY for (int n = 0; n < 50; n++)

TEST(outgoing_cancelled_or_freed_at_once)
{
    MANY {
        SaveVMMigration *m;

        begin();
        params.no_thread = n % 3 == 0;
        m = savevm_migrate(vm, uri, &params, NULL);
        REQUIRE(m != NULL);
        if (n % 2) {
            savevm_migration_cancel(m);
        }
        savevm_migration_free(m);
        end();
    }
}

TEST(outgoing_that_fails_at_setup)
{
    SaveVMMigration *m;

    begin();
    params.postcopy = true;
    params.return_path = SAVEVM_RETURN_PATH_OFF;
    m = savevm_migrate(vm, uri, &params, NULL);
    REQUIRE(m != NULL);
    CHECK(savevm_migration_wait(m, NULL) < 0);
    savevm_migration_free(m);
    end();
}

TEST(incoming_cancelled_or_freed_at_once)
{
    MANY {
        SaveVMMigration *m;

        begin();
        m = savevm_incoming(vm, uri, &params, NULL);
        REQUIRE(m != NULL);
        if (n % 2) {
            savevm_migration_cancel(m);
        }
        savevm_migration_free(m);
        end();
    }
}

TEST(refused_in_the_call)
{
    begin();
    CHECK(savevm_add_blocker(vm, "a test", NULL) > 0);
    CHECK(savevm_migrate(vm, uri, NULL, NULL) == NULL);
    end();
    begin();
    params.size = 1;
    CHECK(savevm_migrate(vm, uri, &params, NULL) == NULL);
    end();
    begin();
    params.size = 1;
    CHECK(savevm_incoming(vm, uri, &params, NULL) == NULL);
    end();
    begin();
    CHECK_EQ(savevm_override_owner(vm, SAVEVM_OWNER_THERE, NULL), 0);
    CHECK(savevm_migrate(vm, uri, NULL, NULL) == NULL);
    end();
    begin();
    CHECK_EQ(savevm_override_owner(vm, SAVEVM_OWNER_THERE, NULL), 0);
    CHECK_EQ(savevm_snapshot_save(vm, uri, NULL, NULL), -EPERM);
    end();
    begin();
    CHECK(savevm_migration_recover(NULL, uri, NULL) < 0);
    end();
    begin();
    CHECK(savevm_ram_snapshot(NULL, uri, NULL) < 0);
    end();
}

TEST(snapshots_and_files)
{
    QEMUFile *f;

    begin();
    CHECK_EQ(savevm_snapshot_save(vm, uri, NULL, NULL), 0);
    end();
    begin();
    close(pair[1]);
    CHECK(savevm_snapshot_load(vm, uri, NULL, NULL) < 0);
    end();
    begin();
    f = savevm_file_open(uri, true, NULL);
    REQUIRE(f != NULL);
    qemu_fclose(f);
    end();
}

/* A recovery's descriptor, where nothing is paused. */
TEST(recovery_that_is_refused)
{
    SaveVMMigration *m;
    SaveVM *other = savevm_new(NULL, NULL);

    begin();
    m = savevm_incoming(other, side_uri(), NULL, NULL);
    REQUIRE(m != NULL);
    CHECK(savevm_migration_recover(m, uri, NULL) < 0);
    end();
    savevm_migration_free(m);
    savevm_free(other);
}

static int freed;

static ssize_t channel_read(void *opaque, uint8_t *buf, size_t len, Error **errp)
{
    (void)opaque, (void)buf, (void)len, (void)errp;
    return 0;
}

static ssize_t channel_writev(void *opaque, const struct iovec *iov, int count, Error **errp)
{
    ssize_t all = 0;

    (void)opaque, (void)errp;
    for (int at = 0; at < count; at++) {
        all += iov[at].iov_len;
    }
    return all;
}

static void channel_free(void *opaque)
{
    (void)opaque;
    freed++;
}

TEST(a_channel_of_the_host_is_freed_once)
{
    SaveVMChannelOps ops = SAVEVM_CHANNEL_OPS_INIT;
    SaveVMMigration *m;

    ops.read = channel_read;
    ops.writev = channel_writev;
    ops.free = channel_free;
    begin();
    CHECK(savevm_add_blocker(vm, "a test", NULL) > 0);
    CHECK(savevm_migrate_to_channel(vm, &ops, NULL, NULL, NULL) == NULL);
    CHECK_EQ(freed, 1);
    params.size = 1;
    CHECK(savevm_incoming_from_channel(vm, &ops, NULL, &params, NULL) == NULL);
    CHECK_EQ(freed, 2);
    m = savevm_incoming_from_channel(vm, &ops, NULL, NULL, NULL);
    REQUIRE(m != NULL);
    savevm_migration_free(m);
    CHECK_EQ(freed, 3);
    close(pair[0]);
    end();
}

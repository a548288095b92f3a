/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions for devices and hypervisors that newer QEMU versions do not have or that have other names: hooks of RAM with an
 * opaque pointer and names of QEMUFile (up to 7.0). Also timers outside of a description, which all versions have.
 */
#define SAVEVM_QEMU_VERSION 502
#include "harness.h"
#include "migration/qemu-file.h"
#include "savevm.h"
#include "savevm/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static char seen[512];

#define SEEN(...) snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), __VA_ARGS__)

static int round_hook(QEMUFile *f, void *opaque, uint64_t flags, void *data)
{
    (void)f;
    SEEN("%s %d %s; ", (const char *)opaque, (int)flags, data ? (const char *)data : "-");
    return 0;
}

static size_t page_hook(QEMUFile *f, void *opaque, ram_addr_t block, ram_addr_t at, size_t size, uint64_t *bytes_sent)
{
    (void)f;
    SEEN("%s %llx+%llx %zu; ", (const char *)opaque, (unsigned long long)block, (unsigned long long)at, size);
    *bytes_sent = 100;
    return 0;
}

static const QEMUFileHooks hooks = { round_hook, round_hook, round_hook, page_hook };

static void run_hooks(QEMUFile *f)
{
    char block[] = "pc.ram";
    uint64_t sent = 0;

    seen[0] = 0;
    ram_control_before_iterate(f, RAM_CONTROL_SETUP);
    ram_control_after_iterate(f, RAM_CONTROL_FINISH);
    ram_control_load_hook(f, RAM_CONTROL_BLOCK_REG, block);
    CHECK_EQ(ram_control_save_page(f, 0x1000, 0x20, 4096, &sent), 0);
    CHECK_EQ(sent, 100);
}

static ssize_t swallow(void *opaque, const struct iovec *iov, int count, Error **errp)
{
    ssize_t sum = 0;

    (void)opaque;
    (void)errp;
    for (int i = 0; i < count; i++) {
        sum += (ssize_t)iov[i].iov_len;
    }
    return sum;
}

TEST(hooks_get_the_opaque_of_the_channel)
{
    SaveVMChannelOps ops = SAVEVM_CHANNEL_OPS_INIT;
    char channel[] = "channel";
    QEMUFile *f;

    ops.writev = swallow;
    f = savevm_file_from_channel(&ops, channel, true);
    REQUIRE(f != NULL);
    qemu_file_set_hooks(f, &hooks);
    run_hooks(f);
    CHECK_STR(seen, "channel 0 -; channel 3 -; channel 4 pc.ram; channel 1000+20 4096; ");
    CHECK_EQ(qemu_fclose(f), 0);
}

TEST(hooks_get_another_opaque)
{
    QEMUFile *f = savevm_file_to_buffer();
    char own[] = "own";

    savevm_file_set_opaque_hooks(f, &hooks, own);
    run_hooks(f);
    CHECK_STR(seen, "own 0 -; own 3 -; own 4 pc.ram; own 1000+20 4096; ");
    savevm_file_set_opaque_hooks(f, NULL, own);
    seen[0] = 0;
    ram_control_before_iterate(f, RAM_CONTROL_SETUP);
    CHECK_STR(seen, "");
    CHECK_EQ(qemu_fclose(f), 0);
    savevm_file_set_opaque_hooks(NULL, &hooks, own);
}

TEST(totals_have_older_names)
{
    QEMUFile *f = savevm_file_to_buffer();

    qemu_put_be64(f, 1);
    CHECK_EQ(qemu_ftell_fast(f), 8);
    CHECK_EQ(qemu_ftell(f), 8);
    qemu_update_position(f, 92);
    CHECK_EQ(qemu_ftell(f), 100);
    qemu_file_set_rate_limit(f, 50);
    qemu_file_reset_rate_limit(f);
    CHECK_EQ(qemu_file_rate_limit(f), 0);
    qemu_file_update_transfer(f, 60);
    CHECK_EQ(qemu_file_rate_limit(f), 1);
    CHECK_EQ(qemu_fclose(f), 0);
}

/* Timers */

struct QEMUTimer {
    int64_t expire;
};

static int64_t timer_expire(void *host, QEMUTimer *timer)
{
    (void)host;
    return timer->expire;
}

static void timer_set(void *host, QEMUTimer *timer, int64_t expire)
{
    (void)host;
    timer->expire = expire;
}

static void timer_clear(void *host, QEMUTimer *timer)
{
    (void)host;
    timer->expire = -1;
}

TEST(timers_are_saved_and_loaded)
{
    static const uint8_t expected[] = { 0, 0, 0, 0, 0x3b, 0x9a, 0xca, 0, 255, 255, 255, 255, 255, 255, 255, 255 };
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;
    QEMUTimer armed = { 1000000000 }, idle = { -1 };
    const uint8_t *bytes;
    size_t len = 0;
    QEMUFile *f, *in;
    SaveVM *vm;

    ops.timer_expire_ns = timer_expire;
    ops.timer_set_ns = timer_set;
    ops.timer_clear = timer_clear;
    vm = savevm_new(&ops, NULL);
    savevm_set_current(vm);
    f = savevm_file_to_buffer();
    timer_put(f, &armed);
    timer_put(f, &idle);
    bytes = savevm_file_buffer(f, &len);
    CHECK_MEM(bytes, len, expected, sizeof(expected));
    in = savevm_file_from_buffer(bytes, len);
    CHECK_EQ(qemu_fclose(f), 0);
    timer_get(in, &idle);
    timer_get(in, &armed);
    CHECK_EQ(idle.expire, 1000000000);
    CHECK_EQ(armed.expire, -1);
    CHECK_EQ(qemu_fclose(in), 0);
    savevm_set_current(NULL);
    savevm_free(vm);
}

TEST(timers_need_operations_of_the_host)
{
    SaveVM *vm = savevm_new(NULL, NULL);
    QEMUTimer timer = { 5 };
    QEMUFile *f;

    savevm_set_current(vm);
    f = savevm_file_to_buffer();
    timer_put(f, &timer);
    CHECK_EQ(qemu_file_get_error(f), -ENOSYS);
    CHECK_EQ(qemu_fclose(f), -ENOSYS);
    for (unsigned i = 0; i < 2; i++) {
        f = savevm_file_from_buffer(i ? "\377\377\377\377\377\377\377\377" : "\0\0\0\0\0\0\0\1", 8);
        timer_get(f, &timer);
        CHECK_EQ(qemu_file_get_error(f), -ENOSYS);
        CHECK_EQ(timer.expire, 5);
        CHECK_EQ(qemu_fclose(f), -ENOSYS);
    }
    savevm_set_current(NULL);
    savevm_free(vm);
}

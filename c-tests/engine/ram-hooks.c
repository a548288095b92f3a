/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The hooks of RAM in a file, which QEMU has up to 8.1, with their calls and results. The hooks only trace their calls. */
#include "harness.h"
#include "migration/qemu-file.h"
#include "backend.h"

#include <errno.h>

enum { PAGE = 4096 };

static int hook_result;
static uint64_t page_sent;

__attribute__((constructor)) static void before_all(void)
{
    harness_before = backend_start;
}

static int before(QEMUFile *f, uint64_t flags, void *data)
{
    trace("before %d, data %d", (int)flags, data != NULL);
    qemu_put_be64(f, flags);
    return hook_result;
}

static int after(QEMUFile *f, uint64_t flags, void *data)
{
    (void)f;
    trace("after %d, data %d", (int)flags, data != NULL);
    return hook_result;
}

static int load(QEMUFile *f, uint64_t flags, void *data)
{
    trace("load %d %s, byte %d", (int)flags, data ? (const char *)data : "-", qemu_get_byte(f));
    return hook_result;
}

static size_t save(QEMUFile *f, ram_addr_t block, ram_addr_t at, size_t size, uint64_t *bytes_sent)
{
    (void)f;
    trace("save %llx+%llx, %zu bytes", (unsigned long long)block, (unsigned long long)at, size);
    if (bytes_sent) {
        *bytes_sent = page_sent;
    }
    return (size_t)hook_result;
}

static const QEMUFileHooks write_hooks = {
    .before_ram_iterate = before,
    .after_ram_iterate = after,
    .save_page = save,
};

static const QEMUFileHooks read_hooks = { .hook_ram_load = load };

static void close_file(QEMUFile *f)
{
    trace("error %d", qemu_file_get_error(f));
    trace("closed %d", qemu_fclose(f));
}

/* Sends a page by the hook; `with_count` asks for the bytes that were sent. */
static void page(QEMUFile *f, int result, uint64_t sent, bool with_count)
{
    uint64_t count = 7;
    size_t ret;

    hook_result = result;
    page_sent = sent;
    ret = ram_control_save_page(f, 0x10000, 0x2000, PAGE, with_count ? &count : NULL);
    trace("result %d, sent %llu, limited %d, total %lld", (int)ret, (unsigned long long)count, qemu_file_rate_limit(f),
          (long long)qemu_file_total_transferred(f));
}

TEST(a_file_without_hooks)
{
    QEMUFile *f = backend_writer();

    ram_control_before_iterate(f, RAM_CONTROL_SETUP);
    ram_control_after_iterate(f, RAM_CONTROL_SETUP);
    page(f, 0, 0, true);
    close_file(f);
    f = backend_reader("abc", 3);
    ram_control_load_hook(f, RAM_CONTROL_BLOCK_REG, NULL);
    trace("error %d", qemu_file_get_error(f));
    ram_control_load_hook(f, RAM_CONTROL_HOOK, NULL);
    close_file(f);
}

TEST(a_hook_may_be_missing)
{
    static const QEMUFileHooks none;
    QEMUFile *f = backend_writer();

    qemu_file_set_hooks(f, &none);
    ram_control_before_iterate(f, RAM_CONTROL_ROUND);
    ram_control_after_iterate(f, RAM_CONTROL_ROUND);
    page(f, 0, 0, true);
    close_file(f);
    f = backend_reader("abc", 3);
    qemu_file_set_hooks(f, &none);
    ram_control_load_hook(f, RAM_CONTROL_HOOK, NULL);
    close_file(f);
}

TEST(rounds_keep_the_first_error)
{
    QEMUFile *f = backend_writer();

    qemu_file_set_hooks(f, &write_hooks);
    ram_control_before_iterate(f, RAM_CONTROL_ROUND);
    ram_control_after_iterate(f, RAM_CONTROL_FINISH);
    trace("total %lld", (long long)qemu_file_total_transferred(f));
    hook_result = 1;
    ram_control_after_iterate(f, RAM_CONTROL_ROUND);
    trace("error %d", qemu_file_get_error(f));
    hook_result = -EPIPE;
    ram_control_after_iterate(f, RAM_CONTROL_ROUND);
    hook_result = -EIO;
    ram_control_before_iterate(f, RAM_CONTROL_ROUND);
    close_file(f);
}

TEST(pages_count_for_rate_and_total)
{
    QEMUFile *f = backend_writer();

    qemu_file_set_hooks(f, &write_hooks);
    qemu_file_set_rate_limit(f, PAGE);
    page(f, RAM_SAVE_CONTROL_NOT_SUPP, 5, true);
    page(f, RAM_SAVE_CONTROL_NOT_SUPP, 0, false);
    page(f, RAM_SAVE_CONTROL_DELAYED, 9, true);
    page(f, 0, 100, true);
    page(f, 0, 100, false);
    /* Bytes were sent, so the result is no error. */
    page(f, -EAGAIN, 100, true);
    page(f, -ENOMEM, 0, true);
    page(f, -EIO, 0, false);
    close_file(f);
}

TEST(loads)
{
    QEMUFile *f = backend_reader("abcdef", 6);
    char block[] = "pc.ram";

    qemu_file_set_hooks(f, &read_hooks);
    ram_control_load_hook(f, RAM_CONTROL_BLOCK_REG, block);
    ram_control_load_hook(f, RAM_CONTROL_HOOK, NULL);
    trace("error %d", qemu_file_get_error(f));
    hook_result = -ENOENT;
    ram_control_load_hook(f, RAM_CONTROL_HOOK, NULL);
    close_file(f);
}

TEST(hooks_can_be_replaced_and_removed)
{
    static const QEMUFileHooks only_after = { .after_ram_iterate = after };
    QEMUFile *f = backend_writer();

    qemu_file_set_hooks(f, &write_hooks);
    qemu_file_set_hooks(f, &only_after);
    ram_control_before_iterate(f, RAM_CONTROL_ROUND);
    ram_control_after_iterate(f, RAM_CONTROL_ROUND);
    qemu_file_set_hooks(f, NULL);
    ram_control_after_iterate(f, RAM_CONTROL_ROUND);
    close_file(f);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tests the hooks of RDMA in a file, as QEMU's RAM code calls them. The hooks
 * of the test only record their calls. The results must be the same with QEMU's
 * own qemu-file.c and with the library.
 */
#include "qemu/osdep.h"
#include "io/channel-buffer.h"
#include "migration/qemu-file.h"

enum { PAGE = 4096 };

/* The result of the hooks, and their recorded calls. */
static int hook_result;
static uint64_t page_sent;
static GString *seen;

static int before(QEMUFile *f, uint64_t flags, void *data)
{
    g_string_append_printf(seen, " before %" PRIu64, flags);
    qemu_put_be64(f, flags);
    return hook_result;
}

static int after(QEMUFile *f, uint64_t flags, void *data)
{
    g_string_append_printf(seen, " after %" PRIu64, flags);
    return hook_result;
}

static int load(QEMUFile *f, uint64_t flags, void *data)
{
    const char *block = data;

    g_string_append_printf(seen, " load %" PRIu64 " %s", flags, block ?: "-");
    return hook_result;
}

static size_t save(QEMUFile *f, ram_addr_t block, ram_addr_t at, size_t size,
                   uint64_t *bytes_sent)
{
    g_string_append_printf(seen, " save %" PRIx64 "+%" PRIx64 " %zu",
                           (uint64_t)block, (uint64_t)at, size);
    if (bytes_sent) {
        *bytes_sent = page_sent;
    }
    return hook_result;
}

static const QEMUFileHooks write_hooks = {
    .before_ram_iterate = before,
    .after_ram_iterate = after,
    .save_page = save,
};

static const QEMUFileHooks read_hooks = { .hook_ram_load = load };

static QEMUFile *new_file(bool writable, const QEMUFileHooks *hooks)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_buffer_new(0));
    QEMUFile *f = writable ? qemu_file_new_output(ioc)
                           : qemu_file_new_input(ioc);

    object_unref(OBJECT(ioc));
    if (hooks) {
        qemu_file_set_hooks(f, hooks);
    }
    hook_result = 0;
    g_string_truncate(seen, 0);
    return f;
}

static void close_file(QEMUFile *f, int error)
{
    g_assert_cmpint(qemu_file_get_error(f), ==, error);
    g_assert_cmpint(qemu_fclose(f), ==, error);
}

static void test_none(void)
{
    QEMUFile *f = new_file(true, NULL);
    uint64_t sent = 7;

    ram_control_before_iterate(f, RAM_CONTROL_SETUP);
    ram_control_after_iterate(f, RAM_CONTROL_SETUP);
    g_assert_cmpint(ram_control_save_page(f, 0, 0, PAGE, &sent), ==,
                    RAM_SAVE_CONTROL_NOT_SUPP);
    g_assert_cmpint(sent, ==, 7);
    close_file(f, 0);

    f = new_file(false, NULL);
    ram_control_load_hook(f, RAM_CONTROL_BLOCK_REG, NULL);
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);
    ram_control_load_hook(f, RAM_CONTROL_HOOK, NULL);
    close_file(f, -EINVAL);
}

static void test_rounds(void)
{
    QEMUFile *f = new_file(true, &write_hooks);

    ram_control_before_iterate(f, RAM_CONTROL_ROUND);
    ram_control_after_iterate(f, RAM_CONTROL_FINISH);
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);
    g_assert_cmpint(qemu_file_total_transferred(f), ==, sizeof(uint64_t));
    /* The file keeps its first error. */
    hook_result = -EPIPE;
    ram_control_after_iterate(f, RAM_CONTROL_ROUND);
    hook_result = -EIO;
    ram_control_before_iterate(f, RAM_CONTROL_ROUND);
    g_assert_cmpstr(seen->str, ==, " before 1 after 3 after 1 before 1");
    close_file(f, -EPIPE);
}

static void test_pages(void)
{
    QEMUFile *f = new_file(true, &write_hooks);
    uint64_t sent;

    qemu_file_set_rate_limit(f, PAGE);
    page_sent = 0;
    hook_result = RAM_SAVE_CONTROL_NOT_SUPP;
    ram_control_save_page(f, 0x10000, 0x2000, PAGE, &sent);
    ram_control_save_page(f, 0x10000, 0x3000, PAGE, &sent);
    g_assert_cmpint(qemu_file_rate_limit(f), ==, 0);
    hook_result = RAM_SAVE_CONTROL_DELAYED;
    g_assert_cmpint(ram_control_save_page(f, 0, 0, PAGE, &sent), ==,
                    RAM_SAVE_CONTROL_DELAYED);
    g_assert_cmpint(qemu_file_rate_limit(f), ==, 0);
    g_assert_cmpint(qemu_file_total_transferred(f), ==, 0);
    hook_result = 0;
    page_sent = 100;
    ram_control_save_page(f, 0, PAGE, PAGE, &sent);
    g_assert_cmpint(sent, ==, 100);
    g_assert_cmpint(qemu_file_rate_limit(f), ==, 1);
    g_assert_cmpint(qemu_file_total_transferred(f), ==, 100);
    g_assert_cmpstr(seen->str, ==, " save 10000+2000 4096 save 10000+3000 4096"
                    " save 0+0 4096 save 0+1000 4096");
    page_sent = 0;
    hook_result = -ENOMEM;
    ram_control_save_page(f, 0, 0, PAGE, &sent);
    ram_control_save_page(f, 0, 0, PAGE, NULL);
    close_file(f, -ENOMEM);
}

static void test_loads(void)
{
    QEMUFile *f = new_file(false, &read_hooks);
    char block[] = "pc.ram";

    ram_control_load_hook(f, RAM_CONTROL_BLOCK_REG, block);
    ram_control_load_hook(f, RAM_CONTROL_HOOK, NULL);
    g_assert_cmpint(qemu_file_get_error(f), ==, 0);
    hook_result = -ENOENT;
    ram_control_load_hook(f, RAM_CONTROL_HOOK, NULL);
    g_assert_cmpstr(seen->str, ==, " load 4 pc.ram load 2 - load 2 -");
    close_file(f, -ENOENT);
}

/* Hooks belong to a file and not to its channel. */
static void test_return_path(void)
{
    QEMUFile *f = new_file(true, &write_hooks);
    QEMUFile *back = qemu_file_get_return_path(f);

    ram_control_load_hook(back, RAM_CONTROL_BLOCK_REG, NULL);
    g_assert_cmpint(qemu_file_get_error(back), ==, 0);
    ram_control_load_hook(back, RAM_CONTROL_HOOK, NULL);
    close_file(back, -EINVAL);
    ram_control_after_iterate(f, RAM_CONTROL_ROUND);
    g_assert_cmpstr(seen->str, ==, " after 1");
    close_file(f, 0);
}

int main(int argc, char **argv)
{
    seen = g_string_new(NULL);
    module_call_init(MODULE_INIT_QOM);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hooks/none", test_none);
    g_test_add_func("/hooks/rounds", test_rounds);
    g_test_add_func("/hooks/pages", test_pages);
    g_test_add_func("/hooks/loads", test_loads);
    g_test_add_func("/hooks/return-path", test_return_path);
    return g_test_run();
}

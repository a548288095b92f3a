/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hostile streams, and invalid arguments: each is an
 * error, takes no unreasonable memory or time, and leaves all in order.
 */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/file.h"
#include "backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

/* Thousands of errors are not worth a line each. */
static void forget(void *host, SaveVMReportLevel level, const char *text)
{
    (void)host;
    (void)level;
    (void)text;
}

static const char *machine(void *host)
{
    (void)host;
    return "box";
}

static const SaveVMHostOps silent = { .size = sizeof(SaveVMHostOps), .report = forget, .machine_name = machine };

static Device a, b;

static void two_devices(void)
{
    device_add(&a, "a", 0, 1, HAS_LIVE);
    device_add(&b, "b", 2, 2, HAS_LEGACY);
}

static uint8_t *whole_stream(size_t *len)
{
    QEMUFile *f = savevm_file_to_buffer();
    const uint8_t *bytes;
    uint8_t *copy;

    qemu_savevm_state_header(f);
    qemu_savevm_state_setup(f);
    qemu_savevm_send_postcopy_advise(f);
    qemu_savevm_state_iterate(f, false);
    qemu_savevm_state_complete_precopy(f, false, false);
    bytes = savevm_file_buffer(f, len);
    copy = malloc(*len);
    memcpy(copy, bytes, *len);
    qemu_fclose(f);
    return copy;
}

static int load(const void *bytes, size_t len)
{
    QEMUFile *f = savevm_file_from_buffer(bytes, len);
    int ret;

    backend_postcopy_state(0);
    ret = qemu_loadvm_state(f);
    qemu_fclose(f);
    return ret;
}

static int load_sections(const void *bytes, size_t len)
{
    QEMUFile *f = savevm_file_from_buffer(bytes, len);
    int ret = qemu_loadvm_state_main(f, NULL);

    qemu_fclose(f);
    return ret;
}

/* Each byte in turn gets values that turn lengths and ids into others. */
TEST(every_byte_changed)
{
    static const uint8_t flips[] = { 0xff, 0x80, 0x01 };
    size_t len;
    uint8_t *bytes;

    two_devices();
    bytes = whole_stream(&len);
    trace_fold();
    savevm_set_host(NULL, &silent, NULL);
    for (size_t at = 0; at < len; at++) {
        for (unsigned i = 0; i < sizeof(flips); i++) {
            bytes[at] ^= flips[i];
            load(bytes, len);
            bytes[at] ^= flips[i];
        }
    }
    CHECK(!savevm_is_broken(NULL));
    free(bytes);
}

TEST(random_bytes_behind_a_header)
{
    uint32_t seed = 12345;
    uint8_t bytes[512];

    two_devices();
    trace_fold();
    savevm_set_host(NULL, &silent, NULL);
    for (unsigned round = 0; round < 20000; round++) {
        for (unsigned i = 0; i < sizeof(bytes); i++) {
            seed = seed * 1103515245 + 12345;
            bytes[i] = (uint8_t)(seed >> 16);
        }
        bytes[0] = (uint8_t)(round % 10);
        load_sections(bytes, sizeof(bytes));
    }
    CHECK(!savevm_is_broken(NULL));
}

/* Memory stays where it is: a length alone takes none. */
TEST(lengths_that_take_memory)
{
    static const uint8_t package[] = { 8, 0, 7, 0, 4, 0x3f, 0xff, 0xff, 0xff, 1, 2, 3 };
    static const uint8_t machine[] = { 'Q', 'E', 'V', 'M', 0, 0, 0, 3, 7, 0xff, 0xff, 0xff, 0xff, 'x' };
    static const uint8_t discards[] = { 8, 0, 6, 0xff, 0xff, 0, 1, 'r', 0 };
    struct rlimit limit = { 512u << 20, 512u << 20 };

    /* Tools like valgrind need more than the program. */
    if (harness_slow() == 1) {
        REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    }
    CHECK(load_sections(package, sizeof(package)) < 0);
    CHECK(load(machine, sizeof(machine)) < 0);
    backend_postcopy_state(2);
    CHECK(load_sections(discards, sizeof(discards)) < 0);
}

/* So many packages around an EOF, each with its own. */
static int load_packages(unsigned depth)
{
    static uint8_t bytes[4096];
    size_t len = 1;

    bytes[0] = QEMU_VM_EOF;
    for (unsigned i = 0; i < depth; i++) {
        memmove(bytes + 9, bytes, len);
        memcpy(bytes, "\x08\0\x07\0\x04\0\0", 7);
        bytes[7] = (uint8_t)(len >> 8);
        bytes[8] = (uint8_t)len;
        bytes[9 + len] = QEMU_VM_EOF;
        len += 10;
    }
    return load_sections(bytes, len);
}

TEST(packages_in_packages)
{
    SaveVMLimits limits = SAVEVM_LIMITS_INIT;
    limits.packaged_depth = 1;

    CHECK_EQ(load_packages(1), 0);
    CHECK_EQ(load_packages(4), 0);
    CHECK_EQ(load_packages(5), -EINVAL);
    CHECK_EQ(load_packages(400), -EINVAL);
    CHECK_EQ(savevm_set_limits(NULL, &limits), 0);
    CHECK_EQ(load_packages(1), 0);
    CHECK_EQ(load_packages(2), -EINVAL);
}

TEST(a_description_without_end)
{
    size_t len;
    uint8_t *bytes;

    two_devices();
    bytes = whole_stream(&len);
    /* Its length follows the tag, which is the last byte of that value before '{'. */
    for (size_t at = 0; at + 6 < len; at++) {
        if (bytes[at] == QEMU_VM_VMDESCRIPTION && bytes[at + 5] == '{') {
            memset(bytes + at + 1, 0xff, 4);
        }
    }
    CHECK_EQ(load(bytes, len), 0);
    free(bytes);
}

TEST(no_machine_name)
{
    static const uint8_t bytes[] = { 'Q', 'E', 'V', 'M', 0, 0, 0, 3, 7, 0, 0, 0, 0, 0 };

    CHECK_EQ(load(bytes, sizeof(bytes)), 0);
    backend.machine = "";
    CHECK_EQ(load(bytes, sizeof(bytes)), 0);
}

/* The guest runs on: after a save that failed, a save succeeds. */
TEST(after_a_failure_all_is_as_before)
{
    size_t len, again;
    uint8_t *bytes, *more;
    QEMUFile *f;

    two_devices();
    bytes = whole_stream(&len);
    f = savevm_file_to_buffer();
    a.save_live_complete_precopy = -EIO;
    CHECK_EQ(qemu_savevm_state_complete_precopy(f, false, false), -1);
    qemu_savevm_state_cleanup();
    qemu_fclose(f);
    CHECK(load("rubbish", 7) < 0);
    a.save_live_complete_precopy = 0;
    more = whole_stream(&again);
    CHECK_MEM(more, again, bytes, len);
    CHECK_EQ(load(more, again), 0);
    free(bytes);
    free(more);
}

/* Registering and loading a device that has no load_state */
TEST(devices_without_load_state)
{
    static const uint8_t bytes[] = { 4, 0, 0, 0, 1, 1, 'x', 0, 0, 0, 0, 0, 0, 0, 0, 0x7e, 0, 0, 0, 1, 0 };
    Device device;

    device_add(&device, "x", 0, 1, HAS_SAVE_STATE);
    CHECK(load_sections(bytes, sizeof(bytes)) < 0);
}

/* NULL for every pointer */

TEST(null_buffers)
{
    QEMUFile *f = savevm_file_to_buffer();
    uint8_t *nowhere = NULL;

    qemu_put_buffer(f, NULL, 0);
    qemu_put_buffer_async(f, NULL, 0, false);
    CHECK_EQ(qemu_file_get_error(f), 0);
    qemu_put_buffer_async(f, NULL, 8, false);
    CHECK_EQ(qemu_file_get_error(f), -EINVAL);
    qemu_fclose(f);
    f = savevm_file_from_buffer("abc", 3);
    CHECK_EQ(qemu_get_buffer(f, nowhere, 3), 0);
    CHECK_EQ(qemu_file_get_error(f), -EINVAL);
    qemu_fclose(f);
}

TEST(null_files)
{
    uint64_t sums[3] = { 1, 2, 3 };
    uint64_t list[1] = { 0 };
    uint8_t *at = NULL;
    char text[256];
    char name[] = "ram";

    qemu_put_byte(NULL, 1);
    qemu_put_be16(NULL, 1);
    qemu_put_be32(NULL, 1);
    qemu_put_be64(NULL, 1);
    qemu_put_buffer(NULL, (const uint8_t *)"a", 1);
    qemu_put_buffer_async(NULL, (const uint8_t *)"a", 1, false);
    qemu_put_counted_string(NULL, "a");
    CHECK_EQ(qemu_get_byte(NULL), 0);
    CHECK_EQ(qemu_get_be16(NULL), 0);
    CHECK_EQ(qemu_get_be32(NULL), 0);
    CHECK_EQ(qemu_get_be64(NULL), 0);
    CHECK_EQ(qemu_get_buffer(NULL, (uint8_t *)text, 1), 0);
    CHECK_EQ(qemu_get_buffer_in_place(NULL, &at, 1), 0);
    CHECK_EQ(qemu_get_counted_string(NULL, text), 0);
    CHECK_EQ(qemu_peek_byte(NULL, 0), 0);
    CHECK_EQ(qemu_peek_buffer(NULL, &at, 1, 0), 0);
    qemu_file_skip(NULL, 1);
    qemu_fflush(NULL);
    CHECK(qemu_fclose(NULL) < 0);
    CHECK(qemu_file_get_error(NULL) < 0);
    CHECK(qemu_file_get_error_obj(NULL, NULL) < 0);
    qemu_file_set_error(NULL, -EIO);
    qemu_file_set_error_obj(NULL, -EIO, NULL);
    CHECK(qemu_file_shutdown(NULL) < 0);
    CHECK(qemu_file_get_return_path(NULL) == NULL);
    qemu_file_set_blocking(NULL, true);
    CHECK(!qemu_file_is_writable(NULL));
    CHECK(qemu_file_mode_is_not_valid(NULL));
    qemu_file_total_transferred(NULL);
    qemu_file_total_transferred_fast(NULL);
    qemu_file_credit_transfer(NULL, 1);
    qemu_file_set_rate_limit(NULL, 1);
    qemu_file_get_rate_limit(NULL);
    qemu_file_reset_rate_limit(NULL);
    qemu_file_acct_rate_limit(NULL, 1);
    qemu_file_rate_limit(NULL);
    qemu_put_qemu_file(NULL, NULL);
    CHECK(savevm_file_buffer(NULL, NULL) == NULL);
    CHECK(savevm_file_channel(NULL) == NULL);
    CHECK(savevm_file_reserve(NULL, 1) == NULL);
    savevm_file_commit(NULL, 1);

    qemu_savevm_state_header(NULL);
    qemu_savevm_state_setup(NULL);
    CHECK(qemu_savevm_state_iterate(NULL, false) < 0);
    qemu_savevm_state_pending(NULL, 1, &sums[0], &sums[1], &sums[2]);
    CHECK(qemu_savevm_state_complete_precopy(NULL, false, false) < 0);
    CHECK(qemu_savevm_state_complete_precopy_non_iterable(NULL, false, false) < 0);
    qemu_savevm_state_complete_postcopy(NULL);
    qemu_savevm_live_state(NULL);
    CHECK(qemu_save_device_state(NULL) < 0);
    CHECK(qemu_load_device_state(NULL) < 0);
    CHECK(qemu_loadvm_state(NULL) < 0);
    CHECK(qemu_loadvm_state_main(NULL, NULL) < 0);
    qemu_savevm_send_ping(NULL, 1);
    qemu_savevm_send_open_return_path(NULL);
    CHECK(qemu_savevm_send_packaged(NULL, (const uint8_t *)"a", 1) < 0);
    qemu_savevm_send_postcopy_advise(NULL);
    qemu_savevm_send_postcopy_listen(NULL);
    qemu_savevm_send_postcopy_run(NULL);
    qemu_savevm_send_postcopy_resume(NULL);
    qemu_savevm_send_postcopy_ram_discard(NULL, name, 1, list, list);
    qemu_savevm_send_recv_bitmap(NULL, name);
    qemu_savevm_send_colo_enable(NULL);
    CHECK(!savevm_is_broken(NULL));
}

TEST(null_arguments)
{
    QEMUFile *f = savevm_file_to_buffer();
    static const SaveVMHandlers none;
    char name[] = "ram";

    CHECK_EQ(register_savevm_live(NULL, 0, 1, &none, NULL), -EINVAL);
    CHECK_EQ(register_savevm_live("x", 0, 1, NULL, NULL), -EINVAL);
    unregister_savevm(NULL, NULL, NULL);
    CHECK(vmstate_register(NULL, 0, NULL, NULL) < 0);
    vmstate_unregister(NULL, NULL, NULL);
    qemu_savevm_state_pending(f, 1, NULL, NULL, NULL);
    CHECK_EQ(qemu_file_get_error(f), 0);
    CHECK(qemu_savevm_send_packaged(f, NULL, 1) < 0);
    qemu_put_buffer(f, NULL, 0);
    CHECK_EQ(qemu_file_get_error(f), 0);
    qemu_put_buffer(f, NULL, 5);
    CHECK_EQ(qemu_file_get_error(f), -EINVAL);
    qemu_fclose(f);
    f = savevm_file_to_buffer();
    qemu_put_counted_string(f, NULL);
    CHECK_EQ(qemu_file_get_error(f), -EINVAL);
    qemu_fclose(f);
    f = savevm_file_to_buffer();
    qemu_savevm_send_postcopy_ram_discard(f, NULL, 0, NULL, NULL);
    CHECK_EQ(qemu_file_get_error(f), -EINVAL);
    qemu_fclose(f);
    f = savevm_file_to_buffer();
    qemu_savevm_send_postcopy_ram_discard(f, name, 1, NULL, NULL);
    CHECK_EQ(qemu_file_get_error(f), -EINVAL);
    qemu_fclose(f);
    f = savevm_file_to_buffer();
    qemu_savevm_send_recv_bitmap(f, NULL);
    CHECK_EQ(qemu_file_get_error(f), -EINVAL);
    qemu_fclose(f);
    CHECK(savevm_file_from_buffer(NULL, 1) == NULL);
    f = savevm_file_from_buffer(NULL, 0);
    CHECK(f != NULL);
    CHECK_EQ(qemu_get_buffer(f, NULL, 4), 0);
    CHECK(qemu_file_get_error(f) < 0);
    CHECK_EQ(qemu_get_counted_string(f, NULL), 0);
    CHECK_EQ(qemu_peek_buffer(f, NULL, 1, 0), 0);
    CHECK_EQ(qemu_get_buffer_in_place(f, NULL, 1), 0);
    qemu_fclose(f);
    CHECK(!savevm_is_broken(NULL));
}

/* Arguments out of range */

TEST(names_and_sizes_out_of_range)
{
    static uint64_t list[65535];
    static char name[1 << 20];
    QEMUFile *f = savevm_file_to_buffer();
    Device device;
    uint8_t *at = NULL;

    memset(name, 'n', sizeof(name) - 1);
    qemu_put_counted_string(f, name);
    CHECK(qemu_file_get_error(f) < 0);
    qemu_fclose(f);
    f = savevm_file_to_buffer();
    qemu_savevm_send_postcopy_ram_discard(f, name, 1, list, list);
    CHECK(qemu_file_get_error(f) < 0);
    qemu_fclose(f);
    f = savevm_file_to_buffer();
    qemu_savevm_send_postcopy_ram_discard(f, "ram", 65535, list, list);
    CHECK(qemu_file_get_error(f) < 0);
    qemu_fclose(f);
    f = savevm_file_to_buffer();
    qemu_savevm_send_recv_bitmap(f, name);
    CHECK(qemu_file_get_error(f) < 0);
    qemu_fclose(f);
    device_init(&device, "long", HAS_LEGACY);
    CHECK_EQ(register_savevm_live(name, 0, 1, &device.ops, &device), 0);
    unregister_savevm(NULL, name, &device);
    f = savevm_file_from_buffer("abc", 3);
    CHECK_EQ(qemu_peek_buffer(f, &at, 32769, 0), 0);
    CHECK_EQ(qemu_peek_buffer(f, &at, SIZE_MAX, 1), 0);
    CHECK_EQ(qemu_peek_buffer(f, &at, 1, SIZE_MAX), 0);
    CHECK_EQ(qemu_peek_byte(f, -1), 0);
    CHECK_EQ(qemu_peek_byte(f, 1 << 30), 0);
    qemu_file_skip(f, -1);
    qemu_file_skip(f, 1 << 30);
    qemu_fclose(f);
    CHECK(!savevm_is_broken(NULL));
}

TEST(an_instance_at_the_end_of_all)
{
    Device device;

    device_init(&device, "dev", HAS_LEGACY);
    CHECK_EQ(register_savevm_live("dev", -2, 1, &device.ops, &device), 0);
    /* The next would be "any". */
    CHECK(register_savevm_live("dev", -1, 1, &device.ops, &device) < 0);
    unregister_savevm(NULL, "dev", &device);
    CHECK_EQ(register_savevm_live("dev", -1, 1, &device.ops, &device), 0);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loading: what is called when, what every kind of wrong stream returns and
 * leaves on the file, and a stream cut at each of its bytes.
 */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

static Device a, b, c;

static void three_devices(void)
{
    device_add(&a, "a", 0, 1, HAS_LIVE);
    device_add(&b, "b", 2, 2, HAS_LEGACY | HAS_LOAD_SETUP | HAS_LOAD_CLEANUP);
    device_add(&c, "c", 0, 3, HAS_LIVE);
}

/* The stream of all of them; freed by the caller. */
static uint8_t *whole_stream(size_t *len)
{
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    uint8_t *copy;

    backend_header(f);
    backend_setup(f);
    qemu_savevm_send_open_return_path(f);
    qemu_savevm_state_iterate(f, false);
    qemu_savevm_send_ping(f, 7);
    backend_complete(f, false, false);
    bytes = backend_bytes(f, len);
    copy = malloc(*len);
    memcpy(copy, bytes, *len);
    qemu_fclose(f);
    return copy;
}

static int load(const uint8_t *bytes, size_t len)
{
    QEMUFile *f = backend_reader(bytes, len);
    int ret;

    ret = backend_load(f);
    trace("load: %d, error %d", ret, qemu_file_get_error(f));
    trace("close: %d", qemu_fclose(f));
    return ret;
}

TEST(a_whole_stream)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    trace("-- load");
    CHECK_EQ(load(bytes, len), 0);
    CHECK_EQ(a.loads, 3);
    CHECK_EQ(b.loads, 1);
    CHECK_STR(a.loaded, "C a");
    CHECK_STR(b.loaded, "F b");
    trace("-- once more");
    CHECK_EQ(load(bytes, len), 0);
    free(bytes);
}

TEST(inactive_devices_get_no_load_setup)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    a.is_active = false;
    trace("-- load");
    CHECK_EQ(load(bytes, len), 0);
    free(bytes);
}

TEST(load_setup_fails)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    b.load_setup = -EACCES;
    trace("-- load");
    CHECK_EQ(load(bytes, len), -EINVAL);
    b.load_setup = 4;
    b.load_cleanup = -1;
    CHECK_EQ(load(bytes, len), 0);
    free(bytes);
}

TEST(load_state_fails)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    c.load_state = -ESTALE;
    CHECK_EQ(load(bytes, len), -ESTALE);
    c.load_state = 8;
    CHECK_EQ(load(bytes, len), 0);
    free(bytes);
}

/* A device that is gone, or whose callback left bytes over, or took too many. */
TEST(a_device_is_missing)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    unregister_savevm(NULL, "c", &c);
    CHECK(load(bytes, len) < 0);
    free(bytes);
}

static void take_one_more(Device *device, const char *callback, QEMUFile *f)
{
    if (strcmp(callback, "load_state") == 0) {
        trace("%s takes %d", device->name, qemu_get_byte(f));
    }
}

static void put_one_more(Device *device, const char *callback, QEMUFile *f)
{
    if (strcmp(callback, "save_state") == 0) {
        trace("%s puts more", device->name);
        qemu_put_byte(f, 0x11);
    }
}

TEST(too_much_and_too_little)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    b.hook = take_one_more;
    CHECK(load(bytes, len) < 0);
    free(bytes);
    b.hook = put_one_more;
    bytes = whole_stream(&len);
    b.hook = NULL;
    CHECK(load(bytes, len) < 0);
    free(bytes);
}

static void error_here(Device *device, const char *callback, QEMUFile *f)
{
    (void)device;
    if (strcmp(callback, "load_state") == 0) {
        qemu_file_set_error(f, -ENODEV);
    }
}

TEST(load_state_sets_the_error_of_the_file)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    b.hook = error_here;
    CHECK(load(bytes, len) < 0);
    free(bytes);
}

/* Single sections, written by hand */

static void section(QEMUFile *f, int type, uint32_t id, const char *idstr, uint32_t instance, uint32_t version)
{
    qemu_put_byte(f, type);
    qemu_put_be32(f, id);
    if (type == QEMU_VM_SECTION_START || type == QEMU_VM_SECTION_FULL) {
        qemu_put_counted_string(f, idstr);
        qemu_put_be32(f, instance);
        qemu_put_be32(f, version);
    }
    qemu_put_byte(f, 'X');
    qemu_put_counted_string(f, "payload");
    qemu_put_be16(f, 0);
}

static void footer(QEMUFile *f, int mark, uint32_t id)
{
    qemu_put_byte(f, mark);
    qemu_put_be32(f, id);
}

static int load_sections(const char *what, QEMUFile *f)
{
    size_t len = 0;
    const uint8_t *bytes;
    QEMUFile *in;
    int ret;

    qemu_put_byte(f, QEMU_VM_EOF);
    bytes = backend_bytes(f, &len);
    in = backend_reader(bytes, len);
    ret = backend_load_sections(in);
    trace("%s: %d, error %d", what, ret, qemu_file_get_error(in));
    qemu_fclose(in);
    qemu_fclose(f);
    return ret;
}

TEST(every_kind_of_section)
{
    QEMUFile *f = backend_writer();

    three_devices();
    section(f, QEMU_VM_SECTION_START, 100, "a", 0, 1);
    footer(f, QEMU_VM_SECTION_FOOTER, 100);
    section(f, QEMU_VM_SECTION_FULL, 0xffffffff, "b", 2, 1);
    footer(f, QEMU_VM_SECTION_FOOTER, 0xffffffff);
    section(f, QEMU_VM_SECTION_PART, 100, NULL, 0, 0);
    footer(f, QEMU_VM_SECTION_FOOTER, 100);
    section(f, QEMU_VM_SECTION_START, 101, "c", 0, 2);
    footer(f, QEMU_VM_SECTION_FOOTER, 101);
    section(f, QEMU_VM_SECTION_END, 101, NULL, 0, 0);
    footer(f, QEMU_VM_SECTION_FOOTER, 101);
    section(f, QEMU_VM_SECTION_END, 100, NULL, 0, 0);
    footer(f, QEMU_VM_SECTION_FOOTER, 100);
    /* Parts of a device that was sent whole, and of one that has ended: QEMU reads both. */
    section(f, QEMU_VM_SECTION_PART, 0xffffffff, NULL, 0, 0);
    footer(f, QEMU_VM_SECTION_FOOTER, 0xffffffff);
    section(f, QEMU_VM_SECTION_PART, 100, NULL, 0, 0);
    footer(f, QEMU_VM_SECTION_FOOTER, 100);
    CHECK_EQ(load_sections("all", f), 0);
}

/* The id of a section is the stream's, and may change on the way. */
TEST(a_second_start_moves_the_id)
{
    QEMUFile *f = backend_writer();

    three_devices();
    section(f, QEMU_VM_SECTION_START, 100, "a", 0, 1);
    footer(f, QEMU_VM_SECTION_FOOTER, 100);
    section(f, QEMU_VM_SECTION_START, 200, "a", 0, 0);
    footer(f, QEMU_VM_SECTION_FOOTER, 200);
    section(f, QEMU_VM_SECTION_PART, 200, NULL, 0, 0);
    footer(f, QEMU_VM_SECTION_FOOTER, 200);
    CHECK_EQ(load_sections("moved", f), 0);
}

TEST(wrong_sections)
{
    static const int marks[] = { 0, 0x7d, 0xff, QEMU_VM_SECTION_FULL };
    QEMUFile *f;

    three_devices();
    for (unsigned i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        f = backend_writer();
        section(f, QEMU_VM_SECTION_FULL, 9, "b", 2, 2);
        footer(f, marks[i], 9);
        CHECK(load_sections("footer's mark", f) < 0);
    }
    f = backend_writer();
    section(f, QEMU_VM_SECTION_FULL, 9, "b", 2, 2);
    footer(f, QEMU_VM_SECTION_FOOTER, 10);
    CHECK(load_sections("footer's id", f) < 0);
    f = backend_writer();
    section(f, QEMU_VM_SECTION_FULL, 9, "b", 2, 0x80000000);
    CHECK(load_sections("a version below zero", f) < 0);
    f = backend_writer();
    section(f, QEMU_VM_SECTION_FULL, 9, "", 0, 0);
    CHECK(load_sections("no name", f) < 0);
    f = backend_writer();
    section(f, QEMU_VM_SECTION_PART, 1234, NULL, 0, 0);
    CHECK(load_sections("never started", f) < 0);
    for (int type = 5; type < 256; type++) {
        if (type != QEMU_VM_COMMAND) {
            f = backend_writer();
            qemu_put_byte(f, type);
            CHECK(load_sections("unknown type", f) < 0);
        }
    }
}

TEST(without_footers)
{
    QEMUFile *f = backend_writer();

    three_devices();
    backend.no_footers = true;
    section(f, QEMU_VM_SECTION_START, 1, "a", 0, 1);
    section(f, QEMU_VM_SECTION_PART, 1, NULL, 0, 0);
    section(f, QEMU_VM_SECTION_FULL, 2, "b", 2, 2);
    CHECK_EQ(load_sections("none wanted", f), 0);
    f = backend_writer();
    section(f, QEMU_VM_SECTION_FULL, 2, "b", 2, 2);
    footer(f, QEMU_VM_SECTION_FOOTER, 2);
    CHECK(load_sections("one too many", f) < 0);
}

TEST(device_state)
{
    QEMUFile *f = backend_writer();
    QEMUFile *in;
    const uint8_t *bytes;
    size_t len = 0;

    three_devices();
    trace("save: %d", qemu_save_device_state(f));
    bytes = backend_bytes(f, &len);
    in = backend_reader(bytes + 8, len - 8);
    trace("load: %d", backend_load_devices(in));
    qemu_fclose(in);
    in = backend_reader(bytes + 8, len - 9);
    trace("cut: %d", backend_load_devices(in));
    qemu_fclose(in);
    in = backend_reader(bytes, len);
    trace("with its header: %d", backend_load_devices(in));
    qemu_fclose(in);
    qemu_fclose(f);
}

TEST(after_the_end)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    trace("-- no description although one is due");
    backend.no_vmdesc = true;
    free(bytes);
    bytes = whole_stream(&len);
    backend.no_vmdesc = false;
    CHECK_EQ(load(bytes, len), 0);
    backend.no_vmdesc = true;
    CHECK_EQ(load(bytes, len), 0);
#if SAVEVM_QEMU_VERSION < 1000
    backend.no_vmdesc = false;
    backend.in_postcopy = true;
    CHECK_EQ(load(bytes, len), 0);
#endif
    free(bytes);
}

/* 7.2 loads a state whose description is cut. */
TEST(cut_at_every_byte)
{
    size_t len;
    uint8_t *bytes;

    three_devices();
    bytes = whole_stream(&len);
    for (size_t cut = 0; cut < len; cut++) {
        trace_fold();
        load(bytes, cut);
        trace_unfold("cut at", cut);
    }
    free(bytes);
}

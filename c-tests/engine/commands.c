/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All ten commands: their bytes, what they ask of the host, and what is refused. */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

static void end(const char *what, QEMUFile *f)
{
    trace("error %d", qemu_file_get_error(f));
    trace_written(what, f);
    CHECK_EQ(qemu_fclose(f), 0);
}

TEST(bytes_of_the_plain_ones)
{
    QEMUFile *f = backend_writer();

    qemu_savevm_send_open_return_path(f);
    qemu_savevm_send_ping(f, 0x12345678);
    qemu_savevm_send_postcopy_listen(f);
    qemu_savevm_send_postcopy_run(f);
    qemu_savevm_send_postcopy_resume(f);
    qemu_savevm_send_colo_enable(f);
    end("commands", f);
}

TEST(bytes_of_advise)
{
    QEMUFile *f = backend_writer();

    qemu_savevm_send_postcopy_advise(f);
    backend.postcopy_ram = true;
    backend.page_bits = 14;
    backend.ram_page_sizes = 0x40201000;
    qemu_savevm_send_postcopy_advise(f);
    end("without and with RAM", f);
}

TEST(bytes_of_discard)
{
    QEMUFile *f = backend_writer();
    uint64_t starts[] = { 0, 0x1000, 0x123456789000 };
    uint64_t lengths[] = { 0x1000, 0x200000, 0xffffffffffffffff };
    char name[256];

    qemu_savevm_send_postcopy_ram_discard(f, "pc.ram", 3, starts, lengths);
    qemu_savevm_send_postcopy_ram_discard(f, "", 1, starts, lengths);
    qemu_savevm_send_postcopy_ram_discard(f, "none", 0, starts, lengths);
    memset(name, 'n', 255);
    name[255] = 0;
    qemu_savevm_send_postcopy_ram_discard(f, name, 2, starts, lengths);
    end("discards", f);
}

TEST(bytes_of_many_discards)
{
    QEMUFile *f = backend_writer();
    uint64_t starts[4000], lengths[4000];
    const uint8_t *bytes;
    size_t len = 0;

    for (unsigned i = 0; i < 4000; i++) {
        starts[i] = i * 0x10000ull;
        lengths[i] = 0x1000;
    }
    qemu_savevm_send_postcopy_ram_discard(f, "block", 4000, starts, lengths);
    bytes = backend_bytes(f, &len);
    trace_digest("discard", bytes, len);
    CHECK_EQ(qemu_fclose(f), 0);
}

TEST(bytes_of_recv_bitmap)
{
    QEMUFile *f = backend_writer();
    char name[256];

    memcpy(name, "pc.ram", 7);
    qemu_savevm_send_recv_bitmap(f, name);
    memset(name, 'b', 254);
    name[254] = 0;
    qemu_savevm_send_recv_bitmap(f, name);
    end("bitmaps", f);
}

TEST(bytes_of_packaged)
{
    QEMUFile *f = backend_writer();
    uint8_t box[300];

    for (unsigned i = 0; i < sizeof(box); i++) {
        box[i] = (uint8_t)i;
    }
    trace("%d", qemu_savevm_send_packaged(f, box, sizeof(box)));
    trace("%d", qemu_savevm_send_packaged(f, box, 0));
    trace("%d", qemu_savevm_send_packaged(f, box, 0x100000000));
    end("two packages", f);
}

/* Commands are flushed at once, packages are not. */
TEST(flushes)
{
    QEMUFile *f = backend_writer();

    qemu_savevm_send_ping(f, 1);
    trace("%lld", (long long)backend_transferred(f));
    qemu_savevm_send_packaged(f, (const uint8_t *)"abc", 3);
    trace("%lld", (long long)backend_transferred(f));
    qemu_put_byte(f, 1);
    end("stream", f);
}

/* Loading */


static void command(QEMUFile *f, unsigned number, const void *payload, unsigned len)
{
    qemu_put_byte(f, QEMU_VM_COMMAND);
    qemu_put_be16(f, number);
    qemu_put_be16(f, len);
    qemu_put_buffer(f, payload, len);
}

static int load(QEMUFile *f)
{
    size_t len = 0;
    const uint8_t *bytes;
    QEMUFile *in;
    int ret;

    qemu_put_byte(f, QEMU_VM_EOF);
    bytes = backend_bytes(f, &len);
    in = backend_reader(bytes, len);
    ret = backend_load_sections(in);
    trace("load: %d, error %d, postcopy state %d", ret, qemu_file_get_error(in), backend_postcopy_state(-1));
    qemu_fclose(in);
    qemu_fclose(f);
    return ret;
}

static int load_one(unsigned number, const void *payload, unsigned len)
{
    QEMUFile *f = backend_writer();

    trace("-- command %u with %u bytes", number, len);
    command(f, number, payload, len);
    return load(f);
}

TEST(return_path_and_ping)
{
    QEMUFile *f = backend_writer();

    CHECK(load_one(2, "\1\2\3\4", 4) < 0);
    qemu_savevm_send_open_return_path(f);
    qemu_savevm_send_ping(f, 0xfeed);
    qemu_savevm_send_open_return_path(f);
    qemu_savevm_send_ping(f, 0);
    CHECK_EQ(load(f), 0);
}

TEST(wrong_lengths)
{
    static const uint8_t zeros[64];

    for (unsigned number = 0; number < 13; number++) {
        for (unsigned len = 0; len < 6; len++) {
            /* A package of zero bytes is another test. */
            if (number != 7 || len != 4) {
                backend_postcopy_state(0);
                load_one(number, zeros, len);
            }
        }
    }
    CHECK(load_one(0xffff, zeros, 0) < 0);
}

TEST(advise_in_each_state)
{
    for (int state = 0; state < 6; state++) {
        backend_postcopy_state(state);
        load_one(3, "", 0);
    }
}

static void advice(uint64_t sizes, uint64_t page)
{
    uint8_t payload[16];

    for (unsigned i = 0; i < 8; i++) {
        payload[i] = (uint8_t)(sizes >> (56 - 8 * i));
        payload[8 + i] = (uint8_t)(page >> (56 - 8 * i));
    }
    backend_postcopy_state(0);
    load_one(3, payload, 16);
}

TEST(advise_with_ram)
{
    advice(4096, 4096);
    backend.postcopy_ram = true;
    backend_postcopy_state(0);
    load_one(3, "", 0);
    advice(4096, 4096);
    advice(4096, 8192);
    advice(0x201000, 4096);
    advice(0, 0);
    backend_postcopy_state(0);
    load_one(3, "12345678", 8);
}

TEST(listen_in_each_state)
{
    for (unsigned ram = 0; ram < 2; ram++) {
        backend.postcopy_ram = ram;
        for (int state = 0; state < 6; state++) {
            backend_postcopy_state(state);
            load_one(4, "", 0);
        }
    }
}

/* RUN ends the load, and all loads around it: what follows is not read. */
TEST(run_in_each_state)
{
    for (int state = 0; state < 6; state++) {
        QEMUFile *f = backend_writer();

        backend_postcopy_state(state);
        command(f, 5, "", 0);
        command(f, 99, "", 0);
        load(f);
    }
}

static void discard(int state, const char *what, const void *payload, unsigned len)
{
    trace("-- %s", what);
    backend_postcopy_state(state);
    load_one(6, payload, len);
}

#define RANGE "\0\0\0\0\0\0\020\0" "\0\0\0\0\0\0\001\0"

TEST(discard_in_each_state)
{
    for (int state = 0; state < 6; state++) {
        discard(state, "well", "\0\001r\0" RANGE, 20);
    }
}

TEST(odd_discards)
{
    discard(2, "two ranges", "\0\003ram\0" RANGE RANGE, 38);
    discard(2, "version", "\001\001r\0" RANGE, 20);
    discard(2, "no name", "\0\0\0\0" RANGE, 20);
    discard(2, "no nil", "\0\001r\1" RANGE, 20);
    discard(2, "one byte more", "\0\001r\0" RANGE "x", 21);
    discard(2, "too short", "\0\001r\0" RANGE, 19);
    discard(2, "a name and half a range", "\0\007rrrrrrr\0" "\0\0\0\0\0\0\0\0\0\0", 20);
    backend.discard = -5;
    discard(1, "that fails", "\0\003ram\0" RANGE RANGE, 38);
}

TEST(bitmaps)
{
    load_one(10, "\003ram", 4);
    load_one(10, "\003ramx", 5);
    load_one(10, "\003ra", 3);
    load_one(10, "\0", 1);
    load_one(10, "", 0);
}

TEST(resume_and_colo)
{
    load_one(9, "", 0);
    load_one(8, "", 0);
    backend.enable_colo = -12;
    load_one(8, "", 0);
}

/* Packages */

static int load_package(const void *box, size_t len, uint32_t announced)
{
    QEMUFile *f = backend_writer();
    uint8_t size[4] = { (uint8_t)(announced >> 24), (uint8_t)(announced >> 16), (uint8_t)(announced >> 8),
                        (uint8_t)announced };

    command(f, 7, size, 4);
    qemu_put_buffer(f, box, len);
    return load(f);
}

TEST(packages)
{
    Device device;
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    size_t len = 0;

    device_add(&device, "dev", 0, 1, HAS_LEGACY);
    qemu_save_device_state(f);
    bytes = backend_bytes(f, &len);
    trace("-- a whole one");
    CHECK_EQ(load_package(bytes + 8, len - 8, (uint32_t)len - 8), 0);
    CHECK_EQ(device.loads, 1);
    trace("-- without its EOF");
    CHECK(load_package(bytes + 8, len - 9, (uint32_t)len - 9) < 0);
    trace("-- of no bytes");
    CHECK(load_package(bytes, 0, 0) < 0);
    trace("-- cut");
    CHECK(load_package(bytes + 8, len - 10, (uint32_t)len) < 0);
    qemu_fclose(f);
}

TEST(run_inside_a_package)
{
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    size_t len = 0;

    command(f, 3, "", 0);
    command(f, 4, "", 0);
    command(f, 5, "", 0);
    command(f, 99, "", 0);
    bytes = backend_bytes(f, &len);
    CHECK_EQ(load_package(bytes, len, (uint32_t)len), 1);
    qemu_fclose(f);
}

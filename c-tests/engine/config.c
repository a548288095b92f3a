/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The header and the configuration section, written, read, and refused. */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "backend.h"

#include <string.h>

static const uint8_t uuid_one[16] = { 0x55, 0x0e, 0x84, 0x00, 0xe2, 0x9b, 0x41, 0xd4,
                                      0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0x00, 0x00 };
static const uint8_t uuid_two[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

/* A whole stream without devices, as the host is now. */
static QEMUFile *written(void)
{
    QEMUFile *f = backend_writer();

    backend_header(f);
    trace_written("header", f);
    backend_setup(f);
    backend_complete_devices(f, false, false);
    return f;
}

static int load(QEMUFile *from)
{
    size_t len = 0;
    const uint8_t *bytes = backend_bytes(from, &len);
    QEMUFile *f = backend_reader(bytes, len);
    int ret;

    ret = backend_load(f);
    trace("load: %d", ret);
    qemu_fclose(f);
    return ret;
}

TEST(plain)
{
    QEMUFile *f = written();

    CHECK_EQ(load(f), 0);
    backend.machine = "other";
    CHECK(load(f) < 0);
    /* What came is a prefix of what is here. */
    backend.machine = "boxed-2.0";
    CHECK_EQ(load(f), 0);
    backend.machine = "bo";
    CHECK(load(f) < 0);
    backend.machine = "";
    CHECK(load(f) < 0);
    qemu_fclose(f);
}

TEST(page_bits)
{
    QEMUFile *f;

    backend.page_bits = 16;
    f = written();
    CHECK_EQ(load(f), 0);
    backend.page_bits = 14;
    CHECK(load(f) < 0);
    backend.page_bits = backend.page_bits_min = 16;
    CHECK_EQ(load(f), 0);
    qemu_fclose(f);
    f = written();
    CHECK_EQ(load(f), 0);
    backend.page_bits_min = 12;
    CHECK(load(f) < 0);
    qemu_fclose(f);
}

TEST(capabilities)
{
    QEMUFile *f;

    backend.x_ignore_shared = true;
    f = written();
    CHECK_EQ(load(f), 0);
    backend.x_ignore_shared = false;
    CHECK(load(f) < 0);
    qemu_fclose(f);
    f = written();
    backend.x_ignore_shared = true;
    CHECK(load(f) < 0);
    qemu_fclose(f);
}

#if SAVEVM_QEMU_VERSION >= 900
TEST(mapped_ram)
{
    QEMUFile *f;

    backend.mapped_ram = true;
    f = written();
    CHECK_EQ(load(f), 0);
    backend.mapped_ram = false;
    CHECK(load(f) < 0);
    qemu_fclose(f);
    backend.x_ignore_shared = backend.mapped_ram = true;
    f = written();
    CHECK_EQ(load(f), 0);
    backend.x_ignore_shared = false;
    CHECK(load(f) < 0);
    qemu_fclose(f);
    f = written();
    backend.mapped_ram = false;
    CHECK(load(f) < 0);
    qemu_fclose(f);
}
#endif

TEST(uuids)
{
    QEMUFile *f;

    backend.uuid = uuid_one;
    f = written();
    CHECK_EQ(load(f), 0);
    backend.uuid = uuid_two;
    CHECK(load(f) < 0);
    backend.uuid = NULL;
    CHECK_EQ(load(f), 0);
    qemu_fclose(f);
    f = written();
    backend.uuid = uuid_one;
    CHECK_EQ(load(f), 0);
    qemu_fclose(f);
}

TEST(all_of_them)
{
    QEMUFile *f;

    backend.page_bits = 13;
    backend.x_ignore_shared = true;
    backend.uuid = uuid_two;
    f = written();
    CHECK_EQ(load(f), 0);
    qemu_fclose(f);
}

TEST(none_at_all)
{
    QEMUFile *with = written();
    QEMUFile *without;

    backend.no_configuration = true;
#if SAVEVM_QEMU_VERSION >= 1000
    /* QEMU 10.0 and newer abort if they describe a stream without configuration. */
    backend.no_vmdesc = true;
#endif
    without = written();
    CHECK_EQ(load(without), 0);
    CHECK(load(with) < 0);
    backend.no_configuration = false;
    CHECK(load(without) < 0);
    qemu_fclose(with);
    qemu_fclose(without);
}

/* The bytes `hex` between the header and EOF. */
static int load_with(const char *what, const uint8_t *section, size_t len)
{
    QEMUFile *f = backend_writer();
    int ret;

    trace("-- %s", what);
    qemu_put_be32(f, QEMU_VM_FILE_MAGIC);
    qemu_put_be32(f, QEMU_VM_FILE_VERSION);
    qemu_put_buffer(f, section, len);
    qemu_put_byte(f, QEMU_VM_EOF);
    ret = load(f);
    qemu_fclose(f);
    return ret;
}

#define NAMED "\x07\0\0\0\003box"
#define LOAD_WITH(what, bytes) load_with(what, (const uint8_t *)bytes, sizeof(bytes) - 1)

TEST(odd_sections)
{
    CHECK_EQ(LOAD_WITH("well", NAMED), 0);
    CHECK(LOAD_WITH("uuid of version 2", NAMED "\x05\x12" "configuration/uuid\0\0\0\002" "0123456789abcdef") < 0);
    CHECK(LOAD_WITH("an unknown subsection", NAMED "\x05\x13" "configuration/other\0\0\0\001") < 0);
    CHECK(LOAD_WITH("a subsection of another", NAMED "\x05\x05" "other\0\0\0\001") < 0);
    CHECK(LOAD_WITH("an unknown capability",
                    NAMED "\x05\x1a" "configuration/capabilities\0\0\0\001\0\0\0\001\003odd") < 0);
    CHECK_EQ(LOAD_WITH("no capability", NAMED "\x05\x1a" "configuration/capabilities\0\0\0\001\0\0\0\0"), 0);
    CHECK_EQ(LOAD_WITH("page bits", NAMED "\x05\x1e" "configuration/target-page-bits\0\0\0\001\0\0\0\014"), 0);
    CHECK(LOAD_WITH("other page bits", NAMED "\x05\x1e" "configuration/target-page-bits\0\0\0\001\0\0\0\015") < 0);
    CHECK(LOAD_WITH("a section instead", "\x04\0\0\0\0\001x\0\0\0\0\0\0\0\0") < 0);
    CHECK(LOAD_WITH("EOF instead", "") < 0);
}

TEST(other_magic_and_version)
{
    static const struct {
        uint32_t magic;
        uint32_t version;
    } list[] = { { 0x5145564d, 3 }, { 0x5145564d, 2 }, { 0x5145564d, 4 }, { 0x5145564d, 0 },
                 { 0x5145564c, 3 }, { 0x7f454c46, 3 }, { 0, 0 },          { 0x1f8b0800, 3 } };

    for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        QEMUFile *f = backend_writer();

        trace("-- %08x version %u", list[i].magic, list[i].version);
        qemu_put_be32(f, list[i].magic);
        qemu_put_be32(f, list[i].version);
        qemu_put_buffer(f, (const uint8_t *)NAMED, sizeof(NAMED) - 1);
        qemu_put_byte(f, QEMU_VM_EOF);
        CHECK_EQ(load(f) == 0, i == 0);
        qemu_fclose(f);
    }
}

/* load_cleanup is called where the configuration is wrong, but not before that. */
TEST(cleanup_after_a_refusal)
{
    Device device;
    QEMUFile *f = backend_writer();

    device_add(&device, "dev", 0, 1, HAS_ALL);
    qemu_put_be32(f, 1);
    load(f);
    qemu_fclose(f);
    CHECK(LOAD_WITH("another machine", "\x07\0\0\0\003bex") < 0);
    CHECK(LOAD_WITH("no configuration", "\x04") < 0);
}

#if SAVEVM_QEMU_VERSION >= 600
/* 5.2 compares with the capabilities of the first stream instead (docs/qemu-versions.md). */
TEST(capabilities_of_the_stream_before)
{
    QEMUFile *with, *without;

    backend.x_ignore_shared = true;
    with = written();
    backend.x_ignore_shared = false;
    without = written();
    backend.x_ignore_shared = true;
    CHECK_EQ(load(with), 0);
    CHECK(load(without) < 0);
    qemu_fclose(with);
    qemu_fclose(without);
}
#endif

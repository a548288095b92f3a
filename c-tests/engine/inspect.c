/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inspection of a stream from C: its content, the fields of a device, damage, documents. */
#define _GNU_SOURCE
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/file.h"
#include "savevm/inspect.h"
#include "backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Timer {
    uint32_t divider;
    int16_t drift[2];
    bool on;
    uint8_t mode;
} Timer;

static bool mode_needed(void *opaque)
{
    return ((Timer *)opaque)->mode != 0;
}

static const VMStateDescription vmstate_mode = {
    .name = "timer/mode",
    .version_id = 2,
    .minimum_version_id = 2,
    .needed = mode_needed,
    .fields = (VMStateField[]) { VMSTATE_UINT8(mode, Timer), VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_timer = {
    .name = "timer",
    .version_id = 7,
    .minimum_version_id = 1,
    .fields = (VMStateField[]) {
        VMSTATE_UINT32(divider, Timer),
        VMSTATE_INT16_ARRAY(drift, Timer, 2),
        VMSTATE_BOOL(on, Timer),
        VMSTATE_END_OF_LIST()
    },
    .subsections = (const VMStateDescription *[]) { &vmstate_mode, NULL },
};

static Timer timer = { .divider = 0xfffffff0, .drift = { -3, 4 }, .on = true, .mode = 9 };
static Device live;

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

/* A stream with a live device and one that describes itself. */
static QEMUFile *written(void)
{
    QEMUFile *f = savevm_file_to_buffer();

    device_add(&live, "live", 0, 3, HAS_LIVE);
    vmstate_register(NULL, 5, &vmstate_timer, &timer);
    qemu_savevm_state_header(f);
    qemu_savevm_state_setup(f);
    qemu_savevm_state_complete_precopy(f, false, false);
    return f;
}

static SaveVMInspectSummary summary_of(const SaveVMInspect *s)
{
    SaveVMInspectSummary summary = SAVEVM_INSPECT_SUMMARY_INIT;

    CHECK_EQ(savevm_inspect_summary(s, &summary), 0);
    return summary;
}

/* The item of this kind and name. */
static size_t find(const SaveVMInspect *s, SaveVMInspectItemKind kind, const char *name, SaveVMInspectItem *item)
{
    size_t index = 0;

    item->size = sizeof(*item);
    while (savevm_inspect_item(s, index, item) == 0) {
        if (item->kind == kind && (!name || (item->name && !strcmp(item->name, name)))) {
            return index;
        }
        index++;
    }
    REQUIRE(false);
    return index;
}

static SaveVMInspect *inspected(size_t less)
{
    QEMUFile *f = written();
    size_t len = 0;
    const uint8_t *bytes = savevm_file_buffer(f, &len);
    Error *err = NULL;
    SaveVMInspect *s = savevm_inspect_buffer(bytes, len - less, 0, &err);

    REQUIRE(s != NULL);
    CHECK(err == NULL);
    /* Nothing of the stream is needed any more. */
    qemu_fclose(f);
    return s;
}

TEST(what_stands_in_it)
{
    SaveVMInspect *s = inspected(0);
    SaveVMInspectSummary summary = summary_of(s);
    SaveVMInspectItem item;
    size_t index;

    CHECK_EQ(summary.size, sizeof(summary));
    CHECK_EQ(summary.version, 3);
    CHECK_EQ(summary.footers, 1);
    CHECK(summary.complete && summary.described && !summary.cut);
    CHECK_STR(summary.machine, backend.machine);
    CHECK(summary.damage == NULL);
    CHECK_EQ(summary.damage_offset, -1);
    CHECK_EQ(summary.trailing, 0);
    CHECK_EQ(find(s, SAVEVM_INSPECT_HEADER, NULL, &item), 0);
    CHECK_EQ(item.bytes, 8);
    find(s, SAVEVM_INSPECT_START, "live", &item);
    CHECK_EQ(item.version_id, 3);
    CHECK(item.state == NULL);
    index = find(s, SAVEVM_INSPECT_FULL, "timer", &item);
    CHECK_EQ(item.instance_id, 5);
    CHECK_EQ(item.version_id, 7);
    CHECK_EQ(item.state_length, 4 + 4 + 1 + 2 + strlen("timer/mode") + 4 + 1);
    CHECK_MEM(item.state, 4, "\xff\xff\xff\xf0", 4);
    CHECK_EQ(savevm_inspect_fields(s, index - 1, NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_inspect_item(s, summary.items, &item), -ENOENT);
    find(s, SAVEVM_INSPECT_DESCRIPTION, NULL, &item);
    CHECK_EQ(item.offset + item.bytes, summary.length);
    savevm_inspect_free(s);
}

typedef struct Told {
    char text[400];
    int end_after;
} Told;

static int tell(void *opaque, const SaveVMInspectField *field)
{
    Told *told = opaque;
    size_t len = strlen(told->text);

    snprintf(told->text + len, sizeof(told->text) - len, "%d %s %lld at %zu, %zu\n", field->kind,
             field->name ? field->name : "-", (long long)(int64_t)field->value, field->offset, field->length);
    return --told->end_after == 0 ? 77 : 0;
}

TEST(the_fields_of_a_device)
{
    SaveVMInspect *s = inspected(0);
    SaveVMInspectItem item;
    size_t index = find(s, SAVEVM_INSPECT_FULL, "timer", &item);
    Told told = { .end_after = 0 };
    Told first = { .end_after = 1 };

    CHECK_EQ(savevm_inspect_fields(s, index, tell, &told), 0);
    CHECK_STR(told.text,
              "6 divider 4294967280 at 0, 4\n"
              "1 drift 0 at 0, 0\n"
              "5 drift -3 at 4, 2\n"
              "5 drift 4 at 6, 2\n"
              "4 - 0 at 0, 0\n"
              "7 on 1 at 8, 1\n"
              "3 timer/mode 2 at 0, 0\n"
              "6 mode 9 at 25, 1\n"
              "4 - 0 at 0, 0\n");
    CHECK_EQ(savevm_inspect_fields(s, index, tell, &first), 77);
    CHECK_STR(first.text, "6 divider 4294967280 at 0, 4\n");
    index = find(s, SAVEVM_INSPECT_START, "live", &item);
    CHECK_EQ(savevm_inspect_fields(s, index, tell, &told), -ENOENT);
    savevm_inspect_free(s);
}

/* Without a description nothing is known of the fields, and the damage is reported. */
TEST(a_stream_that_is_cut)
{
    SaveVMInspect *s = inspected(10);
    SaveVMInspectSummary summary = summary_of(s);
    SaveVMInspectItem item;
    size_t index = find(s, SAVEVM_INSPECT_FULL, "timer", &item);
    Told told = { .end_after = 0 };

    CHECK(summary.complete && summary.cut && !summary.described);
    CHECK_HAS(summary.damage, "cut off");
    CHECK_HAS(summary.damage, "'timer' instance 5");
    CHECK(summary.damage_offset > 0);
    CHECK_EQ(savevm_inspect_fields(s, index, tell, &told), -ENODATA);
    savevm_inspect_free(s);
}

/* From a pipe, after something else was read of it. */
TEST(a_stream_from_a_file)
{
    QEMUFile *f = written();
    size_t len = 0;
    const uint8_t *bytes = savevm_file_buffer(f, &len);
    QEMUFile *out = savevm_file_to_buffer();
    QEMUFile *in;
    SaveVMInspect *s;
    int ends[2];

    REQUIRE(pipe(ends) == 0 && len < 60000);
    CHECK_EQ(write(ends[1], "before", 6), 6);
    CHECK_EQ(write(ends[1], bytes, len), len);
    close(ends[1]);
    in = savevm_file_from_fd(ends[0], false);
    CHECK_EQ(qemu_get_byte(in), 'b');
    qemu_file_skip(in, 5);
    s = savevm_inspect_file(in, 0, NULL);
    REQUIRE(s != NULL);
    CHECK_EQ(summary_of(s).length, len);
    CHECK(summary_of(s).damage == NULL);
    CHECK_EQ(qemu_file_get_error(in), 0);
    CHECK_EQ(savevm_inspect_document(s, SAVEVM_INSPECT_ANALYZE, out), 0);
    qemu_put_byte(out, 0);
    CHECK_HAS((const char *)savevm_file_buffer(out, NULL), "\"divider\": \"0xfffffff0\"");
    CHECK_EQ(savevm_inspect_document(s, SAVEVM_INSPECT_JSON_FIELDS, out), 0);
    qemu_fclose(out);
    out = savevm_file_to_buffer();
    CHECK_EQ(savevm_inspect_document(s, SAVEVM_INSPECT_JSON, out), 0);
    qemu_put_byte(out, 0);
    CHECK_HAS((const char *)savevm_file_buffer(out, NULL), "\"savevm-inspect\": 1");
    CHECK_EQ(savevm_inspect_document(s, 99, out), -EINVAL);
    savevm_inspect_free(s);
    qemu_fclose(out);
    qemu_fclose(in);
    qemu_fclose(f);
}

TEST(memory_by_block)
{
    static const uint8_t stream[] = "QEVM\0\0\0\003"
        "\001\0\0\0\001\003ram\0\0\0\0\0\0\0\004" "\0\0\0\0\0\0\x30\x04\002m1\0\0\0\0\0\0\x20\0\002m2\0\0\0\0\0\0\x10\0"
        "\0\0\0\0\0\0\0\x10" "\x7e\0\0\0\001"
        "\003\0\0\0\001" "\0\0\0\0\0\0\x10\002\002m1\0" "\0\0\0\0\0\0\0\x10" "\x7e\0\0\0\001";
    SaveVMInspect *s = savevm_inspect_buffer(stream, sizeof(stream) - 1, 0, NULL);
    SaveVMInspectBlock block = SAVEVM_INSPECT_BLOCK_INIT;
    /* One without room for what the first release had is refused, and not written to. */
    SaveVMInspectBlock early = { .size = offsetof(SaveVMInspectBlock, length), .length = 42 };

    REQUIRE(s != NULL);
    CHECK_EQ(summary_of(s).blocks, 2);
    CHECK_EQ(savevm_inspect_block(s, 0, &block), 0);
    CHECK_STR(block.name, "m1");
    CHECK_EQ(block.length, 0x2000);
    CHECK_EQ(block.zero.pages, 1);
    CHECK_EQ(block.zero.bytes, 12);
    CHECK_EQ(block.plain.pages, 0);
    CHECK_EQ(savevm_inspect_block(s, 1, &early), -EINVAL);
    CHECK(early.name == NULL);
    CHECK_EQ(early.length, 42);
    CHECK_EQ(savevm_inspect_block(s, 2, &block), -ENOENT);
    savevm_inspect_free(s);
}

static int check(const void *bytes, size_t len, uint64_t length, Error **err)
{
    QEMUFile *f = savevm_file_from_buffer(bytes, len);
    int ret = savevm_snapshot_check_file(NULL, f, length, err);

    qemu_fclose(f);
    return ret;
}

/* A stream that would not load, and why. */
static void refused(const uint8_t *bytes, size_t len, int error, const char *why)
{
    Error *err = NULL;

    CHECK_EQ(check(bytes, len, UINT64_MAX, &err), -error);
    REQUIRE(err != NULL);
    CHECK_HAS(error_get_pretty(err), why);
    error_free(err);
}

/* The same with one byte changed. */
static void refused_byte(const uint8_t *bytes, size_t len, size_t at, uint8_t byte, const char *why)
{
    uint8_t *changed = malloc(len);

    REQUIRE(changed != NULL && at < len);
    memcpy(changed, bytes, len);
    changed[at] = byte;
    refused(changed, len, EINVAL, why);
    free(changed);
}

/* Where the name of a section ends. */
static size_t behind(const uint8_t *bytes, size_t len, const char *name)
{
    uint8_t counted[64] = { strlen(name) };
    const uint8_t *found;

    memcpy(counted + 1, name, strlen(name));
    found = memmem(bytes, len, counted, strlen(name) + 1);
    REQUIRE(found != NULL);
    return found - bytes + strlen(name) + 1;
}

TEST(whether_a_stream_would_load)
{
    QEMUFile *f = written();
    size_t len = 0;
    const uint8_t *bytes = savevm_file_buffer(f, &len);
    size_t timer_at = behind(bytes, len, "timer");
    size_t live_at = behind(bytes, len, "live");
    Error *err = NULL;

    CHECK_EQ(check(bytes, len, UINT64_MAX, &err), 0);
    CHECK_EQ(check(bytes, len, len, &err), 0);
    CHECK_EQ(live.loads, 0);
    /* The description is not needed to load it. */
    CHECK_EQ(check(bytes, len - 10, UINT64_MAX, &err), 0);
    CHECK(err == NULL);
    CHECK_EQ(check(bytes, len, timer_at, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "cut off");
    error_free(err);
    err = NULL;
    refused(bytes, timer_at + 12, EINVAL, "the footer");
    refused(bytes, 3, ENOMSG, "Not a migration stream");
    refused(bytes + 1, len - 1, ENOMSG, "Not a migration stream");
    refused_byte(bytes, len, 7, 2, "version 2");
    refused_byte(bytes, len, 13, '?', "Machine type received");
    refused_byte(bytes, len, timer_at - 1, 'R', "Unknown savevm section or instance 'timeR' 5");
    refused_byte(bytes, len, timer_at + 3, 6, "Unknown savevm section or instance 'timer' 6");
    refused_byte(bytes, len, timer_at + 7, 8, "unsupported version 8 for 'timer' v7");
    refused_byte(bytes, len, timer_at + 7, 0, "version 0 in the stream, 1 to 7");
    refused_byte(bytes, len, live_at + 7, 4, "unsupported version 4 for 'live'");
    refused_byte(bytes, len, timer_at - 7, 0x0c, "damaged at offset");
    unregister_savevm(NULL, "live", &live);
    refused(bytes, len, EINVAL, "Unknown savevm section or instance 'live' 0");
    CHECK_EQ(savevm_snapshot_check_file(NULL, f, 1, &err), -EINVAL);
    CHECK_HAS(error_get_pretty(err), "for writing");
    error_free(err);
    CHECK_EQ(savevm_snapshot_check_file(NULL, NULL, 1, NULL), -EINVAL);
    qemu_fclose(f);
}

/* A machine with a block "m1" of up to 8 KiB. */
static bool ram_fits(void *host, const char *block, uint64_t length)
{
    (void)host;
    /* Only blocks of the stream are asked for. */
    CHECK(*block != 0);
    return !strcmp(block, "m1") && length <= 0x2000;
}

static uint32_t flags = SAVEVM_FLAG_NO_CONFIGURATION;

static uint32_t stream_flags(void *host)
{
    (void)host;
    return flags;
}

TEST(whether_memory_would_load)
{
    static const uint8_t stream[] = "QEVM\0\0\0\003"
        "\001\0\0\0\001\003ram\0\0\0\0\0\0\0\004" "\0\0\0\0\0\0\x20\004\002m1\0\0\0\0\0\0\x20\0"
        "\0\0\0\0\0\0\0\x10" "\x7e\0\0\0\001"
        "\003\0\0\0\001" "\0\0\0\0\0\0\x10\002\002m1\0" "\0\0\0\0\0\0\0\x10" "\x7e\0\0\0\001";
    /* With the zero of the string as the mark of the end. */
    const size_t len = sizeof(stream), list = 8 + 17 + 8, page = len - 1 - 5 - 8 - 12;
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;
    ops.ram_fits = ram_fits;
    ops.stream_flags = stream_flags;
    SaveVM *vm = savevm_new(&ops, NULL);
    SaveVM *before = savevm_set_current(vm);
    uint8_t more[sizeof(stream) + 1] = { 0 };
    Error *err = NULL;

    device_add(&live, "ram", 0, 4, HAS_LIVE);
    CHECK_EQ(check(stream, len, UINT64_MAX, &err), 0);
    CHECK(err == NULL);
    refused_byte(stream, len, list + 2, '2', "there is no RAM block 'm2'");
    refused_byte(stream, len, list - 1 - 1, 0x10, "a new RAM block of at most 0x1000 bytes");
    refused_byte(stream, len, page + 6, 0x20, "a page within the 0x2000 bytes of 'm1'");
    refused_byte(stream, len, page + 7, 0x01, "a RAM record with known flags");
    refused_byte(stream, len, page + 9, 'n', "a page of a known RAM block");
    refused_byte(stream, len, len - 2, 2, "the footer");
    memcpy(more, stream, len);
    CHECK_EQ(check(more, len + 1, len, &err), 0);
    refused(more, len + 1, EINVAL, "after the end");
    flags |= SAVEVM_FLAG_NO_LIVE_LOAD;
    refused(stream, len, EINVAL, "comes another way");
    flags = 0;
    refused(stream, len, EINVAL, "Configuration section missing");
    /* Of such streams nothing can be said. */
    flags = SAVEVM_FLAG_NO_FOOTERS;
    CHECK_EQ(check("nothing", 7, UINT64_MAX, &err), 0);
    savevm_set_current(before);
    savevm_free(vm);
}

TEST(wrong_arguments)
{
    SaveVMInspectSummary summary = SAVEVM_INSPECT_SUMMARY_INIT;
    QEMUFile *out = savevm_file_to_buffer();
    SaveVMInspect *s;
    Error *err = NULL;

    CHECK(savevm_inspect_buffer(NULL, 5, 0, &err) == NULL);
    CHECK_EQ(savevm_error_info(err)->error, EINVAL);
    error_free(err);
    err = NULL;
    CHECK(savevm_inspect_file(NULL, 0, NULL) == NULL);
    CHECK(savevm_inspect_file(out, 0, &err) == NULL);
    CHECK_HAS(error_get_pretty(err), "for writing");
    error_free(err);
    savevm_inspect_free(NULL);
    CHECK_EQ(savevm_inspect_summary(NULL, &summary), -EINVAL);
    CHECK_EQ(savevm_inspect_document(NULL, 0, out), -EINVAL);
    s = savevm_inspect_buffer("not a stream", 12, 0, NULL);
    REQUIRE(s != NULL);
    CHECK_EQ(savevm_inspect_summary(s, NULL), -EINVAL);
    CHECK_HAS(summary_of(s).damage, "QEVM");
    CHECK_EQ(savevm_inspect_fields(s, 0, tell, NULL), -ENOENT);
    savevm_inspect_free(s);
    qemu_fclose(out);
}

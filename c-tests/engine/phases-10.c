/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Phases that QEMU 8.0 to 10.2 added: devices that refuse a migration, that are
 * saved during the setup, that send and load on threads, that prepare for
 * postcopy, and that approve the switchover.
 */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "backend.h"

#include <errno.h>
#include <string.h>

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

static Device a, b, c;

/* Three devices with the questions and `others`; the second has no `callback`. */
static void three_with(unsigned callback, unsigned others)
{
    others |= HAS_IS_ACTIVE | HAS_HAS_POSTCOPY | HAS_LOAD_STATE;
    device_add(&a, "a", 0, 1, callback | others);
    device_add(&b, "b", 0, 1, others);
    device_add(&c, "c", 4, 1, callback | others);
}

static void end(const char *what, QEMUFile *f)
{
    int error = qemu_file_get_error(f);

    trace("error %d", error);
    if (error == 0) {
        trace_written(what, f);
    }
    trace("close %d", qemu_fclose(f));
}

/* Before a migration */

TEST(devices_can_refuse_a_migration)
{
    three_with(HAS_PREPARE, 0);
    backend_prepare(NULL);
    a.is_active = false;
    c.save_prepare = -EBUSY;
    backend_prepare(DEVICE_ERROR);
    a.is_active = true;
    a.save_prepare = -EAGAIN;
    backend_prepare(DEVICE_ERROR);
    a.save_prepare = c.save_prepare = 1;
    backend_prepare(NULL);
}

/* Setup */

TEST(setup_returns_the_error_of_a_device)
{
    QEMUFile *f = backend_writer();

    three_with(HAS_SETUP, 0);
    c.save_setup = -ENOSPC;
    backend_header(f);
    backend_setup_expecting(f, DEVICE_ERROR);
    end("failed", f);
}

TEST(setup_returns_the_error_of_the_notice)
{
    QEMUFile *f = backend_writer();

    three_with(HAS_SETUP, 0);
    backend.precopy_notify = -EINVAL;
    backend_setup_expecting(f, NULL);
    end("without an error of the file", f);
}

/* Devices with a description */

typedef struct Plain {
    uint32_t value;
    int pre_save;
} Plain;

static int pre_save(void *opaque)
{
    trace("pre_save of %u", ((Plain *)opaque)->value);
    return ((Plain *)opaque)->pre_save;
}

static bool needed(void *opaque)
{
    trace("needed of %u", ((Plain *)opaque)->value);
    return ((Plain *)opaque)->value != 0;
}

static const VMStateField plain_fields[] = {
    VMSTATE_UINT32(value, Plain),
    VMSTATE_END_OF_LIST()
};

#define PLAIN(name_, early)                                              \
    {                                                                    \
        .name = name_, .version_id = 2, .minimum_version_id = 1,         \
        .early_setup = early, .pre_save = pre_save, .needed = needed,    \
        .fields = plain_fields,                                          \
    }

static const VMStateDescription early = PLAIN("early", true);
static const VMStateDescription late = PLAIN("late", false);

static void save_described(Plain *states, const char *what)
{
    QEMUFile *f = backend_writer();

    vmstate_register(NULL, 0, &late, &states[0]);
    vmstate_register(NULL, 0, &early, &states[1]);
    device_add(&a, "live", 0, 1, HAS_SETUP | HAS_LOAD_STATE);
    backend_header(f);
    backend_setup(f);
    trace("complete: %d", backend_complete(f, false, false));
    end(what, f);
    vmstate_unregister(NULL, &late, &states[0]);
    vmstate_unregister(NULL, &early, &states[1]);
    unregister_savevm(NULL, "live", &a);
}

TEST(devices_that_are_saved_in_the_setup)
{
    Plain states[2] = { { 1, 0 }, { 2, 0 } };

    save_described(states, "both");
    states[1].value = 0;
    save_described(states, "one is not needed");
    states[0].value = 0;
    save_described(states, "none is needed");
}

TEST(saving_in_the_setup_fails)
{
    Plain states[2] = { { 1, 0 }, { 2, -EIO } };
    QEMUFile *f = backend_writer();

    vmstate_register(NULL, 0, &early, &states[0]);
    vmstate_register(NULL, 1, &early, &states[1]);
    device_add(&a, "live", 0, 1, HAS_SETUP | HAS_LOAD_STATE);
    backend_header(f);
    backend_setup(f);
    end("failed", f);
}

TEST(devices_saved_in_the_setup_are_no_part_of_a_completion)
{
    Plain states[2] = { { 1, 0 }, { 2, 0 } };
    QEMUFile *f = backend_writer();

    vmstate_register(NULL, 0, &late, &states[0]);
    vmstate_register(NULL, 0, &early, &states[1]);
    trace("devices: %d", backend_complete_devices(f, true, false));
    end("the late one", f);
    f = backend_writer();
    trace("checkpoint: %d", qemu_save_device_state(f));
    end("both", f);
}

/* The switch to postcopy */

TEST(devices_prepare_for_postcopy)
{
    QEMUFile *f = backend_writer();

    three_with(HAS_POSTCOPY_PREPARE, 0);
    a.has_postcopy = false;
    backend_postcopy_prepare(f, NULL);
    end("a and c", f);
    f = backend_writer();
    a.is_active = false;
    backend_postcopy_prepare(f, NULL);
    end("c", f);
    f = backend_writer();
    a.is_active = a.postcopy_prepare_fails = true;
    backend_postcopy_prepare(f, DEVICE_ERROR);
    qemu_fclose(f);
}

#if SAVEVM_QEMU_VERSION >= 1001
static unsigned completions;

static void count_completions(Device *device, const char *callback, QEMUFile *f)
{
    (void)device;
    (void)f;
    completions += strcmp(callback, "save_complete") == 0;
}

static void live_section(QEMUFile *f, int type)
{
    qemu_put_byte(f, type);
    qemu_put_be32(f, 7);
    if (type == QEMU_VM_SECTION_START) {
        qemu_put_counted_string(f, "live");
        qemu_put_be32(f, 0);
        qemu_put_be32(f, 1);
    }
    qemu_put_byte(f, 'X');
    qemu_put_counted_string(f, "live");
    qemu_put_be16(f, 0);
    qemu_put_byte(f, QEMU_VM_SECTION_FOOTER);
    qemu_put_be32(f, 7);
}

/*
 * QEMU completes a device without postcopy a second time when postcopy ends, the
 * library does not. Both load the stream of either.
 */
TEST(a_device_without_postcopy_is_completed_again_by_qemu)
{
    bool qemu = strcmp(backend_name(), "qemu") == 0;

    for (unsigned ends = 1; ends < 3; ends++) {
        QEMUFile *f = backend_writer(), *in;
        const uint8_t *bytes;
        size_t len = 0;

        device_add(&a, "live", 0, 1, HAS_SETUP | HAS_COMPLETE_PRECOPY | HAS_LOAD_STATE);
        live_section(f, QEMU_VM_SECTION_START);
        for (unsigned i = 0; i < ends; i++) {
            live_section(f, QEMU_VM_SECTION_END);
        }
        qemu_put_byte(f, QEMU_VM_EOF);
        bytes = backend_bytes(f, &len);
        in = backend_reader(bytes, len);
        trace("load with %u ends: %d", ends, backend_load_sections(in));
        qemu_fclose(in);
        qemu_fclose(f);
        unregister_savevm(NULL, "live", &a);
    }
    for (unsigned postcopy = 0; postcopy < 2; postcopy++) {
        QEMUFile *f = backend_writer();

        /* The words of the devices are not traced, as they differ. */
        device_init(&a, "a", HAS_SETUP | HAS_COMPLETE_PRECOPY | HAS_HAS_POSTCOPY);
        a.hook = count_completions;
        a.has_postcopy = postcopy;
        trace_fold();
        register_savevm_live("a", 0, 1, &a.ops, &a);
        backend.in_postcopy = true;
        completions = 0;
        CHECK_EQ(backend_complete(f, true, false), 0);
        CHECK_EQ(completions, postcopy ? 0 : 1);
        qemu_savevm_state_complete_postcopy(f);
        CHECK_EQ(completions, postcopy || !qemu ? 1 : 2);
        trace_drop();
        qemu_fclose(f);
        unregister_savevm(NULL, "a", &a);
    }
}
#endif

/* The switchover */

static int load_bytes(const void *bytes, size_t len)
{
    QEMUFile *in = backend_reader(bytes, len);
    int ret = backend_load_sections(in);

    trace("load: %d, error %d", ret, qemu_file_get_error(in));
    qemu_fclose(in);
    return ret;
}

TEST(the_start_of_the_switchover_is_sent)
{
    QEMUFile *f = backend_writer();

    backend_switchover_start(f);
    backend.no_switchover_start = true;
    backend_switchover_start(f);
    end("once", f);
}

TEST(the_start_of_the_switchover_reaches_devices)
{
    static const char start[] = "\x08\0\x0b\0\0";       /* and EOF */
    static const char lengthy[] = "\x08\0\x0b\0\1x";

    three_with(HAS_SWITCHOVER_START, 0);
    a.is_active = false;
    CHECK_EQ(load_bytes(start, sizeof(start)), 0);
    CHECK(load_bytes(lengthy, sizeof(lengthy)) < 0);
    a.switchover_start = -EIO;
    CHECK_EQ(load_bytes(start, sizeof(start)), -EIO);
    a.switchover_start = 1;
    CHECK_EQ(load_bytes(start, sizeof(start)), 0);
}

/* A stream that opens the return path, without devices. */
static void load_and_approve(unsigned approvals)
{
    QEMUFile *f = backend_writer(), *in;
    const uint8_t *bytes;
    size_t len = 0;

    backend.no_vmdesc = true;
    backend_header(f);
    qemu_savevm_send_open_return_path(f);
    qemu_put_byte(f, QEMU_VM_EOF);
    bytes = backend_bytes(f, &len);
    in = backend_reader(bytes, len);
    trace("load: %d", backend_load(in));
    for (unsigned i = 0; i < approvals; i++) {
        backend_approve_switchover();
    }
    qemu_fclose(in);
    qemu_fclose(f);
}

TEST(the_switchover_is_approved_at_once)
{
    backend.switchover_ack = true;
    three_with(HAS_ACK_NEEDED, 0);
    load_and_approve(1);
}

TEST(the_switchover_is_approved_by_two_devices)
{
    backend.switchover_ack = true;
    three_with(HAS_ACK_NEEDED, HAS_LOAD_SETUP);
    a.switchover_ack_needed = c.switchover_ack_needed = true;
    /* An inactive device is asked as well. */
    a.is_active = false;
    load_and_approve(3);
}

TEST(the_switchover_needs_no_approval)
{
    three_with(HAS_ACK_NEEDED, 0);
    a.switchover_ack_needed = true;
    load_and_approve(1);
}

/* Threads of devices at the end of precopy */

static void complete_with_threads(const char *what)
{
    QEMUFile *f = backend_writer();

    trace("-- %s", what);
    trace("complete: %d", backend_complete(f, true, false));
    end(what, f);
}

TEST(devices_send_on_threads)
{
    three_with(HAS_THREAD, HAS_COMPLETE_PRECOPY);
    complete_with_threads("the host has none");
    backend.device_threads = true;
    complete_with_threads("both");
    a.is_active = false;
    complete_with_threads("one is inactive");
    a.is_active = true;
    backend.in_postcopy = true;
    a.has_postcopy = false;
    complete_with_threads("one continues in postcopy");
}

TEST(a_thread_fails)
{
    backend.device_threads = true;
    three_with(HAS_THREAD, HAS_COMPLETE_PRECOPY);
    a.thread_fails = true;
    complete_with_threads("failed");
}

TEST(a_completion_fails_beside_threads)
{
    backend.device_threads = true;
    three_with(HAS_THREAD, HAS_COMPLETE_PRECOPY);
    a.save_live_complete_precopy = -ENOSPC;
    complete_with_threads("failed");
}

/* Bytes outside of the stream */

TEST(buffers_reach_devices)
{
    char bytes[] = "bytes";

    three_with(HAS_LOAD_BUFFER, 0);
    backend_load_buffer("a", 0, bytes, 5, NULL);
    backend_load_buffer("c", 4, bytes, 0, NULL);
    backend_load_buffer("b", 0, bytes, 5, NULL);
    backend_load_buffer("c", 3, bytes, 5, NULL);
    /* Instance 0 stands for any. */
    backend_load_buffer("c", 0, bytes, 5, NULL);
    backend_load_buffer("d", 0, bytes, 5, NULL);
    a.is_active = false;
    a.buffer_fails = true;
    backend_load_buffer("a", 0, bytes, 5, DEVICE_ERROR);
}

/* Threads of devices during a load. They must not trace. */

static bool thread_result, thread_ran, thread_told_to_quit;

static bool ends_at_once(void *opaque, bool *should_quit, Error **errp)
{
    (void)should_quit;
    __atomic_store_n((bool *)opaque, true, __ATOMIC_SEQ_CST);
    if (!thread_result) {
        backend_error(errp, DEVICE_ERROR);
    }
    return thread_result;
}

static bool waits_for_quit(void *opaque, bool *should_quit, Error **errp)
{
    (void)errp;
    __atomic_store_n((bool *)opaque, true, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(should_quit, __ATOMIC_SEQ_CST)) {
        harness_sleep_ms(1);
    }
    __atomic_store_n(&thread_told_to_quit, true, __ATOMIC_SEQ_CST);
    return true;
}

static void start_thread(Device *device, const char *callback, QEMUFile *f)
{
    (void)f;
    if (strcmp(callback, "load_state") == 0) {
        backend_load_thread(device->data ? waits_for_quit : ends_at_once, &thread_ran);
    }
}

static void load_with_threads(const char *what, size_t cut)
{
    QEMUFile *f = backend_writer(), *in;
    const uint8_t *bytes;
    size_t len = 0;
    int ret;

    trace("-- %s", what);
    thread_ran = false;
    backend.no_vmdesc = true;
    device_add(&a, "a", 0, 1, HAS_LEGACY | HAS_LOAD_CLEANUP);
    backend_header(f);
    backend_complete(f, false, false);
    bytes = backend_bytes(f, &len);
    in = backend_reader(bytes, len - cut);
    a.hook = start_thread;
    a.data = cut ? &a : NULL;
    ret = backend_load(in);
    /* The library also sets the error of the file if a thread fails. */
    trace("load: %d, error %d", ret, a.data ? qemu_file_get_error(in) : 0);
    trace("ran %d, quits %d", thread_ran, thread_told_to_quit);
    unregister_savevm(NULL, "a", &a);
    qemu_fclose(in);
    qemu_fclose(f);
}

TEST(a_load_waits_for_threads)
{
    thread_result = true;
    load_with_threads("all is well", 0);
    thread_result = false;
    load_with_threads("the thread fails", 0);
    load_with_threads("the stream is cut", 1);
}

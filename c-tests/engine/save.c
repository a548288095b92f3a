/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The phases of saving: which callbacks, in which order, with what, which are
 * skipped, what a result does to the round and to the file, and every byte.
 */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "backend.h"

#include <errno.h>
#include <string.h>

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* Without the callbacks that only return true, so that traces stay short. */
#define PLAIN_LIVE (HAS_LIVE & ~(HAS_IS_ACTIVE | HAS_HAS_POSTCOPY | HAS_IS_ACTIVE_ITERATE))

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

static Device a, b, c, d;

/* Two live devices around one that is saved whole, and one that does both. */
static void four_devices(void)
{
    device_add(&a, "a", 0, 1, HAS_LIVE);
    device_add(&b, "b", 0, 2, HAS_LEGACY);
    device_add(&c, "c", 1, 3, HAS_LIVE);
    device_add(&d, "d", 0, 4, HAS_ALL);
}

static void end(const char *what, QEMUFile *f)
{
    int error = qemu_file_get_error(f);

    trace("error %d", error);
    /* QEMU 10 drops what is queued when there is an error. The library writes it, as 7.2 does (docs/qemu-versions.md). */
    if (SAVEVM_QEMU_VERSION < 1000 || error == 0) {
        trace_written(what, f);
    }
    trace("close %d", qemu_fclose(f));
}

TEST(a_whole_migration)
{
    QEMUFile *f = backend_writer();

    four_devices();
    a.pending[0] = 1000;
    c.pending[1] = 20;
    d.pending[2] = 3;
    backend_header(f);
    backend_setup(f);
    backend_pending(f, 12345);
    trace("iterate: %d", qemu_savevm_state_iterate(f, false));
    trace("complete: %d", backend_complete(f, false, true));
    qemu_savevm_state_cleanup();
    end("stream", f);
}

TEST(no_device_is_registered)
{
    QEMUFile *f = backend_writer();

    backend_header(f);
    backend_setup(f);
    backend_pending(f, 1);
    trace("iterate: %d", qemu_savevm_state_iterate(f, false));
    trace("postcopy iterate: %d", qemu_savevm_state_iterate(f, true));
    trace("complete: %d", backend_complete(f, false, true));
    device_complete_postcopy(f);
    trace("resume: %d", qemu_savevm_state_resume_prepare(NULL));
    qemu_savevm_state_cleanup();
    trace("blocked %d unplug %d", qemu_savevm_state_blocked(NULL), qemu_savevm_state_guest_unplug_pending());
    end("stream", f);
}

/* Every subset of callbacks is allowed. */
TEST(one_callback_at_a_time)
{
    for (unsigned bit = 0; bit < HAS_COUNT; bit++) {
        Device device;
        QEMUFile *f = backend_writer();

        trace("-- callback %u", bit);
        device_add(&device, "only", 0, 1, 1u << bit);
        backend_setup(f);
        backend_pending(f, 9);
        trace("iterate: %d", qemu_savevm_state_iterate(f, false));
        trace("postcopy iterate: %d", qemu_savevm_state_iterate(f, true));
        trace("complete: %d", backend_complete(f, false, false));
        if (SAVEVM_QEMU_VERSION < 1001 || 1u << bit != HAS_COMPLETE_PRECOPY) {
            device_complete_postcopy(f);
        }
        trace("resume: %d", qemu_savevm_state_resume_prepare(NULL));
        qemu_savevm_state_cleanup();
        end("stream", f);
        unregister_savevm(NULL, "only", &device);
    }
}

TEST(inactive_devices_are_skipped)
{
    QEMUFile *f = backend_writer();

    four_devices();
    a.is_active = false;
    d.is_active = false;
    a.pending[0] = 5;
    backend_setup(f);
    backend_pending(f, 1);
    trace("iterate: %d", qemu_savevm_state_iterate(f, false));
    trace("postcopy iterate: %d", qemu_savevm_state_iterate(f, true));
    /* But d is saved whole: only its live half is off. */
    trace("complete: %d", backend_complete(f, false, false));
    device_complete_postcopy(f);
    trace("resume: %d", qemu_savevm_state_resume_prepare(NULL));
    qemu_savevm_state_cleanup();
    end("stream", f);
}

TEST(is_active_iterate_is_for_rounds_alone)
{
    QEMUFile *f = backend_writer();

    four_devices();
    a.is_active_iterate = false;
    c.is_active_iterate = false;
    d.is_active_iterate = false;
    backend_setup(f);
    trace("iterate: %d", qemu_savevm_state_iterate(f, false));
    trace("complete: %d", backend_complete(f, true, false));
    end("stream", f);
}

static void iterate_with(int first, int second, int third)
{
    QEMUFile *f = backend_writer();
    int ret;

    a.save_live_iterate = first;
    c.save_live_iterate = second;
    d.save_live_iterate = third;
    ret = qemu_savevm_state_iterate(f, false);
    trace("results %d %d %d: %d", first, second, third, ret);
    end("stream", f);
}

TEST(a_round_stops_at_the_first_that_is_not_done)
{
    device_add(&a, "a", 0, 1, PLAIN_LIVE);
    device_add(&c, "c", 0, 1, PLAIN_LIVE);
    device_add(&d, "d", 0, 1, PLAIN_LIVE);
    iterate_with(1, 1, 1);
    iterate_with(0, 1, 1);
    iterate_with(1, 0, 1);
    iterate_with(1, 1, 0);
    iterate_with(-EIO, 1, 1);
    iterate_with(1, -ENOSPC, 1);
    iterate_with(1, 1, -1);
}

TEST(a_round_returns_what_the_last_one_returned)
{
    device_add(&a, "a", 0, 1, PLAIN_LIVE);
    device_add(&c, "c", 0, 1, PLAIN_LIVE);
    device_add(&d, "d", 0, 1, PLAIN_LIVE);
    iterate_with(5, 7, 9);
    iterate_with(9, 7, 1);
    iterate_with(9, 0, 7);
}

TEST(setup_stops_at_the_first_failure)
{
    QEMUFile *f = backend_writer();

    four_devices();
    c.save_setup = -EBUSY;
    backend_setup(f);
    end("a and c, and no d", f);
    f = backend_writer();
    c.save_setup = 1;
    backend_setup(f);
    end("what is not negative is fine", f);
}

TEST(completion_stops_at_the_first_failure)
{
    QEMUFile *f = backend_writer();

    four_devices();
    c.save_live_complete_precopy = -EPIPE;
    trace("complete: %d", backend_complete(f, false, true));
    end("a and c, and no device", f);
    f = backend_writer();
    c.save_live_complete_precopy = 3;
    trace("complete: %d", backend_complete(f, true, true));
    end("what is not negative is fine", f);
    f = backend_writer();
    a.save_live_complete_postcopy = -EIO;
    device_complete_postcopy(f);
    end("no EOF", f);
}

TEST(resume_stops_at_the_first_failure)
{
    four_devices();
    trace("resume: %d", qemu_savevm_state_resume_prepare(NULL));
    c.resume_prepare = -EAGAIN;
    trace("resume: %d", qemu_savevm_state_resume_prepare(NULL));
    trace("resume: %d", qemu_savevm_state_resume_prepare((MigrationState *)&a));
    c.resume_prepare = 1;
    trace("resume: %d", qemu_savevm_state_resume_prepare(NULL));
}

TEST(disks_that_cannot_be_given_up)
{
    QEMUFile *f = backend_writer();

    four_devices();
    backend.disks_inactivate = -EACCES;
    trace("complete: %d", backend_complete(f, false, true));
    end("no EOF", f);
    f = backend_writer();
    trace("complete: %d", backend_complete(f, false, false));
    end("not asked", f);
}

TEST(completion_in_postcopy)
{
    QEMUFile *f = backend_writer();

    four_devices();
    c.has_postcopy = false;
    backend.in_postcopy = true;
    trace("both: %d", backend_complete(f, false, false));
    end("devices, EOF, no description", f);
    f = backend_writer();
    trace("iterable: %d", backend_complete(f, true, false));
    end("c alone", f);
    f = backend_writer();
    trace("non-iterable: %d", backend_complete_devices(f, true, false));
    end("no EOF", f);
    f = backend_writer();
    trace("round: %d", qemu_savevm_state_iterate(f, true));
    end("a and d", f);
    f = backend_writer();
    c.is_active = SAVEVM_QEMU_VERSION < 1001;
    device_complete_postcopy(f);
    end("all that have it", f);
}

/* in_postcopy as an argument alone: the description depends on the migration. */
TEST(non_iterable_by_itself)
{
    QEMUFile *f = backend_writer();

    four_devices();
    trace("not in postcopy: %d", backend_complete_devices(f, false, true));
    end("stream", f);
    backend.in_postcopy = true;
    f = backend_writer();
    trace("in postcopy: %d", backend_complete_devices(f, true, true));
    end("stream", f);
}

TEST(devices_without_has_postcopy_have_none)
{
    QEMUFile *f = backend_writer();

    device_add(&a, "a", 0, 1, PLAIN_LIVE);
    device_add(&c, "c", 0, 1, PLAIN_LIVE | HAS_HAS_POSTCOPY);
    trace("postcopy round: %d", qemu_savevm_state_iterate(f, true));
    backend.in_postcopy = true;
    trace("iterable: %d", backend_complete(f, true, false));
    end("c iterates, a completes", f);
}

TEST(the_rate_limit_ends_a_round_between_devices)
{
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    size_t len = 0;

    four_devices();
    /* Newer versions only count what was flushed. */
    a.extra = 50000;
    c.extra = 50000;
    backend_rate_set(f, 60000);
    trace("round: %d", qemu_savevm_state_iterate(f, false));
    trace("limited: %d", backend_rate_exceeded(f));
    backend_rate_reset(f);
    trace("limited: %d", backend_rate_exceeded(f));
    backend_rate_set(f, 0);
    trace("round: %d", qemu_savevm_state_iterate(f, false));
    bytes = backend_bytes(f, &len);
    trace_digest("one and a half rounds", bytes, len);
    CHECK_EQ(qemu_fclose(f), 0);
}

TEST(an_error_on_the_file_ends_a_round)
{
    QEMUFile *f = backend_writer();

    four_devices();
    qemu_file_set_error(f, -ENOSPC);
    trace("round: %d", qemu_savevm_state_iterate(f, false));
    trace("complete: %d", backend_complete(f, false, false));
    end("nothing", f);
}

static void fail_here(Device *device, const char *callback, QEMUFile *f)
{
    if (f && strcmp(callback, device->data) == 0) {
        qemu_file_set_error(f, -ETIMEDOUT);
    }
}

/* A callback that only sets the error of the file, and returns that all is well. */
TEST(errors_set_on_the_file_by_callbacks)
{
    static const char *const names[] = { "save_setup", "save_live_iterate", "save_live_complete_precopy",
                                         "save_state" };

    four_devices();
    for (unsigned i = 0; i < COUNT(names); i++) {
        QEMUFile *f = backend_writer();

        trace("-- %s", names[i]);
        a.hook = b.hook = fail_here;
        a.data = b.data = (void *)names[i];
        backend_setup(f);
        trace("round: %d", qemu_savevm_state_iterate(f, false));
        trace("complete: %d", backend_complete(f, false, false));
        end("stream", f);
    }
}

TEST(without_footers)
{
    QEMUFile *f = backend_writer();

    four_devices();
    backend.no_footers = true;
    backend_setup(f);
    qemu_savevm_state_iterate(f, false);
    backend_complete(f, false, false);
    device_complete_postcopy(f);
    end("stream", f);
}

TEST(without_description)
{
    QEMUFile *f = backend_writer();

    four_devices();
    backend.no_vmdesc = true;
    backend_header(f);
    backend_setup(f);
    backend_complete(f, false, false);
    end("stream", f);
}

/* 5.2 describes a name as it is. The library writes JSON (docs/qemu-versions.md). */
#if SAVEVM_QEMU_VERSION < 600
#define ODD_NAME "plain"
#else
#define ODD_NAME "quote\" and \\ and \n and \x7f"
#endif

TEST(page_size_in_the_description)
{
    QEMUFile *f = backend_writer();

    backend.page_bits = backend.page_bits_min = 16;
    device_add(&b, ODD_NAME, 0, 1, HAS_LEGACY);
    backend_header(f);
    backend_setup(f);
    backend_complete(f, false, false);
    end("stream", f);
}

TEST(device_state)
{
    QEMUFile *f = backend_writer();

    four_devices();
    trace("devices: %d", qemu_save_device_state(f));
    end("b, as d is live", f);
    backend.in_colo = true;
    f = backend_writer();
    trace("devices: %d", qemu_save_device_state(f));
    end("no header", f);
    backend.no_footers = true;
    f = backend_writer();
    qemu_file_set_error(f, -EIO);
    trace("devices: %d", qemu_save_device_state(f));
    end("nothing", f);
}

TEST(live_state)
{
    QEMUFile *f = backend_writer();

    four_devices();
    qemu_savevm_live_state(f);
    end("ends and EOF", f);
    c.save_live_complete_precopy = -EIO;
    f = backend_writer();
    qemu_savevm_live_state(f);
    end("failed", f);
}

/* More than a buffer in one section, and sections across the buffer's end. */
TEST(large_sections)
{
    QEMUFile *f = backend_writer();
    const uint8_t *bytes;
    size_t len = 0;

    for (unsigned i = 0; i < 3; i++) {
        static Device large[3];
        static const char *const names[] = { "l1", "l2", "l3" };

        device_init(&large[i], names[i], HAS_ALL);
        large[i].extra = 32760 + i;
        register_savevm_live(names[i], 0, 1, &large[i].ops, &large[i]);
    }
    backend_setup(f);
    qemu_savevm_state_iterate(f, false);
    backend_complete(f, false, false);
    trace("total %lld", (long long)backend_transferred(f));
    bytes = backend_bytes(f, &len);
    trace_digest("stream", bytes, len);
    CHECK_EQ(qemu_fclose(f), 0);
}

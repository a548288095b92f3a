/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which device is registered under which name, instance and section id, in which order,
 * and what changes when devices come and go inside callbacks.
 */
#include "devices.h"
#include "harness.h"
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "backend.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

__attribute__((constructor)) static void before(void)
{
    harness_before = backend_start;
}

/* Saves all devices that are not live, and shows the stream. */
static void show_all(const char *what)
{
    QEMUFile *f = backend_writer();

    trace("save: %d", qemu_save_device_state(f));
    trace_written(what, f);
    CHECK_EQ(qemu_fclose(f), 0);
}

/* One FULL section of that name and instance; what loading it returns. */
static int load_section(const char *idstr, uint32_t instance, uint32_t version)
{
    QEMUFile *f = backend_writer();
    QEMUFile *in;
    const uint8_t *bytes;
    size_t len = 0;
    int ret;

    qemu_put_byte(f, QEMU_VM_SECTION_FULL);
    qemu_put_be32(f, 77);
    qemu_put_counted_string(f, idstr);
    qemu_put_be32(f, instance);
    qemu_put_be32(f, version);
    qemu_put_byte(f, 'F');
    qemu_put_counted_string(f, idstr);
    qemu_put_be16(f, 0);
    qemu_put_byte(f, QEMU_VM_SECTION_FOOTER);
    qemu_put_be32(f, 77);
    qemu_put_byte(f, QEMU_VM_EOF);
    bytes = backend_bytes(f, &len);
    in = backend_reader(bytes, len);
    ret = backend_load_sections(in);
    trace("load '%.20s' instance %u version %u: %d", idstr, instance, version, ret);
    qemu_fclose(in);
    qemu_fclose(f);
    return ret;
}

TEST(instances_count_up_per_name)
{
    Device list[6];

    device_add(&list[0], "disk", -1, 1, HAS_LEGACY);
    device_add(&list[1], "disk", -1, 1, HAS_LEGACY);
    device_add(&list[2], "net", -1, 1, HAS_LEGACY);
    device_add(&list[3], "disk", 9, 1, HAS_LEGACY);
    device_add(&list[4], "disk", -1, 1, HAS_LEGACY);
    device_add(&list[5], "disk", 3, 1, HAS_LEGACY);
    show_all("instances 0, 1, 0, 9, 10, 3");
}

TEST(instances_after_the_highest_left)
{
    Device list[3];

    device_add(&list[0], "disk", 5, 1, HAS_LEGACY);
    device_add(&list[1], "disk", -1, 1, HAS_LEGACY);
    unregister_savevm(NULL, "disk", &list[1]);
    device_add(&list[1], "disk", -1, 1, HAS_LEGACY);
    unregister_savevm(NULL, "disk", &list[0]);
    unregister_savevm(NULL, "disk", &list[1]);
    device_add(&list[2], "disk", -1, 1, HAS_LEGACY);
    show_all("instance 0 again, section 3");
}

TEST(section_ids_are_never_reused)
{
    Device device;

    for (int i = 0; i < 300; i++) {
        device_init(&device, "x", HAS_LEGACY);
        CHECK_EQ(register_savevm_live("x", 0, 1, &device.ops, &device), 0);
        if (i < 299) {
            unregister_savevm(NULL, "x", &device);
        }
    }
    show_all("section 299");
}

/* Descriptions */

typedef struct Plain {
    uint32_t value;
} Plain;

static const VMStateField plain_fields[] = {
    VMSTATE_UINT32(value, Plain),
    VMSTATE_END_OF_LIST()
};

#define PLAIN(name_, priority_)                                   \
    {                                                             \
        .name = name_, .version_id = 2, .minimum_version_id = 1,  \
        .priority = priority_, .fields = (VMStateField *)plain_fields, \
    }

static const VMStateDescription described[] = {
    PLAIN("default", MIG_PRI_DEFAULT), PLAIN("gicv3", MIG_PRI_GICV3),     PLAIN("iommu", MIG_PRI_IOMMU),
    PLAIN("bus", MIG_PRI_PCI_BUS),     PLAIN("its", MIG_PRI_GICV3_ITS),
#if SAVEVM_QEMU_VERSION >= 601
    PLAIN("mem", MIG_PRI_VIRTIO_MEM),
#endif
    PLAIN("bus2", MIG_PRI_PCI_BUS),    PLAIN("default2", MIG_PRI_DEFAULT),
};

#if SAVEVM_QEMU_VERSION < 802
TEST(twice_the_same_is_twice)
{
    Device first, second;

    device_add(&first, "twin", 0, 1, HAS_LEGACY);
    device_add(&second, "twin", 0, 1, HAS_LEGACY);
    show_all("both");
    CHECK_EQ(load_section("twin", 0, 1), 0);
    CHECK_EQ(first.loads, 1);
    CHECK_EQ(second.loads, 0);
}
#else
/* QEMU ends the process. */
static void expect_refused(const char *what, const char *name, int instance_id)
{
    Device device;
    int status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        device_init(&device, name, HAS_LEGACY);
        _exit(register_savevm_live(name, instance_id, 1, &device.ops, &device) < 0 ? 1 : 0);
    }
    waitpid(child, &status, 0);
    trace("%s: %s", what, status == 0 ? "registered" : WIFEXITED(status) ? "refused" : "crashed");
}

TEST(twice_the_same_is_refused)
{
    VMStateIf *placed = backend_object("/machine/pci");
    static Plain state;
    Device devices[3];

    device_add(&devices[0], "twin", 0, 1, HAS_LEGACY);
    expect_refused("the same", "twin", 0);
    expect_refused("another instance", "twin", 1);
    expect_refused("any instance", "twin", -1);
    expect_refused("another name", "twi", 0);
    /* As in a stream, instance 0 stands for any that was registered by handlers. */
    device_add(&devices[1], "seventh", 7, 1, HAS_LEGACY);
    expect_refused("instance 0 besides 7", "seventh", 0);
    expect_refused("instance 1 besides 7", "seventh", 1);
    vmstate_register(placed, 4, &described[0], &state);
    expect_refused("the name of a description", "/machine/pci/default", 0);
    expect_refused("its bare name and instance", "default", 4);
    expect_refused("its bare name, another instance", "default", 5);
    vmstate_register_with_alias_id(NULL, 3, &described[1], &state, 11, 1, NULL);
    expect_refused("the alias of a description", "gicv3", 11);
    expect_refused("no instance or alias of it", "gicv3", 12);
}
#endif

TEST(unregister_takes_all_of_name_and_opaque)
{
    Device one, two;

    device_add(&one, "a", 0, 1, HAS_LEGACY);
    CHECK_EQ(register_savevm_live("a", 1, 1, &one.ops, &one), 0);
    CHECK_EQ(register_savevm_live("b", 0, 1, &one.ops, &one), 0);
    device_add(&two, "a", 2, 1, HAS_LEGACY);
    unregister_savevm(NULL, "a", &one);
    unregister_savevm(NULL, "a", &one);
    unregister_savevm(NULL, "missing", &one);
    show_all("b and the other a");
}

TEST(unregister_with_an_object)
{
    VMStateIf *placed = backend_object("/machine/pci");
    VMStateIf *nowhere = backend_object(NULL);
    Device device;

    device_add(&device, "/machine/pci/nic", 0, 1, HAS_LEGACY);
    CHECK_EQ(register_savevm_live("nic", 0, 1, &device.ops, &device), 0);
    unregister_savevm(placed, "nic", &device);
    show_all("nic alone");
    unregister_savevm(nowhere, "nic", &device);
    show_all("none");
}

static void long_name(char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        name[i] = (char)('a' + i % 26);
    }
    name[len] = 0;
}

TEST(names_of_254_255_and_256_bytes)
{
    static Device list[4];
    static char names[4][300];
    static const size_t lengths[] = { 254, 255, 256, 290 };

    for (unsigned i = 0; i < COUNT(list); i++) {
        long_name(names[i], lengths[i]);
        device_init(&list[i], "long", HAS_LEGACY);
        CHECK_EQ(register_savevm_live(names[i], -1, 1, &list[i].ops, &list[i]), 0);
    }
    show_all("254, then 255 with instances 0 to 2");
    CHECK_EQ(load_section(names[1], 0, 1), 0);
    CHECK_EQ(load_section(names[1], 2, 1), 0);
    CHECK_EQ(list[1].loads, 1);
    CHECK_EQ(list[3].loads, 1);
    /* A long name is cut for unregistering as well. */
    unregister_savevm(NULL, names[3], &list[3]);
    unregister_savevm(NULL, names[2], &list[2]);
    unregister_savevm(NULL, names[1], &list[1]);
    unregister_savevm(NULL, names[0], &list[0]);
    show_all("none");
}

TEST(a_version_that_is_too_new)
{
    Device device;

    device_add(&device, "dev", 0, 3, HAS_LEGACY);
    CHECK_EQ(load_section("dev", 0, 0), 0);
    CHECK_EQ(load_section("dev", 0, 3), 0);
    CHECK(load_section("dev", 0, 4) < 0);
    CHECK_EQ(device.loads, 2);
}

TEST(instance_0_stands_for_any_registered_by_handlers)
{
    Device device;

    device_add(&device, "dev", 7, 1, HAS_LEGACY);
    CHECK_EQ(load_section("dev", 7, 1), 0);
    CHECK_EQ(load_section("dev", 0, 1), 0);
    CHECK(load_section("dev", 1, 1) < 0);
    CHECK(load_section("DEV", 7, 1) < 0);
    CHECK(load_section("de", 7, 1) < 0);
}

/* Descriptions: priorities, aliases, compat names */

/* A section with the four bytes that the description above reads. */
static int load_plain(const char *idstr, uint32_t instance, uint32_t value)
{
    QEMUFile *f = backend_writer();
    QEMUFile *in;
    const uint8_t *bytes;
    size_t len = 0;
    int ret;

    qemu_put_byte(f, QEMU_VM_SECTION_FULL);
    qemu_put_be32(f, 5);
    qemu_put_counted_string(f, idstr);
    qemu_put_be32(f, instance);
    qemu_put_be32(f, 2);
    qemu_put_be32(f, value);
    qemu_put_byte(f, QEMU_VM_SECTION_FOOTER);
    qemu_put_be32(f, 5);
    qemu_put_byte(f, QEMU_VM_EOF);
    bytes = backend_bytes(f, &len);
    in = backend_reader(bytes, len);
    ret = backend_load_sections(in);
    trace("load '%s' instance %u: %d", idstr, instance, ret);
    qemu_fclose(in);
    qemu_fclose(f);
    return ret;
}

TEST(higher_priorities_go_first)
{
    Plain states[COUNT(described)];
    Device device;

    device_add(&device, "by handlers", 0, 1, HAS_LEGACY);
    for (unsigned i = 0; i < COUNT(described); i++) {
        states[i].value = i;
        trace("register %s: %d", described[i].name, vmstate_register(NULL, 0, &described[i], &states[i]));
    }
    show_all("by priority, then by order");
    vmstate_unregister(NULL, &described[3], &states[3]);
    vmstate_unregister(NULL, &described[1], &states[1]);
    vmstate_register(NULL, 0, &described[3], &states[3]);
    vmstate_register(NULL, 0, &described[1], &states[1]);
    show_all("bus behind bus2");
    for (unsigned i = 0; i < COUNT(described); i++) {
        vmstate_unregister(NULL, &described[i], &states[i]);
    }
    show_all("one is left");
}

TEST(an_object_gives_the_path_and_a_compat_name)
{
    Plain states[3] = { { 1 }, { 2 }, { 3 } };

    CHECK_EQ(vmstate_register(backend_object("/bus/1"), 4, &described[0], &states[0]), 0);
    CHECK_EQ(vmstate_register(backend_object("/bus/2"), VMSTATE_INSTANCE_ID_ANY, &described[0], &states[1]), 0);
    CHECK_EQ(vmstate_register(backend_object(NULL), VMSTATE_INSTANCE_ID_ANY, &described[0], &states[2]), 0);
    show_all("two paths and a bare name");
    CHECK_EQ(load_plain("/bus/2/default", 0, 20), 0);
    CHECK_EQ(states[1].value, 20);
    /* By the bare name: the first has compat instance 4, the second 5, the third is 0 itself. */
    CHECK_EQ(load_plain("default", 4, 10), 0);
    CHECK_EQ(states[0].value, 10);
    CHECK_EQ(load_plain("default", 5, 21), 0);
    CHECK_EQ(states[1].value, 21);
    CHECK_EQ(load_plain("default", 0, 30), 0);
    CHECK_EQ(states[2].value, 30);
    CHECK(load_plain("default", 6, 1) < 0);
    CHECK(load_plain("/bus/1/default", 4, 1) < 0);
    CHECK(load_plain("/bus/3/default", 0, 1) < 0);
}

TEST(an_alias_is_a_second_instance_id)
{
    Plain states[2] = { { 1 }, { 2 } };

    CHECK_EQ(vmstate_register_with_alias_id(NULL, 3, &described[0], &states[0], 11, 1, NULL), 0);
    CHECK_EQ(vmstate_register_with_alias_id(backend_object("/p"), 1, &described[0], &states[1], 12, 1, NULL), 0);
    show_all("instances 3 and 0");
    CHECK_EQ(load_plain("default", 3, 33), 0);
    CHECK_EQ(load_plain("default", 11, 34), 0);
    CHECK_EQ(states[0].value, 34);
    CHECK_EQ(load_plain("/p/default", 12, 35), 0);
    CHECK_EQ(load_plain("default", 12, 36), 0);
    CHECK_EQ(states[1].value, 36);
    CHECK(load_plain("default", 13, 1) < 0);
    /* No alias is -1, and so is this instance. */
    vmstate_register(NULL, 8, &described[1], &states[0]);
    CHECK_EQ(load_plain("gicv3", 0xffffffff, 37), 0);
}

TEST(a_path_that_is_too_long)
{
    static char path[300];
    Plain state = { 1 };
    Error *err = NULL;

    long_name(path, 254);
    trace("254: %d", vmstate_register_with_alias_id(backend_object(path), 0, &described[0], &state, -1, 0, NULL));
    show_all("the name is all path");
    vmstate_unregister(NULL, &described[0], &state);
    path[254] = 'x';
    path[255] = 0;
    trace("255: %d", vmstate_register_with_alias_id(backend_object(path), 0, &described[0], &state, -1, 0, &err));
    CHECK(err != NULL);
    error_free(err);
    show_all("none");
}

/* Coming and going inside callbacks */

/* The end of postcopy needs has_postcopy from 10.1 on. */
#if SAVEVM_QEMU_VERSION >= 1001
#define WITHOUT_QUESTIONS (HAS_ALL & ~(HAS_IS_ACTIVE | HAS_IS_ACTIVE_ITERATE))
#else
#define WITHOUT_QUESTIONS (HAS_ALL & ~(HAS_IS_ACTIVE | HAS_HAS_POSTCOPY | HAS_IS_ACTIVE_ITERATE))
#endif

static Device guest;

static void add_guest(Device *device, const char *callback, QEMUFile *f)
{
    (void)device;
    (void)f;
    if (strcmp(callback, "is_active") && strcmp(callback, "has_postcopy") && strcmp(callback, "is_active_iterate") &&
        !guest.name) {
        device_add(&guest, "guest", -1, 1, WITHOUT_QUESTIONS);
    }
}

static void remove_guest(Device *device, const char *callback, QEMUFile *f)
{
    (void)device;
    (void)f;
    (void)callback;
    if (guest.name) {
        trace("unregister guest");
        unregister_savevm(NULL, "guest", &guest);
        guest.name = NULL;
    }
}

static void remove_self(Device *device, const char *callback, QEMUFile *f)
{
    (void)callback;
    (void)f;
    trace("unregister %s", device->name);
    unregister_savevm(NULL, device->name, device);
}

typedef void Phase(QEMUFile *f);

static void phase_setup(QEMUFile *f)
{
    backend_setup(f);
}

static void phase_iterate(QEMUFile *f)
{
    trace("iterate: %d", qemu_savevm_state_iterate(f, false));
}

static void phase_pending(QEMUFile *f)
{
    backend_pending(f, 5);
}

static void phase_complete(QEMUFile *f)
{
    trace("complete: %d", backend_complete(f, false, false));
}

static void phase_postcopy(QEMUFile *f)
{
    device_complete_postcopy(f);
}

static void phase_cleanup(QEMUFile *f)
{
    (void)f;
    qemu_savevm_state_cleanup();
}

static void phase_resume(QEMUFile *f)
{
    (void)f;
    trace("resume: %d", qemu_savevm_state_resume_prepare(NULL));
}

static void phase_load_cleanup(QEMUFile *f)
{
    (void)f;
    backend_load_cleanup();
}

static Phase *const phases[] = {
    phase_setup,   phase_iterate, phase_pending,     phase_complete, phase_postcopy,
    phase_cleanup, phase_resume,  phase_load_cleanup,
};

/* The first of three devices does `hook` in each of its callbacks. */
static void in_every_phase(void (*hook)(Device *device, const char *callback, QEMUFile *f), bool guest_first)
{
    for (unsigned i = 0; i < COUNT(phases); i++) {
        Device first, last;
        QEMUFile *f = backend_writer();

        trace("-- phase %u", i);
        memset(&guest, 0, sizeof(guest));
        device_add(&first, "first", 0, 1, WITHOUT_QUESTIONS);
        if (guest_first) {
            device_add(&guest, "guest", -1, 1, WITHOUT_QUESTIONS);
        }
        device_add(&last, "last", 0, 1, WITHOUT_QUESTIONS);
        first.hook = hook;
        phases[i](f);
        trace_written("stream", f);
        qemu_fclose(f);
        unregister_savevm(NULL, "first", &first);
        unregister_savevm(NULL, "last", &last);
        if (guest.name) {
            unregister_savevm(NULL, "guest", &guest);
        }
    }
}

TEST(register_inside_every_callback)
{
    in_every_phase(add_guest, false);
}

TEST(load_registers_and_unregisters)
{
    Device first, last;

    memset(&guest, 0, sizeof(guest));
    device_add(&first, "first", 0, 1, HAS_ALL);
    device_add(&last, "last", 0, 1, HAS_ALL);
    first.hook = add_guest;
    last.hook = remove_guest;
    CHECK_EQ(load_section("first", 0, 1), 0);
    CHECK_EQ(load_section("guest", 0, 1), 0);
    CHECK_EQ(load_section("last", 0, 1), 0);
    CHECK(load_section("guest", 0, 1) < 0);
}

/*
 * QEMU 7.2 goes on from an entry that it has freed when a callback unregisters
 * its own device, or the next one; so this is for libsavevm alone.
 */
TEST(unregister_inside_every_callback)
{
    if (strcmp(backend_name(), "savevm") != 0) {
        harness_skip("not possible with this side");
    }
    /* The trace is compared with QEMU's, so the words of this test go elsewhere. */
    fflush(stdout);
    if (!freopen("/dev/null", "w", stdout)) {
        CHECK(false);
    }
    in_every_phase(remove_guest, true);
    CHECK(guest.name == NULL);
    in_every_phase(remove_self, true);
}

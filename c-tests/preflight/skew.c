/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two machines that differ in one thing, or in many: the preflight names each difference at both ends, before a device is called
 * and before memory is sent. Without it, the guest still ends at one side.
 */
#include "machine.h"
#include "variants.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef void Change(Plan *source, Plan *destination);

typedef enum Kind {
    REFUSED, /* by the verdict */
    VISITED, /* by the verdict alone; in a migration, before the verdict */
    REHEARSAL, /* the verdict passes; a rehearsal fails */
    ACCEPTED, /* the migration succeeds, and `message` is reported if there is one */
} Kind;

typedef struct Skew {
    const char *name;
    Change *change;
    Kind kind;
    /* The device (NULL: none), the path in it (NULL: the whole) and a part of the message. */
    const char *device, *path, *message;
    /* A stream without a preflight is misunderstood, or loads by chance: the result of that is not checked. */
    bool silent;
} Skew;

#define CHANGE(id) static void change_##id(Plan *source, Plan *destination)
#define UNUSED_SOURCE (void)source
#define VMSD(id, dev, variant) \
    CHANGE(id) { UNUSED_SOURCE; plan_device(destination, dev)->vmsd = &variant; }
#define SOURCE_VMSD(id, dev, variant) \
    CHANGE(id) { (void)destination; plan_device(source, dev)->vmsd = &variant; }

CHANGE(missing) { UNUSED_SOURCE; *plan_device(destination, "disk") = (Device){ 0 }; }
CHANGE(missing_function) { UNUSED_SOURCE; *plan_device(destination, "serial") = (Device){ 0 }; }
CHANGE(extra) { UNUSED_SOURCE; destination->devices[6] = (Device){ "audio", 0, NULL, &serial_handlers, 1, -1 }; }
CHANGE(extra_strict) { change_extra(source, destination); destination->params.strict = true; }
CHANGE(extra_source_strict) { change_extra(source, destination); source->params.strict = true; }
CHANGE(renamed) { UNUSED_SOURCE; plan_device(destination, "serial")->name = "uart"; }
CHANGE(instance) { UNUSED_SOURCE; plan_device(destination, "disk")->instance = 4; }
CHANGE(fewer) { UNUSED_SOURCE; destination->devices[2] = (Device){ 0 }; }
CHANGE(alias) { UNUSED_SOURCE; plan_device(destination, "disk")->instance = 4; plan_device(destination, "disk")->alias = 0; }
CHANGE(version_function) { UNUSED_SOURCE; plan_device(destination, "serial")->version = 2; }
SOURCE_VMSD(version_new, "timer", vmstate_timer_newer)
VMSD(version_old, "timer", vmstate_timer_newest)
VMSD(field_removed, "timer", vmstate_timer_removed)
VMSD(field_added, "timer", vmstate_timer_added)
VMSD(field_resized, "timer", vmstate_timer_resized)
VMSD(field_reordered, "timer", vmstate_timer_reordered)
VMSD(field_renamed, "timer", vmstate_timer_renamed)
SOURCE_VMSD(field_conditional_off, "timer", vmstate_timer_conditional)
CHANGE(field_conditional) { change_field_conditional_off(source, destination); source->initial.has_extra = true; }
VMSD(array_length, "nic", vmstate_nic_short_array)
VMSD(array_bytes, "nic", vmstate_nic_short_bytes)
VMSD(array_gone, "nic", vmstate_nic_gone_array)
CHANGE(array_count) { UNUSED_SOURCE; destination->initial.port_count = 6; }
CHANGE(array_sent_count) { (void)destination; source->initial.queued = 5; }
SOURCE_VMSD(subsection_off, "timer", vmstate_timer_with_part)
CHANGE(subsection) { change_subsection_off(source, destination); source->initial.has_extra = true; }
CHANGE(subsection_version)
{
    plan_device(source, "timer")->vmsd = &vmstate_timer_with_newer_part;
    plan_device(destination, "timer")->vmsd = &vmstate_timer_with_part;
    source->initial.has_extra = true;
}
VMSD(inner_field, "disk", vmstate_disk_inner_field)
VMSD(inner_size, "disk", vmstate_disk_inner_size)
VMSD(inner_count, "disk", vmstate_disk_inner_count)
VMSD(element_field, "disk", vmstate_disk_element_field)
VMSD(inner_gone, "disk", vmstate_disk_no_inner)
VMSD(inner_flat, "disk", vmstate_disk_flat)
VMSD(queue_gone, "disk", vmstate_disk_no_queue)
CHANGE(no_load)
{
    static const SaveVMHandlers saves = { .save_state = NULL, .load_state = NULL };
    UNUSED_SOURCE;
    plan_device(destination, "serial")->handlers = &saves;
}
VMSD(unmigratable, "timer", vmstate_timer_unmigratable)
CHANGE(ram_length) { UNUSED_SOURCE; destination->blocks[1].length = 2 * BLOCK_LENGTH; }
CHANGE(ram_name) { UNUSED_SOURCE; destination->blocks[1].name = "vram"; }
CHANGE(ram_missing) { UNUSED_SOURCE; destination->blocks[1] = (Block){ 0 }; }
CHANGE(ram_extra) { UNUSED_SOURCE; destination->blocks[2] = (Block){ .name = "rom", .length = BLOCK_LENGTH }; }
CHANGE(ram_page_size)
{
    source->params.postcopy = destination->params.postcopy = true;
    destination->blocks[0].page_size = 16384;
}
CHANGE(ram_shared) { source->ignore_shared = destination->ignore_shared = true; source->blocks[1].shared = true; }
CHANGE(ram_ignored) { source->ignore_shared = true; (void)destination; }
CHANGE(ram_address)
{
    source->ignore_shared = destination->ignore_shared = true;
    source->blocks[1].shared = destination->blocks[1].shared = true;
    source->blocks[1].address = 1 << 20;
    destination->blocks[1].address = 2 << 20;
}
CHANGE(machine_name) { UNUSED_SOURCE; destination->machine = "test-2.0"; }
CHANGE(machine_prefix) { UNUSED_SOURCE; destination->machine = "test-1.0-more"; }
CHANGE(page_bits) { UNUSED_SOURCE; destination->page_bits = destination->page_bits_min = 13; }
CHANGE(uuid) { UNUSED_SOURCE; destination->uuid = 9; }
CHANGE(capability_on) { (void)destination; source->capabilities[1] = "x-colour"; }
CHANGE(capability_off) { UNUSED_SOURCE; destination->capabilities[1] = "x-sound"; }
CHANGE(configuration_missing) { (void)destination; source->flags = SAVEVM_FLAG_NO_CONFIGURATION; }
CHANGE(configuration_extra) { UNUSED_SOURCE; destination->flags = SAVEVM_FLAG_NO_CONFIGURATION; }
CHANGE(configuration_none) { source->flags = destination->flags = SAVEVM_FLAG_NO_CONFIGURATION; }
CHANGE(footers_missing) { (void)destination; source->flags = SAVEVM_FLAG_NO_FOOTERS; }
CHANGE(footers_extra) { UNUSED_SOURCE; destination->flags = SAVEVM_FLAG_NO_FOOTERS; }
CHANGE(postcopy) { (void)destination; source->params.postcopy = true; }
CHANGE(channels) { source->params.channels = 4; destination->params.channels = 2; }
CHANGE(channels_one) { (void)destination; source->params.channels = 4; }
CHANGE(limit_nesting) { UNUSED_SOURCE; destination->limits.nesting = 1; }
CHANGE(no_reset) { UNUSED_SOURCE; destination->no_reset = true; }
VMSD(post_load, "timer", vmstate_timer_post_load)
VMSD(pre_load, "timer", vmstate_timer_pre_load)
CHANGE(validated) { plan_device(destination, "timer")->vmsd = &vmstate_timer_validated; source->initial.a = 500; }
CHANGE(equal) { plan_device(destination, "timer")->vmsd = &vmstate_timer_equal; source->initial.a = 5; }
CHANGE(backend) { UNUSED_SOURCE; destination->initial.load_result = -ENODEV; }

#define S(id, ...) { #id, change_##id, __VA_ARGS__ }
static const Skew skews[] = {
    S(missing, REFUSED, "disk", NULL, "the machine has no such device", false),
    S(missing_function, REFUSED, "serial", NULL, "the machine has no such device", false),
    S(extra, ACCEPTED, "audio", NULL, "the stream does not have it", false),
    S(extra_strict, REFUSED, "audio", NULL, "the stream does not have it", false),
    S(extra_source_strict, REFUSED, "audio", NULL, "the stream does not have it", true),
    S(renamed, REFUSED, "serial", NULL, "the machine has no such device", false),
    S(instance, REFUSED, "disk", NULL, "the machine has no such instance, only 4", false),
    S(fewer, REFUSED, "nic", NULL, "the machine has no such instance, only 0", false),
    S(alias, ACCEPTED, NULL, NULL, NULL, false),
    S(version_function, REFUSED, "serial", NULL, "version 3 is too new, the machine knows 2", false),
    S(version_new, REFUSED, "timer", NULL, "version 3 is too new, the machine knows 2", false),
    S(version_old, REFUSED, "timer", NULL, "version 2 is too old, the machine knows 4 and later", false),
    S(field_removed, REFUSED, "timer", "b", "the machine does not read this field", false),
    S(field_added, REFUSED, "timer", "wide", "the stream does not have this field, which the machine reads", false),
    S(field_resized, REFUSED, "timer", "b", "the machine does not read this field", false),
    S(field_reordered, REFUSED, "timer", "a", "the machine reads this field at another place", true),
    S(field_renamed, ACCEPTED, NULL, NULL, NULL, false),
    S(field_conditional_off, ACCEPTED, NULL, NULL, NULL, false),
    S(field_conditional, REFUSED, "timer", "extra", "the machine does not read this field, which is sent now", false),
    S(array_length, REFUSED, "nic", "values", "8 elements, the machine has 6", false),
    S(array_bytes, REFUSED, "nic", "bytes", "16 elements, the machine has 12", false),
    S(array_gone, REFUSED, "nic", "values", "the machine does not read this field", false),
    S(array_count, REFUSED, "nic", "ports", "4 elements, the machine has 6", false),
    S(array_sent_count, ACCEPTED, NULL, NULL, NULL, false),
    S(subsection_off, ACCEPTED, "timer", "timer/extra", "which is not sent in every stream", false),
    S(subsection, REFUSED, "timer", "timer/extra", "the machine does not know this subsection", false),
    S(subsection_version, REFUSED, "timer", "timer/extra", "version 4 is too new, the machine knows 1", false),
    S(inner_field, REFUSED, "disk", "inner.y", "the machine does not read this field", false),
    S(inner_size, REFUSED, "disk", "inner.y", "4 bytes, the machine reads 1", false),
    S(inner_count, REFUSED, "disk", "inners", "3 elements, the machine has 2", false),
    S(element_field, REFUSED, "disk", "inners.y", "the machine does not read this field", false),
    S(inner_gone, REFUSED, "disk", "inner", "the machine does not read this field", false),
    S(inner_flat, REFUSED, "disk", "inner", "a structure, the machine's is no structure", true),
    S(queue_gone, REFUSED, "disk", "queue", "the machine does not read this field", false),
    S(no_load, REFUSED, "serial", NULL, "the machine's device can't be loaded", false),
    S(unmigratable, REFUSED, NULL, NULL, "State blocked by non-migratable device 'timer'", false),
    S(ram_length, REFUSED, NULL, "RAM block vga", "64 KiB (0x10000 bytes), the machine's has 128 KiB (0x20000 bytes)", false),
    S(ram_name, REFUSED, NULL, "RAM block vga", "the machine has no such block", false),
    S(ram_missing, REFUSED, NULL, "RAM block vga", "the machine has no such block", false),
    S(ram_extra, REFUSED, NULL, "RAM block rom", "the stream does not have it", false),
    S(ram_page_size, REFUSED, NULL, "RAM block ram", "host pages of 4096 bytes, the machine's have 16384", true),
    S(ram_shared, REFUSED, NULL, "RAM block vga", "it is shared and not sent", true),
    S(ram_ignored, REFUSED, NULL, NULL, "leaving out shared memory is on at the source and off on this side", true),
    S(ram_address, REFUSED, NULL, "RAM block vga", "at guest address 0x100000, the machine's is at 0x200000", false),
    S(machine_name, REFUSED, NULL, NULL, "the stream is of machine test-1.0, not test-2.0", false),
    S(machine_prefix, ACCEPTED, NULL, NULL, NULL, false),
    S(page_bits, REFUSED, NULL, NULL, "pages of 4096 bytes, the machine's have 8192", false),
    S(uuid, REFUSED, NULL, NULL, "the UUID is 07070707-", false),
    S(capability_on, REFUSED, NULL, NULL, "the capability x-colour is on in the stream alone", false),
    S(capability_off, REFUSED, NULL, NULL, "the capability x-sound is off in the stream alone", false),
    S(configuration_missing, REFUSED, NULL, NULL, "the stream has no configuration section, the machine expects one", false),
    S(configuration_extra, REFUSED, NULL, NULL, "the stream has a configuration section, the machine expects none", false),
    S(configuration_none, ACCEPTED, NULL, NULL, NULL, false),
    S(footers_missing, REFUSED, NULL, NULL, "have no footers, which the machine expects", false),
    S(footers_extra, REFUSED, NULL, NULL, "have footers, which the machine does not expect", false),
    S(postcopy, REFUSED, NULL, NULL, "postcopy is enabled at the source and not on this side", false),
    S(channels, VISITED, NULL, NULL, "the source uses 4 connections for RAM, this side expects 2", false),
    S(channels_one, VISITED, NULL, NULL, "the source uses 4 connections for RAM, this side expects 1", false),
    S(limit_nesting, REFUSED, NULL, NULL, "2 levels of nested descriptions, the limit of this side is 1", true),
    S(no_reset, REHEARSAL, NULL, NULL, "the host can't reset its machine", true),
    S(post_load, REHEARSAL, "timer", NULL, "post_load returned -95", false),
    S(pre_load, REHEARSAL, "timer", NULL, "pre_load returned -19", false),
    S(validated, REHEARSAL, "timer", NULL, "a is small", false),
    S(equal, REHEARSAL, "timer", "a", "expected 0x0 as the device has it, got 0x5", false),
    S(backend, REHEARSAL, "serial", NULL, "load_state returned -19", false),
};
#define SKEWS (sizeof(skews) / sizeof(skews[0]))

/* Two machines, the second of which waits. */
typedef struct Pair {
    Machine *source, *destination;
    SaveVMMigration *in;
    char uri[64];
} Pair;

static void pair_listen(Pair *pair)
{
    static unsigned count;
    Error *err = NULL;

    snprintf(pair->uri, sizeof(pair->uri), "unix:/tmp/savevm-skew-%d-%u", (int)getpid(), count++);
    pair->in = savevm_incoming(pair->destination->vm, pair->uri, &pair->destination->plan.params, &err);
    if (!pair->in) {
        fprintf(stderr, "%s\n", error_get_pretty(err));
    }
    REQUIRE(pair->in != NULL);
}

static Pair pair_new(const Plan *source, const Plan *destination)
{
    Pair pair = { .source = machine_new(source, true), .destination = machine_new(destination, false) };

    pair_listen(&pair);
    return pair;
}

static void pair_free(Pair *pair)
{
    savevm_migration_free(pair->in);
    machine_free(pair->source);
    machine_free(pair->destination);
}

/* Whether the problem that the skew causes is in the list of the error, and in its text if it refuses the guest. */
static bool names(const Error *err, const Skew *skew)
{
    SaveVMProblem problem = SAVEVM_PROBLEM_INIT;

    for (size_t at = 0; savevm_error_problem(err, at, &problem) == 0; at++) {
        bool device = skew->device ? problem.idstr && strcmp(problem.idstr, skew->device) == 0 : !problem.idstr;
        bool path = skew->path ? problem.path && strcmp(problem.path, skew->path) == 0 : !problem.path;

        if (device && path && strstr(problem.message, skew->message)) {
            return problem.severity == SAVEVM_PROBLEM_ERROR && strstr(error_get_pretty(err), skew->message);
        }
    }
    return false;
}

static void check_named(const Error *err, const Skew *skew)
{
    if (!CHECK(err && names(err, skew))) {
        fprintf(stderr, "%s: %s\n", skew->name, err ? error_get_pretty(err) : "no error");
    }
}

/* The guest runs at the source, and the destination was not touched. */
static void check_untouched(const Pair *pair, const Skew *skew)
{
    bool good = pair->source->runs && pair->source->log_starts == 0 && pair->source->stops == 0 &&
                !pair->destination->runs && pair->destination->resets == 0 &&
                savevm_owner(pair->destination->vm) == SAVEVM_OWNER_THERE &&
                memcmp(&pair->destination->states[0], &pair->destination->plan.initial, sizeof(State)) == 0;

    if (!CHECK(good)) {
        fprintf(stderr, "%s: touched\n", skew->name);
    }
}

/* Migrates and waits for both ends. Returns the result of the source, whose error is in `err`. */
static int migrate(Pair *pair, const SaveVMParams *params, Error **err, Error **in_err)
{
    SaveVMMigration *out = savevm_migrate(pair->source->vm, pair->uri, params, err);
    int ret = -1;

    REQUIRE(out != NULL);
    ret = savevm_migration_wait(out, err);
    savevm_migration_wait(pair->in, in_err);
    savevm_migration_free(out);
    return ret;
}

/* The verdict refuses the guest. In a migration the skew is found by the verdict, or before it (VISITED). */
static void refused(Pair *pair, const Skew *skew)
{
    Error *err = NULL, *in_err = NULL;

    CHECK_EQ(savevm_preflight(pair->source->vm, pair->uri, &pair->source->plan.params, &err), -EREMOTEIO);
    check_named(err, skew);
    CHECK(machine_reported(pair->destination, skew->message));
    error_free(err);
    err = NULL;
    check_untouched(pair, skew);
    CHECK(migrate(pair, &pair->source->plan.params, &err, &in_err) < 0);
    if (skew->kind == VISITED) {
        REQUIRE(err && in_err);
        CHECK_HAS(error_get_pretty(err), skew->message);
        CHECK_HAS(error_get_pretty(in_err), skew->message);
    } else {
        check_named(err, skew);
        check_named(in_err, skew);
    }
    error_free(err);
    error_free(in_err);
    check_untouched(pair, skew);
}

static void accepted(Pair *pair, const Skew *skew)
{
    Error *err = NULL, *in_err = NULL;

    CHECK_EQ(savevm_preflight(pair->source->vm, pair->uri, &pair->source->plan.params, &err), 0);
    if (err) {
        fprintf(stderr, "%s: %s\n", skew->name, error_get_pretty(err));
    }
    for (int at = 0; skew->message && at < 2; at++) {
        CHECK(machine_reported(at ? pair->source : pair->destination, skew->message));
    }
    check_untouched(pair, skew);
    CHECK_EQ(savevm_rehearse(pair->source->vm, pair->uri, &pair->source->plan.params, &err), 0);
    CHECK_EQ(pair->destination->resets, 1);
    CHECK(pair->source->runs);
    if (!CHECK_EQ(migrate(pair, &pair->source->plan.params, &err, &in_err), 0)) {
        fprintf(stderr, "%s: %s\n", skew->name, err ? error_get_pretty(err) : "");
    }
    CHECK(pair->destination->runs && !pair->source->runs);
    error_free(err);
    error_free(in_err);
}

static void found_in_rehearsal(Pair *pair, const Skew *skew)
{
    Error *err = NULL, *in_err = NULL;

    CHECK_EQ(savevm_preflight(pair->source->vm, pair->uri, NULL, &err), 0);
    CHECK_EQ(savevm_rehearse(pair->source->vm, pair->uri, NULL, &err), -EREMOTEIO);
    REQUIRE(err != NULL);
    CHECK_HAS(error_get_pretty(err), skew->message);
    if (skew->device) {
        CHECK_HAS(error_get_pretty(err), skew->device);
        CHECK_EQ(pair->destination->resets, 1);
    }
    error_free(err);
    err = NULL;
    CHECK(pair->source->runs && !pair->destination->runs);
    CHECK_EQ(savevm_owner(pair->destination->vm), SAVEVM_OWNER_THERE);
    if (!skew->silent) {
        CHECK(migrate(pair, NULL, &err, &in_err) < 0);
        CHECK(pair->source->runs && !pair->destination->runs);
    }
    error_free(err);
    error_free(in_err);
}

/* Without the preflight one side has the guest, whatever comes of the difference. */
static void check_without(const Skew *skew, const Plan *source, const Plan *destination)
{
    Pair pair = pair_new(source, destination);
    SaveVMParams params = source->params;
    Error *err = NULL, *in_err = NULL;
    int ret;

    params.no_preflight = true;
    ret = migrate(&pair, &params, &err, &in_err);
    CHECK_EQ(pair.source->runs + pair.destination->runs, 1);
    CHECK_EQ(pair.source->runs, ret < 0);
    if (skew->kind != ACCEPTED && !skew->silent && !CHECK(ret < 0)) {
        fprintf(stderr, "%s: loaded without a preflight\n", skew->name);
    }
    error_free(err);
    error_free(in_err);
    pair_free(&pair);
}

TEST(each_skew_is_named_at_both_ends_before_memory_is_sent)
{
    unsigned kinds = 0;

    for (size_t at = 0; at < SKEWS; at++) {
        const Skew *skew = &skews[at];
        Plan source = plan_default(), destination = plan_default();

        skew->change(&source, &destination);
        Pair pair = pair_new(&source, &destination);
        switch (skew->kind) {
        case REFUSED:
        case VISITED: refused(&pair, skew); break;
        case ACCEPTED: accepted(&pair, skew); break;
        case REHEARSAL: found_in_rehearsal(&pair, skew); break;
        }
        kinds += skew->kind != ACCEPTED;
        pair_free(&pair);
    }
    CHECK(kinds >= 30);
}

TEST(each_skew_without_a_preflight_leaves_one_guest)
{
    for (size_t at = 0; at < SKEWS; at++) {
        Plan source = plan_default(), destination = plan_default();

        skews[at].change(&source, &destination);
        if (source.params.postcopy && destination.params.postcopy) {
            continue; /* whether postcopy is possible depends on the machine */
        }
        check_without(&skews[at], &source, &destination);
    }
}

/* Whether a skew is one of those that are made at once. */
static bool is_together(const Skew *skew)
{
    static const char *const together[] = {
        "missing", "renamed", "fewer", "version_old", "array_length", "ram_length", "ram_name", "machine_name", "page_bits",
        "uuid", "capability_on", "capability_off", "postcopy",
    };

    for (size_t at = 0; at < sizeof(together) / sizeof(together[0]); at++) {
        if (strcmp(skew->name, together[at]) == 0) {
            return true;
        }
    }
    return false;
}

TEST(many_skews_are_named_at_once)
{
    static const char hidden[] = "ram_length"; /* ram_name renames the same block */
    Plan source = plan_default(), destination = plan_default();
    Error *err = NULL;
    unsigned expected = 0;

    source.blocks[2] = destination.blocks[2] = (Block){ .name = "rom", .length = BLOCK_LENGTH };
    for (size_t at = 0; at < SKEWS; at++) {
        if (is_together(&skews[at])) {
            skews[at].change(&source, &destination);
        }
    }
    Pair pair = pair_new(&source, &destination);
    CHECK_EQ(savevm_preflight(pair.source->vm, pair.uri, &source.params, &err), -EREMOTEIO);
    for (size_t at = 0; at < SKEWS; at++) {
        if (is_together(&skews[at]) && strcmp(skews[at].name, hidden) != 0) {
            check_named(err, &skews[at]);
            expected++;
        }
    }
    CHECK_EQ(expected, 12);
    SaveVMProblem problem = SAVEVM_PROBLEM_INIT, small = { .size = 8 };
    CHECK_EQ(savevm_error_problem(err, 1000, &problem), -ENOENT);
    CHECK_EQ(savevm_error_problem(err, 0, &small), -EINVAL);
    CHECK_EQ(savevm_error_problem(err, 0, NULL), -EINVAL);
    CHECK_EQ(savevm_error_problem(NULL, 0, &problem), -EINVAL);
    error_free(err);
    pair_free(&pair);
}

TEST(wrong_calls_are_refused)
{
    Plan plan = plan_default();
    Machine *machine = machine_new(&plan, true);
    SaveVMParams params = SAVEVM_PARAMS_INIT;
    Error *err = NULL;

    CHECK_EQ(savevm_preflight(machine->vm, NULL, NULL, NULL), -EINVAL);
    CHECK_EQ(savevm_rehearse(machine->vm, "nonsense", NULL, &err), -EINVAL);
    error_free(err);
    err = NULL;
    params.size = 4;
    CHECK_EQ(savevm_preflight(machine->vm, "unix:/tmp/savevm-no-such-socket", &params, NULL), -EINVAL);
    CHECK(savevm_preflight(machine->vm, "unix:/tmp/savevm-no-such-socket", NULL, &err) < 0);
    CHECK_HAS(error_get_pretty(err), "savevm-no-such-socket");
    error_free(err);
    err = NULL;
    /* A file has no way back. */
    CHECK_EQ(savevm_preflight(machine->vm, "exec:cat >/dev/null", NULL, &err) < 0, true);
    error_free(err);
    CHECK(machine->runs);
    CHECK_EQ(machine->stops, 0);
    machine_free(machine);
}

TEST(rehearsal_measures_each_device)
{
    const SaveVMDeviceOrder orders[] = {
        SAVEVM_DEVICES_IN_STREAM, SAVEVM_DEVICES_BY_SAVE_TIME, SAVEVM_DEVICES_BY_LOAD_TIME, SAVEVM_DEVICES_BY_BYTES,
    };
    Plan plan = plan_default();
    Pair pair = pair_new(&plan, &plan);
    SaveVM *vm = pair.source->vm;
    SaveVMDeviceCost cost = SAVEVM_DEVICE_COST_INIT, before, small = { .size = 8 };
    Error *err = NULL;

    CHECK_EQ(savevm_device_cost(vm, SAVEVM_DEVICES_IN_STREAM, 0, &cost), -ENOENT);
    CHECK_EQ(savevm_rehearse(vm, pair.uri, NULL, &err), 0);
    CHECK_EQ(savevm_device_cost(vm, SAVEVM_DEVICES_IN_STREAM, 0, &cost), 0);
    CHECK(strcmp(cost.name, "timer") == 0 && cost.instance_id == 0 && cost.bytes > 12);
    CHECK_EQ(savevm_device_cost(vm, SAVEVM_DEVICES_IN_STREAM, 2, &cost), 0);
    CHECK(strcmp(cost.name, "nic") == 0 && cost.instance_id == 1);
    for (size_t order = 0; order < sizeof(orders) / sizeof(orders[0]); order++) {
        size_t at = 0;

        for (before = cost; savevm_device_cost(vm, orders[order], at, &cost) == 0; before = cost, at++) {
            CHECK(!at || order != 1 || cost.save_time_us <= before.save_time_us);
            CHECK(!at || order != 2 || cost.load_time_us <= before.load_time_us);
            CHECK(!at || order != 3 || cost.bytes <= before.bytes);
        }
        CHECK_EQ(at, 5);
    }
    CHECK_EQ(savevm_device_cost(vm, (SaveVMDeviceOrder)77, 0, &cost), -EINVAL);
    CHECK_EQ(savevm_device_cost(vm, SAVEVM_DEVICES_BY_BYTES, 0, &small), -EINVAL);
    CHECK_EQ(savevm_device_cost(vm, SAVEVM_DEVICES_BY_BYTES, 0, NULL), -EINVAL);
    pair_free(&pair);
}

TEST(preflight_and_rehearsal_release_the_lock)
{
    Plan plan = plan_default();
    Pair pair = pair_new(&plan, &plan);
    Error *err = NULL;

    harness_lock(&pair.source->lock);
    CHECK_EQ(savevm_preflight(pair.source->vm, pair.uri, NULL, &err), 0);
    CHECK_EQ(savevm_rehearse(pair.source->vm, pair.uri, NULL, &err), 0);
    CHECK(harness_locked(&pair.source->lock));
    harness_unlock(&pair.source->lock);
    CHECK_EQ(pair.source->stops, 1);
    CHECK(pair.source->runs && pair.destination->resets == 1);
    pair_free(&pair);
}

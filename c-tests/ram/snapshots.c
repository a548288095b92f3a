/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "snapshots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

static char directory[64];

Guest *logged_guest(Memory kind, size_t length)
{
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;

    options.log = SAVEVM_RAM_LOG_MARKS;
    Guest *guest = guest_new(kind, length, &options);
    if (!guest) {
        harness_skip("there is no such memory");
    }
    return guest;
}

Guest *lazy_guest(Memory kind, size_t length)
{
    Guest *guest = logged_guest(kind, length);
    Error *err = NULL;

    if (savevm_ram_check_postcopy(guest->ram, &err) != 0) {
        harness_skip(error_get_pretty(err));
    }
    return guest;
}

void wait_for_steps(const Guest *guest, uint64_t steps)
{
    uint64_t before = atomic_load(&guest->steps);

    WAIT_FOR(atomic_load(&guest->steps) > before + steps);
}

void run_on(Guest *guest, uint64_t steps)
{
    guest_start(guest);
    wait_for_steps(guest, steps);
}

void keep_memory(uint8_t **copy, const Guest *guest)
{
    *copy = *copy ? *copy : malloc(guest->length);
    memcpy(*copy, guest->memory, guest->length);
}

void good(int ret, Error *err)
{
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    error_free(err);
    REQUIRE(ret == 0);
}

const char *snapshot_directory(void)
{
    if (!directory[0]) {
        snprintf(directory, sizeof(directory), "/tmp/savevm-snapshots-XXXXXX");
        REQUIRE(mkdtemp(directory) != NULL);
    }
    return directory;
}

const char *snapshot_uri(int number)
{
    static char texts[4][128];
    static int next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof(texts[0]), "file:%s/%d", snapshot_directory(), number);
    return text;
}

const char *snapshot_path(int number)
{
    return snapshot_uri(number) + strlen("file:");
}

void remove_snapshots(int count)
{
    for (int number = 0; number < count; number++) {
        unlink(snapshot_path(number));
    }
    CHECK_EQ(rmdir(snapshot_directory()), 0);
    directory[0] = 0;
}

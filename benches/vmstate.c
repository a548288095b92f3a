/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a device costs that is described in tables, and what long arrays cost.
 * The same source is linked with libsavevm and with QEMU's objects
 * (c-tests/lib/backend.h); compare.py and versions.py set them side by side. Prints one line per
 * measure: its name, a tab, nanoseconds of processor time per save or load, the
 * best of several rounds.
 */
#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "backend.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* With the arguments of each version. */
#if SAVEVM_QEMU_VERSION >= 1002
#define SAVE(f, vmsd, object) vmstate_save_state(f, vmsd, object, NULL, NULL)
#define LOAD(f, vmsd, object) vmstate_load_state(f, vmsd, object, 1, NULL)
#else
#define SAVE(f, vmsd, object) vmstate_save_state(f, vmsd, object, NULL)
#define LOAD(f, vmsd, object) vmstate_load_state(f, vmsd, object, 1)
#endif

#define ROUNDS 25
#define STREAM (512u << 10) /* stays in the cache */
#define LONG (64u << 10)    /* elements of a long array */

/* A network card, roughly: registers, a serial port, rings of descriptors. */
typedef struct {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
} Descriptor;

typedef struct {
    uint16_t last;
    uint16_t used;
    bool enabled;
    Descriptor current;
    uint32_t vector;
} Queue;

typedef struct {
    uint8_t divider, line, modem, line_status, modem_status, scratch;
    bool sending;
} Serial;

typedef struct {
    uint8_t revision, status, command;
    uint16_t port, mask, speed;
    uint32_t control, cause, throttle, features, head, tail;
    uint64_t base, limit, time;
    int32_t level;
    int64_t delay;
    bool link, promiscuous;
    uint32_t registers[32];
    uint8_t mac[6];
    uint16_t eeprom[64];
    uint8_t fifo[16];
    uint64_t counters[8];
    Serial serial;
    Descriptor descriptor;
    Queue queues[4];
    uint8_t buffer[64];
    uint32_t interrupts;
    bool lines[8];
} Card;

#define FIELDS (const VMStateField[])

static const VMStateDescription vmstate_descriptor = {
    .name = "descriptor", .version_id = 1, .minimum_version_id = 1,
    .fields = FIELDS {
        VMSTATE_UINT64(address, Descriptor),
        VMSTATE_UINT32(length, Descriptor),
        VMSTATE_UINT16(flags, Descriptor),
        VMSTATE_UINT16(next, Descriptor),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_queue = {
    .name = "queue", .version_id = 1, .minimum_version_id = 1,
    .fields = FIELDS {
        VMSTATE_UINT16(last, Queue),
        VMSTATE_UINT16(used, Queue),
        VMSTATE_BOOL(enabled, Queue),
        VMSTATE_STRUCT(current, Queue, 1, vmstate_descriptor, Descriptor),
        VMSTATE_UINT32(vector, Queue),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_serial = {
    .name = "serial", .version_id = 1, .minimum_version_id = 1,
    .fields = FIELDS {
        VMSTATE_UINT8(divider, Serial),
        VMSTATE_UINT8(line, Serial),
        VMSTATE_UINT8(modem, Serial),
        VMSTATE_UINT8(line_status, Serial),
        VMSTATE_UINT8(modem_status, Serial),
        VMSTATE_UINT8(scratch, Serial),
        VMSTATE_BOOL(sending, Serial),
        VMSTATE_END_OF_LIST()
    }
};

/* 30 fields: 19 integers, six arrays, a buffer, structures. */
static const VMStateDescription vmstate_card = {
    .name = "card", .version_id = 1, .minimum_version_id = 1,
    .fields = FIELDS {
        VMSTATE_UINT8(revision, Card), VMSTATE_UINT8(status, Card),
        VMSTATE_UINT8(command, Card),
        VMSTATE_UINT16(port, Card), VMSTATE_UINT16(mask, Card),
        VMSTATE_UINT16(speed, Card),
        VMSTATE_UINT32(control, Card), VMSTATE_UINT32(cause, Card),
        VMSTATE_UINT32(throttle, Card), VMSTATE_UINT32(features, Card),
        VMSTATE_UINT32(head, Card), VMSTATE_UINT32(tail, Card),
        VMSTATE_UINT64(base, Card), VMSTATE_UINT64(limit, Card),
        VMSTATE_UINT64(time, Card),
        VMSTATE_INT32(level, Card), VMSTATE_INT64(delay, Card),
        VMSTATE_BOOL(link, Card), VMSTATE_BOOL(promiscuous, Card),
        VMSTATE_UINT32_ARRAY(registers, Card, 32),
        VMSTATE_UINT8_ARRAY(mac, Card, 6),
        VMSTATE_UINT16_ARRAY(eeprom, Card, 64),
        VMSTATE_UINT8_ARRAY(fifo, Card, 16),
        VMSTATE_UINT64_ARRAY(counters, Card, 8),
        VMSTATE_STRUCT(serial, Card, 1, vmstate_serial, Serial),
        VMSTATE_STRUCT(descriptor, Card, 1, vmstate_descriptor, Descriptor),
        VMSTATE_STRUCT_ARRAY(queues, Card, 4, 1, vmstate_queue, Queue),
        VMSTATE_BUFFER(buffer, Card),
        VMSTATE_UINT32(interrupts, Card),
        VMSTATE_BOOL_ARRAY(lines, Card, 8),
        VMSTATE_END_OF_LIST()
    }
};

typedef struct {
    uint8_t bytes[LONG];
    uint16_t halves[LONG];
    uint32_t words[LONG];
    uint64_t longs[LONG];
} Memory;

#define ARRAY(symbol, field)                                                \
    static const VMStateDescription symbol = {                              \
        .name = #symbol, .version_id = 1, .minimum_version_id = 1,          \
        .fields = FIELDS { field, VMSTATE_END_OF_LIST() }                   \
    };

ARRAY(uint8_array, VMSTATE_UINT8_ARRAY(bytes, Memory, LONG))
ARRAY(uint16_array, VMSTATE_UINT16_ARRAY(halves, Memory, LONG))
ARRAY(uint32_array, VMSTATE_UINT32_ARRAY(words, Memory, LONG))
ARRAY(uint64_array, VMSTATE_UINT64_ARRAY(longs, Memory, LONG))
ARRAY(buffer, VMSTATE_BUFFER(bytes, Memory))

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void check(int ret)
{
    if (ret != 0) {
        fprintf(stderr, "failed: %d\n", ret);
        exit(1);
    }
}

/* Saves to /dev/null: only the library is measured. */
static double save(const VMStateDescription *vmsd, void *object, size_t count)
{
    QEMUFile *f = backend_fd(open("/dev/null", O_WRONLY), true);
    uint64_t start = now();

    for (size_t i = 0; i < count; i++) {
        check(SAVE(f, vmsd, object));
    }
    qemu_fflush(f);
    start = now() - start;
    qemu_fclose(f);
    return (double)start / (double)count;
}

/* Loads from memory, over and over from the same state. */
static double load(const VMStateDescription *vmsd, void *object, size_t count,
                   const uint8_t *stream, size_t len)
{
    QEMUFile *f = backend_reader(stream, len);
    uint64_t start = now();

    for (size_t i = 0; i < count; i++) {
        check(LOAD(f, vmsd, object));
    }
    start = now() - start;
    qemu_fclose(f);
    return (double)start / (double)count;
}

static void measure(const VMStateDescription *vmsd, void *object, size_t size)
{
    QEMUFile *f = backend_writer();
    double best_save = 1e12, best_load = 1e12;
    void *target = calloc(1, size);
    const uint8_t *bytes;
    uint8_t *stream;
    size_t len, count;

    check(SAVE(f, vmsd, object));
    (void)backend_bytes(f, &len);
    count = len < STREAM ? STREAM / len : 1;
    for (size_t i = 1; i < count; i++) {
        check(SAVE(f, vmsd, object));
    }
    /* One byte more, which is no subsection, ends the last state. */
    qemu_put_byte(f, 0);
    bytes = backend_bytes(f, &len);
    stream = malloc(len);
    memcpy(stream, bytes, len);
    qemu_fclose(f);
    for (unsigned round = 0; round < ROUNDS; round++) {
        double time = save(vmsd, object, 4 * count);

        best_save = time < best_save ? time : best_save;
        time = load(vmsd, target, count, stream, len);
        best_load = time < best_load ? time : best_load;
    }
    printf("save %s\t%.1f\nload %s\t%.1f\n", vmsd->name, best_save, vmsd->name, best_load);
    fflush(stdout);
    free(stream);
    free(target);
}

int main(void)
{
    static Card card;
    static Memory memory;

    backend_start();
    card.link = true;
    memset(card.registers, 0x5a, sizeof(card.registers));
    memset(&memory, 0xa5, sizeof(memory));
    measure(&vmstate_card, &card, sizeof(card));
    measure(&uint8_array, &memory, sizeof(memory));
    measure(&uint16_array, &memory, sizeof(memory));
    measure(&uint32_array, &memory, sizeof(memory));
    measure(&uint64_array, &memory, sizeof(memory));
    measure(&buffer, &memory, sizeof(memory));
    return 0;
}

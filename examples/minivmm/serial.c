/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A serial port: a 16550 of which only the sending half is connected, to standard output.
 *
 * The modern way to migrate a device: its state as a table of fields. It prints line by line, so the half line that the
 * guest had written when it was stopped is state as well, and is ended on the other side.
 */
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>
#include <stdlib.h>

enum { DATA, INTERRUPTS, FIFO, LINE_CONTROL, MODEM_CONTROL, LINE_STATUS, MODEM_STATUS, SCRATCH };

#define DIVISOR_ACCESS 0x80 /* in LINE_CONTROL: the first two registers are the divisor instead */
#define SENDER_EMPTY 0x60   /* in LINE_STATUS */

typedef struct Serial {
    uint8_t registers[8];
    uint8_t divisor[2];
    uint8_t line[128];
    uint32_t used;
} Serial;

static void print_line(Serial *s)
{
    fwrite(s->line, 1, s->used, stdout);
    fflush(stdout);
    s->used = 0;
}

static uint32_t serial_read(void *opaque, unsigned int offset)
{
    Serial *s = opaque;
    if (offset < 2 && s->registers[LINE_CONTROL] & DIVISOR_ACCESS) {
        return s->divisor[offset];
    }
    return offset == DATA ? 0 : offset == LINE_STATUS ? SENDER_EMPTY : s->registers[offset];
}

static void serial_write(void *opaque, unsigned int offset, uint32_t value)
{
    Serial *s = opaque;
    if (offset < 2 && s->registers[LINE_CONTROL] & DIVISOR_ACCESS) {
        s->divisor[offset] = (uint8_t)value;
    } else if (offset != DATA) {
        s->registers[offset] = (uint8_t)value;
    } else {
        s->line[s->used++] = (uint8_t)value;
        if (value == '\n' || s->used == sizeof(s->line)) {
            print_line(s);
        }
    }
}

/* What came in is checked before it is used as an index: the stream is not to be trusted. */
static int serial_post_load(void *opaque, int version_id)
{
    Serial *s = opaque;
    (void)version_id;
    return s->used < sizeof(s->line) ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_serial = {
    .name = "serial",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = serial_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8_ARRAY(registers, Serial, 8),
        VMSTATE_UINT8_ARRAY(divisor, Serial, 2),
        VMSTATE_BUFFER(line, Serial),
        VMSTATE_UINT32(used, Serial),
        VMSTATE_END_OF_LIST()
    }
};

static const Ports serial_ports = { SERIAL_PORT, 8, serial_read, serial_write };

void serial_init(Machine *m)
{
    m->serial = calloc(1, sizeof(Serial));
    machine_map_ports(m, &serial_ports, m->serial);
    vmstate_register(NULL, 0, &vmstate_serial, m->serial);
}

void serial_destroy(Machine *m)
{
    vmstate_unregister(NULL, &vmstate_serial, m->serial);
    free(m->serial);
}

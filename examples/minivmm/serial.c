/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A serial port without input. It prints the bytes that the guest writes to standard output, line by line.
 *
 * This device describes its state as a table of fields. A line that the guest has written in part is state as well: the
 * destination prints it when the guest completes it.
 */
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>

typedef struct Serial {
    uint8_t line[128];
    uint32_t used;
} Serial;

static Serial state;

static void serial_port(Machine *m, uint16_t port, bool write, uint32_t *value)
{
    if (!write) {
        return;
    }
    state.line[state.used++] = (uint8_t)*value;
    if (*value == '\n' || state.used == sizeof(state.line)) {
        fwrite(state.line, 1, state.used, stdout);
        fflush(stdout);
        state.used = 0;
    }
}

static void serial_reset(void)
{
    state.used = 0;
}

/* `used` is an index, and the stream is not trusted. */
static int serial_post_load(void *opaque, int version_id)
{
    return state.used < sizeof(state.line) ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_serial = {
    .name = "serial",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = serial_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER(line, Serial),
        VMSTATE_UINT32(used, Serial),
        VMSTATE_END_OF_LIST()
    }
};

static bool serial_init(Machine *m)
{
    return vmstate_register(NULL, 0, &vmstate_serial, &state) == 0;
}

const Device serial = { SERIAL_PORT, 1, serial_init, serial_port, serial_reset };

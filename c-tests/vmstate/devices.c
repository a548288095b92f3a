/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole devices. What they hold and how it is versioned follows a serial port,
 * a clock chip, an interval timer, a network card and a virtio device; the
 * devices and their names are made up here.
 */
#include "files.h"
#include "groups.h"
#include "test-case.h"

/* A serial port: a nested queue, hooks that rebuild state, many subsections */

#define QUEUE_SIZE 16

typedef struct Queue {
    uint8_t data[QUEUE_SIZE];
    uint32_t head;
    uint32_t used;
} Queue;

typedef struct Uart {
    uint16_t divider;
    uint8_t received, irq_enable, irq_ident, line, modem, line_state;
    uint8_t modem_state, scratch, queue_control, queue_control_set;
    uint8_t irq_pending, retry, sending, shift;
    int32_t timeout_level;
    uint32_t baud;
    int post_loads;
    Queue in, out;
    QEMUTimer *timeout, *modem_timer;
} Uart;

static void uart_fill(void *opaque)
{
    Uart *u = opaque;
    uint8_t *bytes = opaque;

    for (size_t i = 0; i < offsetof(Uart, timeout); i++) {
        bytes[i] = (uint8_t)(0x11 + i * 5);
    }
    u->in.head = 3;
    u->in.used = 5;
    u->out.head = 15;
    u->out.used = 0;
    u->irq_pending = 1;
    u->retry = 0;
    u->timeout = calloc(1, sizeof(QEMUTimer));
    u->modem_timer = calloc(1, sizeof(QEMUTimer));
    files_timer_init(u->timeout, 1000000);
    files_timer_init(u->modem_timer, -1);
}

static void uart_fill_idle(void *opaque)
{
    Uart *u = opaque;

    uart_fill(u);
    u->irq_pending = 0;
    u->in.used = 0;
    u->line_state = 0x60;
}

static void uart_blank(void *opaque)
{
    uart_fill_idle(opaque);
    memset(opaque, 0xee, offsetof(Uart, timeout));
}

static void uart_show(void *opaque, View *v)
{
    Uart *u = opaque;
    char text[64];

    view(v, "", u, offsetof(Uart, timeout));
    snprintf(text, sizeof(text), "%lld,%lld",
             (long long)files_timer_expires(u->timeout),
             (long long)files_timer_expires(u->modem_timer));
    view_text(v, "timers", text);
}

static void uart_drop(void *opaque)
{
    Uart *u = opaque;

    files_timer_drop(u->timeout);
    files_timer_drop(u->modem_timer);
    free(u->timeout);
    free(u->modem_timer);
}

static int uart_pre_save(void *opaque)
{
    Uart *u = opaque;

    note("uart_pre_save");
    u->queue_control_set = u->queue_control;
    return 0;
}

static int uart_pre_load(void *opaque)
{
    Uart *u = opaque;

    note("uart_pre_load");
    u->irq_pending = 0xff;
    return 0;
}

static int uart_post_load(void *opaque, int version_id)
{
    Uart *u = opaque;

    note("uart_post_load(%d)", version_id);
    if (version_id < 3) {
        u->queue_control_set = 0;
    }
    u->baud = 115200 / (u->divider ? u->divider : 1);
    return u->shift > 0xfd ? -1 : 0;
}

static bool uart_receiving(void *opaque)
{
    return ((Uart *)opaque)->in.used != 0;
}

static bool uart_sending(void *opaque)
{
    return ((Uart *)opaque)->out.used != 0;
}

static bool uart_interrupting(void *opaque)
{
    return ((Uart *)opaque)->irq_pending != 0;
}

static bool uart_timing(void *opaque)
{
    return files_timer_expires(((Uart *)opaque)->timeout) != -1;
}

static bool uart_busy(void *opaque)
{
    return ((Uart *)opaque)->line_state != 0x60;
}

static bool uart_before_3(void *opaque, int version_id)
{
    (void)opaque;
    return version_id < 3;
}

static const VMStateDescription vmstate_queue = {
    .name = "queue",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER(data, Queue),
        VMSTATE_UINT32(head, Queue),
        VMSTATE_UINT32(used, Queue),
        VMSTATE_END_OF_LIST()
    },
};

#define UART_PART(ident, title, hook, ...)                                  \
    static const VMStateDescription vmstate_uart_##ident = {                \
        .name = "uart/" title,                                              \
        .version_id = 1,                                                    \
        .minimum_version_id = 1,                                            \
        .needed = hook,                                                     \
        .fields = (const VMStateField[]) {                                  \
            __VA_ARGS__,                                                    \
            VMSTATE_END_OF_LIST()                                           \
        },                                                                  \
    };
UART_PART(in, "receive queue", uart_receiving,
          VMSTATE_STRUCT(in, Uart, 1, vmstate_queue, Queue))
UART_PART(out, "send queue", uart_sending,
          VMSTATE_STRUCT(out, Uart, 1, vmstate_queue, Queue))
UART_PART(irq, "interrupt", uart_interrupting,
          VMSTATE_UINT8(irq_pending, Uart))
UART_PART(timeout, "timeout", uart_timing, VMSTATE_TIMER_PTR(timeout, Uart),
          VMSTATE_INT32(timeout_level, Uart))
UART_PART(shift, "shift register", uart_busy, VMSTATE_UINT8(retry, Uart),
          VMSTATE_UINT8(sending, Uart), VMSTATE_UINT8(shift, Uart))

static const VMStateDescription *uart_parts[] = {
    &vmstate_uart_in, &vmstate_uart_out, &vmstate_uart_irq,
    &vmstate_uart_timeout, &vmstate_uart_shift, NULL
};

static const VMStateDescription vmstate_uart = {
    .name = "uart",
    .version_id = 3,
    .minimum_version_id = 1,
    .pre_save = uart_pre_save,
    .pre_load = uart_pre_load,
    .post_load = uart_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16_V(divider, Uart, 2),
        VMSTATE_UINT8(received, Uart),
        VMSTATE_UINT8(irq_enable, Uart),
        VMSTATE_UINT8(irq_ident, Uart),
        VMSTATE_UINT8(line, Uart),
        VMSTATE_UINT8(modem, Uart),
        VMSTATE_UINT8(line_state, Uart),
        VMSTATE_UINT8(modem_state, Uart),
        VMSTATE_UINT8(scratch, Uart),
        VMSTATE_UNUSED_TEST(uart_before_3, 2),
        VMSTATE_UINT8_V(queue_control_set, Uart, 3),
        VMSTATE_END_OF_LIST()
    },
    .subsections = uart_parts,
};

/* A clock chip: registers, times in signed and unsigned, timers, a validity */

typedef struct Clockchip {
    uint8_t memory[32];
    uint8_t index;
    int32_t base_year;
    int64_t offset;
    uint64_t last_update;
    int32_t period;
    uint32_t coalesced, coalesced_period;
    QEMUTimer periodic, update;
} Clockchip;

static void clockchip_fill(void *opaque)
{
    Clockchip *c = opaque;

    for (size_t i = 0; i < sizeof(c->memory); i++) {
        c->memory[i] = (uint8_t)(i ^ 0x5a);
    }
    c->index = 11;
    c->base_year = -30;
    c->offset = -123456789;
    c->last_update = UINT64_C(0xfedcba9876543210);
    c->period = 31;
    c->coalesced = 2;
    c->coalesced_period = 0;
    files_timer_init(&c->periodic, 976562);
    files_timer_init(&c->update, -1);
}

static void clockchip_blank(void *opaque)
{
    clockchip_fill(opaque);
    memset(opaque, 0xee, offsetof(Clockchip, periodic));
    files_timer_init(&((Clockchip *)opaque)->periodic, -1);
    files_timer_init(&((Clockchip *)opaque)->update, 5);
}

static void clockchip_show(void *opaque, View *v)
{
    Clockchip *c = opaque;
    char text[64];

    view(v, "", c, offsetof(Clockchip, periodic));
    snprintf(text, sizeof(text), "%lld,%lld",
             (long long)files_timer_expires(&c->periodic),
             (long long)files_timer_expires(&c->update));
    view_text(v, "timers", text);
}

static void clockchip_drop(void *opaque)
{
    Clockchip *c = opaque;

    files_timer_drop(&c->periodic);
    files_timer_drop(&c->update);
}

static bool index_in_memory(void *opaque, int version_id)
{
    (void)version_id;
    return ((Clockchip *)opaque)->index < 32;
}

static bool clockchip_coalescing(void *opaque)
{
    return ((Clockchip *)opaque)->coalesced != 0;
}

static const VMStateDescription vmstate_clockchip_coalesced = {
    .name = "clockchip/coalesced",
    .version_id = 2,
    .minimum_version_id = 1,
    .needed = clockchip_coalescing,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(coalesced, Clockchip),
        VMSTATE_UINT32_V(coalesced_period, Clockchip, 2),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription *clockchip_parts[] = {
    &vmstate_clockchip_coalesced, NULL
};

static const VMStateDescription vmstate_clockchip = {
    .name = "clockchip",
    .version_id = 3,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER(memory, Clockchip),
        VMSTATE_UINT8(index, Clockchip),
        VMSTATE_VALIDATE("index in memory", index_in_memory),
        VMSTATE_UNUSED(4 * 4 + 3),
        VMSTATE_INT32(base_year, Clockchip),
        VMSTATE_TIMER(periodic, Clockchip),
        VMSTATE_INT64(offset, Clockchip),
        VMSTATE_UINT64_V(last_update, Clockchip, 2),
        VMSTATE_TIMER_V(update, Clockchip, 3),
        VMSTATE_INT32_V(period, Clockchip, 3),
        VMSTATE_END_OF_LIST()
    },
    .subsections = clockchip_parts,
};

/* An interval timer: an array of channels, a check between the two sides */

typedef struct Channel {
    int32_t count;
    uint16_t latched;
    uint8_t latch_state, mode, bcd, gate;
    int64_t loaded_at;
} Channel;

typedef struct Interval {
    uint32_t disabled;
    Channel channels[3];
    uint32_t model;
} Interval;

static void interval_fill(void *opaque)
{
    uint8_t *bytes = opaque;

    for (size_t i = 0; i < sizeof(Interval); i++) {
        bytes[i] = (uint8_t)(i * 11 + 3);
    }
    ((Interval *)opaque)->model = 0x8254;
}

static void interval_blank(void *opaque)
{
    ((Interval *)opaque)->model = 0x8254;
}

static const VMStateDescription vmstate_channel = {
    .name = "channel",
    .version_id = 2,
    .minimum_version_id = 2,
    .fields = (const VMStateField[]) {
        VMSTATE_INT32(count, Channel),
        VMSTATE_UINT16(latched, Channel),
        VMSTATE_UINT8(latch_state, Channel),
        VMSTATE_UINT8(mode, Channel),
        VMSTATE_UINT8(bcd, Channel),
        VMSTATE_UINT8(gate, Channel),
        VMSTATE_INT64(loaded_at, Channel),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_interval = {
    .name = "interval",
    .version_id = 3,
    .minimum_version_id = 2,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(model, Interval, "not the same chip"),
        VMSTATE_UINT32_V(disabled, Interval, 3),
        VMSTATE_STRUCT_ARRAY(channels, Interval, 3, 2, vmstate_channel,
                             Channel),
        VMSTATE_END_OF_LIST()
    },
};

#include "devices-net.h"

#define TEST_CASE(title, type, fill, blank, show, drop) \
    { #title, &vmstate_##title, sizeof(type), fill, blank, show, \
      drop, false }

int group_devices(int argc, char **argv)
{
    static const TestCase cases[] = {
        TEST_CASE(uart, Uart, uart_fill, uart_blank, uart_show, uart_drop),
        TEST_CASE(uart, Uart, uart_fill_idle, uart_blank, uart_show, uart_drop),
        TEST_CASE(clockchip, Clockchip, clockchip_fill, clockchip_blank,
              clockchip_show, clockchip_drop),
        TEST_CASE(interval, Interval, interval_fill, interval_blank, NULL, NULL),
        TEST_CASE(nic, Nic, nic_fill, nic_blank, nic_show, NULL),
        TEST_CASE(virt, Virt, virt_fill, virt_blank, virt_show, virt_drop),
        TEST_CASE(virt, Virt, virt_fill_old, virt_blank, virt_show, virt_drop),
    };

    (void)argc;
    (void)argv;
    for (size_t i = 0; i < COUNT(cases); i++) {
        case_all(&cases[i]);
    }
    say("interval, of another model");
    case_load_hex(&cases[3], 2, "00008253");
    return 0;
}

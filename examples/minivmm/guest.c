/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's program. It is built twice: into a flat image that KVM runs on bare (virtual) metal, and into
 * minivmm itself for the software vCPU.
 *
 * It writes every page of its memory over and over, in an order that looks random, and before that checks that all 512
 * words of the page are what they were made in the round before: a single page that came over stale, torn or in the
 * wrong place is found. On every tick it looks at the clock; the longest time between two looks is what it felt of a
 * migration. Once a second it says so over the serial port, and puts its count on the disk and reads it back.
 */
#include "guest.h"

#define SECOND 1000000000u

static void print(const char *text)
{
    while (*text) {
        cpu_out(SERIAL_PORT, (unsigned char)*text++);
    }
}

static void print_number(const char *label, uint64_t number)
{
    char text[21], *digit = text + sizeof(text) - 1;
    *digit = 0;
    do {
        *--digit = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    print(label);
    print(digit);
}

/* The first word of a page in a round; the words after it are powers of an odd number apart. Round 0: all zero. */
static uint64_t first_word(uint64_t page, uint64_t round)
{
    return round ? (((page << 24) ^ round) * 0x9e3779b97f4a7c15u) | 1 : 0;
}

static void write_page(Guest *g, uint64_t page)
{
    uint64_t address = GUEST_WORK + page * PAGE_SIZE;
    uint64_t *word = cpu_memory(address);
    uint64_t was = first_word(page, g->round), is = first_word(page, g->round + 1);
    for (unsigned at = 0; at < PAGE_SIZE / 8; at++) {
        g->errors += word[at] != was;
        word[at] = is;
        was *= 0xd1342543de82ef95u;
        is *= 0xd1342543de82ef95u;
    }
    cpu_wrote(address);
    g->count++;
}

/* To the next page of the walk, which comes by all numbers below a power of two, each once in a round; 0 is the last. */
static void step_on(Guest *g)
{
    uint64_t mask = ~0ull >> __builtin_clzll(g->pages - 1);
    do {
        g->at = (g->at * 0x5deece66du + 11) & mask;
    } while (g->at >= g->pages);
    write_page(g, g->at);
    g->round += g->at == 0;
}

/* Puts the count into a sector, and reads back what the last heartbeat put into another. */
static void use_disk(Guest *g)
{
    uint32_t sectors = cpu_in(DISK_SECTORS);
    if (sectors < 2) {
        return;
    }
    cpu_out(DISK_SECTOR, (uint32_t)(g->beat % sectors));
    cpu_out(DISK_DATA, (uint32_t)g->beat);
    cpu_out(DISK_COMMAND, DISK_WRITE);
    g->errors += cpu_in(DISK_COMMAND) != 0;
    if (g->beat > 1) {
        cpu_out(DISK_SECTOR, (uint32_t)((g->beat - 1) % sectors));
        cpu_out(DISK_COMMAND, DISK_READ);
        g->errors += cpu_in(DISK_DATA) != (uint32_t)g->beat - 1;
    }
}

static void heartbeat(Guest *g)
{
    g->beat++;
    g->beat_at = g->clock;
    use_disk(g);
    print_number("[guest] beat ", g->beat);
    print_number(": count ", g->count);
    print_number(", round ", g->round);
    print_number(", errors ", g->errors);
    print_number(", longest gap ", g->gap / 1000000);
    print_number(".", g->gap / 100000 % 10);
    print(" ms\n");
    g->gap = 0;
}

static uint64_t look_at_clock(void)
{
    uint32_t low = cpu_in(CLOCK_LOW);
    return (uint64_t)cpu_in(CLOCK_HIGH) << 32 | low;
}

static void begin_tick(Guest *g)
{
    uint64_t now = look_at_clock(), gap = now - g->clock;
    g->clock = now;
    g->gap = gap > g->gap ? gap : g->gap;
    if (now - g->beat_at >= SECOND) {
        heartbeat(g);
    }
}

void guest_start(Guest *g, uint64_t pages, uint64_t rate)
{
    *g = (Guest) { .pages = pages, .rate = rate };
    cpu_out(TIMER_PERIOD, 1000);
    g->clock = g->beat_at = look_at_clock();
}

void guest_step(Guest *g)
{
    if (g->left > 0) {
        g->left--;
        step_on(g);
        return;
    }
    uint64_t tick = cpu_in(TIMER_TICKS);
    if (g->round == 0) {
        g->left = 64; /* memory is filled at full speed first */
    } else if (tick == g->tick) {
        cpu_out(TIMER_WAIT, 0);
        return;
    } else {
        g->left = g->rate;
    }
    g->tick = tick;
    begin_tick(g);
}

#ifdef GUEST_BARE_METAL
/* The first byte of the image; the arguments arrive in registers. */
__attribute__((section(".entry"), noreturn)) void guest_entry(uint64_t pages, uint64_t rate)
{
    Guest g;
    guest_start(&g, pages, rate);
    for (;;) {
        guest_step(&g);
    }
}
#endif

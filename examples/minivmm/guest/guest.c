/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's program. It is compiled twice: with metal.c into a flat image that KVM runs without an operating system, and into
 * minivmm for the CPU in software.
 *
 * The program writes all its pages in rounds: in order in the first round, then in a scattered order. Before it writes a page,
 * it checks that all 512 words have the values of the previous round. This detects a page that was migrated stale, in part, or
 * to the wrong place. On every tick it reads the clock. The longest time between two readings is the downtime as the guest
 * measures it. Once a second it prints a heartbeat with these values over the serial port, writes the number of the heartbeat
 * to the disk, and reads the previous one back.
 */
#include "guest.h"

#define STRIDE 1000003u /* prime and greater than MAX_PAGES, so that a round visits every page once */
#define BURST 512u      /* pages per tick while memory is filled */

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

/* Returns the value of a word of a page after `round` rounds: 0 at first, then a different value in each round. */
static uint64_t pattern(uint64_t page, uint64_t word, uint64_t round)
{
    return round ? (page << 41 ^ word << 32 ^ round) * 0x9e3779b97f4a7c15u : 0;
}

static void write_page(Guest *g)
{
    uint64_t address = GUEST_WORK + g->at * PAGE_SIZE;
    uint64_t *words = cpu_memory(address);
    for (uint64_t word = 0; word < PAGE_SIZE / sizeof(*words); word++) {
        g->errors += words[word] != pattern(g->at, word, g->round);
        words[word] = pattern(g->at, word, g->round + 1);
    }
    cpu_wrote(address);
    g->count++;
    g->at = (g->at + (g->round ? STRIDE : 1)) % g->pages;
    g->round += g->at == 0;
}

/* Writes the number of the heartbeat into a sector, and checks the sector that the previous heartbeat wrote. */
static void use_disk(Guest *g)
{
    uint32_t sectors = cpu_in(DISK_SECTORS);
    if (sectors < 2) {
        return;
    }
    cpu_out(DISK_SECTOR, (uint32_t)(g->beat % sectors));
    cpu_out(DISK_DATA, (uint32_t)g->beat);
    if (g->beat > 1) {
        cpu_out(DISK_SECTOR, (uint32_t)((g->beat - 1) % sectors));
        g->errors += cpu_in(DISK_DATA) != (uint32_t)g->beat - 1;
    }
}

static void heartbeat(Guest *g)
{
    g->beat++;
    use_disk(g);
    print_number("[guest] beat ", g->beat);
    print_number(": count ", g->count);
    print_number(", round ", g->round);
    print_number(", errors ", g->errors);
    print_number(", longest gap ", g->gap / 1000);
    print_number(".", g->gap / 100 % 10);
    print(" ms\n");
    g->gap = 0;
}

/* 32 bits of microseconds measure gaps of up to one hour. The first reading has no previous one. */
static void read_clock(Guest *g)
{
    uint32_t now = cpu_in(CLOCK_TIME), gap = now - (uint32_t)g->time;
    if (g->count && gap > g->gap) {
        g->gap = gap;
    }
    g->time = now;
}

void guest_step(Guest *g)
{
    if (g->left > 0) {
        write_page(g);
        g->left--;
        return;
    }
    uint32_t tick = cpu_in(TIMER_TICK);
    read_clock(g);
    if (tick - (uint32_t)g->beat_tick >= TICKS_PER_SECOND) {
        g->beat_tick = tick;
        heartbeat(g);
    }
    g->left = g->round ? g->rate : BURST;
}

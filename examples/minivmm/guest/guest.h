/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The interface between the guest and the machine: ports, memory map, and the guest's program. */
#ifndef GUEST_H
#define GUEST_H

#include <stdint.h>

/* Ports. Every access has 32 bits. */
#define SERIAL_PORT 0x3f8  /* write: sends a byte */
#define TIMER_TICK 0x40    /* read: waits for the next tick and returns its number */
#define CLOCK_TIME 0x44    /* read: lower 32 bits of the host's real time in microseconds */
#define DISK_SECTOR 0x1f0  /* write: selects the start of a sector */
#define DISK_DATA 0x1f4    /* read or write: the next 4 bytes */
#define DISK_SECTORS 0x1f8 /* read: the number of sectors */

#define TICKS_PER_SECOND 1000u
#define PAGE_SIZE 4096u
#define GUEST_TABLES 0x1000u /* page tables, in the long mode of KVM's guest */
#define GUEST_CODE 0x10000u  /* the program; its entry is the first byte */
#define GUEST_STACK 0x80000u /* end of its stack */
#define GUEST_WORK 0x100000u /* start of the pages that the program writes */
#define MAX_PAGES 0xc0000u   /* 3 GiB; KVM reserves addresses above */

/* The program's variables. On KVM they are on the guest's stack; in software they are the registers of the CPU. */
typedef struct Guest {
    uint64_t pages;     /* number of pages that the program writes */
    uint64_t rate;      /* pages to write per tick */
    uint64_t left;      /* pages left to write in this tick */
    uint64_t at;        /* index of the next page */
    uint64_t round;     /* number of completed rounds */
    uint64_t count;     /* pages written so far */
    uint64_t errors;    /* words of memory or disk with a wrong value */
    uint64_t time;      /* last reading of the clock, microseconds */
    uint64_t gap;       /* longest time between two readings since the last heartbeat, microseconds */
    uint64_t beat;      /* number of heartbeats */
    uint64_t beat_tick; /* tick of the last heartbeat */
} Guest;

/* One step of the program: writes a page, or waits for the next tick. The CPU calls it in a loop. Before the first call, all
 * members except `pages` and `rate` are zero. */
void guest_step(Guest *g);

/* The program's access to memory and ports: metal.c on KVM, soft.c in software. */
uint64_t *cpu_memory(uint64_t address);
void cpu_wrote(uint64_t address); /* the page at `address` was written */
uint32_t cpu_in(uint16_t port);
void cpu_out(uint16_t port, uint32_t value);

#endif /* GUEST_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the guest and the machine agree on: the ports, the memory map, and the guest's program. */
#ifndef GUEST_H
#define GUEST_H

#include <stdint.h>

/* Ports, all used 32 bits at a time. */
#define SERIAL_PORT 0x3f8  /* write: a byte goes out */
#define TIMER_TICK 0x40    /* read: rests until the next tick, and tells its number */
#define CLOCK_TIME 0x44    /* read: microseconds of the time of day, the lower half of them */
#define DISK_SECTOR 0x1f0  /* write: goes to the start of a sector */
#define DISK_DATA 0x1f4    /* the next four bytes */
#define DISK_SECTORS 0x1f8 /* read: how many there are */

#define TICKS_PER_SECOND 1000u
#define PAGE_SIZE 4096u
#define GUEST_TABLES 0x1000u /* page tables, in the long mode of KVM's guest */
#define GUEST_CODE 0x10000u  /* its program, entered at the first byte */
#define GUEST_STACK 0x80000u /* end of its stack */
#define GUEST_WORK 0x100000u /* from here on: the pages that it works on */
#define MAX_PAGES 0xc0000u   /* 3 GiB, where the addresses begin that KVM keeps for itself */

/* What the program knows; on KVM it lives on the guest's own stack, in software it is the registers of the vCPU. */
typedef struct Guest {
    uint64_t pages;     /* in the work area */
    uint64_t rate;      /* pages to write per tick */
    uint64_t left;      /* of them in this tick */
    uint64_t at;        /* the page that comes next */
    uint64_t round;     /* how often all of them were written */
    uint64_t count;     /* pages written so far */
    uint64_t errors;    /* words of memory or disk that were not as they had been written */
    uint64_t time;      /* when it looked at the clock last, microseconds */
    uint64_t gap;       /* longest time between two looks since the last heartbeat */
    uint64_t beat;      /* heartbeats so far */
    uint64_t beat_tick; /* the tick of the last one */
} Guest;

/* A little of the work: a page, or rest until the next tick. The vCPU does nothing but call it again and again. At first
 * all but the first two members are zero. */
void guest_step(Guest *g);

/* What a CPU gives its program: memory and ports. On KVM from metal.c, in software from soft.c. */
uint64_t *cpu_memory(uint64_t address);
void cpu_wrote(uint64_t address); /* in the page from there on */
uint32_t cpu_in(uint16_t port);
void cpu_out(uint16_t port, uint32_t value);

#endif /* GUEST_H */

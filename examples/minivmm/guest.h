/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the guest and the machine agree on: the ports, the memory map, and the guest's program. */
#ifndef GUEST_H
#define GUEST_H

#include <stdint.h>

/* Ports, all used 32 bits at a time. */
#define SERIAL_PORT 0x3f8  /* a 16550 */
#define TIMER_PERIOD 0x40  /* write: microseconds between two ticks */
#define TIMER_TICKS 0x44   /* read: how many there were; they stand still with the machine */
#define CLOCK_LOW 0x48     /* read: nanoseconds of the host's clock, which never stands still; latches the rest */
#define CLOCK_HIGH 0x4c
#define TIMER_WAIT 0x50    /* write: the CPU rests until the next tick */
#define DISK_SECTOR 0x1f0  /* write: the sector that the next command is about */
#define DISK_COMMAND 0x1f4 /* write: DISK_READ or DISK_WRITE; read: 0, or an errno */
#define DISK_DATA 0x1f8    /* the bytes of the sector, four at a time, from the start after each of the two */
#define DISK_SECTORS 0x1fc /* read: how many there are */
enum { DISK_READ = 1, DISK_WRITE = 2 };

#define PAGE_SIZE 4096u
#define GUEST_TABLES 0x1000u /* page tables, in the long mode of KVM's guest */
#define GUEST_CODE 0x10000u  /* its program, entered at the first byte */
#define GUEST_STACK 0x80000u /* end of its stack */
#define GUEST_WORK 0x100000u /* from here on: the pages that it works on */

/* What the program knows; on KVM it lives on the guest's own stack, in software it is the registers of the vCPU. */
typedef struct Guest {
    uint64_t pages;   /* in the work area; at least 2 */
    uint64_t rate;    /* pages to write per tick */
    uint64_t left;    /* of them in this tick */
    uint64_t tick;    /* that was seen last */
    uint64_t at;      /* where the walk over the pages is */
    uint64_t round;   /* how often all of them were written */
    uint64_t count;   /* pages written so far */
    uint64_t errors;  /* words of memory or disk that were not as they had been written */
    uint64_t clock;   /* when it was looked at last, ns */
    uint64_t beat;    /* heartbeats so far */
    uint64_t beat_at; /* time of the last one, ns */
    uint64_t gap;     /* longest time between two looks since then, ns */
} Guest;

/* Gets the program started: `pages` to work on, `rate` of them per tick. */
void guest_start(Guest *g, uint64_t pages, uint64_t rate);

/* A little of the work: a page, or waiting for the next tick. The vCPU does nothing but call it again and again. */
void guest_step(Guest *g);

/* What a CPU gives its program: memory and ports. In software, soft.c has them. */
#ifdef GUEST_BARE_METAL
static inline uint64_t *cpu_memory(uint64_t address)
{
    return (uint64_t *)address;
}

static inline void cpu_wrote(uint64_t address)
{
    (void)address; /* the hardware takes note */
}

static inline uint32_t cpu_in(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void cpu_out(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
#else
uint64_t *cpu_memory(uint64_t address);
void cpu_wrote(uint64_t address);
uint32_t cpu_in(uint16_t port);
void cpu_out(uint16_t port, uint32_t value);
#endif

#endif /* GUEST_H */

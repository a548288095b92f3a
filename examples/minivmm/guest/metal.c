/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's program on KVM: its entry, and its access to memory and ports. */
#include "guest.h"

/* The entry, at the first byte of the image. The arguments are in registers. */
__attribute__((section(".entry"), noreturn)) void guest_entry(uint64_t pages, uint64_t rate)
{
    Guest g = { .pages = pages, .rate = rate };
    for (;;) {
        guest_step(&g);
    }
}

uint64_t *cpu_memory(uint64_t address)
{
    return (uint64_t *)address;
}

void cpu_wrote(uint64_t address)
{
    /* KVM logs the write. */
}

uint32_t cpu_in(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

void cpu_out(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The type that vmstate_info_cpudouble saves, for hypervisors that have none.
 * Layout and guard are those of QEMU 7.2's include/qemu/cpu-float.h.
 */
#ifndef QEMU_CPU_FLOAT_H
#define QEMU_CPU_FLOAT_H

#include <stdint.h>

/* A double of the guest, as a number, as bits, and as halves of the bits. */
typedef union {
    double d;
    struct {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        uint32_t upper, lower;
#else
        uint32_t lower, upper;
#endif
    } l;
    uint64_t ll;
} CPU_DoubleU;

#endif /* QEMU_CPU_FLOAT_H */

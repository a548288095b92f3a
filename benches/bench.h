/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What benchmarks of machines with one block of RAM have in common. */
#ifndef BENCH_H
#define BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "savevm.h"
#include "savevm/ram.h"

/* Ends the benchmark unless `good`: nothing can be measured then. */
static inline void check(bool good, const char *what, const Error *err)
{
    if (!good) {
        fprintf(stderr, "%s%s%s\n", what, err ? ": " : "", err ? error_get_pretty(err) : "");
        exit(2);
    }
}

/* The time of a clock in seconds. */
static inline double seconds(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static inline double now_ms(void)
{
    return 1e3 * seconds(CLOCK_MONOTONIC);
}

/* Gives a machine RAM. `ops`, with `opaque`, and `options` may be NULL. */
static inline SaveVMRam *ram_new(SaveVM *vm, const SaveVMRamOptions *options, const SaveVMRamOps *ops, void *opaque,
                                 uint8_t *memory, size_t length, bool shared)
{
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    Error *err = NULL;
    SaveVMRam *ram = savevm_ram_new(vm, options, ops, opaque, &err);

    block.name = "ram";
    block.host = memory;
    block.length = length;
    block.shared = shared;
    check(ram && savevm_ram_add_block(ram, &block, &err) == 0, "RAM", err);
    return ram;
}

/* For qsort() of numbers. */
static inline int by_value(const void *one, const void *two)
{
    double difference = *(const double *)one - *(const double *)two;
    return difference < 0 ? -1 : difference > 0;
}

#endif

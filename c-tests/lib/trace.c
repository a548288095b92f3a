/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lines of a trace; the same for both sides. */
#include "backend.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FNV_START 0xcbf29ce484222325ull

static bool folding;
static unsigned folded;
static uint64_t fold_hash;

static uint64_t hash_more(uint64_t hash, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ at[i]) * 0x100000001b3ull;
    }
    return hash;
}

void trace(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    int len;

    va_start(arguments, format);
    len = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (folding) {
        folded++;
        fold_hash = hash_more(fold_hash, line, (size_t)len < sizeof(line) ? (size_t)len : sizeof(line) - 1);
    } else {
        puts(line);
    }
}

void trace_fold(void)
{
    folding = getenv("TRACE_UNFOLD") == NULL;
    folded = 0;
    fold_hash = FNV_START;
}

void trace_unfold(const char *what, size_t number)
{
    folding = false;
    trace("%s %zu: %u lines, FNV-1a %016llx", what, number, folded, (unsigned long long)fold_hash);
}

void trace_drop(void)
{
    folding = false;
}

void trace_bytes(const char *what, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    printf("%s: %zu bytes", what, len);
    for (size_t i = 0; i < len; i++) {
        if (i % 32 == 0) {
            printf("\n   ");
        }
        printf(" %02x", at[i]);
    }
    putchar('\n');
}

void trace_written(const char *what, QEMUFile *f)
{
    size_t len = 0;
    const uint8_t *bytes = backend_bytes(f, &len);

    trace_bytes(what, bytes, len);
}

void trace_digest(const char *what, const void *bytes, size_t len)
{
    trace("%s: %zu bytes, FNV-1a %016llx", what, len, (unsigned long long)hash_more(FNV_START, bytes, len));
}

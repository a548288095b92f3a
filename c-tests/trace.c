/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lines of a trace; the same for both sides. */
#include "side.h"

#include <stdarg.h>
#include <stdio.h>

void trace(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
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
    const uint8_t *bytes = side_bytes(f, &len);

    trace_bytes(what, bytes, len);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors of callbacks that have an `Error **`, with QEMU's names (QEMU:
 * include/qapi/error.h). savevm.h describes the errors of the library.
 *
 * A callback that fails stores an error in `*errp`, and returns false or a
 * negative errno value:
 *
 *     error_setg(errp, "queue %u is busy", queue);
 *     return false;
 *
 * `errp` may be NULL: the error is then dropped. &error_abort and &error_fatal
 * do not exist.
 */
#ifndef ERROR_H
#define ERROR_H

#include <stdarg.h>
#include <stdio.h>

#include "savevm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Longest text of an error in bytes, with the terminator. */
#define ERROR_TEXT_MAX_ 1024

#ifdef __GNUC__
#define ERROR_FORMAT_(text, first) __attribute__((format(printf, text, first)))
#else
#define ERROR_FORMAT_(text, first)
#endif

/* Stores an error with the text that printf() would write. */
ERROR_FORMAT_(2, 3)
static inline void error_setg(Error **errp, const char *format, ...)
{
    char text[ERROR_TEXT_MAX_];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    savevm_error_set(errp, 0, text);
}

/* As error_setg(), with a positive errno value. */
ERROR_FORMAT_(3, 4)
static inline void error_setg_errno(Error **errp, int os_errno, const char *format, ...)
{
    char text[ERROR_TEXT_MAX_];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    savevm_error_set(errp, os_errno, text);
}

/* Moves `local_err`, which may be NULL, to `*dst_errp`, or frees it if an
 * earlier error is there or `dst_errp` is NULL. */
static inline void error_propagate(Error **dst_errp, Error *local_err)
{
    if (dst_errp && !*dst_errp) {
        *dst_errp = local_err;
    } else {
        error_free(local_err);
    }
}

/*
 * At the begin of a function with a parameter `errp`: makes `*errp` readable
 * even if the caller passed NULL.
 */
#ifdef __GNUC__
typedef struct ErrorGuard_ {
    Error *local;
} ErrorGuard_;

static inline void error_guard_end_(ErrorGuard_ *guard)
{
    error_free(guard->local);
}

#define ERRP_GUARD()                                                        \
    __attribute__((cleanup(error_guard_end_))) ErrorGuard_ errp_guard_ = { NULL }; \
    do {                                                                    \
        if (!errp) {                                                        \
            errp = &errp_guard_.local;                                      \
        }                                                                   \
    } while (0)
#endif

#ifdef __cplusplus
}
#endif

#endif /* ERROR_H */

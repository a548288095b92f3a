/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between versions.c and device.c, which is compiled once for each QEMU version
 * and exports one VersionDevice. The header is the same for all versions.
 */
#ifndef VERSIONS_H
#define VERSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Part {
    uint8_t a;
    uint32_t b;
} Part;

/* The state of a device, and the calls of its callbacks. */
typedef struct State {
    uint64_t ram;     /* saved by the live device */
    uint32_t number;  /* these are saved by the description */
    uint16_t words[4];
    Part part;
    Part nested;      /* by an info that calls VMState */
    Part *parts[3];
    uint32_t late;    /* by a subsection, if it is not 0 */
    uint32_t doubled; /* by a temporary */
    uint32_t first;   /* by a description that is saved first */
    uint32_t early;   /* by a description that is saved in setup (8.0) */

    Part part_a, part_c;
    bool fail;        /* callbacks with an Error ** fail */
    char log[1024];
} State;

typedef struct VersionDevice {
    unsigned version;
    /* Register a live device and its descriptions, and remove them. */
    int (*add)(State *state);
    void (*remove)(State *state);
    /* Registers a description without VMSTATE_END_OF_LIST(), and one that
     * forbids migrations. */
    int (*add_endless)(State *state, char *text, size_t len);
    int (*add_blocker)(State *state);
    void (*remove_blocker)(State *state);
    /* Saves and loads by direct calls. Returns the result of the load. */
    int (*copy)(State *from, State *to);
    /* Calls that return an error where the version has an Error **; the text is
     * freed by the caller. */
    char *(*direct_error)(State *state);
    /* Loads bytes into `part` by a direct call. Returns the error of the file,
     * and in `ret` the result. */
    int (*load_bytes)(State *state, const void *bytes, size_t len, int *ret);
} VersionDevice;

#endif

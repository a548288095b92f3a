/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmstate GROUP [ARGUMENT...]: prints the trace of one group of cases. */
#include "files.h"
#include "groups.h"
#include "test-case.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} groups[] = {
    { "scalars", group_scalars },
    { "arrays", group_arrays },
    { "structs", group_structs },
    { "hooks", group_hooks },
    { "subsections", group_subsections },
    { "containers", group_containers },
    { "devices", group_devices },
    { "descriptors", group_descriptors },
    { "random", group_random },
};

int main(int argc, char **argv)
{
    const uint16_t probe = 1;

    /* The trace shows memory as it is. */
    if (sizeof(void *) != 8 || *(const uint8_t *)&probe != 1) {
        puts("SKIP: the traces are those of a little-endian 64-bit host");
        return 77;
    }
    for (size_t i = 0; argc > 1 && i < COUNT(groups); i++) {
        if (strcmp(argv[1], groups[i].name) == 0) {
            int result;

            files_start();
            result = groups[i].run(argc - 2, argv + 2);
            files_stop();
            return result;
        }
    }
    fprintf(stderr, "usage: %s GROUP [ARGUMENT...]; groups:", argv[0]);
    for (size_t i = 0; i < COUNT(groups); i++) {
        fprintf(stderr, " %s", groups[i].name);
    }
    fprintf(stderr, "\n");
    return 2;
}

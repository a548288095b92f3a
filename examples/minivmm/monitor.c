/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The monitor: commands from standard input, a line each, by the names that QEMU's users know. */
#include "minivmm.h"
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "migrate URI               send the running guest to unix:PATH, tcp:HOST:PORT, file:PATH or exec:COMMAND\n"
    "cancel                    give the migration up; the guest stays here\n"
    "set downtime-limit MS     how long the guest may stand still for it\n"
    "set max-bandwidth MIB     how much may be sent in a second\n"
    "info migrate              how it goes\n"
    "info status               whether the guest runs\n"
    "info memory               its size, and a hash of what is in it if the guest is stopped\n"
    "savevm FILE, loadvm FILE  save the machine's state, and go on from a saved one\n"
    "stop, cont                stop the guest, and let it go on\n"
    "quit                      end all\n";

static void info_status(Machine *m)
{
    machine_lock(m);
    printf("VM status: %s\n", m->running ? "running" : migrate_guest_is_here() ? "paused" : "paused (not here)");
    machine_unlock(m);
}

/* The hash of a guest that stands still tells whether two of them are the same. */
static void info_memory(Machine *m)
{
    machine_lock(m);
    printf("memory: %" PRIu64 " MiB", m->ram_size >> 20);
    if (!m->running) {
        printf(", hash %016" PRIx64, ram_hash(m));
    }
    printf("\n");
    machine_unlock(m);
}

static void stop(Machine *m)
{
    machine_lock(m);
    machine_stop(m);
    machine_unlock(m);
}

/* Never while the guest is, or may be, somewhere else: two of them would write to the same disk. */
static void cont(Machine *m)
{
    machine_lock(m);
    if (!migrate_guest_is_here()) {
        printf("the guest is not here\n");
    } else if (disk_acquire(m) == 0) {
        machine_start(m);
    }
    machine_unlock(m);
}

/* False: there is no such command. */
static bool run_command(Machine *m, char **word, int words)
{
#define IS(name, count) (words == (count) && strcmp(word[0], name) == 0)
    if (IS("migrate", 2)) {
        migrate_to(m, word[1]);
    } else if (IS("cancel", 1)) {
        migrate_cancel();
    } else if (IS("set", 3)) {
        return migrate_set(word[1], strtoull(word[2], NULL, 10));
    } else if (IS("info", 2) && strcmp(word[1], "migrate") == 0) {
        migrate_print();
    } else if (IS("info", 2) && strcmp(word[1], "status") == 0) {
        info_status(m);
    } else if (IS("info", 2) && strcmp(word[1], "memory") == 0) {
        info_memory(m);
    } else if (IS("savevm", 2)) {
        printf("%s", snapshot_save(m, word[1]) ? "saved\n" : "");
    } else if (IS("loadvm", 2)) {
        printf("%s", snapshot_load(m, word[1]) ? "loaded\n" : "");
    } else if (IS("stop", 1)) {
        stop(m);
    } else if (IS("cont", 1)) {
        cont(m);
    } else {
        return false;
    }
    return true;
#undef IS
}

/* Whether the monitor goes on. */
static bool run_line(Machine *m, char *line)
{
    char *rest = NULL, *word[4];
    int words = 0;
    for (char *next = strtok_r(line, " \t\r", &rest); next && words < 4; next = strtok_r(NULL, " \t\r", &rest)) {
        word[words++] = next;
    }
    if (words == 1 && strcmp(word[0], "quit") == 0) {
        return false;
    }
    if (words > 0 && !run_command(m, word, words)) {
        fputs(help, stdout);
    }
    fflush(stdout);
    return true;
}

void monitor_run(Machine *m, bool from_stdin, int64_t deadline)
{
    char text[1024], *end;
    size_t used = 0;
    struct pollfd input = { .fd = from_stdin ? STDIN_FILENO : -1, .events = POLLIN };
    for (int64_t left; (left = (deadline - host_clock()) / 1000000) > 0; ) {
        if (poll(&input, 1, left < 1000 ? (int)left : 1000) <= 0) {
            continue;
        }
        ssize_t got = read(STDIN_FILENO, text + used, sizeof(text) - used);
        if (got <= 0) {
            return;
        }
        used += (size_t)got;
        while ((end = memchr(text, '\n', used)) != NULL) {
            *end++ = 0;
            if (!run_line(m, text)) {
                return;
            }
            used -= (size_t)(end - text);
            memmove(text, end, used);
        }
        used = used < sizeof(text) ? used : 0; /* no command is that long */
    }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The monitor: commands from standard input, a line each, by the names that QEMU's users know. */
#include "minivmm.h"
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

typedef struct Command {
    const char *name, *arguments, *help;
    void (*run)(Machine *m, const char *first, const char *second);
    int count; /* of arguments */
} Command;

static void help(Machine *m, const char *first, const char *second);

static void info_status(Machine *m)
{
    machine_lock(m);
    printf("VM status: %s\n", machine_status(m));
    machine_unlock(m);
}

/* The hash of a guest that stands still tells whether two of them are the same. */
static void info_memory(Machine *m)
{
    machine_lock(m);
    printf("memory: %" PRIu64 " MiB", m->ram_size >> 20);
    if (m->running) {
        printf("\n");
    } else {
        printf(", hash %016" PRIx64 "\n", ram_hash(m));
    }
    machine_unlock(m);
}

static void info(Machine *m, const char *first, const char *second)
{
    if (strcmp(first, "status") == 0) {
        info_status(m);
    } else if (strcmp(first, "migrate") == 0) {
        migrate_print(stdout);
    } else if (strcmp(first, "memory") == 0) {
        info_memory(m);
    } else {
        help(m, first, second);
    }
}

static void migrate(Machine *m, const char *first, const char *second)
{
    (void)second;
    migrate_to(m, first);
}

static void cancel(Machine *m, const char *first, const char *second)
{
    (void)m, (void)first, (void)second;
    migrate_cancel();
}

static void set(Machine *m, const char *first, const char *second)
{
    if (!migrate_set(first, second)) {
        help(m, first, second);
    }
}

static void savevm(Machine *m, const char *first, const char *second)
{
    (void)second;
    if (snapshot_save(m, first)) {
        printf("saved to %s\n", first);
    }
}

static void loadvm(Machine *m, const char *first, const char *second)
{
    (void)second;
    if (snapshot_load(m, first)) {
        printf("loaded from %s\n", first);
    }
}

static void stop(Machine *m, const char *first, const char *second)
{
    (void)first, (void)second;
    machine_lock(m);
    machine_stop(m);
    machine_unlock(m);
}

/* Not while the state is still to come, and not when the guest went elsewhere and took its disk along. */
static void cont(Machine *m, const char *first, const char *second)
{
    (void)first, (void)second;
    machine_lock(m);
    if (migrate_incoming()) {
        printf("the machine's state has not come in\n");
    } else if (disk_acquire(m) == 0) {
        m->start_paused = false;
        machine_start(m);
    }
    machine_unlock(m);
}

static const Command commands[] = {
    { "migrate", "URI", "send the running guest to unix:PATH, tcp:HOST:PORT, file:PATH or exec:COMMAND", migrate, 1 },
    { "cancel", "", "give the migration up; the guest stays here", cancel, 0 },
    { "set", "NAME VALUE", "a parameter: downtime-limit (ms)", set, 2 },
    { "info", "TOPIC", "status, migrate or memory", info, 1 },
    { "savevm", "FILE", "write the machine's state to a file", savevm, 1 },
    { "loadvm", "FILE", "go on from such a file", loadvm, 1 },
    { "stop", "", "stop the guest", stop, 0 },
    { "cont", "", "let it go on", cont, 0 },
    { "help", "", "this text", help, 0 },
    { "quit", "", "end all", NULL, 0 },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(Machine *m, const char *first, const char *second)
{
    (void)m, (void)first, (void)second;
    for (size_t at = 0; at < COMMANDS; at++) {
        printf("%-8s %-11s %s\n", commands[at].name, commands[at].arguments, commands[at].help);
    }
}

/* Whether the monitor goes on. */
static bool run_line(Machine *m, char *line)
{
    char *rest = NULL, *words[3] = { NULL, NULL, NULL };
    int count = 0;
    for (char *word = strtok_r(line, " \t\r", &rest); word && count < 3; word = strtok_r(NULL, " \t\r", &rest)) {
        words[count++] = word;
    }
    if (count == 0) {
        return true;
    }
    for (size_t at = 0; at < COMMANDS; at++) {
        if (strcmp(commands[at].name, words[0]) == 0 && commands[at].count == count - 1) {
            if (!commands[at].run) {
                return false;
            }
            commands[at].run(m, words[1], words[2]);
            fflush(stdout);
            return true;
        }
    }
    help(m, NULL, NULL);
    fflush(stdout);
    return true;
}

/* Takes whole lines out of `text`, of which `used` bytes are filled. Whether the monitor goes on. */
static bool run_lines(Machine *m, char *text, size_t *used)
{
    char *end;
    while ((end = memchr(text, '\n', *used)) != NULL) {
        *end++ = 0;
        if (!run_line(m, text)) {
            return false;
        }
        *used -= (size_t)(end - text);
        memmove(text, end, *used);
    }
    return true;
}

void monitor_run(Machine *m, bool from_stdin, int64_t deadline)
{
    char text[1024];
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
        if (!run_lines(m, text, &used)) {
            return;
        }
        used = used < sizeof(text) ? used : 0; /* no command is that long */
    }
}

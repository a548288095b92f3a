/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line, and the monitor: commands from standard input, a line each, by the names that QEMU's users know. */
#include "minivmm.h"
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIN_MIB 4
#define MAX_MIB (MAX_PAGES / (1048576 / PAGE_SIZE))

static const char usage[] =
    "usage: minivmm [options]\n"
    "  -m MIB            memory of the guest, 4 to 3072 (1024)\n"
    "  -S                do not start the guest; `cont` does\n"
    "  --software        run it without /dev/kvm, as where there is none\n"
    "  --dirty MIB       memory that it writes per second, in steps of 4 (64)\n"
    "  --disk FILE       its disk\n"
    "  --incoming URI    wait for a guest: unix:PATH, tcp:HOST:PORT, file:PATH, exec:COMMAND\n"
    "  --trace FILE      write a trace of the next migration to FILE, for `savevm plot`\n"
    "Standard input takes commands; `help` names them.\n";

/* Commands about the machine; those about migrations are in migrate.c. */

/* Never while the guest is, or may be, somewhere else: two of them would write to the same disk. */
static bool start(Machine *m)
{
    machine_lock(m);
    bool good = migrate_may_start() && disk_acquire(m) == 0 && machine_start(m) == 0;
    machine_unlock(m);
    return good;
}

static void cont(Machine *m, const char *unused)
{
    start(m);
}

/* Without waiting: the CPU may, for memory that this thread has to bring. */
static void stop(Machine *m, const char *unused)
{
    machine_lock(m);
    machine_halt(m);
    machine_unlock(m);
}

static uint64_t hash(const uint64_t *words, uint64_t count)
{
    uint64_t sum = 1;
    for (uint64_t at = 0; at < count; at++) {
        sum = ((sum << 29 | sum >> 35) ^ words[at]) * 0x9e3779b97f4a7c15u;
    }
    return sum;
}

/* The hash tells whether two guests that stand still are the same. While memory is on its way, touching it may take until
 * a broken connection is mended, which this thread has to do. */
static void info_status(Machine *m, const char *unused)
{
    machine_lock(m);
    printf("VM status: %s", m->running ? "running" : m->parked ? "paused" : "stopping");
    if (!m->running && m->parked && migrate_memory_is_here()) {
        printf(", memory %016" PRIx64, hash((uint64_t *)m->ram, m->ram_size / sizeof(uint64_t)));
    }
    printf("\n");
    machine_unlock(m);
}

static void quit(Machine *m, const char *unused)
{
    migrate_end();
    exit(EXIT_SUCCESS); /* the vCPU's thread ends with the process */
}

static Command help;

static const struct {
    const char *name, *argument, *help;
    Command *run;
} commands[] = {
    { "migrate", "URI", "send the running guest to unix:PATH, tcp:HOST:PORT, file:PATH or exec:COMMAND", migrate_to },
    { "cancel", "", "give the migration up; the guest stays here", migrate_cancel },
    { "migrate-start-postcopy", "", "let the guest run there now; what it misses follows", migrate_start_postcopy },
    { "migrate-pause", "", "break the connection of a postcopy", migrate_pause },
    { "migrate-recover", "URI", "mend it, over there first", migrate_recover },
    { "set", "downtime-limit MS", "how long the guest may stand still for a migration", migrate_set },
    { "set", "max-bandwidth MIB", "how much may be sent in a second", migrate_set },
    { "set", "max-postcopy-bandwidth MIB", "the same, once the guest runs there", migrate_set },
    { "set", "postcopy-ram on", "migrations from here may become postcopies", migrate_set },
    { "info migrate", "", "how it goes", migrate_info },
    { "info status", "", "whether the guest runs; if not, a hash of its memory", info_status },
    { "savevm", "FILE", "save the machine's state", snapshot_save },
    { "loadvm", "FILE", "go on from a saved one", snapshot_load },
    { "stop", "", "stop the guest", stop },
    { "cont", "", "let it go on", cont },
    { "quit", "", "end all", quit },
    { "help", "", "this list", help },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(Machine *m, const char *name)
{
    for (size_t at = 0; at < COMMANDS; at++) {
        if (strncmp(commands[at].name, name, strlen(name)) == 0) {
            int width = 32 - (int)strlen(commands[at].name);
            printf("%s %-*s%s\n", commands[at].name, width, commands[at].argument, commands[at].help);
        }
    }
}

static void run_command(Machine *m, const char *line)
{
    for (size_t at = 0; at < COMMANDS; at++) {
        size_t length = strlen(commands[at].name);
        if (strncmp(line, commands[at].name, length) != 0 || (line[length] && line[length] != ' ')) {
            continue;
        }
        const char *argument = line + length + strspn(line + length, " ");
        bool given = *argument, wanted = *commands[at].argument;
        if (given == wanted) {
            commands[at].run(m, argument);
        } else {
            help(m, commands[at].name);
        }
        return;
    }
    fprintf(stderr, "minivmm: no such command: '%s'; `help` names them all\n", line);
}

static void run_monitor(Machine *m)
{
    char line[4096];
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0]) {
            run_command(m, line);
        }
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        { "software", no_argument, NULL, 's' },
        { "dirty", required_argument, NULL, 'd' },
        { "disk", required_argument, NULL, 'f' },
        { "incoming", required_argument, NULL, 'i' },
        { "trace", required_argument, NULL, 't' },
        { 0 },
    };
    static Machine m = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    long mib = 1024, dirty = 64;
    const char *incoming = NULL;
    bool paused = false, good = true;
    char more;

    m.accel = &accel_kvm && access("/dev/kvm", R_OK | W_OK) == 0 ? &accel_kvm : &accel_soft;
    for (int option; (option = getopt_long(argc, argv, "m:S", names, NULL)) != -1; ) {
        switch (option) {
        case 'm': good &= sscanf(optarg, "%ld%c", &mib, &more) == 1; break;
        case 'S': paused = true; break;
        case 's': m.accel = &accel_soft; break;
        case 'd': good &= sscanf(optarg, "%ld%c", &dirty, &more) == 1; break;
        case 'f': m.disk_path = optarg; break;
        case 'i': incoming = optarg; break;
        case 't': migrate_trace(optarg); break;
        default: good = false;
        }
    }
    if (!good || optind < argc || mib < MIN_MIB || mib > MAX_MIB || dirty < 0) {
        fputs(usage, stderr);
        return EXIT_FAILURE;
    }
    m.ram_size = (uint64_t)mib << 20;
    m.rate = (uint64_t)dirty * (1048576 / PAGE_SIZE) / TICKS_PER_SECOND;

    savevm_log_init(NULL); /* what the library has to say goes to stderr; RUST_LOG says how much of it */
    if (!machine_init(&m) || !(incoming ? migrate_from(&m, incoming, !paused) : paused || start(&m))) {
        return EXIT_FAILURE;
    }
    run_monitor(&m);
    quit(&m, "");
}

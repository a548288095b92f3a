/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line, and the monitor. The monitor reads one command per line from standard input; the names are QEMU's. */
#define _GNU_SOURCE
#include "minivmm.h"
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIN_MIB 4
#define MAX_MIB (MAX_PAGES / (1048576 / PAGE_SIZE))

static const char usage[] =
    "usage: minivmm [options]\n"
    "  -m MIB            memory of the guest, 4 to 3072 (1024)\n"
    "  -S                do not start the guest; the command `cont` starts it\n"
    "  --software        run the CPU in software; the default if /dev/kvm is not available\n"
    "  --dirty MIB       memory that the guest writes per second, in steps of 4 (64)\n"
    "  --disk FILE       image of the guest's disk; both sides of a migration use the same file\n"
    "  --incoming URI    receive a guest from unix:PATH, tcp:HOST:PORT, file:PATH or exec:COMMAND\n"
    "  --tls-dir DIR     encrypt migrations with the certificates of DIR, as the command `set tls-dir`\n"
    "  --set 'NAME VALUE' as the command `set`, before a guest is received; may be repeated\n"
    "  --huge            keep the guest's memory in huge pages of 2 MiB, which the system must have reserved\n"
    "  --shared          keep the guest's memory in a memfd, so that a live update is possible\n"
    "  --live-update URI take the guest over from a minivmm with --shared on this host, which runs live-update URI\n"
    "  --trace FILE      write a trace of the next migration to FILE, for `savevm plot`\n"
    "  --help            show this text\n"
    "Commands are read from standard input. `help` lists them.\n";

/* Commands for the machine. The commands for migrations are in migrate.c. */

/* Refuses if the other side has or may have the guest: two running guests would write to the same disk. */
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

/* Does not wait for the CPU: it may wait for a missing page until this thread runs migrate-recover. */
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

/* The hash shows whether two stopped guests have the same memory. In a postcopy, memory may be missing: an access would wait
 * until the connection is recovered, and this thread runs the command for that. */
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
    exit(EXIT_SUCCESS); /* this also ends the vCPU's thread */
}

static Command help;

static const struct {
    const char *name, *argument, *help;
    Command *run;
} commands[] = {
    { "migrate", "URI", "migrate to unix:PATH, tcp:HOST:PORT, file:PATH or exec:COMMAND", migrate_to },
    { "preflight", "URI", "ask the destination at URI whether it accepts the guest", migrate_preflight },
    { "rehearse", "URI", "as preflight; then have the destination load the devices for a test", migrate_rehearse },
    { "cancel", "", "cancel the migration; the guest stays here", migrate_cancel },
    { "migrate-start-postcopy", "", "run the guest at the destination, then send the rest", migrate_start_postcopy },
    { "migrate-pause", "", "break the connection of a postcopy", migrate_pause },
    { "migrate-recover", "URI", "continue a paused postcopy over URI; first at the destination", migrate_recover },
    { "set", "downtime-limit MS", "longest downtime of a migration, in ms", migrate_set },
    { "set", "downtime-limit-max MS", "the limit rises up to this while the migration does not converge", migrate_set },
    { "set", "downtime-step MS", "by how much the limit rises at a time", migrate_set },
    { "set", "downtime-step-interval MS", "time without convergence after which it rises", migrate_set },
    { "set", "deadline MS", "when the migration must have ended; 0: never", migrate_set },
    { "set", "deadline-action ACTION", "what happens then: cancel, postcopy or force", migrate_set },
    { "set", "max-bandwidth MIB", "bandwidth limit, in MiB per second; 0: none", migrate_set },
    { "set", "max-postcopy-bandwidth MIB", "bandwidth limit while the guest runs at the destination; 0: none", migrate_set },
    { "set", "channels NUMBER", "connections for memory, 2 to 64 (--set at the destination); 0: one for all", migrate_set },
    { "set", "compression METHOD", "with channels: none, zlib, zstd, or auto, which compresses only if that is faster", migrate_set },
    { "set", "compression-level LEVEL", "1 to 9 for zlib, 1 to 20 for zstd; 0: 1", migrate_set },
    { "set", "postcopy-ram on", "allow migrations to switch to postcopy (on or off)", migrate_set },
    { "set", "tls-dir DIR", "encrypt migrations with the certificates of DIR; off: do not", migrate_set },
    { "set", "tls-hostname NAME", "the name in the destination's certificate; for unix:PATH", migrate_set },
    { "info migrate", "", "show the status of the migration", migrate_info },
    { "info devices", "", "list the devices by the time that the migration took to save them", migrate_devices },
    { "info status", "", "show whether the guest runs; if it is stopped, a hash of its memory", info_status },
    { "savevm", "FILE", "save a snapshot to FILE; the following words may be combined, in any order", snapshot_save },
    { "savevm", "FILE mapped [direct]", "each page has a fixed place; direct: write past the page cache", snapshot_save },
    { "savevm", "FILE parent none", "begin a chain of snapshots", snapshot_save },
    { "savevm", "FILE parent PARENT", "save what changed since PARENT, the latest snapshot of the chain", snapshot_save },
    { "savevm", "FILE background", "save while the guest and this monitor go on", snapshot_save },
    { "savevm-cancel", "", "cancel the snapshot that is saved in the background", snapshot_cancel },
    { "info snapshot", "", "show the progress of the latest snapshot", snapshot_info },
    { "loadvm", "FILE [direct]", "load a snapshot from FILE; direct: read past the page cache", snapshot_load },
    { "loadvm", "FILE chain", "FILE can be the parent of the next snapshot, also if it is a full one", snapshot_load },
    { "loadvm", "FILE lazy", "run the guest at once, and read its memory meanwhile", snapshot_load },
    { "loadvm", "FILE lazy working-set SET", "read the pages in SET first; write SET if it does not exist", snapshot_load },
    { "checkpoint", "", "keep the state of the machine in memory; prints a number", checkpoint_make },
    { "rollback", "NUMBER", "return to a checkpoint", checkpoint_return },
    { "checkpoint-free", "NUMBER", "free a checkpoint", checkpoint_free },
    { "live-update", "URI", "give the guest to a minivmm with --live-update URI, with its memory in place", update_to },
    { "stop", "", "stop the guest", stop },
    { "cont", "", "start or continue the guest", cont },
    { "quit", "", "end minivmm", quit },
    { "help", "", "show this list", help },
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
    fprintf(stderr, "minivmm: unknown command '%s'; `help` lists all commands\n", line);
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
        { "tls-dir", required_argument, NULL, 'c' },
        { "set", required_argument, NULL, 'p' },
        { "trace", required_argument, NULL, 't' },
        { "huge", no_argument, NULL, 'g' },
        { "shared", no_argument, NULL, 'h' },
        { "live-update", required_argument, NULL, 'u' },
        { "help", no_argument, NULL, 'H' },
        { 0 },
    };
    static Machine m = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
                         .memory_file = -1 };
    long mib = 1024, dirty = 64;
    const char *incoming = NULL, *old = NULL;
    bool paused = false, shared = false, good = true;
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
        case 'c': migrate_tls(optarg); break;
        case 'p': migrate_set(&m, optarg); break;
        case 't': migrate_trace(optarg); break;
        case 'g': m.huge = true; break;
        case 'h': shared = true; break;
        case 'u': old = optarg; break;
        case 'H': fputs(usage, stdout); return EXIT_SUCCESS;
        default: good = false;
        }
    }
    if (!good || optind < argc || mib < MIN_MIB || mib > MAX_MIB || dirty < 0 ||
        (m.huge && (shared || old || mib % 2 != 0))) {
        fputs(usage, stderr);
        return EXIT_FAILURE;
    }
    m.ram_size = (uint64_t)mib << 20;
    m.rate = (uint64_t)dirty * (1048576 / PAGE_SIZE) / TICKS_PER_SECOND;

    savevm_log_init(NULL); /* messages of the library go to stderr; RUST_LOG sets their level */
    if (shared && ((m.memory_file = memfd_create("memory", MFD_CLOEXEC)) < 0 || ftruncate(m.memory_file, mib << 20) < 0)) {
        perror("minivmm: shared memory");
        return EXIT_FAILURE;
    }
    if ((old && !update_accept(&m, old)) || !machine_init(&m)) {
        return EXIT_FAILURE;
    }
    if (!(old ? update_load(&m, !paused) : incoming ? migrate_from(&m, incoming, !paused) : paused || start(&m))) {
        return EXIT_FAILURE;
    }
    run_monitor(&m);
    quit(&m, "");
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line, and the monitor: commands from standard input, a line each, by the names that QEMU's users know. */
#include "minivmm.h"
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIN_MIB 4
#define MAX_MIB 3072 /* where the addresses begin that KVM keeps for itself */
#define IS(text, name) (strcmp(text, name) == 0)

static const char usage[] =
    "usage: minivmm [options]\n"
    "  -m MIB            memory of the guest, 4 to 3072 (1024; in software 64)\n"
    "  -S                do not start the guest; `cont` does\n"
    "  --software        run it without /dev/kvm, as where there is none\n"
    "  --dirty MIB       memory that it writes per second (64)\n"
    "  --disk FILE       its disk\n"
    "  --incoming URI    wait for a guest: unix:PATH, tcp:HOST:PORT, file:PATH, exec:COMMAND\n"
    "  --postcopy        as `set postcopy-ram on`, which --incoming needs at once\n"
    "Standard input takes commands; `help` names them.\n";

static const char help[] =
    "migrate URI                   send the running guest to unix:PATH, tcp:HOST:PORT, file:PATH or exec:COMMAND\n"
    "cancel                        give the migration up; the guest stays here\n"
    "migrate-start-postcopy        let the guest run there now; what it misses follows\n"
    "migrate-pause                 break the connection of a postcopy\n"
    "migrate-recover URI           mend it, over there first\n"
    "set downtime-limit MS         how long the guest may stand still for a migration\n"
    "set max-bandwidth MIB         how much may be sent in a second\n"
    "set max-postcopy-bandwidth MIB\n"
    "set postcopy-ram on           migrations may become postcopies, if both sides say so\n"
    "info migrate                  how it goes\n"
    "info status                   whether the guest runs; if not, a hash of its memory\n"
    "savevm FILE, loadvm FILE      save the machine's state, and go on from a saved one\n"
    "stop, cont                    stop the guest, and let it go on\n"
    "quit                          end all\n";

static const Accel *best_accel(void)
{
#ifdef MINIVMM_KVM
    if (access("/dev/kvm", R_OK | W_OK) == 0) {
        return &accel_kvm;
    }
#endif
    return &accel_soft;
}

/* With the lock. The hash tells whether two guests that stand still are the same. While memory is on its way, touching it
 * may take until a broken connection is mended, which this thread has to do. */
static void print_status(Machine *m)
{
    if (m->running || !m->parked || !migrate_memory_is_here()) {
        printf("VM status: %s\n", m->running ? "running" : m->parked ? "paused" : "stopping");
    } else {
        printf("VM status: paused%s, memory %016" PRIx64 "\n", migrate_guest_is_here() ? "" : " (not here)",
               machine_hash(m));
    }
}

/* With the lock. Never while the guest is, or may be, somewhere else: two of them would write to the same disk. */
static bool start(Machine *m)
{
    if (!migrate_guest_is_here()) {
        fprintf(stderr, "minivmm: the guest is not here\n");
        return false;
    }
    return disk_acquire(m) == 0 && machine_start(m) == 0;
}

/* False: there is no such command. */
static bool run_machine_command(Machine *m, const char *verb, const char *what)
{
    bool known = true;
    machine_lock(m);
    if (IS(verb, "info") && IS(what, "status")) {
        print_status(m);
    } else if (IS(verb, "stop")) {
        machine_halt(m); /* without waiting: the CPU may, for memory */
    } else if (IS(verb, "cont")) {
        start(m);
    } else {
        known = false;
    }
    machine_unlock(m);
    return known;
}

static bool run_command(Machine *m, const char *verb, const char *what, const char *value)
{
    char uri[1024];
    snprintf(uri, sizeof(uri), "file:%s", what);
    if (IS(verb, "migrate")) {
        migrate_to(what);
    } else if (IS(verb, "migrate-start-postcopy")) {
        migrate_command(savevm_migrate_start_postcopy, NULL);
    } else if (IS(verb, "migrate-pause")) {
        migrate_command(savevm_migrate_pause, savevm_incoming_pause);
    } else if (IS(verb, "migrate-recover")) {
        migrate_recover(what);
    } else if (IS(verb, "cancel")) {
        migrate_command(savevm_migrate_cancel, savevm_incoming_cancel);
    } else if (IS(verb, "info") && IS(what, "migrate")) {
        migrate_print();
    } else if (IS(verb, "savevm")) {
        printf("%s", snapshot_save(uri) ? "saved\n" : "");
    } else if (IS(verb, "loadvm")) {
        printf("%s", snapshot_load(m, uri) ? "loaded\n" : "");
    } else if (IS(verb, "set")) {
        return migrate_set(what, value);
    } else {
        return run_machine_command(m, verb, what);
    }
    return true;
}

static void run_monitor(Machine *m)
{
    char line[1024], verb[32], what[960], value[32];
    while (fgets(line, sizeof(line), stdin)) {
        verb[0] = what[0] = value[0] = 0;
        sscanf(line, "%31s %959s %31s", verb, what, value);
        if (IS(verb, "quit")) {
            return;
        }
        if (verb[0] && !run_command(m, verb, what, value)) {
            printf("%s", help);
        }
        fflush(stdout);
    }
}

/* Whether the options are good; `*incoming` is the URI of that option, or NULL. */
static bool parse(Machine *m, int argc, char **argv, const char **incoming)
{
    static const struct option names[] = {
        { "software", no_argument, NULL, 's' },
        { "postcopy", no_argument, NULL, 'p' },
        { "dirty", required_argument, NULL, 'd' },
        { "disk", required_argument, NULL, 'f' },
        { "incoming", required_argument, NULL, 'i' },
        { 0 },
    };
    long mib = 0, dirty = 64;
    for (int option; (option = getopt_long(argc, argv, "m:S", names, NULL)) != -1; ) {
        switch (option) {
        case 'm': mib = atol(optarg); break;
        case 'S': m->start_paused = true; break;
        case 's': m->accel = &accel_soft; break;
        case 'p': migrate_set("postcopy-ram", "on"); break;
        case 'd': dirty = atol(optarg); break;
        case 'f': m->disk_path = optarg; break;
        case 'i': *incoming = optarg; break;
        default: return false;
        }
    }
    mib = mib ? mib : m->accel == &accel_soft ? 64 : 1024;
    m->ram_size = (uint64_t)mib << 20;
    m->rate = (uint64_t)dirty * (1048576 / PAGE_SIZE) / 1000;
    return optind == argc && mib >= MIN_MIB && mib <= MAX_MIB && dirty >= 0;
}

int main(int argc, char **argv)
{
    static Machine m = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    const char *incoming = NULL;
    m.accel = best_accel();
    savevm_log_init(NULL); /* what the library has to say goes to stderr; RUST_LOG says how much of it */
    if (!parse(&m, argc, argv, &incoming)) {
        fputs(usage, stderr);
        return EXIT_FAILURE;
    }
    machine_lock(&m);
    bool good = machine_init(&m) && (incoming || m.start_paused || start(&m));
    machine_unlock(&m);
    if (!good || (incoming && !migrate_from(&m, incoming))) {
        return EXIT_FAILURE;
    }
    run_monitor(&m);
    migrate_end();
    machine_lock(&m);
    machine_stop(&m); /* the vCPU's thread sleeps on while the process ends */
    machine_unlock(&m);
    return EXIT_SUCCESS;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line, and the life of the machine between its first and its last line. */
#include "minivmm.h"
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIN_MIB 4
#define MAX_MIB 3072 /* where the addresses begin that KVM keeps for itself */
#define FOREVER (INT64_MAX / 2)

typedef struct Options {
    Machine machine;
    const char *incoming, *restore;
    bool monitor;
    int64_t seconds;
} Options;

static int usage(FILE *out)
{
    fprintf(out,
            "usage: minivmm [options]\n"
            "  -m MIB          memory of the guest, %d to %d (256)\n"
            "  -S              do not start the guest; `cont` does\n"
            "  --software      run it without /dev/kvm, as where there is none\n"
            "  --dirty MIB     memory that it writes per second (64)\n"
            "  --disk FILE     its disk\n"
            "  --incoming URI  wait for a guest: unix:PATH, tcp:HOST:PORT, file:PATH, exec:COMMAND\n"
            "  --restore FILE  go on from a file that `savevm` wrote\n"
            "  --monitor       read commands from standard input; `help` names them\n"
            "  --seconds N     end after that time\n",
            MIN_MIB, MAX_MIB);
    return out == stdout ? EXIT_SUCCESS : EXIT_FAILURE;
}

static const Accel *best_accel(void)
{
#ifdef MINIVMM_KVM
    if (access("/dev/kvm", R_OK | W_OK) == 0) {
        return &accel_kvm;
    }
#endif
    return &accel_soft;
}

/* Whether to go on; if not, `*status` is what to exit with. */
static bool parse(int argc, char **argv, Options *o, int *status)
{
    enum { SOFTWARE = 1, DIRTY, DISK, INCOMING, RESTORE, MONITOR, SECONDS, HELP };
    static const struct option names[] = {
        { "software", no_argument, NULL, SOFTWARE },      { "dirty", required_argument, NULL, DIRTY },
        { "disk", required_argument, NULL, DISK },        { "incoming", required_argument, NULL, INCOMING },
        { "restore", required_argument, NULL, RESTORE },  { "monitor", no_argument, NULL, MONITOR },
        { "seconds", required_argument, NULL, SECONDS },  { "help", no_argument, NULL, HELP },
        { NULL, 0, NULL, 0 },
    };
    long mib = 256, dirty = 64;
    for (int option; (option = getopt_long(argc, argv, "m:S", names, NULL)) != -1; ) {
        switch (option) {
        case 'm': mib = atol(optarg); break;
        case 'S': o->machine.start_paused = true; break;
        case SOFTWARE: o->machine.accel = &accel_soft; break;
        case DIRTY: dirty = atol(optarg); break;
        case DISK: o->machine.disk_path = optarg; break;
        case INCOMING: o->incoming = optarg; break;
        case RESTORE: o->restore = optarg; break;
        case MONITOR: o->monitor = true; break;
        case SECONDS: o->seconds = atol(optarg); break;
        default: *status = usage(option == HELP ? stdout : stderr); return false;
        }
    }
    if (optind < argc || mib < MIN_MIB || mib > MAX_MIB || dirty < 0 || (o->incoming && o->restore)) {
        *status = usage(stderr);
        return false;
    }
    o->machine.ram_size = (uint64_t)mib << 20;
    o->machine.rate = (uint64_t)dirty * (1048576 / PAGE_SIZE) / 1000;
    return true;
}

/* The guest starts now, or when its state has come in. */
static bool begin(Machine *m, const Options *o)
{
    if (o->incoming) {
        return migrate_from(m, o->incoming);
    }
    if (o->restore) {
        return snapshot_load(m, o->restore);
    }
    machine_lock(m);
    bool good = disk_acquire(m) == 0;
    if (good && !m->start_paused) {
        machine_start(m);
    }
    machine_unlock(m);
    return good;
}

int main(int argc, char **argv)
{
    Options o = { .machine.accel = best_accel(), .seconds = FOREVER / 1000000000 };
    int status = EXIT_FAILURE;
    savevm_log_init(NULL); /* what the library has to say goes to stderr; RUST_LOG says how much of it */
    if (!parse(argc, argv, &o, &status) || !machine_init(&o.machine)) {
        return status;
    }
    if (begin(&o.machine, &o)) {
        monitor_run(&o.machine, o.monitor, host_clock() + o.seconds * 1000000000);
        status = EXIT_SUCCESS;
    }
    migrate_end();
    machine_destroy(&o.machine);
    return status;
}

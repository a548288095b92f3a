/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shows the progress of an outgoing migration: a line per second, from a thread of its own, and the costs of the devices. */
#include "minivmm.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define MIB 1048576.0
#define MS 1000.0      /* from us */
#define SECOND 1e6     /* from us */
#define NAPS 20        /* looks at the flag per line */

static pthread_t thread;
static bool has_thread;
static atomic_bool ended;

static bool is_over(SaveVMStatus status)
{
    return status == SAVEVM_STATUS_COMPLETED || status == SAVEVM_STATUS_FAILED || status == SAVEVM_STATUS_CANCELLED;
}

/* Percentage and time to the end; the library's reason if there is no end in sight. */
static void show_line(SaveVMMigration *migration, const SaveVMInfo *info)
{
    Error *err = NULL;
    printf("[outgoing] %" PRIu32 "%%, %.0f MiB/s", info->percent, info->bandwidth / MIB);
    if (savevm_migration_stall(migration, &err) < 0 && err) {
        printf(", stalled: %s\n", error_get_pretty(err));
        error_free(err);
    } else if (info->expected_total_time_us) {
        printf(", %.1f s left\n", (info->expected_total_time_us - info->total_time_us) / SECOND);
    } else {
        printf("\n");
    }
    fflush(stdout);
}

static void *show(void *migration)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    for (unsigned nap = 1; !atomic_load(&ended); nap++) {
        struct timespec time = { .tv_nsec = 1000000000 / NAPS };
        nanosleep(&time, NULL);
        if (nap % NAPS == 0 && savevm_migration_query(migration, &info) == 0) {
            if (is_over(info.status)) {
                break;
            }
            show_line(migration, &info);
        }
    }
    return NULL;
}

void progress_begin(SaveVMMigration *migration)
{
    atomic_store(&ended, false);
    has_thread = pthread_create(&thread, NULL, show, migration) == 0;
}

void progress_end(void)
{
    atomic_store(&ended, true);
    if (has_thread) {
        pthread_join(thread, NULL);
        has_thread = false;
    }
}

/* libsavevm calls this on its own thread. */
void progress_stalled(void *machine, const SaveVMStallEvent *event)
{
    const char *side = event->incoming ? "incoming" : "outgoing";
    if (event->reason == SAVEVM_STALL_NONE) {
        printf("[%s] makes progress again\n", side);
    } else {
        printf("[%s] stalled: %s\n", side, event->text);
    }
    fflush(stdout);
}

void progress_info(const SaveVMInfo *info)
{
    printf("progress: %" PRIu32 "%%\n", info->percent);
    printf("expected total: %.1f ms\n", info->expected_total_time_us / MS);
    printf("downtime limit: %.1f ms\n", info->downtime_limit_us / MS);
    printf("predicted downtime: %.3f ms, actual %.3f ms; predicted memory %.3f, save %.3f, load %.3f, round trips %.3f, "
           "rest %.3f\n",
           info->predicted_downtime_us / MS, info->downtime_us / MS, info->predicted_memory_us / MS,
           info->predicted_save_us / MS, info->predicted_load_us / MS, info->predicted_round_trips_us / MS,
           info->predicted_rest_us / MS);
}

void progress_devices(SaveVMMigration *migration)
{
    SaveVMDeviceInfo device = SAVEVM_DEVICE_INFO_INIT;
    printf("%-24s %8s %10s %10s\n", "device", "bytes", "save, us", "load, us");
    for (size_t at = 0; savevm_migration_device_by(migration, SAVEVM_DEVICES_BY_SAVE_TIME, at, &device) == 0; at++) {
        printf("%-20s %3" PRIu32 " %8" PRIu64 " %10" PRIu64 " %10" PRIu64 "\n", device.name, device.instance_id,
               device.bytes, device.save_time_us, device.load_time_us);
    }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session-host.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

const VMStateDescription vmstate_device = {
    .name = "device",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(value, Device),
        VMSTATE_BUFFER(bytes, Device),
        VMSTATE_END_OF_LIST()
    }
};

static _Thread_local Host *holder;

Journal *journal_new(void)
{
    return mmap(NULL, sizeof(Journal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void violation(Session *session, const char *text)
{
    session->journal->violations++;
    fprintf(stderr, "violation: %s\n", text);
}

uint64_t draw(uint64_t *seed, uint64_t limit)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (*seed >> 11) % limit;
}

/* Host */

void host_lock(void *opaque)
{
    Host *host = opaque;

    pthread_mutex_lock(&host->big);
    if (holder) {
        violation(host->session, "the library takes a second lock");
    }
    holder = host;
}

void host_unlock(void *opaque)
{
    Host *host = opaque;

    if (holder != host) {
        violation(host->session, "the library releases a lock that it does not hold");
    }
    holder = NULL;
    pthread_mutex_unlock(&host->big);
}

bool holds_lock(void)
{
    return holder != NULL;
}

static bool host_locked(void *opaque)
{
    return holder == opaque;
}

static int vm_stop(void *opaque)
{
    Host *host = opaque;

    if (holder != host) {
        violation(host->session, "vm_stop without the lock");
    }
    if (atomic_exchange(&host->running, false)) {
        host->session->guests--;
    }
    return 0;
}

int vm_start(void *opaque)
{
    Host *host = opaque;

    if (holder != host) {
        violation(host->session, "vm_start without the lock");
    }
    host->had_guest = true;
    if (!atomic_exchange(&host->running, true) && host->session->guests++ > 0 && !host->session->copied) {
        violation(host->session, "two guests run");
    }
    return 0;
}

static bool vm_running(void *opaque)
{
    return ((Host *)opaque)->running;
}

/* It calls the library back, as a monitor does that shows the progress. */
static void migration_event(void *opaque, const SaveVMEvent *event)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Host *host = opaque;

    if (savevm_migration_query(event->migration, &info) != 0) {
        violation(host->session, "no query inside an event");
    }
    host->session->journal->completed += event->status == SAVEVM_STATUS_COMPLETED;
    host->session->journal->failed += event->status == SAVEVM_STATUS_FAILED;
    host->session->journal->paused += event->status == SAVEVM_STATUS_POSTCOPY_PAUSED;
    host->session->journal->recovered += event->status == SAVEVM_STATUS_COMPLETED && info.recoveries > 0;
}

/* It may wait for a page as long as a postcopy is paused, so it holds no lock. */
static void *guest(void *opaque)
{
    Host *host = opaque;
    uint64_t seed = host->number + 1;

    while (!host->quit) {
        if (host->running) {
            uint8_t *page = host->memory + draw(&seed, PAGES) * PAGE;

            (*(volatile uint8_t *)page)++;
            savevm_ram_set_dirty(host->ram, page, 1);
        }
        nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
    return NULL;
}

static const SaveVMHostOps host_ops = {
    .size = sizeof(host_ops),
    .lock = host_lock,
    .unlock = host_unlock,
    .locked = host_locked,
    .vm_stop = vm_stop,
    .vm_start = vm_start,
    .vm_running = vm_running,
    .migration_event = migration_event,
};

void host_init(Host *host, Session *session, unsigned number)
{
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    SaveVMRamOptions options = SAVEVM_RAM_OPTIONS_INIT;
    Error *err = NULL;

    host->session = session;
    host->number = number;
    pthread_mutex_init(&host->big, NULL);
    pthread_mutex_init(&host->address_lock, NULL);
    for (unsigned i = 0; i < SLOTS; i++) {
        pthread_rwlock_init(&host->slots[i].lock, NULL);
    }
    host->memory = mmap(NULL, (PAGES + EXTRA_PAGES) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    host->extra = host->memory + PAGES * PAGE;
    host->vm = savevm_new(&host_ops, host);
    options.log = SAVEVM_RAM_LOG_MARKS;
    block.name = "memory";
    block.host = host->memory;
    block.length = PAGES * PAGE;
    host_lock(host);
    host->ram = savevm_ram_new(host->vm, &options, NULL, host, &err);
    if (!host->ram || savevm_ram_add_block(host->ram, &block, &err) < 0 ||
        savevm_register_vmstate(host->vm, NULL, 0, &vmstate_device, &host->device, -1, 0, &err) < 0) {
        violation(session, error_get_pretty(err));
        exit(EXIT_FAILURE);
    }
    host_unlock(host);
    pthread_create(&host->guest, NULL, guest, host);
}

void host_free(Host *host)
{
    host->quit = true;
    pthread_join(host->guest, NULL);
    host_lock(host);
    savevm_ram_free(host->ram);
    host_unlock(host);
    savevm_free(host->vm);
    munmap(host->memory, (PAGES + EXTRA_PAGES) * PAGE);
}

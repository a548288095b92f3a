/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "session-host.h"

#include "migration/qemu-file-types.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "savevm/file.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Calls. Each takes the host, a slot of it, and draws its arguments. */

static bool has_status(SaveVMMigration *migration, SaveVMStatus status)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    return savevm_migration_query(migration, &info) == 0 && info.status == status;
}

static bool over(SaveVMMigration *migration)
{
    return has_status(migration, SAVEVM_STATUS_COMPLETED) || has_status(migration, SAVEVM_STATUS_FAILED) ||
        has_status(migration, SAVEVM_STATUS_CANCELLED);
}

/* Where another host listens, or nothing useful. */
static void choose_address(Host *host, uint64_t *seed, char *uri, size_t size)
{
    static const char *const bad[] = {
        "", "unix:", "unix:/nonexistent/socket", "fd:-1", "fd:9999", "exec:false", "exec:exit 3", "exec:true",
        "file:/nonexistent/file", "tcp:127.0.0.1:1", "nonsense", "file:/dev/full",
    };
    Host *other = &host->session->hosts[draw(seed, HOSTS)];

    if (draw(seed, 8) == 0) {
        snprintf(uri, size, "%s", bad[draw(seed, sizeof(bad) / sizeof(bad[0]))]);
    } else if (draw(seed, 8) == 0) {
        snprintf(uri, size, "file:%s/state%u", host->session->directory, host->number);
    } else {
        pthread_mutex_lock(&other->address_lock);
        snprintf(uri, size, "%s", other->address);
        pthread_mutex_unlock(&other->address_lock);
    }
}

static void new_address(Host *host, char *uri, size_t size)
{
    pthread_mutex_lock(&host->address_lock);
    snprintf(host->address, sizeof(host->address), "unix:%s/in%u-%u", host->session->directory, host->number,
             host->addresses++);
    snprintf(uri, size, "%s", host->address);
    pthread_mutex_unlock(&host->address_lock);
}

/* Deadlines are short, so that a session does not wait for what never comes. */
static SaveVMParams choose_params(uint64_t *seed)
{
    SaveVMParams params = SAVEVM_PARAMS_INIT;

    params.connect_timeout_ms = params.handshake_timeout_ms = params.stall_timeout_ms = 2000;
    params.switchover_timeout_ms = params.recover_timeout_ms = 2000;
    params.max_bandwidth = draw(seed, 2) ? 0 : 1 << 20 << draw(seed, 4);
    params.max_postcopy_bandwidth = draw(seed, 4) ? 1 << 20 << draw(seed, 4) : 0;
    params.downtime_limit_ms = (uint32_t)draw(seed, 400);
    params.postcopy = draw(seed, 4) > 0;
    params.no_extensions = draw(seed, 4) == 0;
    params.pause_before_switchover = draw(seed, 16) == 0;
    params.no_thread = draw(seed, 16) == 0;
    params.auto_converge = draw(seed, 4) == 0;
    if (draw(seed, 32) == 0) {
        params.size = draw(seed, sizeof(params));
    }
    return params;
}

/* Outgoing, to `uri` if it is not NULL. */
static void begin(Host *host, Slot *slot, uint64_t *seed, bool outgoing, const char *to, SaveVMParams params)
{
    char uri[320];
    Error *err = NULL;

    if (to) {
        snprintf(uri, sizeof(uri), "%s", to);
    } else if (outgoing) {
        choose_address(host, seed, uri, sizeof(uri));
    } else {
        new_address(host, uri, sizeof(uri));
        params.no_thread = false;
    }
    pthread_rwlock_wrlock(&slot->lock);
    if (!slot->migration) {
        slot->outgoing = outgoing;
        slot->migration = outgoing ? savevm_migrate(host->vm, uri, &params, &err)
                                   : savevm_incoming(host->vm, uri, &params, &err);
        if (!slot->migration && !err) {
            violation(host->session, "a migration does not begin, without an error");
        }
    }
    pthread_rwlock_unlock(&slot->lock);
    error_free(err);
}

static void op_migrate(Host *host, Slot *slot, uint64_t *seed)
{
    /* A machine that never ran a guest is one of its own: to move it makes no second guest. */
    if (host->had_guest) {
        begin(host, slot, seed, true, NULL, choose_params(seed));
    }
}

static void op_incoming(Host *host, Slot *slot, uint64_t *seed)
{
    /* A host whose guest runs is not asked to receive another. */
    if (!host->running) {
        begin(host, slot, seed, false, NULL, choose_params(seed));
    }
}

/* A recovery at both ends, once both have noticed the break. */
static void mend(Slot *slot, Host *other, Slot *into, uint64_t *seed)
{
    char uri[320];

    nanosleep(&(struct timespec){ .tv_nsec = (long)draw(seed, 20000000) }, NULL);
    pthread_rwlock_rdlock(&into->lock);
    new_address(other, uri, sizeof(uri));
    savevm_migration_recover(into->migration, uri, NULL);
    pthread_rwlock_unlock(&into->lock);
    savevm_migration_recover(slot->migration, uri, NULL);
}

/* Both ends of a migration, so that it has a chance to go well; often up to postcopy, which is short. */
static void op_move(Host *host, Slot *slot, uint64_t *seed)
{
    Host *other = &host->session->hosts[(host->number + 1 + draw(seed, HOSTS - 1)) % HOSTS];
    Slot *into = &other->slots[draw(seed, SLOTS)];
    SaveVMParams params = choose_params(seed);
    char uri[320];

    if (host->running && !other->running && !slot->migration && !into->migration) {
        begin(other, into, seed, false, NULL, params);
        pthread_mutex_lock(&other->address_lock);
        snprintf(uri, sizeof(uri), "%s", other->address);
        pthread_mutex_unlock(&other->address_lock);
        begin(host, slot, seed, true, uri, params);
    }
    if (draw(seed, 2)) {
        nanosleep(&(struct timespec){ .tv_nsec = (long)draw(seed, 50000000) }, NULL);
        pthread_rwlock_rdlock(&slot->lock);
        savevm_migration_start_postcopy(slot->migration);
        for (unsigned i = 0; i < 100 && slot->migration && !over(slot->migration) &&
             !has_status(slot->migration, SAVEVM_STATUS_POSTCOPY_ACTIVE); i++) {
            nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        }
        if (draw(seed, 4)) {
            savevm_migration_pause(slot->migration);
            if (draw(seed, 4)) {
                mend(slot, other, into, seed);
            }
        }
        pthread_rwlock_unlock(&slot->lock);
    }
}

static void op_free(Host *host, Slot *slot, uint64_t *seed)
{
    SaveVMMigration *migration;

    (void)host, (void)seed;
    pthread_rwlock_wrlock(&slot->lock);
    migration = slot->migration;
    slot->migration = NULL;
    savevm_migration_free(migration);
    pthread_rwlock_unlock(&slot->lock);
}

static void op_wait(Host *host, Slot *slot, uint64_t *seed)
{
    Error *err = NULL;

    (void)seed;
    if (slot->migration && over(slot->migration) && savevm_migration_wait(slot->migration, &err) < 0 && !err) {
        violation(host->session, "a migration failed without an error");
    }
    error_free(err);
}

static void op_cancel(Host *host, Slot *slot, uint64_t *seed)
{
    (void)host, (void)seed;
    savevm_migration_cancel(slot->migration);
}

static void op_continue(Host *host, Slot *slot, uint64_t *seed)
{
    (void)host, (void)seed;
    savevm_migration_continue(slot->migration);
}

static void op_start_postcopy(Host *host, Slot *slot, uint64_t *seed)
{
    (void)host, (void)seed;
    savevm_migration_start_postcopy(slot->migration);
}

static void op_pause(Host *host, Slot *slot, uint64_t *seed)
{
    (void)host, (void)seed;
    savevm_migration_pause(slot->migration);
}

static void op_recover(Host *host, Slot *slot, uint64_t *seed)
{
    char uri[320];
    Error *err = NULL;

    if (slot->outgoing) {
        choose_address(host, seed, uri, sizeof(uri));
    } else {
        new_address(host, uri, sizeof(uri));
    }
    if (savevm_migration_recover(slot->migration, uri, &err) < 0 && slot->migration && !err) {
        violation(host->session, "a recovery failed without an error");
    }
    error_free(err);
}

static void op_set_params(Host *host, Slot *slot, uint64_t *seed)
{
    SaveVMParams params = choose_params(seed);
    Error *err = NULL;

    (void)host;
    savevm_migration_set_params(slot->migration, &params, &err);
    error_free(err);
}

static void op_query(Host *host, Slot *slot, uint64_t *seed)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;
    SaveVMDeviceInfo device = SAVEVM_DEVICE_INFO_INIT;
    char uri[64];

    (void)host;
    if (draw(seed, 16) == 0) {
        info.size = draw(seed, sizeof(info));
    }
    savevm_migration_query(slot->migration, &info);
    savevm_migration_device(slot->migration, draw(seed, 4), &device);
    savevm_migration_uri(slot->migration, uri, draw(seed, sizeof(uri)));
    savevm_is_broken(host->vm);
}

static void op_step(Host *host, Slot *slot, uint64_t *seed)
{
    (void)host;
    for (uint64_t i = draw(seed, 50); i > 0 && savevm_migration_step(slot->migration) == 1; i--) {
    }
}

static void op_sleep(Host *host, Slot *slot, uint64_t *seed)
{
    (void)host, (void)slot;
    nanosleep(&(struct timespec){ .tv_nsec = (long)draw(seed, 30000000) }, NULL);
}

static void op_save(Host *host, Slot *slot, uint64_t *seed)
{
    char uri[320];
    Error *err = NULL;
    bool live = draw(seed, 2);
    int ret;

    (void)slot;
    snprintf(uri, sizeof(uri), draw(seed, 8) ? "file:%s/state%u" : "file:/dev/full", host->session->directory,
             host->number);
    /* The live form is called without the lock. */
    ret = live && !holds_lock() ? savevm_ram_snapshot(host->ram, uri, &err)
                                 : savevm_snapshot_save(host->vm, uri, NULL, &err);
    if (ret < 0 && !err) {
        violation(host->session, "a snapshot failed without an error");
    }
    host->saved = host->saved || ret == 0;
    error_free(err);
}

/* Mostly what another host saved; or a file that is no stream. */
static void op_load(Host *host, Slot *slot, uint64_t *seed)
{
    char uri[320];
    Error *err = NULL;

    (void)slot;
    snprintf(uri, sizeof(uri), draw(seed, 8) ? "file:%s/state%u" : "file:/dev/null", host->session->directory,
             (unsigned)draw(seed, HOSTS));
    host->session->copied = true;
    if (savevm_snapshot_load(host->vm, uri, NULL, &err) < 0 && !err) {
        violation(host->session, "a load failed without an error");
    }
    error_free(err);
}

static void op_block(Host *host, Slot *slot, uint64_t *seed)
{
    SaveVMRamBlock block = SAVEVM_RAM_BLOCK_INIT;
    Error *err = NULL;

    (void)slot;
    block.name = draw(seed, 8) ? "extra" : "memory";
    block.host = host->extra;
    block.length = EXTRA_PAGES * PAGE - (draw(seed, 8) ? 0 : draw(seed, PAGE));
    if (draw(seed, 2)) {
        savevm_ram_add_block(host->ram, &block, &err);
    } else {
        savevm_ram_remove_block(host->ram, "extra", &err);
    }
    error_free(err);
}

static void op_ram(Host *host, Slot *slot, uint64_t *seed)
{
    SaveVMRamInfo info = SAVEVM_RAM_INFO_INIT;
    Error *err = NULL;

    (void)slot;
    savevm_ram_query(host->ram, &info);
    savevm_ram_page_sizes(host->ram);
    savevm_ram_check_postcopy(host->ram, &err);
    savevm_ram_set_dirty(host->ram, host->memory + draw(seed, PAGES * PAGE), draw(seed, 2 * PAGES * PAGE));
    error_free(err);
}

static void op_blocker(Host *host, Slot *slot, uint64_t *seed)
{
    Error *err = NULL;

    (void)slot, (void)seed;
    if (host->blocker > 0) {
        savevm_del_blocker(host->vm, atomic_exchange(&host->blocker, 0));
    } else {
        host->blocker = savevm_add_blocker(host->vm, "a reason", &err);
    }
    error_free(err);
}

/* Registration is under the lock, as is documented. */
static void op_hotplug(Host *host, Slot *slot, uint64_t *seed)
{
    Error *err = NULL;
    bool mine = !holds_lock();

    (void)slot, (void)seed;
    if (mine) {
        host_lock(host);
    }
    if (atomic_exchange(&host->has_plugged, true)) {
        savevm_unregister_vmstate(host->vm, NULL, &vmstate_device, &host->plugged);
        host->has_plugged = false;
    } else {
        savevm_register_vmstate(host->vm, NULL, 1, &vmstate_device, &host->plugged, -1, 0, &err);
    }
    if (mine) {
        host_unlock(host);
    }
    error_free(err);
}

static void op_null(Host *host, Slot *slot, uint64_t *seed)
{
    Error *err = NULL;

    (void)slot, (void)seed;
    savevm_migrate(host->vm, NULL, NULL, &err);
    error_free(err);
    savevm_incoming(host->vm, NULL, NULL, NULL);
    savevm_migration_query(NULL, NULL);
    savevm_migration_cancel(NULL);
    savevm_migration_recover(NULL, NULL, NULL);
    savevm_migration_step(NULL);
    savevm_migration_free(NULL);
    savevm_snapshot_save(host->vm, NULL, NULL, NULL);
    savevm_ram_add_block(host->ram, NULL, NULL);
    savevm_ram_remove_block(NULL, "extra", NULL);
    savevm_ram_query(NULL, NULL);
    savevm_del_blocker(host->vm, -1);
}

static const struct {
    const char *name;
    void (*run)(Host *host, Slot *slot, uint64_t *seed);
    unsigned weight;
    bool writes_slot; /* takes the slot's lock itself */
} table[] = {
    { "move", op_move, 24, true },
    { "incoming", op_incoming, 2, true },
    { "migrate", op_migrate, 6, true },
    { "free", op_free, 5, true },
    { "sleep", op_sleep, 12, false },
    { "query", op_query, 8, false },
    { "start_postcopy", op_start_postcopy, 8, false },
    { "pause", op_pause, 5, false },
    { "recover", op_recover, 8, false },
    { "wait", op_wait, 5, false },
    { "cancel", op_cancel, 4, false },
    { "continue", op_continue, 4, false },
    { "step", op_step, 4, false },
    { "set_params", op_set_params, 4, false },
    { "save", op_save, 3, false },
    { "load", op_load, 1, false },
    { "block", op_block, 1, false },
    { "ram", op_ram, 3, false },
    { "blocker", op_blocker, 1, false },
    { "hotplug", op_hotplug, 1, false },
    { "null", op_null, 1, false },
};

void session_step(Session *session, unsigned thread, uint64_t *seed)
{
    Host *host = &session->hosts[draw(seed, HOSTS)];
    Slot *slot = &host->slots[draw(seed, SLOTS)];
    unsigned sum = 0, at = 0;
    uint64_t chosen;
    bool locked;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        sum += table[i].weight;
    }
    chosen = draw(seed, sum);
    while (chosen >= table[at].weight) {
        chosen -= table[at++].weight;
    }
    /* Most calls are for a migration that there is. */
    for (unsigned i = 0; i < 4 && !slot->migration && !table[at].writes_slot; i++) {
        host = &session->hosts[draw(seed, HOSTS)];
        slot = &host->slots[draw(seed, SLOTS)];
    }
    session->journal->recent[thread][session->journal->count[thread]++ % RECENT] = table[at].name;
    if (!table[at].writes_slot) {
        pthread_rwlock_rdlock(&slot->lock);
    }
    /* Calls may come with the lock or without it; never while this test waits for a lock of its own. */
    locked = !table[at].writes_slot && draw(seed, 3) == 0;
    if (locked) {
        host_lock(host);
    }
    table[at].run(host, slot, seed);
    if (locked) {
        host_unlock(host);
    }
    if (!table[at].writes_slot) {
        pthread_rwlock_unlock(&slot->lock);
    }
}

Session *session_new(uint64_t seed, const char *directory, Journal *journal)
{
    Session *session = calloc(1, sizeof(*session));

    (void)seed;
    session->journal = journal;
    snprintf(session->directory, sizeof(session->directory), "%s", directory);
    for (unsigned i = 0; i < HOSTS; i++) {
        host_init(&session->hosts[i], session, i);
    }
    host_lock(&session->hosts[0]);
    vm_start(&session->hosts[0]);
    host_unlock(&session->hosts[0]);
    return session;
}

void session_free(Session *session)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        for (unsigned k = 0; k < SLOTS; k++) {
            savevm_migration_free(session->hosts[i].slots[k].migration);
            pthread_rwlock_destroy(&session->hosts[i].slots[k].lock);
        }
    }
    for (unsigned i = 0; i < HOSTS; i++) {
        host_free(&session->hosts[i]);
    }
    free(session);
}

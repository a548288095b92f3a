/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Test programs: named cases, checks that print the value they got, a deadline
 * for every case, and a lock that knows its holder.
 *
 * A case is written as TEST(name) { ... } and runs in a process of its own, so
 * that no case sees what another one left behind and a crash fails only one.
 * A check that fails is reported and the case continues; REQUIRE ends it.
 * Messages go to stderr; stdout is for the output of a case.
 *
 * The program's arguments are the names of the cases to run, all if there are
 * none; -n runs them in this process (for a debugger), -l lists them.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Seconds that a case may take; SAVEVM_TEST_SLOW multiplies it (valgrind). */
#define HARNESS_DEADLINE 240

typedef struct HarnessCase {
    const char *name;
    void (*run)(void);
    struct HarnessCase *next;
} HarnessCase;

void harness_add(HarnessCase *test);

#define TEST(id)                                                   \
    static void test_##id(void);                                   \
    static HarnessCase case_##id = { #id, test_##id, NULL };       \
    __attribute__((constructor)) static void add_##id(void)        \
    {                                                              \
        harness_add(&case_##id);                                   \
    }                                                              \
    static void test_##id(void)

/* Run first in every case, if the program has one. */
extern void (*harness_before)(void);

/* How much slower than usual this run may be: at least 1. */
unsigned harness_slow(void);

#define CHECK(cond) harness_check(__FILE__, __LINE__, #cond, !!(cond))
#define CHECK_EQ(got, want)                                        \
    harness_check_eq(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
#define CHECK_STR(got, want) harness_check_str(__FILE__, __LINE__, #got, got, want)
#define CHECK_MEM(got, len, want, want_len)                        \
    harness_check_mem(__FILE__, __LINE__, #got, got, len, want, want_len)
/* The string `got` contains `part`. */
#define CHECK_HAS(got, part) harness_check_has(__FILE__, __LINE__, #got, got, part)
#define REQUIRE(cond)                                              \
    do {                                                           \
        if (!CHECK(cond)) {                                        \
            harness_end();                                         \
        }                                                          \
    } while (0)

/* All of them return whether the check held. Any thread. */
bool harness_check(const char *file, int line, const char *text, bool held);
bool harness_check_eq(const char *file, int line, const char *text, long long got, long long want);
bool harness_check_str(const char *file, int line, const char *text, const char *got, const char *want);
bool harness_check_has(const char *file, int line, const char *text, const char *got, const char *part);
bool harness_check_mem(const char *file, int line, const char *text, const void *got, size_t len,
                       const void *want, size_t want_len);

/* Ends the case as failed if a check failed, else as passed. */
void harness_end(void) __attribute__((noreturn));

/* Ends the case as skipped. */
void harness_skip(const char *why) __attribute__((noreturn));

/* A lock as a hypervisor's big lock; it may be taken once at a time. */
typedef struct HarnessLock {
    pthread_mutex_t mutex;
    pthread_mutex_t inner;
    pthread_t holder;
    bool held;
    unsigned taken;
} HarnessLock;

#define HARNESS_LOCK_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, 0, false, 0 }

void harness_lock(HarnessLock *lock);
void harness_unlock(HarnessLock *lock);

/* Whether this thread holds it. */
bool harness_locked(HarnessLock *lock);

/* The same for SaveVMHostOps, where the host begins with its lock. */
void harness_host_lock(void *host);
void harness_host_unlock(void *host);
bool harness_host_locked(void *host);

/* Waits for a condition that another thread makes true; fails the case after a minute at least. */
#define WAIT_FOR(cond)                                             \
    do {                                                           \
        for (unsigned waited_ = 0; !(cond); waited_++) {           \
            if (waited_ > 60000 * harness_slow()) {                \
                CHECK(cond);                                       \
                harness_end();                                     \
            }                                                      \
            harness_sleep_ms(1);                                   \
        }                                                          \
    } while (0)

void harness_sleep_ms(unsigned ms);

/*
 * Cancels a migration, and waits for its end. On a busy machine this may take longer than the second after which
 * savevm_migration_cancel() returns -ETIMEDOUT.
 */
#define CHECK_CANCELLED(migration)                                 \
    do {                                                           \
        int cancelled_ = savevm_migration_cancel(migration);       \
        CHECK(cancelled_ == 0 || cancelled_ == -ETIMEDOUT);        \
        CHECK(savevm_migration_wait(migration, NULL) < 0);         \
    } while (0)

/*
 * Mounts that the case makes from now on are only in its process and in those that it starts, and end with them, also when they
 * are killed. Call it before there are other threads. Ends the case as skipped if this is not permitted.
 */
void harness_own_mounts(void);

/* Mounts a new file system in memory at the empty directory `place`; `size` is such as "size=1m". If this is not permitted,
 * removes the directory and ends the case as skipped. After harness_own_mounts(). */
void harness_mount_memory(const char *place, const char *size);

/* Whether a program listens at a unix socket. Its path exists slightly earlier. */
bool harness_listens(const char *path);

#endif

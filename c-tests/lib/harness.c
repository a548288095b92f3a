/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for unshare() */
#endif
#include "harness.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PASSED = 0, FAILED = 1, SKIPPED = 77 };

static HarnessCase *first;
static HarnessCase **last = &first;
static const char *running;
static atomic_int failures;
static bool forked;

void (*harness_before)(void);

void harness_add(HarnessCase *test)
{
    *last = test;
    last = &test->next;
}

unsigned harness_slow(void)
{
    const char *text = getenv("SAVEVM_TEST_SLOW");
    long factor = text ? strtol(text, NULL, 10) : 1;

    return factor < 1 ? 1 : (unsigned)factor;
}

void harness_sleep_ms(unsigned ms)
{
    struct timespec time = { ms / 1000, (long)(ms % 1000) * 1000000 };

    nanosleep(&time, NULL);
}

bool harness_listens(const char *path)
{
    FILE *sockets = fopen("/proc/net/unix", "r");
    char line[512];
    bool found = false;

    while (sockets && !found && fgets(line, sizeof(line), sockets)) {
        unsigned long flags = 0;
        char *at = strchr(line, '/');

        line[strcspn(line, "\n")] = 0;
        found = at && strcmp(at, path) == 0 && sscanf(line, "%*s %*s %*s %lx", &flags) == 1 && (flags & 0x10000);
    }
    if (sockets) {
        fclose(sockets);
    }
    return found;
}

void harness_own_mounts(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0) {
        harness_skip("this process may not have mounts of its own");
    }
}

void harness_mount_memory(const char *place, const char *size)
{
    if (mount("tmpfs", place, "tmpfs", 0, size) < 0) {
        rmdir(place);
        harness_skip("no file system can be mounted here");
    }
}

/* Checks */

static void failed(const char *file, int line)
{
    const char *name = strrchr(file, '/');

    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s:%d: in %s: ", name ? name + 1 : file, line, running ? running : "?");
}

bool harness_check(const char *file, int line, const char *text, bool held)
{
    if (!held) {
        failed(file, line);
        fprintf(stderr, "%s does not hold\n", text);
    }
    return held;
}

bool harness_check_eq(const char *file, int line, const char *text, long long got, long long want)
{
    if (got != want) {
        failed(file, line);
        fprintf(stderr, "%s is %lld (0x%llx), expected %lld (0x%llx)\n", text, got, got, want, want);
    }
    return got == want;
}

static const char *shown(const char *text)
{
    return text ? text : "(NULL)";
}

bool harness_check_str(const char *file, int line, const char *text, const char *got, const char *want)
{
    bool same = got == want || (got && want && strcmp(got, want) == 0);

    if (!same) {
        failed(file, line);
        fprintf(stderr, "%s is\n    \"%s\", expected\n    \"%s\"\n", text, shown(got), shown(want));
    }
    return same;
}

bool harness_check_has(const char *file, int line, const char *text, const char *got, const char *part)
{
    bool has = got && strstr(got, part);

    if (!has) {
        failed(file, line);
        fprintf(stderr, "%s is\n    \"%s\", expected to see in it\n    \"%s\"\n", text, shown(got), part);
    }
    return has;
}

/* One line of 16 bytes; those that differ are marked. */
static void dump_line(const char *side, const uint8_t *bytes, size_t len, const uint8_t *other, size_t other_len,
                      size_t at)
{
    fprintf(stderr, "    %-8s %06zx ", side, at);
    for (size_t i = at; i < at + 16; i++) {
        if (i >= len) {
            fprintf(stderr, "   ");
        } else {
            bool differs = i >= other_len || bytes[i] != other[i];

            fprintf(stderr, "%c%02x", differs ? '*' : ' ', bytes[i]);
        }
    }
    fprintf(stderr, "  |");
    for (size_t i = at; i < at + 16 && i < len; i++) {
        fputc(bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '.', stderr);
    }
    fprintf(stderr, "|\n");
}

bool harness_check_mem(const char *file, int line, const char *text, const void *got, size_t len,
                       const void *want, size_t want_len)
{
    const uint8_t *a = got, *b = want;
    size_t shorter = len < want_len ? len : want_len;
    size_t at = 0;

    while (at < shorter && a[at] == b[at]) {
        at++;
    }
    if (at == len && at == want_len) {
        return true;
    }
    failed(file, line);
    fprintf(stderr, "%s has %zu bytes, expected %zu; they differ from byte %zu (0x%zx) on\n", text, len, want_len,
            at, at);
    at &= ~(size_t)15;
    for (unsigned lines = 0; lines < 3 && (at < len || at < want_len); lines++, at += 16) {
        dump_line("got", a, len, b, want_len, at);
        dump_line("expected", b, want_len, a, len, at);
    }
    return false;
}

/* Cases */

void harness_end(void)
{
    int failed = atomic_load(&failures);

    fflush(stdout);
    if (!forked) {
        fprintf(stderr, "%s ends the program\n", running);
    }
    exit(failed ? FAILED : PASSED);
}

void harness_skip(const char *why)
{
    fprintf(stderr, "skipped %s: %s\n", running, why);
    fflush(stdout);
    exit(SKIPPED);
}

static void overdue(int number)
{
    static const char text[] = "deadline passed: ";

    (void)number;
    /* Only what a signal handler may call. */
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 || write(STDERR_FILENO, running, strlen(running)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
        _exit(FAILED);
    }
    _exit(FAILED);
}

static void run_here(HarnessCase *test)
{
    running = test->name;
    signal(SIGALRM, overdue);
    signal(SIGPIPE, SIG_IGN);
    alarm(HARNESS_DEADLINE * harness_slow());
    printf("== %s\n", test->name);
    if (harness_before) {
        harness_before();
    }
    test->run();
    alarm(0);
}

static int run_apart(HarnessCase *test)
{
    int status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        forked = true;
        run_here(test);
        harness_end();
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("a process for the case");
        return FAILED;
    }
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "%s died of signal %d (%s)\n", test->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
        return FAILED;
    }
    return WEXITSTATUS(status);
}

static bool wanted(const HarnessCase *test, int count, char **names)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], test->name) == 0) {
            return true;
        }
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0, skipped = 0;
    bool here = argc > 1 && strcmp(argv[1], "-n") == 0;
    bool list = argc > 1 && strcmp(argv[1], "-l") == 0;
    int skip = here || list ? 2 : 1;

    for (HarnessCase *test = first; test; test = test->next) {
        int result;

        if (list) {
            puts(test->name);
            continue;
        }
        if (!wanted(test, argc - skip, argv + skip)) {
            continue;
        }
        if (here) {
            int before = atomic_load(&failures);

            run_here(test);
            result = atomic_load(&failures) > before ? FAILED : PASSED;
        } else {
            result = run_apart(test);
        }
        passed += result == PASSED;
        skipped += result == SKIPPED;
        failed += result != PASSED && result != SKIPPED;
        if (result != PASSED && result != SKIPPED) {
            fprintf(stderr, "FAIL: %s\n", test->name);
        }
    }
    if (list) {
        return 0;
    }
    fflush(stdout);
    fprintf(stderr, "%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    if (passed + failed + skipped == 0) {
        fprintf(stderr, "there is no such case\n");
        return FAILED;
    }
    return failed ? FAILED : PASSED;
}

/* The lock */

void harness_lock(HarnessLock *lock)
{
    if (harness_locked(lock)) {
        fprintf(stderr, "%s: the lock is taken twice by one thread\n", running);
        abort();
    }
    pthread_mutex_lock(&lock->mutex);
    pthread_mutex_lock(&lock->inner);
    lock->holder = pthread_self();
    lock->held = true;
    lock->taken++;
    pthread_mutex_unlock(&lock->inner);
}

void harness_unlock(HarnessLock *lock)
{
    if (!harness_locked(lock)) {
        fprintf(stderr, "%s: the lock is given back by a thread that does not hold it\n", running);
        abort();
    }
    pthread_mutex_lock(&lock->inner);
    lock->held = false;
    pthread_mutex_unlock(&lock->inner);
    pthread_mutex_unlock(&lock->mutex);
}

bool harness_locked(HarnessLock *lock)
{
    bool held;

    pthread_mutex_lock(&lock->inner);
    held = lock->held && pthread_equal(lock->holder, pthread_self());
    pthread_mutex_unlock(&lock->inner);
    return held;
}

void harness_host_lock(void *host)
{
    harness_lock(host);
}

void harness_host_unlock(void *host)
{
    harness_unlock(host);
}

bool harness_host_locked(void *host)
{
    return harness_locked(host);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random sessions: sequences of public calls on several contexts, from several
 * threads, with good and bad arguments. Each session runs in a process of its
 * own. It fails if it crashes (best seen under the address sanitizer, see
 * ../memory.sh), if a call does not return within a deadline, if two guests
 * run, if a callback runs under the wrong lock, or if a descriptor stays open.
 *
 * usage: sessions [--runs N | --seconds N] [--seed N] [--ops N] [--threads N]
 *
 * Session number i has the seed N + i; with several threads a seed repeats the
 * calls but not their interleaving. SAVEVM_TEST_SLOW multiplies the deadline.
 */
#define _GNU_SOURCE
#include "session.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seconds for one session; a call that blocks for ever is found by it. */
#define DEADLINE 120

static unsigned operations = 60, threads = 2;

static uint64_t seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static unsigned slow(void)
{
    const char *text = getenv("SAVEVM_TEST_SLOW");
    long factor = text ? strtol(text, NULL, 10) : 1;

    return factor < 1 ? 1 : (unsigned)factor;
}

static unsigned open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    while (directory && readdir(directory)) {
        count++;
    }
    if (directory) {
        closedir(directory);
    }
    return count;
}

typedef struct Worker {
    pthread_t thread;
    Session *session;
    unsigned number;
    uint64_t seed;
} Worker;

static void *work(void *opaque)
{
    Worker *worker = opaque;

    for (unsigned i = 0; i < operations; i++) {
        session_step(worker->session, worker->number, &worker->seed);
    }
    return NULL;
}

/* The whole session; returns the exit status of its process. */
static int run_session(uint64_t seed, const char *directory, Journal *journal)
{
    Worker workers[MAX_THREADS] = { 0 };
    Session *session;
    unsigned before, left;

    /* Whatever is opened once for the process is open before the count. */
    savevm_log_init("off");
    session_free(session_new(seed, directory, journal));
    before = open_descriptors();
    session = session_new(seed, directory, journal);
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (Worker){ .session = session, .number = i, .seed = seed * 0x9e3779b97f4a7c15u + i + 1 };
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    session_free(session);
    /* A thread that a migration no longer needs may still be closing what it had. */
    for (uint64_t until = seconds_now() + 60 * slow(); (left = open_descriptors()) > before && seconds_now() < until;) {
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    if (left > before) {
        fprintf(stderr, "%u descriptors stayed open\n", left - before);
        journal->violations++;
    }
    return journal->violations ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void remove_files(const char *directory)
{
    DIR *list = opendir(directory);
    struct dirent *entry;
    char path[600];

    while (list && (entry = readdir(list))) {
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        unlink(path);
    }
    if (list) {
        closedir(list);
    }
}

/* Whether the session passed. */
static bool session_passes(uint64_t seed, const char *directory, Journal *journal)
{
    uint64_t until = seconds_now() + DEADLINE * slow();
    int status = 0;
    pid_t child, ended = 0;

    memset(journal, 0, sizeof(*journal));
    child = fork();
    if (child == 0) {
        exit(run_session(seed, directory, journal));
    }
    while (child > 0 && (ended = waitpid(child, &status, WNOHANG)) == 0 && seconds_now() < until) {
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    if (ended == child && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
        remove_files(directory);
        return true;
    }
    fprintf(stderr, "FAILED: seed %llu: ", (unsigned long long)seed);
    if (ended == 0) {
        fprintf(stderr, "a call does not return\n");
        if (getenv("SAVEVM_SESSION_WAIT")) {
            fprintf(stderr, "process %d waits for a debugger\n", (int)child);
            pause();
        }
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    } else if (WIFSIGNALED(status)) {
        fprintf(stderr, "signal %d\n", WTERMSIG(status));
    } else {
        fprintf(stderr, "status %d\n", WEXITSTATUS(status));
    }
    for (unsigned i = 0; i < threads; i++) {
        fprintf(stderr, "  thread %u, last calls:", i);
        for (unsigned k = 0; k < RECENT; k++) {
            const char *name = journal->recent[i][(journal->count[i] + k) % RECENT];

            fprintf(stderr, " %s", name ? name : "-");
        }
        fprintf(stderr, "\n");
    }
    remove_files(directory);
    return false;
}

int main(int argc, char **argv)
{
    uint64_t runs = 20, seconds = 0, seed = (uint64_t)time(NULL), begin = seconds_now(), failed = 0, done = 0;
    unsigned completed = 0, broken = 0, paused = 0, recovered = 0;
    char directory[] = "/tmp/savevm-sessions-XXXXXX";
    Journal *journal = journal_new();

    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t number = strtoull(argv[i + 1], NULL, 10);

        if (strcmp(argv[i], "--runs") == 0) {
            runs = number;
        } else if (strcmp(argv[i], "--seconds") == 0) {
            seconds = number;
        } else if (strcmp(argv[i], "--seed") == 0) {
            seed = number;
        } else if (strcmp(argv[i], "--ops") == 0) {
            operations = (unsigned)number;
        } else if (strcmp(argv[i], "--threads") == 0 && number >= 1 && number <= MAX_THREADS) {
            threads = (unsigned)number;
        } else {
            fprintf(stderr, "unknown option: %s\n", argv[i]);
            return 2;
        }
    }
    if (!mkdtemp(directory)) {
        perror(directory);
        return 2;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    for (; seconds ? seconds_now() < begin + seconds : done < runs; done++) {
        failed += !session_passes(seed + done, directory, journal);
        completed += journal->completed;
        broken += journal->failed;
        paused += journal->paused;
        recovered += journal->recovered;
    }
    rmdir(directory);
    /* Each migration counts at both ends. */
    printf("%llu sessions, %llu failed; migrations: %u completed, %u failed, %u paused, %u recovered\n",
           (unsigned long long)done, (unsigned long long)failed, completed, broken, paused, recovered);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

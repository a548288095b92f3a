/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Postcopy over a connection that breaks: a channel that fails at its last
 * call, the one before and so on, at either end, and a recovery that is cut
 * behind its first byte, its second and so on. There is never more than one
 * guest; where both sides pause, another connection brings the rest.
 */
#include "faulty.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static Side source, destination;
static SaveVMMigration *out;
static SaveVMMigration *in;

static SaveVMParams params = {
    .size = sizeof(SaveVMParams),
    .postcopy = true,
    .downtime_limit_ms = 1,
};

static SaveVMInfo query(bool at_source)
{
    SaveVMInfo info = SAVEVM_INFO_INIT;

    CHECK_EQ(at_source ? savevm_migration_query(out, &info) : savevm_migration_query(in, &info), 0);
    return info;
}

static bool is(bool at_source, SaveVMStatus status)
{
    return query(at_source).status == status;
}

/* Nothing happens at this side any more by itself. */
static bool rests(bool at_source)
{
    return is(at_source, SAVEVM_STATUS_COMPLETED) || is(at_source, SAVEVM_STATUS_FAILED) || is(at_source, SAVEVM_STATUS_CANCELLED) ||
           is(at_source, SAVEVM_STATUS_POSTCOPY_PAUSED);
}

/* Milliseconds that a message may take. What is lost with a connection is waited for in vain, so it is short at first. It grows
 * when a message took longer although no failure was injected, because the machine is busy. */
static unsigned patience = 500;

static void fixture_init(void)
{
    /* The deadline is that of one postcopy, however many there are. */
    alarm(HARNESS_DEADLINE * harness_slow());
    params.switchover_timeout_ms = params.handshake_timeout_ms = patience * harness_slow();
    sides_init(&source, &destination, true);
    /* Precopy never gets there. */
    source.keep_dirty = true;
}

/* The end of both; what is paused is given up. */
static void fixture_free(void)
{
    savevm_migration_free(out);
    savevm_migration_free(in);
    CHECK_EQ(guests, 1);
    CHECK_EQ(source.cleanups, source.setups);
    CHECK_EQ(destination.ended != 0, destination.listening);
    CHECK(!savevm_is_broken(source.vm) && !savevm_is_broken(destination.vm));
    /* Neither the machine nor the driver remembers anything. */
    CHECK(savevm_add_blocker(source.vm, "free", NULL) > 0);
    CHECK(savevm_add_blocker(destination.vm, "free", NULL) > 0);
    guests = 0;
    sides_free(&source, &destination);
}

static void recover(const char *incoming, const char *outgoing)
{
    CHECK_EQ(savevm_migration_recover(in, incoming, NULL), 0);
    CHECK_EQ(savevm_migration_recover(out, outgoing, NULL), 0);
}

/* A paused postcopy comes to its end over a sound connection. */
static void recover_well(void)
{
    const char *uri = side_uri();

    recover(uri, uri);
    CHECK_EQ(savevm_migration_wait(out, NULL), 0);
    CHECK_EQ(savevm_migration_wait(in, NULL), 0);
    check_moved(&source, &destination);
    CHECK_EQ(destination.ended, 1);
}

/* Runs a postcopy whose channel fails at one end; 0: at none. Returns the number of calls of that end, and in `owner` the
 * owner that the source reports. */
static int postcopy_once(bool at_source, Failure failure, int fail_at, int *owner)
{
    Faulty ends[2];
    Faulty *faulty = &ends[at_source ? 0 : 1];
    int fds[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    fixture_init();
    for (int i = 0; i < 2; i++) {
        faulty_init(&ends[i], fds[i], SIZE_MAX, failure, &ends[i] == faulty ? fail_at : 0);
    }
    in = savevm_incoming_from_channel(destination.vm, &faulty_ops, &ends[1], &params, NULL);
    out = savevm_migrate_to_channel(source.vm, &faulty_ops, &ends[0], &params, NULL);
    REQUIRE(in && out);
    savevm_migration_start_postcopy(out);
    WAIT_FOR(rests(true));
    *owner = query(true).owner;
    /* If the connection could not be shut down, the destination gets no error. */
    WAIT_FOR(rests(false) || (savevm_migration_pause(in), savevm_migration_cancel(in), false));
    bool failed = fail_at && faulty->calls >= fail_at, good;
    bool whole = is(true, SAVEVM_STATUS_COMPLETED) && is(false, SAVEVM_STATUS_COMPLETED);
    if (!failed && !whole && patience < 30000) {
        /* A message was late, which is a failure as well. */
        patience *= 2;
        failed = true;
    }
    if (*owner == SAVEVM_OWNER_HERE) {
        good = source.runs && !destination.runs && !is(true, SAVEVM_STATUS_COMPLETED) && !is(false, SAVEVM_STATUS_COMPLETED);
    } else if (is(true, SAVEVM_STATUS_POSTCOPY_PAUSED) && is(false, SAVEVM_STATUS_POSTCOPY_PAUSED)) {
        good = !source.runs && destination.runs;
        recover_well();
    } else if (*owner == SAVEVM_OWNER_THERE) {
        /* All pages came; what was lost is the word of it at most. */
        good = is(false, SAVEVM_STATUS_COMPLETED) && !source.runs && destination.runs && destination.ended == 1;
    } else {
        /* The word that starts the guest was lost, perhaps: an operator sees that it runs nowhere, and starts it here. */
        good = !source.runs && (is(false, SAVEVM_STATUS_COMPLETED) || !destination.runs);
        guests += !destination.runs;
    }
    if (!CHECK(good && (failed || whole))) {
        fprintf(stderr, "failure %d at call %d: owner %d, %s, %s\n", failure, fail_at, *owner, source.statuses,
                destination.statuses);
    }
    fixture_free();
    WAIT_FOR(ends[0].frees == 1 && ends[1].frees == 1);
    return faulty->calls;
}

/* From the last call back to those that come before the guest is handed over, which faults.c has. */
static void postcopy_at_every_call(bool at_source, Failure failure)
{
    int owner, stayed = 0;
    /* How many there are differs from run to run. */
    int most = 2 * postcopy_once(at_source, failure, 0, &owner), fail_at;

    for (fail_at = most; fail_at > 0 && stayed < 3; fail_at--) {
        postcopy_once(at_source, failure, fail_at, &owner);
        stayed = owner == SAVEVM_OWNER_HERE ? stayed + 1 : 0;
    }
    CHECK_EQ(stayed, 3);
    CHECK(most - fail_at > 5);
}

TEST(a_source_fails_once_at_every_call)
{
    postcopy_at_every_call(true, ONCE);
}

TEST(a_source_fails_for_good_at_every_call)
{
    postcopy_at_every_call(true, FOR_GOOD);
}

TEST(a_source_gets_nothing_from_every_call_on)
{
    postcopy_at_every_call(true, NOTHING);
}

TEST(a_destination_fails_once_at_every_call)
{
    postcopy_at_every_call(false, ONCE);
}

TEST(a_destination_fails_for_good_at_every_call)
{
    postcopy_at_every_call(false, FOR_GOOD);
}

TEST(a_destination_gets_nothing_from_every_call_on)
{
    postcopy_at_every_call(false, NOTHING);
}

/* Carries bytes between two sockets, in both directions, until so many went over; then both are cut. */
typedef struct Relay {
    int fds[2];
    int left;
    pthread_t thread;
} Relay;

static void *relay_run(void *opaque)
{
    Relay *relay = opaque;
    bool open = true;

    while (open && relay->left > 0) {
        struct pollfd polls[2] = { { relay->fds[0], POLLIN, 0 }, { relay->fds[1], POLLIN, 0 } };

        poll(polls, 2, -1);
        for (int i = 0; open && i < 2; i++) {
            uint8_t byte;

            if (relay->left > 0 && polls[i].revents) {
                open = recv(relay->fds[i], &byte, 1, 0) == 1 && send(relay->fds[!i], &byte, 1, MSG_NOSIGNAL) == 1;
                relay->left--;
            }
        }
    }
    close(relay->fds[0]);
    close(relay->fds[1]);
    return NULL;
}

/* A recovery over a connection that is cut behind so many bytes; whether it got that far. */
static bool recover_once(int cut)
{
    const char *uri = side_uri();
    Relay relay = { .left = cut };
    char uris[2][20];

    fixture_init();
    /* Every failure here closes the connection, so no wait for a message needs to be short. */
    SaveVMParams p = params;
    p.switchover_timeout_ms = p.handshake_timeout_ms = 60000;
    p.max_postcopy_bandwidth = 400;
    source.hold = true;
    in = savevm_incoming(destination.vm, uri, &p, NULL);
    out = savevm_migrate(source.vm, uri, &p, NULL);
    REQUIRE(in && out);
    savevm_migration_start_postcopy(out);
    WAIT_FOR(is(true, SAVEVM_STATUS_POSTCOPY_ACTIVE) && is(false, SAVEVM_STATUS_POSTCOPY_ACTIVE));
    CHECK_EQ(savevm_migration_pause(out), 0);
    WAIT_FOR(is(true, SAVEVM_STATUS_POSTCOPY_PAUSED) && is(false, SAVEVM_STATUS_POSTCOPY_PAUSED));
    p.max_postcopy_bandwidth = 0;
    CHECK_EQ(savevm_migration_set_params(out, &p, NULL), 0);
    source.hold = false;

    for (int i = 0; i < 2; i++) {
        int fds[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
        relay.fds[i] = fds[0];
        snprintf(uris[i], sizeof(uris[i]), "fd:%d", fds[1]);
    }
    unsigned source_events = source.events, destination_events = destination.events;
    recover(uris[0], uris[1]);
    REQUIRE(pthread_create(&relay.thread, NULL, relay_run, &relay) == 0);
    pthread_join(relay.thread, NULL);
    /* The recovery began, and its result is reported. */
    WAIT_FOR(source.events >= source_events + 2 && destination.events >= destination_events + 2);
    WAIT_FOR(rests(true) && rests(false));
    CHECK(!source.runs && destination.runs);
    if (is(true, SAVEVM_STATUS_POSTCOPY_PAUSED) && is(false, SAVEVM_STATUS_POSTCOPY_PAUSED)) {
        recover_well();
    } else {
        CHECK(is(false, SAVEVM_STATUS_COMPLETED) && destination.ended == 1);
    }
    CHECK(relay.left == 0 || is(true, SAVEVM_STATUS_COMPLETED));
    fixture_free();
    return relay.left == 0;
}

TEST(a_recovery_is_cut_behind_every_byte)
{
    int cut = 0;

    while (recover_once(cut)) {
        cut++;
    }
    CHECK(cut > 100);
}

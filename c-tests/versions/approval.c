/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Devices that must approve the switchover, with the headers of QEMU 10.0 and
 * the library's driver on both sides.
 */
#define SAVEVM_QEMU_VERSION 1000
#include "harness.h"

#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration/savevm.h"
#include "savevm.h"
#include "savevm/abi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A card that has little to send, and wants to load some of it before the
 * switchover. */
typedef struct Card {
    bool asks;
    unsigned approve_at; /* the section at which it approves; 0: never */
    unsigned rounds;     /* sent */
    unsigned sections;   /* loaded */
} Card;

static int card_setup(QEMUFile *f, void *opaque, Error **errp)
{
    (void)opaque;
    (void)errp;
    qemu_put_be32(f, 0);
    return 0;
}

static int card_iterate(QEMUFile *f, void *opaque)
{
    qemu_put_be32(f, __atomic_add_fetch(&((Card *)opaque)->rounds, 1, __ATOMIC_SEQ_CST));
    return 1;
}

static int card_complete(QEMUFile *f, void *opaque)
{
    (void)opaque;
    qemu_put_be32(f, UINT32_MAX);
    return 0;
}

static int card_load(QEMUFile *f, void *opaque, int version_id)
{
    Card *card = opaque;

    (void)version_id;
    qemu_get_be32(f);
    if (++card->sections == card->approve_at) {
        CHECK_EQ(qemu_loadvm_approve_switchover(), 0);
        /* It was the last one. */
        CHECK_EQ(qemu_loadvm_approve_switchover(), -EINVAL);
    }
    return qemu_file_get_error(f);
}

static bool card_asks(void *opaque)
{
    return ((Card *)opaque)->asks;
}

static const SaveVMHandlers card_handlers = {
    .save_setup = card_setup,
    .save_live_iterate = card_iterate,
    .save_live_complete_precopy = card_complete,
    .load_state = card_load,
    .switchover_ack_needed = card_asks,
};

static uint32_t stream_flags(void *host)
{
    (void)host;
    return SAVEVM_FLAG_SWITCHOVER_ACK;
}

typedef struct Pair {
    Card source, destination;
    SaveVM *from, *to;
    SaveVMMigration *out, *in;
} Pair;

static SaveVM *machine(Card *card)
{
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;
    SaveVM *vm;

    ops.stream_flags = stream_flags;
    vm = savevm_new(&ops, NULL);
    REQUIRE(vm != NULL);
    CHECK_EQ(savevm_set_abi(vm, SAVEVM_QEMU_ABI, NULL), 0);
    savevm_set_current(vm);
    CHECK_EQ(register_savevm_live("card", 0, 1, &card_handlers, card), 0);
    savevm_set_current(NULL);
    return vm;
}

static void start(Pair *pair)
{
    char uri[64];
    Error *err = NULL;

    pair->from = machine(&pair->source);
    pair->to = machine(&pair->destination);
    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-approval-%d", (int)getpid());
    pair->in = savevm_incoming(pair->to, uri, NULL, &err);
    REQUIRE(pair->in && !err);
    pair->out = savevm_migrate(pair->from, uri, NULL, &err);
    REQUIRE(pair->out && !err);
}

static void finish(Pair *pair, int expected)
{
    Error *err = NULL;

    CHECK_EQ(savevm_migration_wait(pair->out, &err), expected);
    if (expected == 0) {
        CHECK_STR(err ? error_get_pretty(err) : "", "");
        CHECK_EQ(savevm_migration_wait(pair->in, NULL), 0);
    } else {
        CHECK(savevm_migration_wait(pair->in, NULL) < 0);
    }
    error_free(err);
    savevm_migration_free(pair->out);
    savevm_migration_free(pair->in);
    savevm_free(pair->from);
    savevm_free(pair->to);
}

TEST(the_switchover_waits_for_the_approval)
{
    /* The first section is that of the setup. */
    Pair pair = { .destination = { .asks = true, .approve_at = 6 } };

    start(&pair);
    finish(&pair, 0);
    CHECK(pair.source.rounds >= 5);
    CHECK(pair.destination.sections >= 7);
}

TEST(the_switchover_waits_for_no_device)
{
    Pair pair = { .destination = { .asks = false } };

    start(&pair);
    finish(&pair, 0);
    CHECK(pair.destination.sections >= 2);
}

TEST(a_migration_without_the_approval_says_so_and_can_be_cancelled)
{
    Pair pair = { .destination = { .asks = true } };
    SaveVMInfo info = SAVEVM_INFO_INIT;
    Error *err = NULL;

    start(&pair);
    for (int i = 0; i < 6000 && info.stall != SAVEVM_STALL_SWITCHOVER_ACK; i++) {
        harness_sleep_ms(10);
        CHECK_EQ(savevm_migration_query(pair.out, &info), 0);
    }
    CHECK_EQ(info.stall, SAVEVM_STALL_SWITCHOVER_ACK);
    CHECK_EQ(savevm_migration_stall(pair.out, &err), -EAGAIN);
    CHECK_HAS(err ? error_get_pretty(err) : "", "have not approved the switchover");
    error_free(err);
    CHECK_EQ(savevm_migration_cancel(pair.out), 0);
    finish(&pair, -ECANCELED);
}

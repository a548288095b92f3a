/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Open descriptors in a stream, with the headers of QEMU 10.2: a device with
 * VMSTATE_FD() migrates over a unix socket, and other channels refuse it.
 */
#define SAVEVM_QEMU_VERSION 1002
#include "harness.h"

#include "migration/qemu-file.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "savevm.h"
#include "savevm/abi.h"
#include "savevm/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A card with the ends of three pipes. */
typedef struct Card {
    uint32_t before, between, after;
    int32_t reader, spares[2];
} Card;

static const VMStateDescription vmstate_card = {
    .name = "card",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(before, Card),
        VMSTATE_FD(reader, Card),
        VMSTATE_UINT32(between, Card),
        VMSTATE_ARRAY(spares, Card, 2, 0, vmstate_info_fd, int32_t),
        VMSTATE_UINT32(after, Card),
        VMSTATE_END_OF_LIST()
    },
};

static Card source, destination;
static int reader_pipe[2], spare_pipes[2][2];

static void begin(void)
{
    REQUIRE(pipe(reader_pipe) == 0 && pipe(spare_pipes[0]) == 0 && pipe(spare_pipes[1]) == 0);
    source = (Card){ 1, 2, 3, reader_pipe[0], { spare_pipes[0][0], spare_pipes[1][0] } };
    destination = (Card){ 0, 0, 0, -1, { -1, -1 } };
}

/* The descriptor is a new one of the same pipe, and close-on-exec. */
static void check_end_of_pipe(int received, const int pair[2])
{
    char byte = 0;

    CHECK(received >= 0 && received != pair[0]);
    CHECK_EQ(fcntl(received, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(write(pair[1], "x", 1), 1);
    CHECK_EQ(read(received, &byte, 1), 1);
    CHECK_EQ(byte, 'x');
    close(received);
}

static void check_moved(void)
{
    CHECK(destination.before == 1 && destination.between == 2 && destination.after == 3);
    check_end_of_pipe(destination.reader, reader_pipe);
    check_end_of_pipe(destination.spares[0], spare_pipes[0]);
    check_end_of_pipe(destination.spares[1], spare_pipes[1]);
    /* They stay open on the source. */
    CHECK(fcntl(source.reader, F_GETFD) >= 0 && fcntl(source.spares[1], F_GETFD) >= 0);
}

static SaveVM *machine(Card *card)
{
    SaveVM *vm = savevm_new(NULL, NULL);

    REQUIRE(vm != NULL);
    CHECK_EQ(savevm_set_abi(vm, SAVEVM_QEMU_ABI, NULL), 0);
    savevm_set_current(vm);
    CHECK_EQ(vmstate_register(NULL, 0, &vmstate_card, card), 0);
    savevm_set_current(NULL);
    return vm;
}

/* Two connected files. */
static void connect_files(QEMUFile **writer, QEMUFile **reader)
{
    int pair[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    *writer = savevm_file_from_fd(pair[0], true);
    *reader = savevm_file_from_fd(pair[1], false);
    REQUIRE(*writer && *reader);
}

TEST(device_with_descriptors_migrates)
{
    SaveVM *from, *to;
    SaveVMMigration *in, *out;
    char uri[64];
    Error *err = NULL;

    begin();
    from = machine(&source);
    to = machine(&destination);
    snprintf(uri, sizeof(uri), "unix:/tmp/savevm-fd-%d", (int)getpid());
    in = savevm_incoming(to, uri, NULL, &err);
    REQUIRE(in && !err);
    out = savevm_migrate(from, uri, NULL, &err);
    REQUIRE(out && !err);
    CHECK_EQ(savevm_migration_wait(out, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    CHECK_EQ(savevm_migration_wait(in, &err), 0);
    CHECK_STR(err ? error_get_pretty(err) : "", "");
    check_moved();
    savevm_migration_free(out);
    savevm_migration_free(in);
    savevm_free(from);
    savevm_free(to);
}

TEST(descriptors_travel_beside_the_bytes)
{
    QEMUFile *writer, *reader;
    uint8_t byte;

    begin();
    connect_files(&writer, &reader);
    CHECK_EQ(vmstate_save_state(writer, &vmstate_card, &source, NULL, NULL), 0);
    qemu_put_byte(writer, 0x5a);
    CHECK_EQ(qemu_fflush(writer), 0);
    CHECK_EQ(vmstate_load_state(reader, &vmstate_card, &destination, 1, NULL), 0);
    byte = qemu_get_byte(reader);
    CHECK_EQ(byte, 0x5a);
    check_moved();
    CHECK_EQ(qemu_file_put_fd(writer, source.reader), 0);
    check_end_of_pipe(qemu_file_get_fd(reader), reader_pipe);
    CHECK_EQ(qemu_file_put_fd(writer, -1), -1);
    CHECK_EQ(qemu_file_get_error(writer), -EIO);
    qemu_fclose(writer);
    CHECK_EQ(qemu_file_get_fd(reader), -1);
    CHECK_EQ(qemu_file_get_error(reader), -EIO);
    qemu_fclose(reader);
}

static void check_refused(QEMUFile *f, int ret, Error *err, int expected, const char *text)
{
    CHECK_EQ(ret, expected);
    CHECK_EQ(qemu_file_get_error(f), expected);
    CHECK_HAS(err ? error_get_pretty(err) : "", text);
    CHECK_HAS(err ? error_get_pretty(err) : "", "reader");
    error_free(err);
    qemu_fclose(f);
}

TEST(channels_without_descriptors_refuse_the_device)
{
    static const uint8_t bytes[] = { 0, 0, 0, 1, ' ', 0, 0, 0, 2, ' ', 0, 0, 0, 3 };
    Error *err = NULL;
    QEMUFile *f;
    int ret;

    begin();
    f = savevm_file_to_buffer();
    ret = vmstate_save_state(f, &vmstate_card, &source, NULL, &err);
    check_refused(f, ret, err, -EIO, "Unix socket");
    err = NULL;
    f = savevm_file_from_buffer(bytes, sizeof(bytes));
    ret = vmstate_load_state(f, &vmstate_card, &destination, 1, &err);
    check_refused(f, ret, err, -EIO, "Unix socket");
    CHECK_EQ(destination.reader, -1);
}

TEST(byte_without_a_descriptor_is_refused)
{
    QEMUFile *writer, *reader;
    Error *err = NULL;
    int ret;

    begin();
    connect_files(&writer, &reader);
    qemu_put_be32(writer, 1);
    qemu_put_byte(writer, ' ');
    qemu_fflush(writer);
    ret = vmstate_load_state(reader, &vmstate_card, &destination, 1, &err);
    check_refused(reader, ret, err, -EINVAL, "expected an open descriptor");
    CHECK_EQ(destination.reader, -1);
    qemu_fclose(writer);
}

TEST(device_without_an_open_descriptor_is_not_saved)
{
    QEMUFile *writer, *reader;
    Error *err = NULL;

    begin();
    connect_files(&writer, &reader);
    source.reader = -1;
    CHECK_EQ(vmstate_save_state(writer, &vmstate_card, &source, NULL, &err), -EBADF);
    CHECK_HAS(error_get_pretty(err), "reader");
    error_free(err);
    qemu_fclose(writer);
    qemu_fclose(reader);
}

/* Counts the open descriptors of this process. */
static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

TEST(unused_descriptors_are_few_and_are_closed)
{
    QEMUFile *writer, *reader;
    int before, byte, count = 0;

    begin();
    before = open_descriptors();
    connect_files(&writer, &reader);
    while (count < 100) {
        qemu_file_put_fd(writer, source.reader);
        count++;
    }
    qemu_put_byte(writer, 1);
    qemu_fflush(writer);
    for (int i = 0; i < 100; i++) {
        byte = qemu_get_byte(reader);
        CHECK_EQ(byte, qemu_file_get_error(reader) ? 0 : ' ');
    }
    CHECK_EQ(qemu_file_get_error(reader), -EIO);
    qemu_fclose(reader);
    qemu_fclose(writer);
    CHECK_EQ(open_descriptors(), before);
}

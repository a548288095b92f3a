/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Open descriptors, which travel over a Unix socket (QEMU 10.0 and newer). */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "groups.h"
#include "test-case.h"

#if SAVEVM_QEMU_VERSION >= 1000
#define COUNT_OF_PIPES 4

typedef struct Card {
    uint32_t before, between, after;
    int32_t reader, spares[2], last;
} Card;

static bool in_version_2(void *opaque, int version_id)
{
    (void)opaque;
    return version_id == 2;
}

static const VMStateDescription vmstate_card = {
    .name = "card",
    .version_id = 2,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(before, Card),
        VMSTATE_FD(reader, Card),
        VMSTATE_UINT32(between, Card),
        VMSTATE_ARRAY(spares, Card, 2, 0, vmstate_info_fd, int32_t),
        VMSTATE_FD_TEST(last, Card, in_version_2),
        VMSTATE_UINT32(after, Card),
        VMSTATE_END_OF_LIST()
    },
};

static int pipes[COUNT_OF_PIPES][2];

/* The number of the pipe of a descriptor, and whether it is another one. */
static void say_pipe(const char *name, int fd)
{
    struct stat received, sent;

    for (int i = 0; i < COUNT_OF_PIPES; i++) {
        if (fd >= 0 && fstat(fd, &received) == 0 && fstat(pipes[i][0], &sent) == 0 &&
            received.st_ino == sent.st_ino) {
            say("  %s: pipe %d, %s, flags %d", name, i, fd == pipes[i][0] ? "the same" : "a new one",
                fcntl(fd, F_GETFD));
            return;
        }
    }
    say("  %s: none, %d", name, fd);
}

static void move(int version)
{
    Card from = { 0x11, 0x22, 0x33, pipes[0][0], { pipes[1][0], pipes[2][0] }, pipes[3][0] };
    Card to = { 0, 0, 0, -1, { -1, -1 }, -1 };
    QEMUFile *writer, *reader;
    int ret;

    files_socket_pair(&writer, &reader);
    ret = SAVE_VERSION(writer, &vmstate_card, &from, NULL, version);
    qemu_put_byte(writer, 0x5a);
    qemu_fflush(writer);
    say("save v%d: ret %d error %d", version, ret, qemu_file_get_error(writer));
    ret = LOAD(reader, &vmstate_card, &to, version);
    say("load v%d: ret %d error %d rest %02x", version, ret, qemu_file_get_error(reader), qemu_get_byte(reader));
    say("  numbers %x %x %x", to.before, to.between, to.after);
    say_pipe("reader", to.reader);
    say_pipe("spares[0]", to.spares[0]);
    say_pipe("spares[1]", to.spares[1]);
    say_pipe("last", to.last);
    qemu_fclose(writer);
    qemu_fclose(reader);
    close(to.reader);
    close(to.spares[0]);
    close(to.spares[1]);
    close(to.last);
}

/* Memory cannot pass a descriptor: neither side gets past the first one. */
static void refused(void)
{
    static const uint8_t bytes[] = { 0, 0, 0, 1, ' ', 0, 0, 0, 2 };
    Card card = { 1, 2, 3, pipes[0][0], { pipes[1][0], pipes[2][0] }, pipes[3][0] };
    QEMUFile *f = files_writer();
    int ret = SAVE_VERSION(f, &vmstate_card, &card, NULL, 2);

    say("save to memory: %s error %d", ret ? "failed" : "saved", qemu_file_get_error(f));
    qemu_fclose(f);
    f = files_reader(bytes, sizeof(bytes));
    ret = LOAD(f, &vmstate_card, &card, 2);
    say("load from memory: ret %d error %d, reader %d, between %x", ret, qemu_file_get_error(f), card.reader,
        card.between);
    qemu_fclose(f);
}

int group_descriptors(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    for (int i = 0; i < COUNT_OF_PIPES; i++) {
        if (pipe(pipes[i])) {
            return 1;
        }
    }
    case_table(&vmstate_card);
    move(1);
    move(2);
    refused();
    return 0;
}
#else
int group_descriptors(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    say("QEMU 10.0 and newer have descriptors in a stream");
    return 0;
}
#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A wire between two network namespaces that delays and loses packets, for kernels without netem: the device "link0" of each
 * namespace (a tun device), and a thread for each direction. The rate is left to a qdisc of the devices.
 *
 * usage: wire NAMESPACE NAMESPACE DELAY_MS LOSS_PER_MILLION      Prints "ready", and runs until its standard input ends.
 *
 * Without loss, a packet may be a large one that the network card would cut into segments. With loss, each packet fits the MTU.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* Packets on the wire at a time. Further ones are lost. */
#define QUEUE 32768
#define PACKET_MAX (sizeof(struct virtio_net_hdr) + 65536)

typedef struct Packet {
    uint8_t *bytes;
    size_t length;
    uint64_t due;
} Packet;

typedef struct Direction {
    int from, to;
    Packet queue[QUEUE];
    unsigned head, tail;
    uint64_t random;
} Direction;

static uint64_t delay_ns, loss_per_million;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int device(const char *namespace)
{
    char path[256];
    struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "link0" };
    snprintf(path, sizeof(path), "/run/netns/%s", namespace);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) != 0) {
        die(path);
    }
    close(space);
    int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    unsigned long offload = loss_per_million > 0 ? TUN_F_CSUM : TUN_F_CSUM | TUN_F_TSO4;
    if (tun < 0 || ioctl(tun, TUNSETIFF, &request) != 0 || ioctl(tun, TUNSETOFFLOAD, offload) != 0) {
        die("/dev/net/tun");
    }
    return tun;
}

static int is_lost(Direction *direction)
{
    direction->random = direction->random * 6364136223846793005u + 1442695040888963407u;
    return (direction->random >> 33) % 1000000 < loss_per_million;
}

/* Takes the packets that are there. */
static void take(Direction *direction, uint8_t *bytes)
{
    for (;;) {
        ssize_t got = read(direction->from, bytes, PACKET_MAX);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (got < 0) {
            die("read");
        }
        if (is_lost(direction) || direction->head - direction->tail == QUEUE) {
            continue;
        }
        Packet *packet = &direction->queue[direction->head++ % QUEUE];
        *packet = (Packet){ malloc((size_t)got), (size_t)got, now() + delay_ns };
        memcpy(packet->bytes, bytes, packet->length);
    }
}

static void *run(void *opaque)
{
    Direction *direction = opaque;
    uint8_t *bytes = malloc(PACKET_MAX);
    for (;;) {
        take(direction, bytes);
        uint64_t time = now();
        while (direction->tail != direction->head && direction->queue[direction->tail % QUEUE].due <= time) {
            Packet *packet = &direction->queue[direction->tail++ % QUEUE];
            /* A device that is not up yet loses packets, as any. */
            if (write(direction->to, packet->bytes, packet->length) < 0 && errno != EIO && errno != EAGAIN && errno != EINVAL) {
                die("write");
            }
            free(packet->bytes);
        }
        struct pollfd ready = { .fd = direction->from, .events = POLLIN };
        struct timespec left = { 0 };
        int is_empty = direction->tail == direction->head;
        if (!is_empty) {
            uint64_t due = direction->queue[direction->tail % QUEUE].due, at = now();
            left.tv_nsec = due > at ? (long)(due - at) : 0;
        }
        ppoll(&ready, 1, is_empty ? NULL : &left, NULL);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static Direction directions[2];
    pthread_t thread;
    char end;
    if (argc != 5) {
        fprintf(stderr, "usage: wire NAMESPACE NAMESPACE DELAY_MS LOSS_PER_MILLION\n");
        return 1;
    }
    delay_ns = (uint64_t)(strtod(argv[3], NULL) * 1e6);
    loss_per_million = strtoul(argv[4], NULL, 0);
    int one = device(argv[1]), other = device(argv[2]);
    directions[0] = (Direction){ .from = one, .to = other, .random = 1 };
    directions[1] = (Direction){ .from = other, .to = one, .random = 2 };
    for (int i = 0; i < 2; i++) {
        if (pthread_create(&thread, NULL, run, &directions[i]) != 0) {
            die("pthread_create");
        }
    }
    printf("ready\n");
    fflush(stdout);
    while (read(0, &end, 1) > 0) {
    }
    return 0;
}

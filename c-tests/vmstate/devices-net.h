/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The larger devices of devices.c: a network card and a virtio device. */
#ifndef VMSTATE_TEST_DEVICES_NET_H
#define VMSTATE_TEST_DEVICES_NET_H

#include "test-case.h"

/* A network card: a register file out of which pieces are saved, and much in
 * one structure; one piece is computed on the way. */

typedef struct NicSend {
    uint8_t header[24];
    uint8_t sum_start, sum_offset, sum_on;
    uint16_t sum_end;
    uint32_t payload;
    bool segmenting, ipv4;
} NicSend;

typedef struct Nic {
    uint16_t eeprom[16];
    uint32_t registers[64];
    uint32_t rx_size, rx_min_shift;
    struct {
        uint32_t bits;
        uint16_t in, out;
        bool reading;
    } serial_bus;
    NicSend send;
    NicSend shared_props; /* what older versions keep only one of */
    bool receiving;
    bool interrupt_slow;
    int64_t delay;
    uint32_t features;
    int order;
} Nic;

typedef struct NicTmp {
    Nic *parent;
    uint8_t registers_used;
    uint32_t sum;
} NicTmp;

static void nic_fill(void *opaque)
{
    Nic *n = opaque;
    uint8_t *bytes = opaque;

    for (size_t i = 0; i < sizeof(*n); i++) {
        bytes[i] = (uint8_t)(i * 3 + (i >> 8));
    }
    n->serial_bus.reading = true;
    n->send.segmenting = false;
    n->send.ipv4 = true;
    n->shared_props.segmenting = true;
    n->shared_props.ipv4 = false;
    n->receiving = true;
    n->interrupt_slow = true;
    n->features = 3;
}

static void nic_blank(void *opaque)
{
    ((Nic *)opaque)->features = 0;
}

static void nic_show(void *opaque, View *v)
{
    view(v, "", opaque, offsetof(Nic, order));
}

static int nic_tmp_pre_save(void *opaque)
{
    NicTmp *tmp = opaque;

    tmp->registers_used = 0;
    tmp->sum = 0;
    for (int i = 0; i < 64; i++) {
        tmp->sum += tmp->parent->registers[i];
        tmp->registers_used += tmp->parent->registers[i] != 0;
    }
    return 0;
}

static int nic_tmp_post_load(void *opaque, int version_id)
{
    NicTmp *tmp = opaque;

    note("nic_tmp(%d,%02x,%08x)", version_id, tmp->registers_used, tmp->sum);
    return 0;
}

static int nic_pre_save(void *opaque)
{
    Nic *n = opaque;

    note("nic_pre_save");
    n->order = 1;
    return 0;
}

static int nic_post_load(void *opaque, int version_id)
{
    Nic *n = opaque;

    note("nic_post_load(%d)", version_id);
    if (!(n->features & 1)) {
        n->shared_props = n->send;
    }
    return 0;
}

static bool nic_slow(void *opaque)
{
    return ((Nic *)opaque)->interrupt_slow;
}

static bool nic_two_props(void *opaque)
{
    return ((Nic *)opaque)->features & 1;
}

static bool nic_is_version_1(void *opaque, int version_id)
{
    (void)opaque;
    return version_id == 1;
}

static const VMStateDescription vmstate_nic_tmp = {
    .name = "nic sum",
    .version_id = 1,
    .minimum_version_id = 0,
    .pre_save = nic_tmp_pre_save,
    .post_load = nic_tmp_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(registers_used, NicTmp),
        VMSTATE_UINT32(sum, NicTmp),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_nic_slow = {
    .name = "nic/slow interrupts",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = nic_slow,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(registers[17], Nic),
        VMSTATE_INT64(delay, Nic),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_nic_props = {
    .name = "nic/second properties",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = nic_two_props,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(shared_props.sum_start, Nic),
        VMSTATE_UINT8(shared_props.sum_offset, Nic),
        VMSTATE_UINT16(shared_props.sum_end, Nic),
        VMSTATE_UINT32(shared_props.payload, Nic),
        VMSTATE_BOOL(shared_props.segmenting, Nic),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription *nic_parts[] = {
    &vmstate_nic_slow, &vmstate_nic_props, NULL
};

static const VMStateDescription vmstate_nic = {
    .name = "nic",
    .version_id = 2,
    .minimum_version_id = 1,
    .pre_save = nic_pre_save,
    .post_load = nic_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UNUSED_TEST(nic_is_version_1, 4),
        VMSTATE_UNUSED(4),
        VMSTATE_UINT32(rx_size, Nic),
        VMSTATE_UINT32(rx_min_shift, Nic),
        VMSTATE_UINT32(serial_bus.bits, Nic),
        VMSTATE_UINT16(serial_bus.in, Nic),
        VMSTATE_UINT16(serial_bus.out, Nic),
        VMSTATE_BOOL(serial_bus.reading, Nic),
        VMSTATE_UINT8(send.sum_start, Nic),
        VMSTATE_UINT8(send.sum_on, Nic),
        VMSTATE_UINT16(send.sum_end, Nic),
        VMSTATE_UINT32(send.payload, Nic),
        VMSTATE_BOOL(send.ipv4, Nic),
        VMSTATE_BUFFER(send.header, Nic),
        VMSTATE_UINT16_ARRAY(eeprom, Nic, 16),
        VMSTATE_WITH_TMP(Nic, NicTmp, vmstate_nic_tmp),
        VMSTATE_UINT32(registers[0], Nic),
        VMSTATE_UINT32(registers[5], Nic),
        VMSTATE_UINT32(registers[4], Nic),
        VMSTATE_UINT32_SUB_ARRAY(registers, Nic, 8, 9),
        VMSTATE_UINT32_SUB_ARRAY(registers, Nic, 32, 32),
        VMSTATE_BOOL_V(receiving, Nic, 2),
        VMSTATE_END_OF_LIST()
    },
    .subsections = nic_parts,
};

/* A virtio device: queues behind a pointer, counts that travel, 64-bit
 * features only where they are used, an extra piece from the transport. */

typedef struct VirtRing {
    uint16_t size, last_seen, signalled;
    uint64_t descriptors, available, used;
    uint16_t vector;
} VirtRing;

typedef struct Virt {
    uint8_t status, interrupt;
    uint16_t selected;
    uint64_t features;
    bool broken, started;
    int32_t config_len;
    uint32_t ring_count;
    uint16_t mac_count;
    uint8_t macs[8][6];
    uint8_t *config;
    VirtRing *rings;
    uint8_t *transport;
} Virt;

#define VIRT_RINGS 4
#define VIRT_CONFIG 20

static void virt_make(Virt *d, uint8_t seed)
{
    d->config = malloc(VIRT_CONFIG);
    d->rings = malloc(VIRT_RINGS * sizeof(VirtRing));
    d->transport = malloc(8);
    memset(d->config, seed, VIRT_CONFIG);
    memset(d->rings, seed, VIRT_RINGS * sizeof(VirtRing));
    memset(d->transport, seed, 8);
}

static void virt_fill(void *opaque)
{
    Virt *d = opaque;
    uint8_t *bytes = opaque;

    for (size_t i = 0; i < offsetof(Virt, config); i++) {
        bytes[i] = (uint8_t)(i * 7 + 1);
    }
    virt_make(d, 0x3c);
    d->features = UINT64_C(0x130000002);
    d->broken = false;
    d->started = true;
    d->config_len = 10;
    d->ring_count = 3;
    d->mac_count = 2;
    for (unsigned i = 0; i < VIRT_RINGS; i++) {
        d->rings[i].size = (uint16_t)(64 << i);
        d->rings[i].last_seen = (uint16_t)(3 * i);
        d->rings[i].descriptors = 0x1000 * (i + 1);
    }
}

/* One that uses nothing that came later. */
static void virt_fill_old(void *opaque)
{
    Virt *d = opaque;

    virt_fill(d);
    d->features = 6;
    d->started = false;
    d->ring_count = 0;
    d->config_len = 0;
}

static void virt_blank(void *opaque)
{
    Virt *d = opaque;

    memset(d, 0, sizeof(*d));
    virt_make(d, 0xc3);
    d->config_len = VIRT_CONFIG;
    d->ring_count = VIRT_RINGS;
}

static void virt_show(void *opaque, View *v)
{
    Virt *d = opaque;

    view(v, "", d, offsetof(Virt, config));
    view(v, "config", d->config, VIRT_CONFIG);
    view(v, "rings", d->rings, VIRT_RINGS * sizeof(VirtRing));
    view(v, "transport", d->transport, 8);
}

static void virt_drop(void *opaque)
{
    Virt *d = opaque;

    free(d->config);
    free(d->rings);
    free(d->transport);
}

static int get_transport(QEMUFile *f, void *pv, size_t size,
                         const VMStateField *field)
{
    Virt *d = pv;

    (void)size;
    (void)field;
    qemu_get_buffer(f, d->transport, 3);
    d->transport[3] = (uint8_t)qemu_get_sbyte(f);
    return 0;
}

static int put_transport(QEMUFile *f, void *pv, size_t size,
                         const VMStateField *field, JSONWriter *vmdesc)
{
    Virt *d = pv;

    (void)size;
    (void)field;
    (void)vmdesc;
    qemu_put_buffer(f, d->transport, 3);
    qemu_put_sbyte(f, 3);
    return 0;
}

static const VMStateInfo info_transport = {
    .name = "transport",
    .get = get_transport,
    .put = put_transport,
};

static bool virt_young(void *opaque)
{
    return ((Virt *)opaque)->features >> 32;
}

static bool virt_started(void *opaque)
{
    return ((Virt *)opaque)->started;
}

static bool virt_fits(void *opaque, int version_id)
{
    Virt *d = opaque;

    (void)version_id;
    return d->config_len >= 0 && d->config_len <= VIRT_CONFIG &&
           d->ring_count <= VIRT_RINGS && d->mac_count <= 8;
}

static int virt_post_load(void *opaque, int version_id)
{
    Virt *d = opaque;

    note("virt_post_load(%d)", version_id);
    for (uint32_t i = 0; i < d->ring_count; i++) {
        if (d->rings[i].last_seen > 0x8000) {
            return -1;
        }
    }
    return 0;
}

static const VMStateDescription vmstate_ring = {
    .name = "ring",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(size, VirtRing),
        VMSTATE_UINT64(descriptors, VirtRing),
        VMSTATE_UINT16(last_seen, VirtRing),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_young_ring = {
    .name = "young ring",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(available, VirtRing),
        VMSTATE_UINT64(used, VirtRing),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_virt_features = {
    .name = "virt/64bit features",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = virt_young,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(features, Virt),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_virt_rings = {
    .name = "virt/rings",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = virt_young,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT_VARRAY_POINTER_UINT32(rings, Virt, ring_count,
                                             vmstate_young_ring, VirtRing),
        VMSTATE_STRUCT_VARRAY_POINTER_KNOWN(rings, Virt, VIRT_RINGS, 0,
                                            vmstate_ring, VirtRing),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription vmstate_virt_started = {
    .name = "virt/started",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = virt_started,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(started, Virt),
        VMSTATE_BOOL(broken, Virt),
        VMSTATE_END_OF_LIST()
    },
};

static const VMStateDescription *virt_parts[] = {
    &vmstate_virt_features, &vmstate_virt_rings, &vmstate_virt_started, NULL
};

static const VMStateDescription vmstate_virt = {
    .name = "virt",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = virt_post_load,
    .fields = (const VMStateField[]) {
        {
            .name = "transport",
            .size = sizeof(Virt),
            .info = &info_transport,
            .flags = VMS_SINGLE,
        },
        VMSTATE_UINT8(status, Virt),
        VMSTATE_UINT8(interrupt, Virt),
        VMSTATE_UINT16(selected, Virt),
        VMSTATE_INT32(config_len, Virt),
        VMSTATE_UINT32(ring_count, Virt),
        VMSTATE_UINT16(mac_count, Virt),
        VMSTATE_VALIDATE("counts fit", virt_fits),
        VMSTATE_VBUFFER(config, Virt, 0, NULL, config_len),
        VMSTATE_STRUCT_VARRAY_POINTER_UINT32(rings, Virt, ring_count,
                                             vmstate_ring, VirtRing),
        {
            .name = "macs",
            .offset = offsetof(Virt, macs),
            .size = 6,
            .num_offset = offsetof(Virt, mac_count),
            .info = &vmstate_info_buffer,
            .flags = VMS_VARRAY_UINT16 | VMS_BUFFER,
        },
        VMSTATE_END_OF_LIST()
    },
    .subsections = virt_parts,
};

#endif

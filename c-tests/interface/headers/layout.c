/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes, offsets and values that compiled device code relies on, as numbers.
 *
 * The numbers are QEMU 7.2's on a 64-bit host. Compiled with -DLAYOUT_OF_QEMU
 * and a QEMU 7.2 tree on the include path, the same program checks them
 * against QEMU's own headers.
 */
#ifdef LAYOUT_OF_QEMU
#include "qemu/osdep.h"
#include "qemu/cpu-float.h"
#include "qapi/qapi-types-migration.h"
#include "migration/savevm.h"
#else
#include "migration/savevm.h"
#include "qemu/cpu-float.h"
#endif
#include "hw/vmstate-if.h"
#include "migration/register.h"
#include "migration/vmstate.h"
#include "qemu/queue.h"

#include <stdio.h>
#include <string.h>

static int wrong;

static void expect(const char *what, unsigned long have, unsigned long want)
{
    if (have != want) {
        printf("%s is %lu, QEMU 7.2 has %lu\n", what, have, want);
        wrong++;
    }
}

#define SIZE(type, bytes) expect("sizeof(" #type ")", sizeof(type), bytes)
#define AT(type, member, bytes) \
    expect("offsetof(" #type ", " #member ")", offsetof(type, member), bytes)
#define VALUE(name, number) expect(#name, (unsigned long)(name), number)

static void vmstate_structures(void)
{
    SIZE(VMStateInfo, 24);
    AT(VMStateInfo, name, 0);
    AT(VMStateInfo, get, 8);
    AT(VMStateInfo, put, 16);

    SIZE(VMStateField, 104);
    AT(VMStateField, name, 0);
    AT(VMStateField, err_hint, 8);
    AT(VMStateField, offset, 16);
    AT(VMStateField, size, 24);
    AT(VMStateField, start, 32);
    AT(VMStateField, num, 40);
    AT(VMStateField, num_offset, 48);
    AT(VMStateField, size_offset, 56);
    AT(VMStateField, info, 64);
    AT(VMStateField, flags, 72);
    AT(VMStateField, vmsd, 80);
    AT(VMStateField, version_id, 88);
    AT(VMStateField, struct_version_id, 92);
    AT(VMStateField, field_exists, 96);

    SIZE(VMStateDescription, 88);
    AT(VMStateDescription, name, 0);
    AT(VMStateDescription, unmigratable, 8);
    AT(VMStateDescription, version_id, 12);
    AT(VMStateDescription, minimum_version_id, 16);
    AT(VMStateDescription, priority, 20);
    AT(VMStateDescription, pre_load, 24);
    AT(VMStateDescription, post_load, 32);
    AT(VMStateDescription, pre_save, 40);
    AT(VMStateDescription, post_save, 48);
    AT(VMStateDescription, needed, 56);
    AT(VMStateDescription, dev_unplug_pending, 64);
    AT(VMStateDescription, fields, 72);
    AT(VMStateDescription, subsections, 80);
}

static void handlers(void)
{
    SIZE(SaveVMHandlers, 112);
    AT(SaveVMHandlers, save_state, 0);
    AT(SaveVMHandlers, save_cleanup, 8);
    AT(SaveVMHandlers, save_live_complete_postcopy, 16);
    AT(SaveVMHandlers, save_live_complete_precopy, 24);
    AT(SaveVMHandlers, is_active, 32);
    AT(SaveVMHandlers, has_postcopy, 40);
    AT(SaveVMHandlers, is_active_iterate, 48);
    AT(SaveVMHandlers, save_live_iterate, 56);
    AT(SaveVMHandlers, save_setup, 64);
    AT(SaveVMHandlers, save_live_pending, 72);
    AT(SaveVMHandlers, load_state, 80);
    AT(SaveVMHandlers, load_setup, 88);
    AT(SaveVMHandlers, load_cleanup, 96);
    AT(SaveVMHandlers, resume_prepare, 104);
}

struct Item {
    QLIST_ENTRY(Item) in_list;
    QTAILQ_ENTRY(Item) in_queue;
};
typedef QLIST_HEAD(ItemList, Item) ItemList;
typedef QTAILQ_HEAD(ItemQueue, Item) ItemQueue;

static void lists(void)
{
    SIZE(ItemList, 8);
    AT(ItemList, lh_first, 0);
    AT(struct Item, in_list.le_next, 0);
    AT(struct Item, in_list.le_prev, 8);
    SIZE(QTailQLink, 16);
    AT(QTailQLink, tql_next, 0);
    AT(QTailQLink, tql_prev, 8);
    SIZE(ItemQueue, 16);
    AT(ItemQueue, tqh_first, 0);
    AT(ItemQueue, tqh_circ, 0);
    AT(struct Item, in_queue.tqe_next, 16);
    AT(struct Item, in_queue.tqe_circ, 16);
    SIZE(struct Item, 32);

    SIZE(CPU_DoubleU, 8);
    AT(CPU_DoubleU, l.lower, 0);
    AT(CPU_DoubleU, l.upper, 4);
}

static void flags(void)
{
    SIZE(enum VMStateFlags, 4);
    VALUE(VMS_SINGLE, 0x1);
    VALUE(VMS_POINTER, 0x2);
    VALUE(VMS_ARRAY, 0x4);
    VALUE(VMS_STRUCT, 0x8);
    VALUE(VMS_VARRAY_INT32, 0x10);
    VALUE(VMS_BUFFER, 0x20);
    VALUE(VMS_ARRAY_OF_POINTER, 0x40);
    VALUE(VMS_VARRAY_UINT16, 0x80);
    VALUE(VMS_VBUFFER, 0x100);
    VALUE(VMS_MULTIPLY, 0x200);
    VALUE(VMS_VARRAY_UINT8, 0x400);
    VALUE(VMS_VARRAY_UINT32, 0x800);
    VALUE(VMS_MUST_EXIST, 0x1000);
    VALUE(VMS_ALLOC, 0x2000);
    VALUE(VMS_MULTIPLY_ELEMENTS, 0x4000);
    VALUE(VMS_VSTRUCT, 0x8000);
    VALUE(VMS_NULLPTR_MARKER, 0x30);

    SIZE(MigrationPriority, 4);
    VALUE(MIG_PRI_DEFAULT, 0);
    VALUE(MIG_PRI_IOMMU, 1);
    VALUE(MIG_PRI_PCI_BUS, 2);
    VALUE(MIG_PRI_VIRTIO_MEM, 3);
    VALUE(MIG_PRI_GICV3_ITS, 4);
    VALUE(MIG_PRI_GICV3, 5);
    VALUE(MIG_PRI_MAX, 6);
    VALUE(VMSTATE_INSTANCE_ID_ANY, (unsigned long)-1);
}

static void stream(void)
{
    VALUE(QEMU_VM_FILE_MAGIC, 0x5145564d);
    VALUE(QEMU_VM_FILE_VERSION_COMPAT, 2);
    VALUE(QEMU_VM_FILE_VERSION, 3);
    VALUE(QEMU_VM_EOF, 0);
    VALUE(QEMU_VM_SECTION_START, 1);
    VALUE(QEMU_VM_SECTION_PART, 2);
    VALUE(QEMU_VM_SECTION_END, 3);
    VALUE(QEMU_VM_SECTION_FULL, 4);
    VALUE(QEMU_VM_SUBSECTION, 5);
    VALUE(QEMU_VM_VMDESCRIPTION, 6);
    VALUE(QEMU_VM_CONFIGURATION, 7);
    VALUE(QEMU_VM_COMMAND, 8);
    VALUE(QEMU_VM_SECTION_FOOTER, 0x7e);
    expect("strcmp(TYPE_VMSTATE_IF)",
           strcmp(TYPE_VMSTATE_IF, "vmstate-if") != 0, 0);
}

int main(void)
{
    if (sizeof(void *) != 8) {
        puts("SKIP: the numbers are those of a 64-bit host");
        return 77;
    }
    vmstate_structures();
    handlers();
    lists();
    flags();
    stream();
    printf("%d differences\n", wrong);
    return wrong != 0;
}

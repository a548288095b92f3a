/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * backend.h on top of QEMU's own objects: objects and the machine. Files are in
 * backend_files_qemu.c, phases in phases_qemu.c.
 * Compiled with QEMU's flags against QEMU's headers. What else those objects
 * call is in stubs_qemu.c.
 */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "hw/boards.h"
#include "hw/vmstate-if.h"
#include "migration/migration.h"
#include "migration/qemu-file.h"

#include "reference/host_qemu.h"

/* Constant since 10.1. */
#if SAVEVM_QEMU_VERSION >= 1001
#define CLASS_DATA const
#else
#define CLASS_DATA
#endif

BackendHost backend = {
    .machine = "box",
    .page_bits = 12,
    .page_bits_min = 12,
    .ram_page_sizes = 4096,
};

const char *backend_name(void)
{
    return "qemu";
}

/* The machine: all that is asked of it is a name and one flag. */

MachineState *current_machine;

static const TypeInfo machine_type = {
    .name = TYPE_MACHINE,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(MachineState),
    .class_size = sizeof(MachineClass),
};

Object *qdev_get_machine(void)
{
    MACHINE_GET_CLASS(current_machine)->name = (char *)backend.machine;
    current_machine->suppress_vmdesc = backend.no_vmdesc;
    return OBJECT(current_machine);
}

/* Objects with a path. */

#define TYPE_SIDE_OBJECT "side-object"

typedef struct SideObject {
    Object parent;
    const char *path;
} SideObject;

static char *object_id(VMStateIf *obj)
{
    return g_strdup(((SideObject *)obj)->path);
}

static void object_class(ObjectClass *class, CLASS_DATA void *data)
{
    VMSTATE_IF_CLASS(class)->get_id = object_id;
}

static const TypeInfo object_type = {
    .name = TYPE_SIDE_OBJECT,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(SideObject),
    .class_init = object_class,
    .interfaces = (CLASS_DATA InterfaceInfo[]) {
        { TYPE_VMSTATE_IF },
        { }
    },
};

VMStateIf *backend_object(const char *path)
{
    SideObject *object = (SideObject *)object_new(TYPE_SIDE_OBJECT);

    object->path = path;
    return VMSTATE_IF(object);
}

void backend_start(void)
{
    module_call_init(MODULE_INIT_QOM);
    type_register_static(&machine_type);
    type_register_static(&object_type);
    current_machine = (MachineState *)object_new(TYPE_MACHINE);
    host_start();
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The emulator as the host of libsavevm's default context. */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "block/block.h"
#include "exec/target_page.h"
#include "hw/boards.h"
#include "migration/colo.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"
#include "glue.h"
#if GLUE_VERSION >= 1000
#include "migration/cpr.h"
#else
#include "exec/ramblock.h"
#endif
#if GLUE_VERSION >= 1002
#include "exec/page-vary.h"
#include "system/ramblock.h"
#define OLDEST_PAGE_BITS migration_legacy_page_bits()
#else
#define OLDEST_PAGE_BITS qemu_target_page_bits_min()
#endif
#if GLUE_VERSION == 1000
#include "exec/ramblock.h"
#endif
#include "savevm/check.h"

/* Defines a host function that is one call of a QEMU function. */
#define HOST_CALL(type, name, call) \
    static type name(void *host)    \
    {                               \
        return call;                \
    }

HOST_CALL(void, host_lock, bql_lock())
HOST_CALL(void, host_unlock, bql_unlock())
HOST_CALL(bool, host_locked, bql_locked())
HOST_CALL(void, host_cpu_states, cpu_synchronize_all_states())
HOST_CALL(void, host_cpu_pre_load, cpu_synchronize_all_pre_loadvm())
HOST_CALL(void, host_cpu_post_load, cpu_synchronize_all_post_init())
HOST_CALL(const char *, host_machine_name,
          MACHINE_GET_CLASS(current_machine)->name)
HOST_CALL(unsigned int, host_page_bits, qemu_target_page_bits())
HOST_CALL(unsigned int, host_page_bits_min, OLDEST_PAGE_BITS)
HOST_CALL(uint64_t, host_ram_page_sizes, ram_pagesize_summary())
#if GLUE_VERSION < 1000
HOST_CALL(int, host_disks_inactivate, bdrv_inactivate_all())
#endif

static bool host_uuid(void *host, uint8_t *uuid)
{
    if (qemu_uuid_set) {
        memcpy(uuid, qemu_uuid.data, sizeof(qemu_uuid.data));
    }
    return qemu_uuid_set;
}

static const char *const *host_capabilities(void *host)
{
    static const char *names[3];
    int count = 0;

    if (migrate_ignore_shared()) {
        names[count++] = "x-ignore-shared";
    }
#if GLUE_VERSION >= 1000
    if (migrate_mapped_ram()) {
        names[count++] = "mapped-ram";
    }
#endif
    names[count] = NULL;
    return names;
}

static uint32_t host_stream_flags(void *host)
{
    MigrationState *s = migrate_get_current();
    uint32_t flags = 0;

    flags |= s->send_configuration ? 0 : SAVEVM_FLAG_NO_CONFIGURATION;
    flags |= s->send_section_footer ? 0 : SAVEVM_FLAG_NO_FOOTERS;
    flags |= current_machine->suppress_vmdesc ? SAVEVM_FLAG_NO_VMDESC : 0;
    flags |= migration_in_postcopy() ? SAVEVM_FLAG_IN_POSTCOPY : 0;
    flags |= migration_in_colo_state() ? SAVEVM_FLAG_IN_COLO : 0;
    flags |= migrate_postcopy_ram() ? SAVEVM_FLAG_POSTCOPY_RAM : 0;
    flags |= migrate_validate_uuid() ? 0 : SAVEVM_FLAG_NO_UUID;
    flags |= xen_enabled() ? SAVEVM_FLAG_NO_LIVE_LOAD : 0;
#if GLUE_VERSION >= 1000
    flags |= s->send_switchover_start ? 0 : SAVEVM_FLAG_NO_SWITCHOVER_START;
    flags |= migrate_switchover_ack() ? SAVEVM_FLAG_SWITCHOVER_ACK : 0;
    flags |= SAVEVM_FLAG_HOST_CLEANS_LOAD;
#endif
    return flags;
}

static bool host_ram_fits(void *host, const char *name, uint64_t length)
{
    RAMBlock *block = qemu_ram_block_by_name(name);

    length = ROUND_UP(length, qemu_real_host_page_size());
    return block && (block->used_length == length ||
                     (block->flags & RAM_RESIZEABLE &&
                      block->max_length >= length));
}

static char *host_object_path(void *host, VMStateIf *object)
{
    return vmstate_if_get_id(object);
}

static int host_precopy_notify(void *host, SaveVMPrecopyNotice notice)
{
    Error *err = NULL;
    int ret;

    if (GLUE_VERSION >= 1000 && notice == SAVEVM_PRECOPY_COMPLETE) {
        /* migration.c sends this notice itself. */
        return 0;
    }
    ret = precopy_notify((PrecopyNotifyReason)notice, &err);
    if (err) {
        error_report_err(err);
    }
    return GLUE_VERSION >= 1000 && ret ? -EINVAL : 0;
}

static int64_t host_timer_expire(void *host, QEMUTimer *timer)
{
    return timer_expire_time_ns(timer);
}

static void host_timer_set(void *host, QEMUTimer *timer, int64_t expire)
{
    timer_mod_ns(timer, expire);
}

static void host_timer_clear(void *host, QEMUTimer *timer)
{
    timer_del(timer);
}

static void __attribute__((constructor(102))) host_init(void)
{
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;

    ops.lock = host_lock;
    ops.unlock = host_unlock;
    ops.locked = host_locked;
    ops.cpu_synchronize_states = host_cpu_states;
    ops.cpu_synchronize_pre_load = host_cpu_pre_load;
    ops.cpu_synchronize_post_load = host_cpu_post_load;
    ops.machine_name = host_machine_name;
    ops.uuid = host_uuid;
    ops.target_page_bits = host_page_bits;
    ops.target_page_bits_min = host_page_bits_min;
    ops.capabilities = host_capabilities;
    ops.stream_flags = host_stream_flags;
    ops.ram_page_sizes = host_ram_page_sizes;
    ops.ram_fits = host_ram_fits;
    ops.object_path = host_object_path;
#if GLUE_VERSION >= 1000
    glue_newer_host_ops(&ops);
#else
    ops.disks_inactivate = host_disks_inactivate;
#endif
    ops.precopy_notify = host_precopy_notify;
    ops.timer_expire_ns = host_timer_expire;
    ops.timer_set_ns = host_timer_set;
    ops.timer_clear = host_timer_clear;
    ops.incoming = &glue_incoming_ops;

    glue_program_ops(&ops);
    savevm_set_host(savevm_default(), &ops, NULL);
}

/* Functions that devices call and that the library does not have */

/*
 * QEMU's archive has stubs of these two functions for its tools. Without these
 * definitions, the linker would take the stubs of the archive instead of the
 * functions of the library.
 */
int vmstate_register_with_alias_id(VMStateIf *obj, uint32_t instance_id,
                                   const VMStateDescription *vmsd,
                                   void *opaque, int alias_id,
                                   int required_for_version, Error **errp)
{
    return savevm_register_vmstate(NULL, obj, instance_id, vmsd, opaque,
                                   alias_id, required_for_version, errp);
}

void vmstate_unregister(VMStateIf *obj, const VMStateDescription *vmsd,
                        void *opaque)
{
    savevm_unregister_vmstate(NULL, obj, vmsd, opaque);
}

void vmstate_register_ram(MemoryRegion *mr, DeviceState *dev)
{
    qemu_ram_set_idstr(mr->ram_block, memory_region_name(mr), dev);
    qemu_ram_set_migratable(mr->ram_block);
#if GLUE_VERSION >= 1000
    ram_block_add_cpr_blocker(mr->ram_block, &error_fatal);
#endif
}

void vmstate_register_ram_global(MemoryRegion *mr)
{
    vmstate_register_ram(mr, NULL);
}

void vmstate_unregister_ram(MemoryRegion *mr, DeviceState *dev)
{
    qemu_ram_unset_migratable(mr->ram_block);
    qemu_ram_unset_idstr(mr->ram_block);
#if GLUE_VERSION >= 1000
    ram_block_del_cpr_blocker(mr->ram_block);
#endif
}

bool vmstate_check_only_migratable(const VMStateDescription *vmsd)
{
    return !only_migratable || !vmsd || !vmsd->unmigratable;
}

#if GLUE_VERSION >= 600
static void add_reason(const char *name, void *reasons)
{
    QAPI_LIST_PREPEND(*(strList **)reasons,
                      g_strdup_printf("non-migratable device: %s", name));
}

void qemu_savevm_non_migratable_list(strList **reasons)
{
    savevm_non_migratable(savevm_default(), add_reason, reasons);
}
#else
/* The class of CPUs of user-mode emulators has this description. */
const VMStateDescription vmstate_dummy = {};
#endif

/* -dump-vmstate: the saved fields of each type of device, as JSON. */

static void describe_device(ObjectClass *class, void *out)
{
    const char *name = object_class_get_name(class);
    g_autofree char *json = savevm_describe(DEVICE_CLASS(class)->vmsd, name);

    if (json) {
        fprintf(out, ",\n\"%s\": %s", name, json);
    }
}

void dump_vmstate_json_to_file(FILE *out)
{
    fprintf(out, "{\n\"vmschkmachine\": {\"Name\": \"%s\"}",
            host_machine_name(NULL));
    object_class_foreach(describe_device, TYPE_DEVICE, true, out);
    fputs("\n}\n", out);
    fclose(out);
}

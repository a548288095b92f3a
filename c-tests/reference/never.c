/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What savevm.c refers to and no test here reaches: snapshots, postcopy's
 * threads, the run state. A call of one of these ends the program. The types do
 * not matter for that, so this includes none of QEMU's headers.
 *
 * The list is that of all versions of QEMU, and what a version has elsewhere
 * takes precedence.
 */
#include <stdio.h>
#include <stdlib.h>

#define NEVER(name)                                      \
    void name(void);                                     \
    __attribute__((weak)) void name(void)                \
    {                                                    \
        fprintf(stderr, "%s was called\n", #name);       \
        abort();                                         \
    }

NEVER(bdrv_activate_all)
NEVER(bdrv_all_can_snapshot)
NEVER(bdrv_all_create_snapshot)
NEVER(bdrv_all_delete_snapshot)
NEVER(bdrv_all_find_snapshot)
NEVER(bdrv_all_find_vmstate_bs)
NEVER(bdrv_all_goto_snapshot)
NEVER(bdrv_all_has_snapshot)
NEVER(bdrv_drain_all_begin)
NEVER(bdrv_drain_all_end)
NEVER(bdrv_flush)
NEVER(bdrv_get_aio_context)
NEVER(bdrv_get_device_or_node_name)
NEVER(bdrv_invalidate_cache_all)
NEVER(bdrv_load_vmstate)
NEVER(bdrv_snapshot_find)
NEVER(bdrv_writev_vmstate)
NEVER(dirty_bitmap_mig_before_vm_start)
NEVER(global_state_store)
NEVER(global_state_store_running)
NEVER(job_create)
NEVER(job_progress_set_remaining)
NEVER(job_progress_update)
NEVER(job_start)
NEVER(memory_region_name)
NEVER(migrate_announce_params)
NEVER(migrate_can_snapshot)
NEVER(migrate_init)
NEVER(migrate_send_rp_message_req_pages)
NEVER(migrate_use_block)
NEVER(migration_block_activate)
NEVER(migration_block_inactivate)
NEVER(migration_incoming_state_destroy)
NEVER(migration_is_blocked)
NEVER(migration_is_running)
NEVER(postcopy_fault_thread_notify)
NEVER(postcopy_is_paused)
NEVER(postcopy_ram_incoming_cleanup)
NEVER(postcopy_temp_page_reset)
NEVER(qemu_announce_self)
NEVER(qemu_ram_block_from_host)
NEVER(qemu_ram_set_idstr)
NEVER(qemu_ram_set_migratable)
NEVER(qemu_ram_unset_idstr)
NEVER(qemu_ram_unset_migratable)
NEVER(qemu_system_reset)
NEVER(qemu_system_wakeup_request)
NEVER(qio_channel_block_new)
NEVER(ram_block_add_cpr_blocker)
NEVER(ram_block_del_cpr_blocker)
NEVER(replay_can_snapshot)
NEVER(replay_flush_events)
NEVER(runstate_get)
NEVER(runstate_is_running)
NEVER(runstate_set)
NEVER(vm_resume)
NEVER(vm_start)
NEVER(vm_stop)

/* Statistics that only a snapshot clears: room enough for both. */
__attribute__((weak)) char ram_counters[4096];
__attribute__((weak)) char compression_counters[4096];

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest memory: the library's RAM device, and how a RAM device of the host's own takes part in postcopy. The general
 * rules of savevm.h hold. */
/* Generated from the Rust sources by cbindgen. Do not edit. */

#ifndef SAVEVM_RAM_H
#define SAVEVM_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "savevm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The library's RAM device ---- */

/**
 * Source of the dirty log.
 */
typedef enum SaveVMRamLog {
  /**
   * SAVEVM_RAM_LOG_HOST if there is a log_sync, else SAVEVM_RAM_LOG_KERNEL.
   */
  SAVEVM_RAM_LOG_AUTO = 0,
  /**
   * SaveVMRamOps.log_sync, for example with KVM's dirty log.
   */
  SAVEVM_RAM_LOG_HOST = 1,
  /**
   * The kernel's write protection (userfaultfd and PAGEMAP_SCAN, Linux 6.7). It logs all writes of this process and of
   * KVM. Mark writes of other processes and of devices with savevm_ram_set_dirty().
   */
  SAVEVM_RAM_LOG_KERNEL = 2,
  /**
   * Only savevm_ram_set_dirty().
   */
  SAVEVM_RAM_LOG_MARKS = 3,
} SaveVMRamLog;

/**
 * The RAM of one machine.
 */
typedef struct SaveVMRam SaveVMRam;

/**
 * How the RAM of a machine is migrated.
 */
typedef struct SaveVMRamOptions {
  /**
   * sizeof(SaveVMRamOptions).
   */
  size_t size;
  /**
   * Source of the dirty log; default SAVEVM_RAM_LOG_AUTO.
   */
  enum SaveVMRamLog log;
  /**
   * Shared blocks are not sent, because both sides map the same memory. Both sides must set it (QEMU's x-ignore-shared).
   */
  bool ignore_shared;
  /**
   * Size in bytes of a cache of sent pages, so that a page with few changes is sent as a difference (XBZRLE). Default 0: no
   * cache. It saves bandwidth, and costs CPU time and memory.
   */
  uint64_t xbzrle_cache;
} SaveVMRamOptions;

/**
 * Initialises a SaveVMRamOptions.
 */
#define SAVEVM_RAM_OPTIONS_INIT SAVEVM_INITIALISED(SaveVMRamOptions)

/**
 * A block of guest memory.
 */
typedef struct SaveVMRamBlock {
  /**
   * sizeof(SaveVMRamBlock).
   */
  size_t size;
  /**
   * Name, 1 to 255 bytes, the same on both sides; copied.
   */
  const char *name;
  /**
   * Address of the mapping, readable and writable, aligned to the page size. The hypervisor owns the memory.
   */
  void *host;
  /**
   * Size in bytes, a multiple of the page size.
   */
  uint64_t length;
  /**
   * Page size of the mapping in bytes, for postcopy, such as that of a hugetlbfs. 0: the system's.
   */
  uint64_t page_size;
  /**
   * Guest-physical address; for shared memory, it must be the same on both sides.
   */
  uint64_t guest_address;
  /**
   * Whether it is mapped with MAP_SHARED.
   */
  bool shared;
  /**
   * A pointer of the hypervisor, for log_sync.
   */
  void *opaque;
} SaveVMRamBlock;

/**
 * Initialises a SaveVMRamBlock.
 */
#define SAVEVM_RAM_BLOCK_INIT SAVEVM_INITIALISED(SaveVMRamBlock)

/**
 * The dirty log of a hypervisor, for guest memory.
 */
typedef struct SaveVMRamOps {
  /**
   * sizeof(SaveVMRamOps).
   */
  size_t size;
  /**
   * Starts the log of writes to guest memory; 0 or -errno. Without the lock, except in a snapshot.
   */
  int (*log_start)(void *opaque);
  /**
   * Sets the bits of all target pages of the block that were written since the last call, and clears the log. Bit 0 of
   * `bitmap[0]` is the first page, as in KVM_GET_DIRTY_LOG. `bitmap` has `words` elements, which are zero. 0 or -errno.
   * Without the lock; with the lock when the guest is stopped.
   */
  int (*log_sync)(void *opaque, const struct SaveVMRamBlock *block, uint64_t *bitmap, size_t words);
  /**
   * Stops the log. Called once for every log_start that returned 0. With the lock.
   */
  void (*log_stop)(void *opaque);
} SaveVMRamOps;

/**
 * Initialises a SaveVMRamOps.
 */
#define SAVEVM_RAM_OPS_INIT SAVEVM_INITIALISED(SaveVMRamOps)

/**
 * Statistics of the RAM in the last migration, in either direction.
 */
typedef struct SaveVMRamInfo {
  /**
   * sizeof(SaveVMRamInfo).
   */
  size_t size;
  /**
   * The target's page size in bytes.
   */
  uint64_t page_size;
  /**
   * Bytes that remain to be sent.
   */
  uint64_t dirty_bytes;
  /**
   * Pages that were sent or received with their contents.
   */
  uint64_t normal_pages;
  /**
   * Pages that were sent or received as zero pages.
   */
  uint64_t zero_pages;
  /**
   * Pages that were sent or received as a difference (XBZRLE).
   */
  uint64_t xbzrle_pages;
  /**
   * Pages that were dirty but unchanged, and were not sent.
   */
  uint64_t unchanged_pages;
  /**
   * Number of times that the dirty log was read.
   */
  uint64_t syncs;
  /**
   * Ranges that the destination requested in postcopy.
   */
  uint64_t page_requests;
} SaveVMRamInfo;

/**
 * Initialises a SaveVMRamInfo.
 */
#define SAVEVM_RAM_INFO_INIT SAVEVM_INITIALISED(SaveVMRamInfo)

/**
 * A block of memory that the old process of a live update has passed.
 */
typedef struct SaveVMPassedBlock {
  /**
   * sizeof(SaveVMPassedBlock).
   */
  size_t size;
  /**
   * Its name; owned by the SaveVMLiveUpdate.
   */
  const char *name;
  /**
   * Its length in bytes. The file is at least as long.
   */
  uint64_t length;
  /**
   * Its guest-physical address.
   */
  uint64_t guest_address;
  /**
   * The file of its memory, to be mapped with MAP_SHARED; owned by the SaveVMLiveUpdate.
   */
  int descriptor;
} SaveVMPassedBlock;

/**
 * Initialises a SaveVMPassedBlock.
 */
#define SAVEVM_PASSED_BLOCK_INIT SAVEVM_INITIALISED(SaveVMPassedBlock)

/**
 * Adds RAM to a context: the live device "ram". It has no blocks at first. It takes part in all migrations and snapshots that
 * begin afterwards, and in postcopy. Call it after savevm_set_host(). `options` (NULL: defaults) and `ops` (NULL: no dirty
 * log of the hypervisor) are copied.
 *
 * Returns: the RAM, to be freed with savevm_ram_free(); NULL on failure.
 *
 * Thread: any. Lock: held. QEMU: ram_mig_init, migration/ram.c.
 */
struct SaveVMRam *savevm_ram_new(SaveVM *vm,
                                 const struct SaveVMRamOptions *options,
                                 const struct SaveVMRamOps *ops,
                                 void *opaque,
                                 Error **errp);

/**
 * Removes RAM from its context and frees it. The memory is not touched. Free the migrations and checkpoints of the context
 * before. Nothing is freed, and that is reported, while a migration is in progress, a checkpoint exists, or a lazy restore still
 * reads pages for a running guest.
 *
 * Thread: any. Lock: held, released while waiting.
 */
void savevm_ram_free(struct SaveVMRam *ram);

/**
 * Adds a block of guest memory, also while the guest runs. The memory stays mapped until the block is removed or the RAM is
 * freed.
 *
 * Returns:
 *   0        the block is added
 *   -EBUSY   a migration is in progress, or a checkpoint exists
 *   -EEXIST  there is a block of that name
 *   -EINVAL  a member of `block` is not valid, NULL, or the size of `block` is too small
 *
 * Thread: any. Lock: either.
 */
int savevm_ram_add_block(struct SaveVMRam *ram,
                         const struct SaveVMRamBlock *block,
                         Error **errp);

/**
 * Removes a block. After it returns 0, the memory may be unmapped.
 *
 * Returns:
 *   0        the block is removed
 *   -EBUSY   a migration is in progress, or a checkpoint exists
 *   -ENOENT  there is no block of that name
 *
 * Thread: any. Lock: either.
 */
int savevm_ram_remove_block(struct SaveVMRam *ram, const char *name, Error **errp);

/**
 * Marks guest memory as written. Call it for writes that the dirty log does not see: by a device model (with KVM's log), by
 * DMA, or by another process. Addresses outside of all blocks are ignored.
 *
 * Thread: any. Lock: either. Does not wait.
 */
void savevm_ram_set_dirty(struct SaveVMRam *ram,
                          const void *host,
                          uint64_t length);

/**
 * Returns the union of the page sizes of all blocks in bytes. A host with a block on huge pages returns it from
 * SaveVMHostOps.ram_page_sizes.
 *
 * Thread: any. Lock: either.
 */
uint64_t savevm_ram_page_sizes(struct SaveVMRam *ram);

/**
 * Checks whether this machine can be the destination of a postcopy: userfaultfd exists, this process may use it, and it can
 * handle the memory of all blocks.
 *
 * Returns: 0 if it can, else -errno with the reason in `*errp`.
 *
 * Thread: any. Lock: either.
 */
int savevm_ram_check_postcopy(struct SaveVMRam *ram,
                              Error **errp);

/**
 * Saves the machine as it is at the time of the call, while its guest runs: savevm_snapshot_save() with
 * SaveVMSnapshotOptions.background, and nothing else. Ends the log of changes since a snapshot. No checkpoint may exist.
 *
 * Returns: 0, or -errno and the error.
 *
 * Thread: any. Lock: not held. QEMU: bg_migration_thread, migration/migration.c.
 */
int savevm_ram_snapshot(struct SaveVMRam *ram,
                        const char *uri,
                        Error **errp);

/**
 * Returns statistics of the RAM in the last migration.
 *
 * Returns:
 *   0        `info` is filled in
 *   -EINVAL  NULL, or the size of `info` is too small
 *
 * Thread: any. Lock: either.
 */
int savevm_ram_query(struct SaveVMRam *ram, struct SaveVMRamInfo *info);

/* ---- Live update on one host ---- */

/**
 * The memory that an old process has passed, and the connection to it.
 */
typedef struct SaveVMLiveUpdate SaveVMLiveUpdate;

/**
 * Sets the descriptor of a shared block's memory, such as a memfd, for savevm_live_update(). The hypervisor owns it and keeps
 * it open while the block exists.
 *
 * Returns:
 *   0        the descriptor is set
 *   -ENOENT  there is no block of that name
 *   -EINVAL  the block is not shared (SaveVMRamBlock.shared)
 *
 * Thread: any. Lock: either. Since 0.1.
 */
int savevm_ram_set_descriptor(SaveVMRam *ram,
                              const char *name,
                              int descriptor,
                              Error **errp);

/**
 * Begins a live update in the old process: connects to the new one, which waits in savevm_live_update_accept() on
 * `unix:PATH`, passes it the descriptors of all shared blocks (savevm_ram_set_descriptor()), and begins a migration over the
 * same connection. Shared memory is not sent, because both processes map it. Blocks that are not shared are sent.
 *
 * The migration has the rules of savevm_migrate(): if the new process fails before it has the guest, the guest continues
 * here. A device must not write to guest memory while it is loaded, because that memory is this guest's until then.
 *
 * Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin.
 *
 * Thread: any. Lock: either, released while waiting. Waits at most 30 s for the connection, and for each message that it sends.
 * Since 0.1.
 */
SaveVMMigration *savevm_live_update(SaveVMRam *ram,
                                    const char *uri,
                                    const SaveVMParams *params,
                                    Error **errp);

/**
 * Waits in the new process for savevm_live_update() of the old one, on `unix:PATH`, and receives its memory. Then map each
 * block (savevm_live_update_block()), create the machine, add the blocks to its RAM with `shared` set, set their descriptors,
 * and call savevm_live_update_load().
 *
 * Returns: the memory, to be freed with savevm_live_update_free(); NULL on failure.
 *
 * Thread: any. Lock: not held. Waits without a limit for the connection, then at most 30 s for each message. Since 0.1.
 */
struct SaveVMLiveUpdate *savevm_live_update_accept(const char *uri,
                                                   Error **errp);

/**
 * Returns a block of the memory that the old process has passed. `index` counts from 0.
 *
 * Returns:
 *   0        `block` is filled in
 *   -ENOENT  there are not so many blocks
 *   -EINVAL  NULL, or the size of `block` is too small
 *
 * Thread: any. Lock: either. Since 0.1.
 */
int savevm_live_update_block(const struct SaveVMLiveUpdate *update,
                             size_t index,
                             SaveVMPassedBlock *block);

/**
 * Begins to load the guest of the old process into `vm`. The migration has the rules of savevm_incoming(). Call it once for
 * each `update`, which may be freed afterwards.
 *
 * Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin.
 *
 * Thread: any. Lock: either. Since 0.1.
 */
SaveVMMigration *savevm_live_update_load(const struct SaveVMLiveUpdate *update,
                                         SaveVM *vm,
                                         const SaveVMParams *params,
                                         Error **errp);

/**
 * Frees the memory that an old process has passed: closes its descriptors. Mappings stay. If savevm_live_update_load() was not
 * called, the connection ends and the guest continues in the old process.
 *
 * Thread: any. Lock: either. Since 0.1.
 */
void savevm_live_update_free(struct SaveVMLiveUpdate *update);

/* ---- A RAM device of the host's own in postcopy ---- */

/**
 * Functions of a RAM device of the host's own for postcopy. Results are 0 or -errno. An error ends the migration, or pauses
 * it if it can be recovered. If a member is NULL, an operation that needs it fails, unless the member states another
 * meaning. On the destination, the loading threads call these functions, without the lock. Block names are valid during the
 * call.
 */
typedef struct SaveVMPostcopyOps {
  /**
   * sizeof(SaveVMPostcopyOps).
   */
  size_t size;
  /**
   * Returns the names of all blocks, ended by NULL and owned by the host. NULL: the device's resume_prepare requests the
   * bitmaps with savevm_request_bitmap().
   */
  const char *const *(*blocks)(void *opaque);
  /**
   * Source, guest stopped, with the lock: calls qemu_savevm_send_postcopy_ram_discard() for all pages that changed after
   * they were sent.
   */
  int (*send_discards)(void *opaque, QEMUFile *f);
  /**
   * Source, any thread, without the lock: the guest waits for these bytes. The device's save_live_iterate should send them
   * next. `block` is NULL for the block of the previous request.
   */
  int (*pages_requested)(void *opaque, const char *block, uint64_t start, uint32_t length);
  /**
   * Source, in a recovery, any thread: the pages of a block that arrived, one bit each, little-endian, `length` bytes. All
   * other pages must be sent.
   */
  int (*received)(void *opaque, const char *block, const uint8_t *bits, size_t length);
  /**
   * Destination: the source announces that postcopy may follow. NULL: accepted.
   */
  int (*advise)(void *opaque);
  /**
   * Destination: called before the first discard. NULL: nothing to do.
   */
  int (*prepare_discard)(void *opaque);
  /**
   * Destination: discards `length` bytes of a block from `start`.
   */
  int (*discard)(void *opaque, const char *block, uint64_t start, uint64_t length);
  /**
   * Destination: from now on, request missing pages with savevm_request_pages(). The device's load_state loads pages,
   * without the lock, on another thread than the other devices.
   */
  int (*listen)(void *opaque, MigrationIncomingState *migration);
  /**
   * Destination: the connection broke, and requests fail until `resumed`. NULL: nothing to do.
   */
  void (*paused)(void *opaque);
  /**
   * Destination: the connection was recovered. Request all pages again for which the guest waits. NULL: nothing to do.
   */
  void (*resumed)(void *opaque);
  /**
   * Destination, in a recovery: stores the address of a block's bitmap, which is valid until the next call, and returns
   * its size in bytes, or -errno. One bit for each page that arrived, little-endian.
   */
  ptrdiff_t (*received_bits)(void *opaque, const char *block, const uint8_t **bits);
  /**
   * Destination: the end. If `complete`, every page arrived; else no more pages arrive and the guest is stopped.
   * Wake all threads that wait for a page. Not called if a running guest could not be stopped: it must not read memory
   * that did not arrive. NULL: nothing.
   */
  void (*end)(void *opaque, bool complete);
} SaveVMPostcopyOps;

/**
 * Initialises a SaveVMPostcopyOps.
 */
#define SAVEVM_POSTCOPY_OPS_INIT SAVEVM_INITIALISED(SaveVMPostcopyOps)

/**
 * For `resume_prepare` of a RAM device: asks the destination which pages of a block it has, and waits until
 * SaveVMPostcopyOps.received was called, at most SaveVMParams.handshake_timeout_ms.
 *
 * Returns:
 *   0           SaveVMPostcopyOps.received was called
 *   -EINVAL     no recovery is in progress, or NULL
 *   -ETIMEDOUT  no answer
 *   -errno      the connection broke
 *
 * Thread: that of the callback. Lock: either.
 */
int savevm_request_bitmap(MigrationState *s,
                          const char *block);

/**
 * For a RAM device in postcopy: asks the source to send `length` bytes from `start` on of a block soon, because the guest
 * waits for them. `s` is the argument of SaveVMPostcopyOps.listen, and valid until SaveVMPostcopyOps.end.
 *
 * Returns:
 *   0        the request was sent
 *   -EINVAL  no postcopy is in progress, NULL, or the name has more than 255 bytes
 *   -errno   the connection is broken; ask again after SaveVMPostcopyOps.resumed
 *
 * Thread: any. Lock: either. Waits only until the connection takes a few bytes.
 */
int savevm_request_pages(MigrationIncomingState *s,
                         const char *block,
                         uint64_t start,
                         uint32_t length);

#ifdef __cplusplus
}
#endif

#endif

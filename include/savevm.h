/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libsavevm's own functions: contexts, the host, migrations, snapshots, errors, the log. Further headers:
 *
 *   savevm/ram.h          guest memory
 *   savevm/file.h         files over descriptors, memory, URIs and channels
 *   savevm/inspect.h      reading a stream without loading it
 *   savevm/check.h        checks of devices, for tests
 *   savevm/host-driver.h  for a host with a migration driver of its own, such as QEMU
 *   migration/...         QEMU's names for devices and phases
 *
 * Rules for all functions, unless a declaration says otherwise:
 *
 *  - Results are 0 or -errno; a function that returns a pointer returns NULL on failure.
 *  - A NULL context (`vm`) means the current context of the calling thread: the one that savevm_set_current() set, else the
 *    default one. Any other handle that is NULL gives -EINVAL or NULL; freeing NULL does nothing.
 *  - A handle must be alive: returned by the library and not freed.
 *  - `errp` is NULL or points to an `Error *` that is NULL. On failure, the function stores an error there, which the caller
 *    frees with error_free(), and does not report it as well. Nothing else is written on failure. If `errp` is NULL, the error
 *    is reported (SaveVMHostOps.report), except by functions that only answer a question, and functions with QEMU's names.
 *  - Strings end with a zero byte. Strings and structs that are passed in are copied or used only during the call. Objects
 *    that `opaque` pointers refer to must stay valid for as long as the callbacks may run.
 *  - A returned string is owned by the object that it was obtained from.
 *  - A struct with a `size` member is initialised with its SAVEVM_..._INIT, or with `.size = sizeof(type)` in a constant
 *    table. A size smaller than that of the struct's first release gives -EINVAL or NULL with an error that names the
 *    struct. Members that are zero have their default.
 *  - A number that is no enumerator of the expected enum gives -EINVAL.
 *  - -EIO: the context is broken after an internal error of the library; see savevm_is_broken().
 *  - Thread: any. Lock: either. "The lock" is the hypervisor's big lock (SaveVMHostOps.lock). "Lock: held" means that the
 *    caller holds it; "Lock: not held" that it does not; "Lock: either, released while waiting" that the library unlocks it
 *    while it waits if the calling thread holds it.
 *  - Callbacks may call the library. Threads of the library block all signals.
 *  - Names of members end with the unit of their value. Sizes and lengths are in bytes.
 *  - Since 0.1. The meaning of a migration is QEMU 7.2's: migration/migration.c, migration/savevm.c and migration/ram.c.
 *    Contexts, deadlines, owners, checks and errors are libsavevm's own. */
/* Generated from the Rust sources by cbindgen. Do not edit. */

#ifndef SAVEVM_H
#define SAVEVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "hw/vmstate-if.h"
#include "qemu/typedefs.h"

/** The version of these headers; savevm_version() returns that of the library. */
#define SAVEVM_VERSION_MAJOR 0
#define SAVEVM_VERSION_MINOR 1
#define SAVEVM_VERSION_PATCH 0

/** A context: one virtual machine with its devices. */
typedef struct SaveVM SaveVM;

/** A migration in either direction. */
typedef struct SaveVMMigration SaveVMMigration;

struct SaveVMHostOps;
struct SaveVMEvent;
struct SaveVMStallEvent;
struct SaveVMIncomingOps;
struct SaveVMPostcopyOps;
struct SaveVMChannelOps;

/*
 * A struct that the caller fills in, or provides for results, begins with its size. Initialise it with its SAVEVM_..._INIT,
 * then assign members:
 *
 *     SaveVMParams params = SAVEVM_PARAMS_INIT;
 *     params.downtime_limit_ms = 50;
 *
 * A constant table of callbacks in C sets the size like any other member. This is the same initialisation:
 *
 *     static const SaveVMHostOps host_ops = {
 *         .size = sizeof(SaveVMHostOps),
 *         .vm_stop = stop_cpus,
 *     };
 */
#ifdef __cplusplus
extern "C++" {
template <typename Type> inline Type savevm_initialised()
{
    Type value = Type();
    value.size = sizeof(Type);
    return value;
}
}
#define SAVEVM_INITIALISED(type) savevm_initialised<type>()
#else
#define SAVEVM_INITIALISED(type) { .size = sizeof(type) }
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Context: one virtual machine with its devices ---- */

/**
 * Limits for streams, and for the wait when a file is opened. 0 means the default.
 */
typedef struct SaveVMLimits {
  /**
   * sizeof(SaveVMLimits).
   */
  size_t size;
  /**
   * Largest PACKAGED stream in bytes; default 1 GiB.
   */
  uint32_t packaged;
  /**
   * Maximum nesting of PACKAGED streams; default 4.
   */
  uint32_t packaged_depth;
  /**
   * Maximum memory that the VMState fields of one stream may allocate, in bytes; default 1 GiB.
   */
  uint64_t allocation;
  /**
   * Maximum number of elements that one field may add to a list or tree; default 1048576.
   */
  uint64_t list_elements;
  /**
   * Maximum nesting of descriptions; default 64.
   */
  uint32_t nesting;
  /**
   * Maximum length of a machine name in bytes; default 4096.
   */
  uint32_t machine_name;
  /**
   * Longest wait of savevm_file_open() for the other end, in ms; default 30000 to write, 300000 to read.
   */
  uint32_t open_timeout_ms;
} SaveVMLimits;

/**
 * Initialises a SaveVMLimits.
 */
#define SAVEVM_LIMITS_INIT SAVEVM_INITIALISED(SaveVMLimits)

/**
 * Creates a context: one virtual machine with its devices. `ops` is copied; if NULL, there is no lock and no guest to stop.
 *
 * Returns: the context, to be freed with savevm_free(); NULL, with the reason in the log, if the size of `ops` or of a table
 * that it points to is too small.
 *
 * Thread: any. Lock: either.
 */
SaveVM *savevm_new(const struct SaveVMHostOps *ops,
                   void *opaque);

/**
 * Replaces the host operations of a context, or sets those of the default context. `ops` has the form of savevm_new(). No
 * migration and no other call on the context may be in progress.
 *
 * Returns:
 *   0        the host is set
 *   -EINVAL  the size of `ops` or of a table that it points to is too small; reported, and nothing is changed
 *
 * Thread: any. Lock: either.
 */
int savevm_set_host(SaveVM *vm,
                    const struct SaveVMHostOps *ops,
                    void *opaque);

/**
 * Frees a context and removes its devices without calling them. Free its migrations, its checkpoints and its RAM first. The
 * default context is not freed. A lazy restore is ended; the guest must be stopped then.
 *
 * Thread: any. Lock: either, released while waiting.
 */
void savevm_free(SaveVM *vm);

/**
 * Returns the default context, on which QEMU's names act in threads without a current one. It is never freed.
 *
 * Thread: any. Lock: either.
 */
SaveVM *savevm_default(void);

/**
 * Makes `vm` the context on which QEMU's names act in this thread; NULL selects the default one.
 *
 * Returns: the previous context of this thread.
 *
 * Thread: any. Lock: either.
 */
SaveVM *savevm_set_current(SaveVM *vm);

/**
 * Makes a context strict, or not strict (default). In a strict context, the registration of a second device of the same name and
 * instance fails with -EEXIST, and that of a name of more than 255 bytes with -ENAMETOOLONG. Otherwise both are reported and
 * handled as in QEMU 7.2.
 *
 * A description that can't read its own version, and a load whose stream leaves out a registered device, fail with -EINVAL
 * in a strict context. Otherwise they are reported.
 *
 * Thread: any. Lock: either.
 */
void savevm_set_strict(SaveVM *vm,
                       bool strict);

/**
 * Sets the limits of a context, for loads that begin and files that are opened afterwards.
 *
 * Returns:
 *   0        the limits are set
 *   -EINVAL  `limits` is NULL, or its size is too small
 *
 * Thread: any. Lock: either.
 */
int savevm_set_limits(SaveVM *vm, const struct SaveVMLimits *limits);

/**
 * Returns whether an internal error of the library (a panic) broke the context. The work in progress has failed, and the guest
 * that it was to migrate or save continues here. Functions that begin something fail with -EIO: migrations, snapshots, phases,
 * registrations. Functions that end something work: unregistering, freeing, cleanup.
 *
 * Thread: any. Lock: either.
 */
bool savevm_is_broken(SaveVM *vm);

/**
 * Calls `visit` with the name of every device that forbids migration, in order of registration. The name is valid during the
 * call.
 *
 * Thread: any; `visit` runs on it. Lock: either.
 */
void savevm_non_migratable(SaveVM *vm,
                           void (*visit)(const char *name, void *opaque),
                           void *opaque);

/**
 * Returns the version of the library, such as "0.1.0". The version of the headers is SAVEVM_VERSION_MAJOR, SAVEVM_VERSION_MINOR
 * and SAVEVM_VERSION_PATCH.
 *
 * Thread: any. Lock: either.
 */
const char *savevm_version(void);

/* ---- Devices by description, in a named context ---- */

/**
 * Registers a device by its description in the context `vm`: vmstate_register_with_alias_id() of QEMU. The name of the device is
 * that of the description, after the path of `obj` (SaveVMHostOps.object_path) if `obj` is not NULL. If `instance_id` is
 * VMSTATE_INSTANCE_ID_ANY, the device gets the next free number of its name. `alias_id` is a further instance id under which older
 * streams have the device; -1: none. `vmsd` and `opaque` are not copied, and must stay valid until the device is removed.
 *
 * `vmsd` has the layout of `vm` (savevm_set_abi()). In a file with SAVEVM_QEMU_VERSION that includes migration/vmstate.h, it has the
 * layout of the selected version: the header calls savevm_abi_vmstate_register() there.
 *
 * Returns:
 *   0              the device is registered
 *   -EEXIST        strict context: a device of that name and instance is registered
 *   -ENAMETOOLONG  strict context: the name has more than 255 bytes
 *   -EINVAL        `vmsd` is NULL
 *
 * Thread: any. Lock: held. QEMU: vmstate_register_with_alias_id, migration/savevm.c.
 */
int savevm_register_vmstate(SaveVM *vm,
                            VMStateIf *obj,
                            uint32_t instance_id,
                            const VMStateDescription *vmsd,
                            void *opaque,
                            int alias_id,
                            int required_for_version,
                            Error **errp);

/**
 * Removes a device that savevm_register_vmstate() registered: the one with this description and this `opaque`. `obj` is ignored,
 * as in QEMU. After it returns, none of the callbacks of the device runs in another thread.
 *
 * Thread: any. Lock: held, released while a callback is waited for. QEMU: vmstate_unregister, migration/savevm.c.
 */
void savevm_unregister_vmstate(SaveVM *vm,
                               VMStateIf *obj,
                               const VMStateDescription *vmsd,
                               void *opaque);

/* ---- Host: what the library asks of the hypervisor ---- */

/**
 * Bits of `SaveVMHostOps.stream_flags`: parts that streams omit, and the state of a host with a migration driver of its own.
 * This bit: no configuration section is written or expected.
 */
#define SAVEVM_FLAG_NO_CONFIGURATION (1 << 0)

/**
 * No section footers are written or expected.
 */
#define SAVEVM_FLAG_NO_FOOTERS (1 << 1)

/**
 * No description follows the end.
 */
#define SAVEVM_FLAG_NO_VMDESC (1 << 2)

/**
 * Postcopy: the guest was handed over. Live devices that support postcopy continue to send.
 */
#define SAVEVM_FLAG_IN_POSTCOPY (1 << 3)

/**
 * Continuous replication: device states carry no header.
 */
#define SAVEVM_FLAG_IN_COLO (1 << 4)

/**
 * Postcopy of RAM is enabled on both sides.
 */
#define SAVEVM_FLAG_POSTCOPY_RAM (1 << 5)

/**
 * The machine's UUID is not written. A received UUID is still compared.
 */
#define SAVEVM_FLAG_NO_UUID (1 << 6)

/**
 * Sections of live devices are rejected, because their contents are sent separately (Xen).
 */
#define SAVEVM_FLAG_NO_LIVE_LOAD (1 << 7)

/**
 * The library's driver sends the guest's run state as QEMU's section "globalstate", so that a guest that was stopped stays
 * stopped at the destination, also in QEMU and through a file. The driver always reads this section. Not for a host that
 * registers a device of that name or has a migration driver of its own.
 */
#define SAVEVM_FLAG_GLOBAL_STATE (1 << 8)

/**
 * SWITCHOVER_START is not sent, because the machine type is older than QEMU 10.0.
 */
#define SAVEVM_FLAG_NO_SWITCHOVER_START (1 << 9)

/**
 * The capability switchover-ack is on: devices of the destination must approve the switchover (QEMU 8.1). Set it on both
 * sides. The library's driver at the source lets the guest run until then, unless a deadline forces the switchover.
 */
#define SAVEVM_FLAG_SWITCHOVER_ACK (1 << 10)

/**
 * The host calls qemu_loadvm_state_cleanup() itself after a load, as QEMU 9.2 and newer do. Without this flag, the load calls
 * it, except if the stream is refused before `load_setup`, or in it (see SAVEVM_SEMANTICS_CLEAN_FAILED_SETUP).
 */
#define SAVEVM_FLAG_HOST_CLEANS_LOAD (1 << 11)

/**
 * Notices of `SaveVMHostOps.precopy_notify`: QEMU's PrecopyNotifyReason, with QEMU's numbers.
 */
typedef enum SaveVMPrecopyNotice {
  /**
   * All live devices are set up.
   */
  SAVEVM_PRECOPY_SETUP = 0,
  /**
   * The guest is stopped, and the rest of its state is sent.
   */
  SAVEVM_PRECOPY_COMPLETE = 3,
  /**
   * The migration has ended, in any way.
   */
  SAVEVM_PRECOPY_CLEANUP = 4,
} SaveVMPrecopyNotice;

/**
 * How serious a message is.
 */
typedef enum SaveVMReportLevel {
  /**
   * Something failed.
   */
  SAVEVM_REPORT_ERROR = 0,
  /**
   * Something is suspicious, and the work continues.
   */
  SAVEVM_REPORT_WARNING = 1,
} SaveVMReportLevel;

/**
 * Functions of the hypervisor that the library calls. Every member may be NULL. If its comment does not state what NULL means, the
 * library continues as if the function had succeeded. The table is copied. Every member gets the `opaque` of savevm_new().
 *
 * "The lock" is the hypervisor's big lock. "With the lock" means that the library holds it during the call. A member whose comment
 * does not mention the lock is called with or without it.
 *
 * Members run on the thread of the library function that needs them, or on a thread of the library. A thread or program that a
 * member starts there inherits the blocked signals. On Linux 6.12 or later, it also inherits a time slice of 0.1 ms if its niceness
 * is negative.
 */
typedef struct SaveVMHostOps {
  /**
   * sizeof(SaveVMHostOps).
   */
  size_t size;
  /**
   * Takes the lock; NULL: there is none.
   */
  void (*lock)(void *opaque);
  /**
   * Releases the lock.
   */
  void (*unlock)(void *opaque);
  /**
   * Returns whether this thread holds the lock. NULL: the library assumes that it does not, so that no function may be called
   * with the lock.
   */
  bool (*locked)(void *opaque);
  /**
   * Stops the guest; 0 or -errno. After it returns 0, no CPU runs or writes to memory. With the lock. NULL: there is
   * nothing to stop.
   *
   * During a failed or paused postcopy, a CPU may be waiting inside an access to a missing page. The host interrupts
   * it with a signal. After a grace period such an access gets SIGBUS, or KVM_RUN fails.
   */
  int (*vm_stop)(void *opaque);
  /**
   * Starts the guest, or continues it; 0 or -errno. With the lock.
   */
  int (*vm_start)(void *opaque);
  /**
   * Returns whether the guest runs; NULL: it does not.
   */
  bool (*vm_running)(void *opaque);
  /**
   * Called before devices are saved: copies the state of the CPUs to the objects that their devices save. With the lock.
   */
  void (*cpu_synchronize_states)(void *opaque);
  /**
   * Called before sections are loaded. With the lock.
   */
  void (*cpu_synchronize_pre_load)(void *opaque);
  /**
   * Called after sections were loaded, also after a failure: copies the loaded state to the CPUs. With the lock.
   */
  void (*cpu_synchronize_post_load)(void *opaque);
  /**
   * Returns the name of the machine for the configuration section, owned by the host. A destination rejects another name.
   * NULL: "none".
   */
  const char *(*machine_name)(void *opaque);
  /**
   * Stores the machine's UUID (16 bytes), which must be the same on both sides, and returns true if it has one; NULL: it
   * has none.
   */
  bool (*uuid)(void *opaque, uint8_t *uuid);
  /**
   * Returns log2 of the target's page size; NULL: 12.
   */
  unsigned int (*target_page_bits)(void *opaque);
  /**
   * Returns log2 of the smallest page size that the target supports; NULL: that of the target's page size.
   */
  unsigned int (*target_page_bits_min)(void *opaque);
  /**
   * Returns the names of the enabled capabilities that both sides must share, ended by NULL and owned by the host. NULL: none.
   */
  const char *const *(*capabilities)(void *opaque);
  /**
   * Returns the current SAVEVM_FLAG_*; called whenever one is needed. NULL: 0.
   */
  uint32_t (*stream_flags)(void *opaque);
  /**
   * Returns the bitwise OR of the page sizes of all RAM blocks in bytes, for postcopy; NULL: the target's page size.
   */
  uint64_t (*ram_page_sizes)(void *opaque);
  /**
   * Returns whether the machine has a RAM block of that name that has, or can be resized to, `length` bytes. For a host
   * whose section "ram" has QEMU's format. NULL: the blocks are not checked, and the section may have another format. Not
   * called if the library has the RAM (savevm_ram_new()).
   */
  bool (*ram_fits)(void *opaque, const char *block, uint64_t length);
  /**
   * Returns the path of an object as a string from malloc(), or NULL if it has none; NULL: no object has a path.
   */
  char *(*object_path)(void *opaque, VMStateIf *object);
  /**
   * Called on the source before it sends the end of the stream: releases the disks, so that the destination can use them; 0 or
   * -errno. With the lock.
   */
  int (*disks_inactivate)(void *opaque);
  /**
   * Called before the guest starts on this side, also after a failed migration: acquires the disks; 0 or -errno. With the
   * lock.
   */
  int (*disks_activate)(void *opaque);
  /**
   * Slows the guest's CPUs down by `percent` of their time (0: full speed), for SaveVMParams.auto_converge. NULL: the guest
   * is not slowed down.
   */
  void (*throttle)(void *opaque, int percent);
  /**
   * Called when precopy reaches a stage. A negative result is logged and otherwise ignored.
   */
  int (*precopy_notify)(void *opaque, enum SaveVMPrecopyNotice notice);
  /**
   * Reports a message to the user. If NULL, messages go to the log. Any thread, any lock.
   */
  void (*report)(void *opaque, enum SaveVMReportLevel level, const char *text);
  /**
   * Returns whether the trace event `event` is enabled; the name is QEMU's. If `event` is NULL, returns whether any event may
   * be enabled. The library calls it once per device and for every other event, so it must be fast. NULL: no event is enabled.
   */
  bool (*trace_wanted)(void *opaque, const char *event);
  /**
   * Receives a trace event that is enabled.
   */
  void (*trace)(void *opaque, const char *event, const char *text);
  /**
   * For a host with its own `Error` type: sets `*errp` to an error with that text. NULL: `Error`, error_get_pretty() and
   * error_free() are those of the library.
   */
  void (*error_set)(void *opaque, Error **errp, int error, const char *text);
  /**
   * Returns the text of such an error, owned by the error.
   */
  const char *(*error_text)(void *opaque, const Error *error);
  /**
   * Frees such an error.
   */
  void (*error_free)(void *opaque, Error *error);
  /**
   * Returns the expiry time of a timer in ns, or -1 if it is not armed. NULL: fields of timers are an error.
   */
  int64_t (*timer_expire_ns)(void *opaque, QEMUTimer *timer);
  /**
   * Arms a timer.
   */
  void (*timer_set_ns)(void *opaque, QEMUTimer *timer, int64_t expire);
  /**
   * Disarms a timer.
   */
  void (*timer_clear)(void *opaque, QEMUTimer *timer);
  /**
   * Returns the number of nodes of a tree (GLib's GTree, or the tree type of the host's descriptions). NULL: such fields
   * are an error.
   */
  uint32_t (*tree_count)(void *opaque, void *tree);
  /**
   * Visits all nodes in order, until a visit returns other than 0.
   */
  void (*tree_foreach)(void *opaque,
                       void *tree,
                       int (*visit)(void *key, void *value, void *data),
                       void *data);
  /**
   * Inserts a node. The tree owns `key` (unless the key is stored in the pointer itself) and `value`, which come from
   * malloc().
   */
  void (*tree_insert)(void *opaque, void *tree, void *key, void *value);
  /**
   * Functions for the commands of an incoming stream, for a host with a migration driver of its own. NULL: the
   * library's driver handles them. The table is copied.
   */
  const struct SaveVMIncomingOps *incoming;
  /**
   * Called when a migration of the library's driver changes its status. Any thread, any lock. It may call the library, except
   * functions that wait for the same migration. `event` is valid during the call.
   */
  void (*migration_event)(void *opaque, const struct SaveVMEvent *event);
  /**
   * Returns a monotonic time in ns for the driver's measurements; NULL: the system's.
   */
  uint64_t (*clock_ns)(void *opaque);
  /**
   * Functions for RAM in postcopy; NULL: RAM does not take part in postcopy. The table is copied.
   */
  const struct SaveVMPostcopyOps *postcopy;
  /**
   * Resets the machine to its state after power-on. savevm_snapshot_load() calls it before it loads, as QEMU 7.2's
   * load_snapshot() does (migration/savevm.c), so that devices that are not in the snapshot have a defined state. The guest is
   * stopped. With the lock. savevm_incoming() does not call it, because the machine of an incoming migration is new. NULL: no
   * reset.
   */
  void (*reset)(void *opaque);
  /**
   * Called when a migration of the library's driver makes no progress, and when it makes progress again. Any thread, any lock.
   * It may call the library, except functions that wait for the same migration. `event` is valid during the call.
   */
  void (*migration_stalled)(void *opaque, const struct SaveVMStallEvent *event);
  /**
   * Called when a lazy restore has ended (SaveVMSnapshotOptions.lazy). `error` is NULL if all memory is loaded, else the text
   * of savevm_restore_wait()'s error, valid during the call. On a thread of the library, without the lock. The next
   * migration or snapshot can begin after it has returned.
   */
  void (*restore_ended)(void *opaque, const char *error);
  /**
   * Returns whether device_thread_start works for the migration in progress. NULL: no.
   */
  bool (*device_threads)(void *opaque);
  /**
   * Runs the save_live_complete_precopy_thread (QEMU 10.1: save_complete_precopy_thread) of a device on a thread of its own,
   * which sends its data through the host. `function` is the callback, and `device` is the handler_opaque of the callback.
   */
  void (*device_thread_start)(void *opaque,
                              void *function,
                              const char *idstr,
                              uint32_t instance_id,
                              void *device);
  /**
   * Asks the threads that device_thread_start started to end soon, because the migration fails.
   */
  void (*device_threads_abort)(void *opaque);
  /**
   * Waits for all threads that device_thread_start started. Returns whether all succeeded. NULL: true.
   */
  bool (*device_threads_join)(void *opaque);
  /**
   * For a host that limits the rate itself: returns whether the limit is reached, so that nothing more may be sent to `f` for
   * now. Called before each live device of a round. NULL: the limit of the file is used.
   */
  bool (*rate_exceeded)(void *opaque, QEMUFile *f);
  /**
   * Returns whether the process replaces itself and keeps its open descriptors, as in the mode cpr-exec of QEMU 10.2:
   * VMSTATE_FD() then transfers their numbers. NULL: no.
   */
  bool (*keeps_descriptors)(void *opaque);
} SaveVMHostOps;

/**
 * Initialises a SaveVMHostOps.
 */
#define SAVEVM_HOST_OPS_INIT SAVEVM_INITIALISED(SaveVMHostOps)

/* ---- Migration ---- */

/**
 * Whether the destination answers over a return path.
 */
typedef enum SaveVMReturnPath {
  /**
   * It answers if the connection is bidirectional. Exception: over `exec:` it answers only if postcopy is enabled, because the
   * command may merely store the stream.
   */
  SAVEVM_RETURN_PATH_AUTO = 0,
  /**
   * It answers, or the migration fails.
   */
  SAVEVM_RETURN_PATH_ON = 1,
  /**
   * It does not answer. The source completes the migration when it has written the stream.
   */
  SAVEVM_RETURN_PATH_OFF = 2,
} SaveVMReturnPath;

/**
 * What happens when a migration has not ended at its deadline (SaveVMParams.deadline_ms).
 */
typedef enum SaveVMDeadlineAction {
  /**
   * The migration is cancelled. Its error is -ETIMEDOUT and states why it did not end.
   */
  SAVEVM_DEADLINE_CANCEL = 0,
  /**
   * It switches to postcopy, which must be enabled (SaveVMParams.postcopy).
   */
  SAVEVM_DEADLINE_POSTCOPY = 1,
  /**
   * The guest is stopped, and everything that is left is sent. The downtime may exceed its limit.
   */
  SAVEVM_DEADLINE_FORCE = 2,
} SaveVMDeadlineAction;

/**
 * How pages of RAM are compressed on several connections.
 */
typedef enum SaveVMCompression {
  /**
   * Not at all.
   */
  SAVEVM_COMPRESSION_NONE = 0,
  /**
   * zlib. An error if the library was built without it (cargo feature `zlib`).
   */
  SAVEVM_COMPRESSION_ZLIB = 1,
  /**
   * zstd. An error if the library was built without it (cargo feature `zstd`).
   */
  SAVEVM_COMPRESSION_ZSTD = 2,
  /**
   * Outgoing: the format of zstd, but a packet is compressed only if measurements show that this is faster: the link is the
   * bottleneck, a CPU is free, and the content can be compressed. If the destination is QEMU, set its compression to zstd.
   * Incoming: the method that the source uses.
   */
  SAVEVM_COMPRESSION_AUTO = 3,
} SaveVMCompression;

/**
 * Variant of QEMU's format for several connections.
 */
typedef enum SaveVMMultifdFormat {
  /**
   * SAVEVM_MULTIFD_9_0 if the destination is libsavevm, else SAVEVM_MULTIFD_7_2.
   */
  SAVEVM_MULTIFD_AUTO = 0,
  /**
   * For QEMU with a machine type up to 8.0 (multifd-flush-after-each-section=on).
   */
  SAVEVM_MULTIFD_7_2 = 1,
  /**
   * For QEMU with a machine type 8.1 or 8.2.
   */
  SAVEVM_MULTIFD_8_1 = 2,
  /**
   * For QEMU with a machine type from 9.0 on: zero pages are found by the threads of the connections.
   */
  SAVEVM_MULTIFD_9_0 = 3,
} SaveVMMultifdFormat;

/**
 * Status of a migration: QEMU's MigrationStatus, with QEMU's numbers.
 */
typedef enum SaveVMStatus {
  /**
   * The migration has not begun.
   */
  SAVEVM_STATUS_NONE = 0,
  /**
   * The migration connects and sets live devices up.
   */
  SAVEVM_STATUS_SETUP = 1,
  /**
   * A cancellation is in progress.
   */
  SAVEVM_STATUS_CANCELLING = 2,
  /**
   * The migration was cancelled. The guest is on the source.
   */
  SAVEVM_STATUS_CANCELLED = 3,
  /**
   * Precopy: live devices send while the guest runs on the source.
   */
  SAVEVM_STATUS_ACTIVE = 4,
  /**
   * Postcopy: the guest runs on the destination, and the rest of its memory follows.
   */
  SAVEVM_STATUS_POSTCOPY_ACTIVE = 5,
  /**
   * The connection broke during postcopy. A recovery can continue it.
   */
  SAVEVM_STATUS_POSTCOPY_PAUSED = 6,
  /**
   * A recovery is in progress.
   */
  SAVEVM_STATUS_POSTCOPY_RECOVER = 7,
  /**
   * The guest is on the destination.
   */
  SAVEVM_STATUS_COMPLETED = 8,
  /**
   * The migration failed. SaveVMInfo.owner states which side has the guest.
   */
  SAVEVM_STATUS_FAILED = 9,
  /**
   * Continuous replication.
   */
  SAVEVM_STATUS_COLO = 10,
  /**
   * The guest is stopped, and the migration waits for savevm_migration_continue().
   */
  SAVEVM_STATUS_PRE_SWITCHOVER = 11,
  /**
   * The guest is stopped, and device states are sent.
   */
  SAVEVM_STATUS_DEVICE = 12,
  /**
   * The migration waits for the guest to release devices.
   */
  SAVEVM_STATUS_WAIT_UNPLUG = 13,
} SaveVMStatus;

/**
 * Which side may run the guest, as far as this side knows.
 */
typedef enum SaveVMOwner {
  /**
   * This side.
   */
  SAVEVM_OWNER_HERE = 0,
  /**
   * The other side.
   */
  SAVEVM_OWNER_THERE = 1,
  /**
   * The connection broke during the hand-over. The guest is stopped here and may run on the other side. Only an operator with
   * access to both sides may decide to start it. The recovery of a paused postcopy shows that the other side has it.
   */
  SAVEVM_OWNER_UNKNOWN = 2,
  /**
   * Neither side: a load failed after it changed a device, so the devices hold parts of two states.
   */
  SAVEVM_OWNER_TORN = 3,
} SaveVMOwner;

/**
 * Why a migration makes no progress.
 */
typedef enum SaveVMStallReason {
  /**
   * It makes progress.
   */
  SAVEVM_STALL_NONE = 0,
  /**
   * The guest writes faster than the link sends.
   */
  SAVEVM_STALL_DIRTY_RATE = 1,
  /**
   * The guest writes faster than SaveVMParams.max_bandwidth allows to send.
   */
  SAVEVM_STALL_MAX_BANDWIDTH = 2,
  /**
   * Saving and loading the devices takes longer than the downtime limit.
   */
  SAVEVM_STALL_DEVICES = 3,
  /**
   * The destination does not read what is sent, over the main connection or one of several others. The text names it.
   */
  SAVEVM_STALL_PEER_NOT_READING = 4,
  /**
   * Incoming: the source sends nothing. With several connections, the text names those that the load waits for.
   */
  SAVEVM_STALL_PEER_NOT_SENDING = 5,
  /**
   * The destination does not answer.
   */
  SAVEVM_STALL_PEER_NOT_ANSWERING = 6,
  /**
   * The devices of the destination have not approved the switchover (SAVEVM_FLAG_SWITCHOVER_ACK).
   */
  SAVEVM_STALL_SWITCHOVER_ACK = 7,
} SaveVMStallReason;

/**
 * By what savevm_migration_device_by() and savevm_device_cost() sort devices.
 */
typedef enum SaveVMDeviceOrder {
  /**
   * The order of the stream.
   */
  SAVEVM_DEVICES_IN_STREAM = 0,
  /**
   * Time for saving, longest first; on the destination, the same as SAVEVM_DEVICES_BY_LOAD_TIME.
   */
  SAVEVM_DEVICES_BY_SAVE_TIME = 1,
  /**
   * Time for loading, longest first. On the source, a device whose load time was not reported counts with its save time.
   */
  SAVEVM_DEVICES_BY_LOAD_TIME = 2,
  /**
   * Bytes of the section, largest first.
   */
  SAVEVM_DEVICES_BY_BYTES = 3,
} SaveVMDeviceOrder;

/**
 * TLS for all connections of a migration, with X.509 certificates on both sides. The source is the TLS client, as in QEMU.
 * SAVEVM_TLS_INIT sets `verify_peer`. The struct and its strings are copied, and the files are read when the migration
 * begins.
 */
typedef struct SaveVMTls {
  /**
   * sizeof(SaveVMTls).
   */
  size_t size;
  /**
   * Directory with PEM files, named as for QEMU: `ca-cert.pem`; `ca-crl.pem` if certificates were revoked; the source's
   * `client-cert.pem` and `client-key.pem`, which may both be absent if the destination does not verify its peer; the
   * destination's `server-cert.pem` and `server-key.pem`.
   */
  const char *dir;
  /**
   * Source: the name or IP address that the destination's certificate must have among its subjectAltNames; NULL: the host
   * of `tcp:HOST:PORT`. QEMU: tls-hostname.
   */
  const char *hostname;
  /**
   * The peer must have a certificate that the CA has signed, that is valid now and that is not revoked; at the source, the
   * certificate must also have the name. If false, the stream is encrypted, but the identity of the peer is not checked. QEMU:
   * verify-peer.
   */
  bool verify_peer;
  /**
   * NULL-terminated list of distinguished names, for example "CN=host2,O=Example"; NULL: any. The subject of the peer's
   * certificate must be one of them. If a peer is refused, the error contains its name in the expected form and order. Needs
   * `verify_peer`. QEMU: tls-authz, for the destination only.
   */
  const char *const *allowed_peers;
} SaveVMTls;

/**
 * Initialises a SaveVMTls.
 */
#define SAVEVM_TLS_INIT { sizeof(SaveVMTls), NULL, NULL, true, NULL }

/**
 * Parameters of a migration. 0, NULL and false mean the default that the member states. Times are in milliseconds. The struct is
 * copied.
 */
typedef struct SaveVMParams {
  /**
   * sizeof(SaveVMParams).
   */
  size_t size;
  /**
   * Bandwidth limit of precopy in bytes per second; 0: no limit. May change during the migration.
   */
  uint64_t max_bandwidth;
  /**
   * Bandwidth limit of postcopy's background copy in bytes per second; 0: no limit. May change during the migration.
   */
  uint64_t max_postcopy_bandwidth;
  /**
   * Longest expected downtime at which the guest is stopped; default 300. May change during the migration.
   */
  uint32_t downtime_limit_ms;
  /**
   * Longest wait for the connection; default 30000 outgoing, no limit incoming.
   */
  uint32_t connect_timeout_ms;
  /**
   * Longest wait for the destination's first answer, and for each answer in a recovery; default 30000. Incoming: longest time
   * for the header and the configuration section together, from the first byte on; in a recovery, longest wait for the
   * source.
   */
  uint32_t handshake_timeout_ms;
  /**
   * Longest wait until the peer receives or sends any bytes; default 60000 outgoing, 300000 incoming.
   */
  uint32_t stall_timeout_ms;
  /**
   * Longest wait for the destination's answer that everything is loaded, and for its result; default 30000.
   */
  uint32_t switchover_timeout_ms;
  /**
   * Longest wait of a paused postcopy for its recovery; default: no limit. May change during the migration. When the time is
   * over, the guest is lost: it is stopped on the destination, and pages that did not arrive read as zero.
   */
  uint32_t recover_timeout_ms;
  /**
   * Default SAVEVM_RETURN_PATH_AUTO. Incoming, SAVEVM_RETURN_PATH_ON requires a source that is libsavevm: such a source asks
   * before the end of the stream whether everything is loaded. So the guest does not start if damage makes the stream end
   * early.
   */
  enum SaveVMReturnPath return_path;
  /**
   * Initial CPU throttle of auto-converge in percent; default 20. May change during the migration, like the next two.
   */
  uint32_t throttle_initial;
  /**
   * Increment of the throttle in percent; default 10.
   */
  uint32_t throttle_increment;
  /**
   * Maximum throttle in percent; default 99.
   */
  uint32_t throttle_max;
  /**
   * Postcopy is allowed. Both sides must set it.
   */
  bool postcopy;
  /**
   * Slow the guest down (SaveVMHostOps.throttle) if it writes faster than the link can send. May change during the migration.
   */
  bool auto_converge;
  /**
   * Wait for savevm_migration_continue() after the guest has stopped and before devices are saved.
   */
  bool pause_before_switchover;
  /**
   * Start no thread: the caller does the work with savevm_migration_step().
   */
  bool no_thread;
  /**
   * The destination leaves the guest stopped when everything is loaded.
   */
  bool no_autostart;
  /**
   * Disable the protocol extensions of libsavevm (docs/stream-format.md), even if both ends are libsavevm.
   */
  bool no_extensions;
  /**
   * Path of a new file for a trace in JSON lines; NULL: none.
   */
  const char *trace;
  /**
   * Fail if a device is registered at the destination and absent from the stream, while the source still has the guest, and if
   * a preflight finds that a state may be loaded wrongly. Otherwise both are warnings (SaveVMHostOps.report), and the device
   * keeps the state that it has. For an outgoing migration, `strict` affects only the preflight.
   */
  bool strict;
  /**
   * Incoming, on a listening socket: use only the first connection, as QEMU does. Default: up to 17 connections, plus the
   * number in `channels`, are examined at the same time. A connection that does not begin with the header of a stream, ends
   * early, or is silent for `handshake_timeout_ms` is closed and reported. So is a connection that is silent for 5 s while
   * further clients wait.
   */
  bool one_connection;
  /**
   * Encrypt and authenticate every connection; NULL: plain connections. The peer must use TLS as well. An error if the
   * library was built without TLS (meson option `tls`).
   */
  const struct SaveVMTls *tls;
  /**
   * While the migration does not converge, the downtime limit rises from `downtime_limit_ms` up to this value. A migration
   * does not converge if all memory was sent once and the remaining amount does not decrease. Default: it does not rise. May
   * change during the migration, like the next two.
   */
  uint32_t downtime_limit_max_ms;
  /**
   * Amount by which the downtime limit rises at a time; default: a tenth of the difference between both limits.
   */
  uint32_t downtime_step_ms;
  /**
   * Time without convergence after which the downtime limit rises; default 5000.
   */
  uint32_t downtime_step_interval_ms;
  /**
   * Time from the beginning at which `deadline_action` is taken if the guest has not moved; default: no deadline. May change
   * during the migration.
   */
  uint32_t deadline_ms;
  /**
   * Default SAVEVM_DEADLINE_CANCEL. May change during the migration.
   */
  enum SaveVMDeadlineAction deadline_action;
  /**
   * Outgoing: do not compare the machines before the migration. Incoming: do not take part in preflights and rehearsals.
   * Default: two ends of libsavevm compare their machines first, and a migration that can't succeed fails with all reasons
   * before any memory is sent.
   */
  bool no_preflight;
  /**
   * Connections for the pages of RAM besides the main one, 2 to 64 (QEMU's capability multifd with multifd-channels); 0 and 1:
   * none, everything is sent over the main connection. Both sides must set the same number. It needs the RAM of this library
   * (savevm_ram_new()) and `unix:PATH` or `tcp:HOST:PORT`. Postcopy may follow, also from and to QEMU 10.1 and later; its
   * pages and its recovery use the main connection alone.
   */
  uint32_t channels;
  /**
   * How pages are compressed on these connections; default SAVEVM_COMPRESSION_NONE. Both sides must set the same. A value
   * other than SAVEVM_COMPRESSION_NONE without several channels is an error.
   */
  enum SaveVMCompression compression;
  /**
   * Level of the compression, 1 to 9 for zlib, 1 to 20 for zstd; default 1.
   */
  int compression_level;
  /**
   * Outgoing: in which variant of QEMU's format pages are sent over several connections; default SAVEVM_MULTIFD_AUTO. A
   * destination understands all of them.
   */
  enum SaveVMMultifdFormat multifd_format;
} SaveVMParams;

/**
 * Initialises a SaveVMParams.
 */
#define SAVEVM_PARAMS_INIT SAVEVM_INITIALISED(SaveVMParams)

/**
 * Status and statistics of a migration. The caller sets `size`; only members within that size are filled in. Counters never
 * decrease.
 */
typedef struct SaveVMInfo {
  /**
   * sizeof(SaveVMInfo).
   */
  size_t size;
  /**
   * Status.
   */
  enum SaveVMStatus status;
  /**
   * The context's owner (savevm_owner()) as of this migration.
   */
  enum SaveVMOwner owner;
  /**
   * QEMU's name of the status; a constant string.
   */
  const char *status_name;
  /**
   * Time since the migration began, until it ended, in microseconds.
   */
  uint64_t total_time_us;
  /**
   * Time until the first round, in microseconds.
   */
  uint64_t setup_time_us;
  /**
   * Downtime in microseconds. It ends with the destination's result, if the destination answers. Incoming: 0.
   */
  uint64_t downtime_us;
  /**
   * Expected downtime if the guest were stopped now, in microseconds.
   */
  uint64_t expected_downtime_us;
  /**
   * Time for saving or loading all devices that are not live devices, in microseconds.
   */
  uint64_t device_time_us;
  /**
   * Bytes of the sections of these devices.
   */
  uint64_t device_bytes;
  /**
   * Bytes that were sent, or (incoming) received, over all connections.
   */
  uint64_t transferred;
  /**
   * Bytes that remain to be sent before the switchover. Incoming, this member and all up to `dirty_rate` are 0, because
   * only the source knows them.
   */
  uint64_t remaining_precopy_only;
  /**
   * Bytes that remain to be sent before or after the switchover.
   */
  uint64_t remaining_compatible;
  /**
   * Bytes that remain to be sent after the switchover.
   */
  uint64_t remaining_postcopy_only;
  /**
   * Number of rounds. A round ends when no live device has anything left to send; the end of a postcopy counts as well.
   */
  uint64_t rounds;
  /**
   * Bytes sent per second, in the last 100 ms in which anything was sent.
   */
  uint64_t bandwidth;
  /**
   * Bytes per second that the guest wrote to, when the dirty log was last read.
   */
  uint64_t dirty_rate;
  /**
   * Number of page requests in postcopy.
   */
  uint64_t page_requests;
  /**
   * Number of successful recoveries.
   */
  uint64_t recoveries;
  /**
   * Current CPU throttle in percent.
   */
  uint32_t throttle;
  /**
   * Whether the destination answers over a return path.
   */
  bool return_path;
  /**
   * Whether both ends are known to be libsavevm.
   */
  bool peer_is_libsavevm;
  /**
   * Time in the rounds of precopy (incoming: for reading the stream), in microseconds.
   */
  uint64_t precopy_time_us;
  /**
   * Time from the last round until the guest was handed over, without the wait for savevm_migration_continue(), in
   * microseconds.
   */
  uint64_t switchover_time_us;
  /**
   * Time for sending the rest after the hand-over, in microseconds.
   */
  uint64_t postcopy_time_us;
  /**
   * Time of waiting for a recovery, in microseconds.
   */
  uint64_t paused_time_us;
  /**
   * How much of the migration is done, in percent. It never falls, and is 100 when the guest has moved with all of its memory.
   * Incoming, until then: the percentage of pages of the RAM (savevm_ram_new()) that have arrived at least once, at most 99; 0
   * with other RAM.
   */
  uint32_t percent;
  /**
   * Why the migration makes no progress. savevm_migration_stall() returns the reason in words.
   */
  enum SaveVMStallReason stall;
  /**
   * Expected time from the beginning to the end, in microseconds; 0: no end is in sight, or nothing was measured yet. After
   * the end: `total_time_us`.
   */
  uint64_t expected_total_time_us;
  /**
   * If the guest writes faster than memory is sent and this stalls the migration: the difference in bytes per second; else 0.
   */
  uint64_t stall_excess;
  /**
   * The downtime limit in force, in microseconds; see SaveVMParams.downtime_limit_max_ms.
   */
  uint64_t downtime_limit_us;
  /**
   * The downtime that was predicted when the guest was stopped, in microseconds; 0 before. It is the sum of the next five
   * members. `downtime_us` is the actual one.
   */
  uint64_t predicted_downtime_us;
  /**
   * Predicted time for sending the memory that was left, at the measured bandwidth; 0 if no bandwidth was measured yet.
   */
  uint64_t predicted_memory_us;
  /**
   * Predicted time for saving the devices, as measured in earlier migrations of this context.
   */
  uint64_t predicted_save_us;
  /**
   * Predicted time for loading the devices, as the destination of an earlier migration or a rehearsal reported it.
   */
  uint64_t predicted_load_us;
  /**
   * Predicted time for the destination's answers.
   */
  uint64_t predicted_round_trips_us;
  /**
   * Predicted time for everything else: stopping and starting the guest, disks.
   */
  uint64_t predicted_rest_us;
} SaveVMInfo;

/**
 * Initialises a SaveVMInfo.
 */
#define SAVEVM_INFO_INIT SAVEVM_INITIALISED(SaveVMInfo)

/**
 * Measurements of one device that is not a live device.
 */
typedef struct SaveVMDeviceInfo {
  /**
   * sizeof(SaveVMDeviceInfo).
   */
  size_t size;
  /**
   * Name of the device; owned by the migration.
   */
  const char *name;
  /**
   * Instance of the device.
   */
  uint32_t instance_id;
  /**
   * Bytes of its section; on the destination without header and footer of the section.
   */
  uint64_t bytes;
  /**
   * Time for saving its state in microseconds; 0 on the destination.
   */
  uint64_t save_time_us;
  /**
   * Time for loading its state in microseconds. On the source: as a libsavevm destination reported it at the end of the
   * migration, else 0.
   */
  uint64_t load_time_us;
} SaveVMDeviceInfo;

/**
 * Initialises a SaveVMDeviceInfo.
 */
#define SAVEVM_DEVICE_INFO_INIT SAVEVM_INITIALISED(SaveVMDeviceInfo)

/**
 * Measured cost of one device that is not a live device, as stored in a context.
 */
typedef struct SaveVMDeviceCost {
  /**
   * sizeof(SaveVMDeviceCost).
   */
  size_t size;
  /**
   * Name of the device.
   */
  char name[256];
  /**
   * Instance of the device.
   */
  uint32_t instance_id;
  /**
   * Bytes of its section.
   */
  uint64_t bytes;
  /**
   * Time for saving its state in microseconds, measured here by rehearsals and migrations; before that, the time for loading
   * it here, or 0.
   */
  uint64_t save_time_us;
  /**
   * Time for loading its state in microseconds, as destinations reported it after rehearsals and migrations; before that, the
   * time for loading it here, or 0.
   */
  uint64_t load_time_us;
} SaveVMDeviceCost;

/**
 * Initialises a SaveVMDeviceCost.
 */
#define SAVEVM_DEVICE_COST_INIT SAVEVM_INITIALISED(SaveVMDeviceCost)

/**
 * A change of a migration's status.
 */
typedef struct SaveVMEvent {
  /**
   * sizeof(SaveVMEvent) of the library.
   */
  size_t size;
  /**
   * Whether the migration is incoming.
   */
  bool incoming;
  /**
   * The new status.
   */
  enum SaveVMStatus status;
  /**
   * QEMU's name of the status.
   */
  const char *status_name;
  /**
   * The migration. Its first event is sent before savevm_migrate() returns this handle.
   */
  SaveVMMigration *migration;
  /**
   * Why a postcopy paused, a recovery failed, or the migration ended without success; else NULL. Valid in the callback.
   */
  const char *error;
} SaveVMEvent;

/**
 * A migration that makes no progress, or makes progress again.
 */
typedef struct SaveVMStallEvent {
  /**
   * sizeof(SaveVMStallEvent) of the library.
   */
  size_t size;
  /**
   * Whether the migration is incoming.
   */
  bool incoming;
  /**
   * The reason. SAVEVM_STALL_NONE: it makes progress again.
   */
  enum SaveVMStallReason reason;
  /**
   * If the guest writes faster than memory is sent: the difference in bytes per second; 0 for other reasons.
   */
  uint64_t excess;
  /**
   * The migration.
   */
  SaveVMMigration *migration;
  /**
   * The reason in words, with advice; empty for SAVEVM_STALL_NONE. Valid in the callback.
   */
  const char *text;
} SaveVMStallEvent;

/**
 * Begins to migrate the guest of `vm` to `uri`: `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. Returns
 * before the connection is made; savevm_migration_wait() returns the result.
 *
 * A descriptor `fd:N` belongs to the library from now on, here and wherever a URI is taken: it is closed in every case.
 *
 * Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin: a blocker, another migration or
 * snapshot of the context, a guest that is not here (savevm_owner()), a wrong URI or wrong parameters.
 *
 * Thread: any. Lock: either. QEMU: qmp_migrate, migration/migration.c.
 */
SaveVMMigration *savevm_migrate(SaveVM *vm,
                                const char *uri,
                                const struct SaveVMParams *params,
                                Error **errp);

/**
 * As savevm_migrate(), over a connected channel of the hypervisor. `ops` is copied. The channel belongs to the library from now
 * on, also on failure: its `free` is called in any case, unless `ops` is NULL or its size is too small.
 *
 * Returns: as savevm_migrate().
 *
 * Thread: any. Lock: either.
 */
SaveVMMigration *savevm_migrate_to_channel(SaveVM *vm,
                                           const struct SaveVMChannelOps *ops,
                                           void *opaque,
                                           const struct SaveVMParams *params,
                                           Error **errp);

/**
 * Waits for a guest and loads it into `vm`, then starts it. `uri` is `unix:PATH` or `tcp:HOST:PORT` to listen on, or `fd:N`,
 * `file:PATH` or `exec:COMMAND` to read from. The devices of `vm` are registered and its guest is stopped. A source can
 * connect once this function has returned.
 *
 * A descriptor `fd:N` belongs to the library from now on, here and wherever a URI is taken: it is closed in every case.
 *
 * Returns: the migration, to be freed with savevm_migration_free(); NULL if it can't begin.
 *
 * Thread: any. Lock: either. QEMU: qmp_migrate_incoming, migration/migration.c.
 */
SaveVMMigration *savevm_incoming(SaveVM *vm,
                                 const char *uri,
                                 const struct SaveVMParams *params,
                                 Error **errp);

/**
 * As savevm_incoming(), over a connected channel of the hypervisor. `ops` is copied. The channel belongs to the library from now
 * on, also on failure: its `free` is called in any case, unless `ops` is NULL or its size is too small.
 *
 * Returns: as savevm_incoming().
 *
 * Thread: any. Lock: either.
 */
SaveVMMigration *savevm_incoming_from_channel(SaveVM *vm,
                                              const struct SaveVMChannelOps *ops,
                                              void *opaque,
                                              const struct SaveVMParams *params,
                                              Error **errp);

/**
 * Stores the URI on which an incoming migration listens in `uri`, a buffer of `length` bytes. Port 0 is replaced by the port
 * that the system chose.
 *
 * Returns:
 *   0        the URI is stored
 *   -ENOENT  the migration does not listen
 *   -ERANGE  `length` is too small
 *   -EINVAL  outgoing migration (reported), or NULL
 *
 * Thread: any. Lock: either.
 */
int savevm_migration_uri(SaveVMMigration *m,
                         char *uri,
                         size_t length);

/**
 * Does a part of the work of an outgoing migration that has SaveVMParams.no_thread, on the calling thread.
 *
 * Returns:
 *   1        call again
 *   0        the migration has ended
 *   -EBUSY   another thread is in this function
 *   -EINVAL  incoming migration (reported), or NULL
 *
 * Thread: any. Lock: either, released while waiting. A call takes as long as the deadlines of SaveVMParams allow.
 */
int savevm_migration_step(SaveVMMigration *m);

/**
 * Waits for the end of a migration and returns its result. May be called any number of times.
 *
 * Returns:
 *   0         the guest is on the destination. Incoming: it runs here, unless SaveVMParams.no_autostart
 *   -EDEADLK  called from a callback of this migration
 *   -errno    the migration failed. Unless savevm_owner() returns something else: outgoing, the guest runs here if it ran
 *             before; incoming, it does not run here
 *
 * Thread: any. Lock: either, released while waiting.
 */
int savevm_migration_wait(SaveVMMigration *m,
                          Error **errp);

/**
 * Returns why a postcopy is paused, or why its last recovery failed.
 *
 * Returns:
 *   0       no postcopy is paused by an error
 *   -errno  the error, also in `*errp`
 *
 * Thread: any. Lock: either.
 */
int savevm_migration_pause_error(SaveVMMigration *m, Error **errp);

/**
 * Returns why a migration makes no progress, in words, with advice. SaveVMInfo.stall has the reason as a number.
 *
 * Returns:
 *   0        the migration makes progress, or has ended
 *   -EAGAIN  the migration makes no progress; the reason is in `*errp`
 *   -EINVAL  NULL
 *
 * Thread: any. Lock: either. Does not wait; may be called from callbacks.
 */
int savevm_migration_stall(SaveVMMigration *m,
                           Error **errp);

/**
 * Cancels a migration and waits at most one second for it to end.
 *
 * Returns:
 *   0             outgoing: the guest is here, and runs if it ran before; incoming: it does not run here
 *   -EBUSY        too late: the destination has the guest, or may have it
 *   -EINPROGRESS  called from a callback of this migration, which ends after the callback returns
 *   -ETIMEDOUT    the migration has not ended yet, for example because a callback still runs; it ends without a further call
 *   -EINVAL       NULL
 *
 * Thread: any. Lock: either, released while waiting. QEMU: migrate_cancel, migration/migration.c.
 */
int savevm_migration_cancel(SaveVMMigration *m);

/**
 * Continues an outgoing migration that waits in SAVEVM_STATUS_PRE_SWITCHOVER (SaveVMParams.pause_before_switchover).
 *
 * Returns:
 *   0        the migration continues
 *   -EINVAL  the migration does not wait; incoming migration (reported); or NULL
 *
 * Thread: any. Lock: either. QEMU: qmp_migrate_continue, migration/migration.c.
 */
int savevm_migration_continue(SaveVMMigration *m);

/**
 * Switches an outgoing migration to postcopy as soon as possible.
 *
 * Returns:
 *   0        the migration will switch to postcopy
 *   -EINVAL  SaveVMParams.postcopy is not set, or the migration has ended; incoming migration (reported); or NULL
 *
 * Thread: any. Lock: either. QEMU: qmp_migrate_start_postcopy, migration/migration.c.
 */
int savevm_migration_start_postcopy(SaveVMMigration *m);

/**
 * Breaks the connection of a running postcopy, to recover it over another one. The other side notices if the connection can
 * be shut down; otherwise pause it there as well.
 *
 * Returns:
 *   0        the connection is broken
 *   -EINVAL  no postcopy is running, or NULL
 *
 * Thread: any. Lock: either. QEMU: qmp_migrate_pause, migration/migration.c.
 */
int savevm_migration_pause(SaveVMMigration *m);

/**
 * Continues a paused postcopy over a new connection. First call it at the destination, which listens on `uri` once the
 * function has returned; then at the source, which connects before the function returns.
 *
 * The destination may be complete while the source is paused, if the last messages were lost. Then the destination answers
 * the source, within 300 s, that it is complete, and the source completes as well. This needs libsavevm on both sides.
 *
 * Returns:
 *   0        the recovery has begun
 *   -EINVAL  the migration is neither paused nor a completed incoming postcopy, or NULL
 *   -errno   no connection; the postcopy stays paused
 *
 * Thread: any. Lock: either, released while waiting. QEMU: qmp_migrate_recover, migration/migration.c.
 */
int savevm_migration_recover(SaveVMMigration *m,
                             const char *uri,
                             Error **errp);

/**
 * Changes the parameters of an outgoing migration that may change during the migration; see SaveVMParams. A member that is zero
 * is set to its default, so keep the struct that the migration was started with and change its members.
 *
 * Returns:
 *   0        the parameters are set
 *   -EINVAL  `params` is NULL or wrong; incoming migration; or NULL
 *
 * Thread: any. Lock: either.
 */
int savevm_migration_set_params(SaveVMMigration *m,
                                const struct SaveVMParams *params,
                                Error **errp);

/**
 * Returns statistics of a migration.
 *
 * Returns:
 *   0        `info` is filled in
 *   -EINVAL  NULL, or the size of `info` is too small
 *
 * Thread: any. Lock: either. Does not wait; may be called from callbacks.
 */
int savevm_migration_query(SaveVMMigration *m, struct SaveVMInfo *info);

/**
 * Returns the measurements of one device that is not a live device. `index` is its position in the stream, from 0. At most
 * 65536 devices are recorded.
 *
 * Returns:
 *   0        `device` is filled in
 *   -ENOENT  there are not so many devices
 *   -EINVAL  NULL, or the size of `device` is too small
 *
 * Thread: any. Lock: either. Does not wait; may be called from callbacks.
 */
int savevm_migration_device(SaveVMMigration *m,
                            size_t index,
                            struct SaveVMDeviceInfo *device);

/**
 * As savevm_migration_device(), with the devices in another order: the most expensive one has the index 0. The time of a call
 * grows with the number of devices.
 *
 * Returns:
 *   0        `device` is filled in
 *   -ENOENT  there are not so many devices
 *   -EINVAL  NULL, an unknown order, or the size of `device` is too small
 *
 * Thread: any. Lock: either. Does not wait; may be called from callbacks.
 */
int savevm_migration_device_by(SaveVMMigration *m,
                               enum SaveVMDeviceOrder order,
                               size_t index,
                               struct SaveVMDeviceInfo *device);

/**
 * Frees a migration. A migration in progress is cancelled if that is possible; otherwise the function waits for its end. A
 * paused postcopy is abandoned. Do not call it from a callback of this migration.
 *
 * Thread: any. Lock: either, released while waiting.
 */
void savevm_migration_free(SaveVMMigration *m);

/**
 * Forbids migrations and snapshots of `vm`. Their error contains `reason` and has the number EACCES.
 *
 * Returns:
 *   a positive number  for savevm_del_blocker()
 *   -EBUSY             a migration or a snapshot is in progress
 *   -EINVAL            `reason` is NULL
 *
 * Thread: any. Lock: either. QEMU: migrate_add_blocker, migration/migration.c.
 */
int64_t savevm_add_blocker(SaveVM *vm,
                           const char *reason,
                           Error **errp);

/**
 * Removes a blocker by the number that savevm_add_blocker() returned.
 *
 * Returns:
 *   0        the blocker is removed
 *   -ENOENT  there is no such blocker
 *
 * Thread: any. Lock: either. QEMU: migrate_del_blocker, migration/migration.c.
 */
int savevm_del_blocker(SaveVM *vm, int64_t blocker);

/* ---- Before a migration ---- */

/**
 * Asks the destination at `uri` whether it can load the guest of `vm`, and waits for the verdict. The guest continues to run.
 * The destination must wait in savevm_incoming(), and continues to wait afterwards. It compares the machine, RAM, devices and
 * the layouts of their states with its own.
 *
 * Call it only if the destination is libsavevm. In QEMU, the incoming migration ends when the connection is closed.
 *
 * Returns:
 *   0            nothing prevents the migration; warnings were reported (SaveVMHostOps.report), here and there
 *   -EREMOTEIO   the destination can't load the guest; the error names all problems, see savevm_error_problem()
 *   -ENOTSUP     the destination does not take part in preflights
 *   -errno       no connection, no answer in time, another migration in progress, or a guest that is not here
 *
 * Thread: any. Lock: either, released while waiting.
 */
int savevm_preflight(SaveVM *vm,
                     const char *uri,
                     const SaveVMParams *params,
                     Error **errp);

/**
 * Does a preflight as savevm_preflight(). If the destination accepts the guest, pauses the guest, saves all devices that are not
 * live devices, continues the guest, and sends the saved states. The destination loads them, reports the result, resets its
 * machine (SaveVMHostOps.reset, which it must have) and continues to wait. Memory is not sent: a device that reads the guest's
 * memory while it loads finds that of a reset machine.
 *
 * The guest is paused while the devices are saved: at most SaveVMParams.downtime_limit_ms and the time of one device. The
 * context keeps the times to save and to load each device, for the expected downtime of a migration.
 *
 * Returns:
 *   0            the destination has loaded all devices
 *   -EREMOTEIO   the destination does not accept the guest, or a device failed to load: the error names the problems or the
 *                device
 *   -ETIMEDOUT   saving the devices takes longer than the downtime limit, or no answer in time
 *   -ENOTSUP     the destination does not take part in preflights
 *   -errno       as savevm_preflight(), or a device failed to save
 *
 * Thread: any. Lock: either, released while waiting.
 */
int savevm_rehearse(SaveVM *vm,
                    const char *uri,
                    const SaveVMParams *params,
                    Error **errp);

/**
 * Returns the cost of one registered device, as measured in rehearsals and migrations of the context. `index` is its position in
 * `order`, from 0. Devices without a measurement and live devices are left out. The time of a call grows with the number of
 * devices.
 *
 * Returns:
 *   0        `cost` is filled in
 *   -ENOENT  there are not so many devices
 *   -EINVAL  NULL, an unknown order, or the size of `cost` is too small
 *
 * Thread: any. Lock: either. Does not wait.
 */
int savevm_device_cost(SaveVM *vm,
                       SaveVMDeviceOrder order,
                       size_t index,
                       SaveVMDeviceCost *cost);

/* ---- Owner of the guest ---- */

/**
 * Returns which side has the guest of `vm` (NULL: this thread's context), as far as this side knows.
 *
 * The context stores the owner, so the answer is also valid after the migration was freed.
 *
 * A new context is SAVEVM_OWNER_HERE. savevm_incoming() makes it SAVEVM_OWNER_THERE until the guest has arrived. It stays
 * SAVEVM_OWNER_THERE if the incoming migration ends before it changed a device, because such a machine has no guest. A load that
 * fails after it changed a device leaves SAVEVM_OWNER_TORN. savevm_snapshot_load() and qemu_loadvm_state() make it
 * SAVEVM_OWNER_HERE when they loaded everything. Unless it is SAVEVM_OWNER_HERE, savevm_migrate(), savevm_snapshot_save(),
 * savevm_snapshot_save_file() and savevm_ram_snapshot() fail with -EPERM and an error that states which side has the guest.
 *
 * A host with SaveVMHostOps.incoming has a migration driver of its own. Its context stays SAVEVM_OWNER_HERE.
 *
 * Thread: any. Lock: either. Since 0.1.
 */
SaveVMOwner savevm_owner(SaveVM *vm);

/**
 * Returns whether the host may start the guest of `vm` (NULL: this thread's context), or let it run: the owner is
 * SAVEVM_OWNER_HERE, its disks are active as far as the library knows (`disks_activate` did not fail when the guest was taken
 * back), and no migration or snapshot has stopped the guest and decides what follows.
 *
 * Call it with the lock, and start the guest before you release the lock. Otherwise a migration could begin in between.
 *
 * Thread: any. Lock: either. Since 0.1.
 */
bool savevm_may_run(SaveVM *vm);

/**
 * As savevm_may_run(), with the reason.
 *
 * Returns:
 *   0       the host may start the guest
 *   -EPERM  this side does not have the complete guest with its disks; `*errp` states the reason
 *   -EBUSY  a migration or a snapshot has stopped the guest and decides what follows
 *
 * Thread: any. Lock: either. Since 0.1.
 */
int savevm_check_may_run(SaveVM *vm, Error **errp);

/**
 * Returns the run state that the guest of `vm` (NULL: this thread's context) had at its source, by QEMU's name ("running",
 * "paused", "guest-panicked", ...), as received in the last migration or snapshot that was loaded. Returns NULL if none was
 * received. The string is constant.
 *
 * The library's driver does not start a guest that was not "running". The host may use the name to report the reason to its
 * user.
 *
 * Thread: any. Lock: either. Since 0.1. QEMU: global_state_get_runstate, migration/global_state.c.
 */
const char *savevm_received_run_state(SaveVM *vm);

/**
 * Sets the owner of the guest of `vm` (NULL: this thread's context). Use it only after an operator with access to both sides has
 * decided which side has the guest. The library can't check the decision: if SAVEVM_OWNER_HERE is set while the guest runs on
 * the other side, the guest runs twice. The change is reported as a warning (SaveVMHostOps.report).
 *
 * Returns:
 *   0        the owner is set
 *   -EBUSY   a migration (also a paused postcopy) or a snapshot of the context is in progress
 *   -EINVAL  `owner` is not a SaveVMOwner
 *
 * Thread: any. Lock: either. Since 0.1.
 */
int savevm_override_owner(SaveVM *vm,
                          SaveVMOwner owner,
                          Error **errp);

/* ---- Snapshots ---- */

/**
 * Format of a snapshot.
 */
typedef enum SaveVMSnapshotFormat {
  /**
   * QEMU's migration stream, as savevm_migrate() sends it.
   */
  SAVEVM_SNAPSHOT_STREAM = 0,
  /**
   * A file in which each page of guest memory has a fixed place: QEMU's mapped-ram (9.0 and later). Zero pages are holes.
   * Needs SaveVMRam, and `file:` or an `fd:` of a regular file or disk.
   */
  SAVEVM_SNAPSHOT_MAPPED = 1,
} SaveVMSnapshotFormat;

/**
 * How a snapshot is saved or loaded.
 */
typedef struct SaveVMSnapshotOptions {
  /**
   * sizeof(SaveVMSnapshotOptions).
   */
  size_t size;
  /**
   * Format to save; default SAVEVM_SNAPSHOT_STREAM. savevm_snapshot_load() finds the format in the file.
   */
  enum SaveVMSnapshotFormat format;
  /**
   * Number of threads that write or read pages with fixed places, or read the pages of a stream from a regular file, at most
   * 64; default 0: the number of processors, at most 8, or 8 with `direct`. One thread writes a stream.
   */
  uint32_t threads;
  /**
   * Writes or reads pages with fixed places with O_DIRECT, which bypasses the page cache; default false. An error if the file
   * system does not support O_DIRECT, or needs an alignment larger than a target page. Has no effect if the loaded file is a
   * stream.
   */
  bool direct;
  /**
   * Loading: returns when the devices are loaded, and the guest runs. A page is read when a thread touches it, and threads
   * read all other pages meanwhile; savevm_restore_wait() waits for them. Default false. See savevm_snapshot_load().
   */
  bool lazy;
  /**
   * With `lazy`: path of a file with the pages that the guest touches first, which are read first. If the file does not exist,
   * this restore records them, reads only touched pages for one second, and writes the file when all pages are read. Delete
   * the file to record again. Default NULL: none.
   */
  const char *working_set;
  /**
   * What the snapshot is relative to; default NULL: a full snapshot. "": a full snapshot that begins a chain. "file:PATH": the
   * snapshot that was saved or loaded last in this chain; only the pages that changed since then are saved. When loading: if
   * not NULL, later changes are logged, so that the loaded snapshot can be a parent.
   */
  const char *parent;
  /**
   * Path of an index: a file with the places of all pages of a stream. With an index, a lazy restore does not read every page
   * record before the guest runs. With `lazy`: if the file is missing, damaged or of another snapshot, the restore writes it
   * when all pages are read. When saving SAVEVM_SNAPSHOT_STREAM to `file:PATH`: the index is written after the snapshot. A file
   * that is not an index is not replaced by one, and that is reported.
   * Default NULL: none. Copying, renaming, linking or changing the snapshot makes its index invalid. Protect the index like
   * the snapshot, because the index determines the contents of guest memory.
   */
  const char *index;
  /**
   * Saving: the guest runs while memory is saved, and is stopped only while devices are saved and memory is protected from
   * writes (userfaultfd); default false. A page that the guest writes to before it was saved is copied first. Needs
   * SaveVMRam. Implied by `parent`.
   */
  bool background;
} SaveVMSnapshotOptions;

/**
 * Initialises a SaveVMSnapshotOptions.
 */
#define SAVEVM_SNAPSHOT_OPTIONS_INIT SAVEVM_INITIALISED(SaveVMSnapshotOptions)

/**
 * Statistics of the latest snapshot that a context saved.
 */
typedef struct SaveVMSnapshotInfo {
  /**
   * sizeof(SaveVMSnapshotInfo).
   */
  size_t size;
  /**
   * Whether it is still being saved.
   */
  bool active;
  /**
   * Bytes of memory to save in total, without devices. 0 without SaveVMRam.
   */
  uint64_t total_bytes;
  /**
   * Bytes of memory that are saved.
   */
  uint64_t saved_bytes;
  /**
   * How long the guest was stopped, in microseconds; 0 while it is stopped for the first time.
   */
  uint64_t stopped_time_us;
  /**
   * How long the save took, or has taken so far, in microseconds.
   */
  uint64_t total_time_us;
} SaveVMSnapshotInfo;

/**
 * Initialises a SaveVMSnapshotInfo.
 */
#define SAVEVM_SNAPSHOT_INFO_INIT SAVEVM_INITIALISED(SaveVMSnapshotInfo)

/**
 * Statistics of the latest lazy restore of a context.
 */
typedef struct SaveVMRestoreInfo {
  /**
   * sizeof(SaveVMRestoreInfo).
   */
  size_t size;
  /**
   * Whether pages are still read.
   */
  bool active;
  /**
   * Bytes to read from the file in total. Zero pages are not counted.
   */
  uint64_t total_bytes;
  /**
   * Bytes that have been read.
   */
  uint64_t loaded_bytes;
  /**
   * Number of times that a thread touched a page that was not in memory yet and had to be read.
   */
  uint64_t faults;
} SaveVMRestoreInfo;

/**
 * Initialises a SaveVMRestoreInfo.
 */
#define SAVEVM_RESTORE_INFO_INIT SAVEVM_INITIALISED(SaveVMRestoreInfo)

/**
 * Saves a snapshot to `uri`, which has the form of savevm_migrate(). Stops the guest, and starts it again if it ran before, also
 * after a failure.
 *
 * `file:PATH` replaces a regular file only by a complete snapshot: the new file is written to the same directory, synced and
 * renamed, and the directory is synced. The guest already runs during this. After a full disk, a crash or a kill, the previous
 * file is unchanged. The disk needs space for both files. The snapshot is written in place for `file:PATH,offset=N`, which
 * keeps the first N bytes, for files in a directory that is not writable, for files that are mount points or not regular, and for
 * all other kinds of URI. A named pipe waits for a program that reads from it. The guest runs during this wait. Each wait for the
 * other end of a pipe or socket takes at most 60 s.
 *
 * With SaveVMSnapshotOptions.background the guest runs while memory is saved. No live device besides SaveVMRam may be
 * registered.
 *
 * With SaveVMSnapshotOptions.parent the snapshot is part of a chain, and the guest runs while memory is saved. An incremental
 * snapshot contains all devices and the changed pages, and names its parent by path and hash. Loading it needs every file of the
 * chain. It is not written in place over a regular file. The files of a chain may have different formats. `savevm merge` writes
 * a full snapshot from a chain. If an incremental snapshot fails or is cancelled, the next one contains its changes. If a full
 * snapshot that begins a chain fails or is cancelled, the chain before it continues. The following end the log of changes, so
 * that the next snapshot must be a full one: adding or removing a block of memory, loading another snapshot,
 * savevm_ram_snapshot(), and a migration that needs the memory's userfaultfd (incoming, or with SAVEVM_RAM_LOG_KERNEL).
 *
 * Returns:
 *   0        the snapshot is saved
 *   -EPERM   this side does not have the guest; see savevm_owner()
 *   -ESTALE  the changes since the parent are not known, or the parent was changed; save a full snapshot
 *   -ECANCELED  savevm_snapshot_cancel() was called
 *   -ETIMEDOUT  a wait for the other end took 60 s
 *   -errno   another error
 *
 * Thread: any. Lock: either; taken if the calling thread does not hold it, released while `uri` is opened and while live devices
 * are set up.
 */
int savevm_snapshot_save(SaveVM *vm,
                         const char *uri,
                         const struct SaveVMSnapshotOptions *options,
                         Error **errp);

/**
 * Cancels the snapshot that another thread saves with savevm_snapshot_save() or savevm_ram_snapshot(). Does not wait: that call
 * returns -ECANCELED soon, unless the snapshot is complete already. The guest continues if it ran before. An existing regular
 * file is unchanged. After an incremental snapshot, the next one contains its changes. After a full snapshot that begins a chain,
 * the chain before it continues.
 *
 * Returns:
 *   0        the save will end
 *   -ENOENT  no snapshot is being saved
 *
 * Thread: any. Lock: either.
 */
int savevm_snapshot_cancel(SaveVM *vm);

/**
 * Returns statistics of the latest snapshot that was saved; without one, zeros.
 *
 * Returns:
 *   0        `info` is filled in
 *   -EINVAL  NULL, or the size of `info` is too small
 *
 * Thread: any. Lock: either.
 */
int savevm_snapshot_query(SaveVM *vm, struct SaveVMSnapshotInfo *info);

/**
 * Saves a snapshot of a stopped guest to the caller's file, from the header to the cleanup of devices. The caller closes the file
 * afterwards (qemu_fclose()).
 *
 * Returns:
 *   0        the snapshot is saved
 *   -EBUSY   a migration or a snapshot is in progress
 *   -EPERM   this side does not have the guest; see savevm_owner()
 *   -EACCES  a blocker forbids it; see savevm_add_blocker()
 *   -EINVAL  `f` is NULL
 *   -errno   another error, which is also the error of `f`
 *
 * Thread: any. Lock: held, released while live devices are set up.
 */
int savevm_snapshot_save_file(SaveVM *vm,
                              QEMUFile *f);

/**
 * Checks whether a stream would load into `vm`, without changing the machine. Reads at most `length` bytes from the position of
 * `f`. The checks are: the stream is complete up to its EOF mark, the configuration section matches, every device and version is
 * known, RAM blocks fit (SaveVMHostOps.ram_fits), and every page is inside its block. The values inside the state of a device
 * are not checked. If the machine's sections have no footers, every stream passes, because the end of a state is not known. `f`
 * is still owned by the caller; its position afterwards is undefined. The devices of the machine must not change during the
 * call.
 *
 * Returns:
 *   0        no damage was found
 *   -ENOMSG  there is no stream at this position
 *   -EINVAL  the stream would not load
 *   -errno   `f` can't be read
 *
 * Thread: any. Lock: either.
 */
int savevm_snapshot_check_file(SaveVM *vm,
                               QEMUFile *f,
                               uint64_t length,
                               Error **errp);

/**
 * Loads a snapshot from `uri`. Stops the guest, resets the machine (SaveVMHostOps.reset), loads the stream, and starts the guest
 * if it ran before.
 *
 * An incremental snapshot is loaded with all its ancestors. Before the machine is changed, all files are read: each must be
 * complete, have the hash that its child names, and be of the same machine. Afterwards changes are logged, so that the
 * snapshot can be the parent of the next one, except after a lazy load. A lazy load reads the devices and the lists of pages
 * first, and no pages. A page that it reads later must have the hash in its list; otherwise the guest is stopped as after a page
 * that can't be read.
 *
 * A regular file is checked first, as savevm_snapshot_check_file() does. Of everything else, only the first 8 bytes are checked.
 * If the check fails, the machine is not changed and the guest continues. After a later failure the guest stays stopped, because
 * its devices hold parts of two states; see SAVEVM_OWNER_TORN. Each wait for the other end of a pipe or socket takes at most 60 s;
 * the guest runs until the first bytes have come.
 *
 * With SaveVMSnapshotOptions.lazy, `uri` must be `file:` of a regular file, in any format. The call needs userfaultfd and RAM
 * from savevm_ram_new() in anonymous or shared memory. If something is missing, the call fails with the reason before it changes
 * anything, so the caller may call it again without `lazy`. Everything in the file except the pages is checked first. If a page
 * can't be read later, the guest is stopped (SaveVMHostOps.vm_stop) before it can read anything else in its place, the owner
 * becomes SAVEVM_OWNER_TORN, and the error names file and offset: see savevm_restore_wait() and SaveVMHostOps.restore_ended. As
 * in postcopy, a vCPU may be waiting for a page, and vm_stop must be able to stop it; see SaveVMHostOps.vm_stop. While pages are
 * read, migrations, snapshots and checkpoints fail with -EBUSY. Another savevm_snapshot_load() replaces the restore.
 * savevm_ram_free() and savevm_free() end it if the guest is stopped. The file must not be changed before all pages are read; it
 * may be replaced or removed.
 *
 * Returns:
 *   0        the snapshot is loaded; with SaveVMSnapshotOptions.lazy, its devices are
 *   -EBUSY   a migration, a snapshot or a checkpoint prevents it; the machine is not changed
 *   -errno   another error. The guest continues, unless savevm_owner() is SAVEVM_OWNER_TORN afterwards
 *
 * Thread: any. Lock: either; taken if the calling thread does not hold it, released while waiting for the other end of `uri`.
 */
int savevm_snapshot_load(SaveVM *vm,
                         const char *uri,
                         const struct SaveVMSnapshotOptions *options,
                         Error **errp);

/**
 * Waits until a lazy restore has read all pages (SaveVMSnapshotOptions.lazy).
 *
 * Returns:
 *   0             all memory is loaded, or the context has had no lazy restore
 *   -ECANCELED    another load replaced the restore, or the RAM was freed
 *   -EINPROGRESS  called from a callback of the restore, which ends after the callback returns
 *   -errno        a page could not be read: the guest was stopped, and savevm_owner() is SAVEVM_OWNER_TORN
 *
 * Thread: any but a vCPU's. Lock: either; released while waiting.
 */
int savevm_restore_wait(SaveVM *vm,
                        Error **errp);

/**
 * Returns statistics of the latest lazy restore; without one, zeros.
 *
 * Returns:
 *   0        `info` is filled in
 *   -EINVAL  NULL, or the size of `info` is too small
 *
 * Thread: any. Lock: either.
 */
int savevm_restore_query(SaveVM *vm, struct SaveVMRestoreInfo *info);

/* ---- Checkpoints in this process ---- */

/**
 * The state of a machine at one moment, kept in this process.
 */
typedef struct SaveVMCheckpoint SaveVMCheckpoint;

/**
 * Makes a checkpoint of the machine, to which savevm_rollback() returns it. Stops the guest, and starts it again if it ran
 * before, also after a failure.
 *
 * The devices' states are kept in memory. Guest memory (savevm_ram_new()) is not copied: it is protected from writes, and a
 * page is copied when it is written for the first time after a checkpoint or a rollback. That needs userfaultfd. The first
 * checkpoint protects all memory. Each further checkpoint takes time in proportion to the pages that were written since the
 * last one.
 *
 * Any number of checkpoints may exist. They form a tree: after a rollback, a new checkpoint begins another branch, and a
 * rollback can go to any checkpoint of any branch.
 *
 * Writes by other processes and by devices that access memory without this process's page tables are not noticed. Do not
 * discard guest memory (MADV_DONTNEED) while checkpoints exist.
 *
 * While a checkpoint exists, blocks of memory can't be added or removed, and the following fail with -EBUSY: a load of a
 * snapshot, an incoming migration, savevm_ram_snapshot(), and an outgoing migration with SAVEVM_RAM_LOG_KERNEL.
 *
 * Returns: the checkpoint, to be freed with savevm_checkpoint_free(); NULL on failure. Reasons include EBUSY (a migration, a
 * snapshot or a rollback is in progress), EPERM (this side does not have the guest, or userfaultfd is not permitted) and
 * ENOTSUP (an active live device other than the RAM of savevm_ram_new(): its state can't be kept).
 *
 * Thread: any. Lock: either; taken if the calling thread does not hold it. Since 0.1.
 */
struct SaveVMCheckpoint *savevm_checkpoint(SaveVM *vm,
                                           Error **errp);

/**
 * Returns the machine to the state of a checkpoint, which remains valid. Stops the guest, resets the machine
 * (SaveVMHostOps.reset), restores the memory that changed, loads the devices, and starts the guest if it ran before.
 *
 * If the machine does not have the same devices as at the checkpoint, it is not changed and the guest continues. After a
 * later failure the guest stays stopped, because the machine has parts of two states; see SAVEVM_OWNER_TORN. Another rollback
 * or savevm_snapshot_load() can replace them.
 *
 * Returns:
 *   0        the machine has the state of the checkpoint
 *   -EBUSY   a migration, a snapshot or a checkpoint is in progress
 *   -EPERM   this side does not have the guest; see savevm_owner()
 *   -EINVAL  devices were added or removed since the checkpoint, a device rejected its state, or NULL
 *   -errno   another error
 *
 * Thread: any. Lock: either; taken if the calling thread does not hold it. Since 0.1.
 */
int savevm_rollback(struct SaveVMCheckpoint *c,
                    Error **errp);

/**
 * Frees a checkpoint. The machine and all other checkpoints stay as they are. When the last checkpoint is freed, guest memory is
 * no longer protected. Free all checkpoints of a context before its RAM and before the context.
 *
 * Thread: any, but not while savevm_rollback() runs for this checkpoint. Lock: either. Since 0.1.
 */
void savevm_checkpoint_free(struct SaveVMCheckpoint *c);

/* ---- Errors ---- */

/**
 * Which side of a migration or snapshot an error is from.
 */
typedef enum SaveVMSide {
  /**
   * Neither side.
   */
  SAVEVM_SIDE_NONE = 0,
  /**
   * The source, which saves.
   */
  SAVEVM_SIDE_SOURCE = 1,
  /**
   * The destination, which loads.
   */
  SAVEVM_SIDE_DESTINATION = 2,
} SaveVMSide;

/**
 * Phase of a migration or a snapshot, in errors.
 */
typedef enum SaveVMPhase {
  /**
   * No phase: the error is outside of them.
   */
  SAVEVM_PHASE_NONE = 0,
  /**
   * A device is registered.
   */
  SAVEVM_PHASE_REGISTER = 1,
  /**
   * A stream is checked before it is loaded.
   */
  SAVEVM_PHASE_CHECK = 2,
  /**
   * A snapshot is saved or loaded.
   */
  SAVEVM_PHASE_SNAPSHOT = 3,
  /**
   * The connection to the other side is made.
   */
  SAVEVM_PHASE_CONNECT = 4,
  /**
   * Source: save_setup.
   */
  SAVEVM_PHASE_SETUP = 5,
  /**
   * Source: waiting until the guest has unplugged devices.
   */
  SAVEVM_PHASE_WAIT_UNPLUG = 6,
  /**
   * Source: rounds of precopy.
   */
  SAVEVM_PHASE_ITERATE = 7,
  /**
   * Source: stopping the guest.
   */
  SAVEVM_PHASE_STOP = 8,
  /**
   * Source: waiting for savevm_migration_continue() with the guest stopped.
   */
  SAVEVM_PHASE_PRE_SWITCHOVER = 9,
  /**
   * Source: saving with the guest stopped.
   */
  SAVEVM_PHASE_COMPLETE = 10,
  /**
   * Source: the end of live devices in postcopy.
   */
  SAVEVM_PHASE_COMPLETE_POSTCOPY = 11,
  /**
   * Source: all devices without a stream around them.
   */
  SAVEVM_PHASE_DEVICE_STATE = 12,
  /**
   * The guest runs on the destination, and the rest of its memory is sent.
   */
  SAVEVM_PHASE_POSTCOPY = 13,
  /**
   * A paused postcopy waits for a recovery.
   */
  SAVEVM_PHASE_PAUSED = 14,
  /**
   * A paused postcopy is resumed.
   */
  SAVEVM_PHASE_RESUME = 15,
  /**
   * Destination: magic number and version of the stream.
   */
  SAVEVM_PHASE_HEADER = 16,
  /**
   * Destination: the configuration section.
   */
  SAVEVM_PHASE_CONFIGURATION = 17,
  /**
   * Destination: load_setup.
   */
  SAVEVM_PHASE_LOAD_SETUP = 18,
  /**
   * Destination: reading sections and commands.
   */
  SAVEVM_PHASE_LOAD = 19,
  /**
   * Destination: taking over the disks and starting the guest.
   */
  SAVEVM_PHASE_START = 20,
} SaveVMPhase;

/**
 * How serious a problem is.
 */
typedef enum SaveVMProblemSeverity {
  /**
   * The problem has no effect on loading.
   */
  SAVEVM_PROBLEM_NOTE = 0,
  /**
   * The difference is unusual, and accepted in most cases.
   */
  SAVEVM_PROBLEM_WARNING = 1,
  /**
   * The state may be loaded wrongly. The guest is refused if SaveVMParams.strict is set.
   */
  SAVEVM_PROBLEM_RISK = 2,
  /**
   * The guest can't be loaded.
   */
  SAVEVM_PROBLEM_ERROR = 3,
} SaveVMProblemSeverity;

/**
 * Parts of an error. Unknown members are -1 or NULL. The struct and its strings are owned by the error.
 */
typedef struct SaveVMErrorInfo {
  /**
   * sizeof(SaveVMErrorInfo) of the library.
   */
  size_t size;
  /**
   * Positive errno.
   */
  int error;
  /**
   * Side that failed.
   */
  enum SaveVMSide side;
  /**
   * Offset in the stream in bytes.
   */
  int64_t offset;
  /**
   * Type byte of the section.
   */
  int section_type;
  /**
   * Version of the registered device.
   */
  int version_have;
  /**
   * Version in the stream.
   */
  int version_want;
  /**
   * Phase in which it failed.
   */
  enum SaveVMPhase phase;
  /**
   * Section id.
   */
  int64_t section_id;
  /**
   * Instance id of the device.
   */
  int64_t instance_id;
  /**
   * The cause alone: what was expected and what was found.
   */
  const char *message;
  /**
   * Name of the phase, for display; NULL for SAVEVM_PHASE_NONE.
   */
  const char *phase_name;
  /**
   * Name of the device.
   */
  const char *idstr;
  /**
   * VMState path of the field.
   */
  const char *path;
} SaveVMErrorInfo;

/**
 * One difference between the source and the destination. The strings are owned by the error.
 */
typedef struct SaveVMProblem {
  /**
   * sizeof(SaveVMProblem).
   */
  size_t size;
  /**
   * How serious it is.
   */
  enum SaveVMProblemSeverity severity;
  /**
   * Instance id of the device; -1: the problem concerns no device.
   */
  int64_t instance_id;
  /**
   * Name of the device; NULL: the problem concerns no device.
   */
  const char *idstr;
  /**
   * The field or subsection of the device, or the block of RAM; NULL: the whole device or all RAM.
   */
  const char *path;
  /**
   * The difference.
   */
  const char *message;
} SaveVMProblem;

/**
 * Initialises a SaveVMProblem.
 */
#define SAVEVM_PROBLEM_INIT SAVEVM_INITIALISED(SaveVMProblem)

/**
 * Returns the error as text: where it happened, what was expected and what was found.
 *
 * Thread: any. Lock: either.
 */
const char *error_get_pretty(const Error *err);

/**
 * Frees an error, and the strings that were obtained from it.
 *
 * Thread: any. Lock: either.
 */
void error_free(Error *err);

/**
 * Stores a new error in `*errp`, for a callback that reports its failure through an `Error **`. `error` is an errno value, with
 * either sign; 0 means EINVAL. Does nothing if `errp` is NULL or an error is stored already. qapi/error.h has QEMU's functions,
 * which take a format.
 *
 * Thread: any. Lock: either. QEMU: error_setg_errno, util/error.c.
 */
void savevm_error_set(Error **errp,
                      int error,
                      const char *text);

/**
 * Returns the parts of an error, for a program to read. They are owned by the error.
 *
 * Thread: any. Lock: either.
 */
const struct SaveVMErrorInfo *savevm_error_info(const Error *err);

/**
 * Stores one of the problems that an error of a preflight contains in `problem`. The most serious ones come first.
 *
 * Returns:
 *   0        `problem` is filled in
 *   -ENOENT  there is no problem with that index. To visit all problems, count from 0 until this result
 *   -EINVAL  NULL, or the size of `problem` is too small
 *
 * Thread: any. Lock: either.
 */
int savevm_error_problem(const Error *err,
                         size_t index,
                         struct SaveVMProblem *problem);

/* ---- Log ---- */

/**
 * Level of a message of the log.
 */
typedef enum SaveVMLogLevel {
  /**
   * No messages.
   */
  SAVEVM_LOG_OFF = 0,
  /**
   * Something failed.
   */
  SAVEVM_LOG_ERROR = 1,
  /**
   * Something is unexpected, and the work continues.
   */
  SAVEVM_LOG_WARN = 2,
  /**
   * Normal operation.
   */
  SAVEVM_LOG_INFO = 3,
  /**
   * Details for debugging.
   */
  SAVEVM_LOG_DEBUG = 4,
  /**
   * Every step.
   */
  SAVEVM_LOG_TRACE = 5,
} SaveVMLogLevel;

/**
 * Receives one message of the log; `text` is valid during the call.
 *
 * Thread: any; several at once. Lock: either. It must not wait for another thread of the program.
 */
typedef void SaveVMLogFn(void *opaque, enum SaveVMLogLevel level, const char *text);

/**
 * Sends the messages of the library's log up to `level` to a callback. Replaces an earlier callback, and the output of
 * savevm_log_init(). If `callback` is NULL, no messages are sent. An unknown level is SAVEVM_LOG_TRACE. A replaced
 * callback may still run in other threads, so its `opaque` must stay valid. Does nothing if the program has a logger
 * of Rust's `log` crate.
 *
 * Thread: any. Lock: either.
 */
void savevm_log_set(SaveVMLogFn *callback,
                    void *opaque,
                    enum SaveVMLogLevel level);

/**
 * Writes the library's log to stderr, for programs without their own log. `filter` is a filter of env_logger, such as
 * "info" or "savevm=trace"; NULL uses the environment variable RUST_LOG. Without this call or savevm_log_set(),
 * nothing is printed.
 *
 * Returns:
 *   0       the log is written to stderr
 *   -EBUSY  the log already has a destination
 *
 * Thread: any. Lock: either.
 */
int savevm_log_init(const char *filter);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libsavevm's own functions: contexts, files, migrations, snapshots, RAM, looking into streams, errors. QEMU's names are in
 * migration/.
 *
 * Where a function says nothing else:
 *  - It may be called from any thread, with the hypervisor's big lock or without it. "The lock" is that one
 *    (SaveVMHostOps.lock), "with the lock" means that the caller holds it.
 *  - `int` results are 0 or -errno, pointers NULL on failure. A handle that is NULL is -EINVAL, a `vm` that is NULL this
 *    thread's context. -EIO comes from a context that was given up (savevm_is_broken()).
 *  - `errp` may be NULL. The error that it gets is the caller's, to be freed by error_free(). On failure nothing else is
 *    written.
 *  - Strings and tables that are given are copied or done with when it returns; what `host` and `opaque` pointers lead to
 *    has to stay. Strings that are got belong to what they came from.
 *  - Threads that the library starts take no signals; callbacks that run on them must not wait for one.
 *  - Times are in the unit that the name ends in, sizes and lengths in bytes.
 *  - What a migration does and when is QEMU 7.2's, migration/migration.c, migration/savevm.c and migration/ram.c; contexts,
 *    deadlines, owners, checks and errors are libsavevm's own. */
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

/** The version of these headers; savevm_version() has the library's. */
#define SAVEVM_VERSION_MAJOR 0
#define SAVEVM_VERSION_MINOR 1
#define SAVEVM_VERSION_PATCH 0

/** A context: one virtual machine with its devices. */
typedef struct SaveVM SaveVM;

/** A migration in either direction. */
typedef struct SaveVMMigration SaveVMMigration;

/** What was read of a stream without loading it. */
typedef struct SaveVMInspect SaveVMInspect;

/*
 * A struct that the caller fills in, or gives the room for, begins with its size. Initialise it with its SAVEVM_..._INIT
 * and then assign members:
 *
 *     SaveVMParams params = SAVEVM_PARAMS_INIT;
 *     params.downtime_limit_ms = 50;
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


/**
 * Bits of `SaveVMHostOps.stream_flags`: what streams leave out, and where a driver of the host's own stands.
 * No configuration section is written or expected.
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
 * The guest was handed over; live devices with postcopy go on.
 */
#define SAVEVM_FLAG_IN_POSTCOPY (1 << 3)

/**
 * Continuous replication: device states carry no header.
 */
#define SAVEVM_FLAG_IN_COLO (1 << 4)

/**
 * Postcopy of RAM is agreed on.
 */
#define SAVEVM_FLAG_POSTCOPY_RAM (1 << 5)

/**
 * The machine's UUID is not written; one that comes is compared all the same.
 */
#define SAVEVM_FLAG_NO_UUID (1 << 6)

/**
 * Sections of live devices are refused: what they hold comes another way.
 */
#define SAVEVM_FLAG_NO_LIVE_LOAD (1 << 7)

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
 * State of an incoming postcopy: QEMU's PostcopyState, with QEMU's numbers.
 */
typedef enum SaveVMPostcopyState {
  /**
   * No state: SaveVMIncomingOps.postcopy_state only returns the current one.
   */
  SAVEVM_POSTCOPY_STATE_QUERY = -1,
  /**
   * Postcopy was not announced.
   */
  SAVEVM_POSTCOPY_STATE_NONE = 0,
  /**
   * Postcopy was announced.
   */
  SAVEVM_POSTCOPY_STATE_ADVISE = 1,
  /**
   * Stale pages were discarded.
   */
  SAVEVM_POSTCOPY_STATE_DISCARD = 2,
  /**
   * Device states are loaded, and pages may be requested.
   */
  SAVEVM_POSTCOPY_STATE_LISTENING = 3,
  /**
   * The guest runs here.
   */
  SAVEVM_POSTCOPY_STATE_RUNNING = 4,
  /**
   * Postcopy has ended.
   */
  SAVEVM_POSTCOPY_STATE_END = 5,
} SaveVMPostcopyState;

/**
 * Status of a migration: QEMU's MigrationStatus, with QEMU's numbers.
 */
typedef enum SaveVMStatus {
  /**
   * The migration has not begun.
   */
  SAVEVM_STATUS_NONE = 0,
  /**
   * It connects, and live devices are set up.
   */
  SAVEVM_STATUS_SETUP = 1,
  /**
   * A cancellation is in progress.
   */
  SAVEVM_STATUS_CANCELLING = 2,
  /**
   * It was cancelled. The guest is on the source.
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
   * The guest has moved.
   */
  SAVEVM_STATUS_COMPLETED = 8,
  /**
   * It failed. SaveVMInfo.owner says where the guest is.
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
   * The connection broke during the hand-over. The guest is stopped here and may run on the other side. Only an operator
   * who sees both sides may start it. Recovering a paused postcopy shows that the other side has it.
   */
  SAVEVM_OWNER_UNKNOWN = 2,
  /**
   * Neither side: a part of a state was loaded, so the devices match no guest.
   */
  SAVEVM_OWNER_TORN = 3,
} SaveVMOwner;

/**
 * Whether the destination answers over a return path.
 */
typedef enum SaveVMReturnPath {
  /**
   * It answers if the connection goes both ways. Not over `exec:`, whose command may only store the stream, unless
   * postcopy is enabled.
   */
  SAVEVM_RETURN_PATH_AUTO = 0,
  /**
   * It answers, or the migration fails.
   */
  SAVEVM_RETURN_PATH_ON = 1,
  /**
   * It is not asked for anything.
   */
  SAVEVM_RETURN_PATH_OFF = 2,
} SaveVMReturnPath;

/**
 * Format of a snapshot.
 */
typedef enum SaveVMSnapshotFormat {
  /**
   * QEMU's migration stream, as savevm_migrate() sends it.
   */
  SAVEVM_SNAPSHOT_STREAM = 0,
  /**
   * A file in which each page of guest memory has a fixed place. Not available yet: -ENOTSUP.
   */
  SAVEVM_SNAPSHOT_MAPPED = 1,
} SaveVMSnapshotFormat;

/**
 * Where dirty pages are known from.
 */
typedef enum SaveVMRamLog {
  /**
   * log_sync if there is one, else the kernel.
   */
  SAVEVM_RAM_LOG_AUTO = 0,
  /**
   * log_sync, as for KVM's dirty log.
   */
  SAVEVM_RAM_LOG_HOST = 1,
  /**
   * The kernel: write protection by userfaultfd, read by PAGEMAP_SCAN. Linux 6.7. It sees every write of this process
   * and of KVM, but not those of other processes and devices: mark these.
   */
  SAVEVM_RAM_LOG_KERNEL = 2,
  /**
   * savevm_ram_set_dirty() alone.
   */
  SAVEVM_RAM_LOG_MARKS = 3,
} SaveVMRamLog;

/**
 * What an item of a stream is.
 */
typedef enum SaveVMInspectItemKind {
  /**
   * Magic and version.
   */
  SAVEVM_INSPECT_HEADER = 0,
  /**
   * The machine's name and what both sides must share.
   */
  SAVEVM_INSPECT_CONFIGURATION = 1,
  /**
   * The first section of a live device.
   */
  SAVEVM_INSPECT_START = 2,
  /**
   * Further sections of a live device, one behind the other.
   */
  SAVEVM_INSPECT_PART = 3,
  /**
   * The last section of a live device.
   */
  SAVEVM_INSPECT_END = 4,
  /**
   * The state of a device that is not live.
   */
  SAVEVM_INSPECT_FULL = 5,
  /**
   * An order to the destination.
   */
  SAVEVM_INSPECT_COMMAND = 6,
  /**
   * The end of the sections.
   */
  SAVEVM_INSPECT_EOF = 7,
  /**
   * The JSON description of the devices' layouts.
   */
  SAVEVM_INSPECT_DESCRIPTION = 8,
} SaveVMInspectItemKind;

/**
 * What a call of SaveVMInspectFieldFn is about.
 */
typedef enum SaveVMInspectFieldKind {
  /**
   * A structure, or an element of a list, begins; its fields follow.
   */
  SAVEVM_INSPECT_STRUCT = 0,
  /**
   * An array begins; its elements follow.
   */
  SAVEVM_INSPECT_ARRAY = 1,
  /**
   * A list, queue or tree begins; its elements follow.
   */
  SAVEVM_INSPECT_LIST = 2,
  /**
   * A subsection of version `value` begins; its fields follow.
   */
  SAVEVM_INSPECT_SUBSECTION = 3,
  /**
   * What began last is over.
   */
  SAVEVM_INSPECT_LEAVE = 4,
  /**
   * A number with a sign: `value` as int64_t.
   */
  SAVEVM_INSPECT_SIGNED = 5,
  /**
   * A number without a sign.
   */
  SAVEVM_INSPECT_UNSIGNED = 6,
  /**
   * `value` is 0 or 1.
   */
  SAVEVM_INSPECT_BOOL = 7,
  /**
   * A pointer that is NULL.
   */
  SAVEVM_INSPECT_NULL = 8,
  /**
   * Bytes without a meaning that the description knows.
   */
  SAVEVM_INSPECT_BYTES = 9,
} SaveVMInspectFieldKind;

/**
 * Formats of savevm_inspect_document().
 */
typedef enum SaveVMInspectFormat {
  /**
   * The stable document of the `savevm` command, without the devices' fields.
   */
  SAVEVM_INSPECT_JSON = 0,
  /**
   * The same with the fields of every device.
   */
  SAVEVM_INSPECT_JSON_FIELDS = 1,
  /**
   * What QEMU's analyze-migration.py prints.
   */
  SAVEVM_INSPECT_ANALYZE = 2,
} SaveVMInspectFormat;

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
 * How serious a finding of a check is.
 */
typedef enum SaveVMCheckSeverity {
  /**
   * It does not work.
   */
  SAVEVM_CHECK_ERROR = 0,
  /**
   * It works, but may not be meant, or is not safe.
   */
  SAVEVM_CHECK_WARNING = 1,
  /**
   * For information.
   */
  SAVEVM_CHECK_NOTE = 2,
} SaveVMCheckSeverity;

/**
 * The RAM of one machine.
 */
typedef struct SaveVMRam SaveVMRam;

/**
 * What commands of an incoming stream ask of a host with a migration driver of its own. A NULL member makes the command
 * an error that names it. Results are 0 or -errno; they run on the thread that loads.
 */
typedef struct SaveVMIncomingOps {
  /**
   * sizeof(SaveVMIncomingOps).
   */
  size_t size;
  /**
   * Opens the way back over the channel of `f`; called again when it is open already.
   */
  int (*open_return_path)(void *host, QEMUFile *f);
  /**
   * Answers a ping.
   */
  int (*pong)(void *host, uint32_t value);
  /**
   * Sets the postcopy state, unless it is SAVEVM_POSTCOPY_STATE_QUERY, and returns the previous one.
   */
  enum SaveVMPostcopyState (*postcopy_state)(void *host, enum SaveVMPostcopyState state);
  /**
   * Postcopy may come; `ram` says whether RAM takes part (its page sizes were compared).
   */
  int (*postcopy_advise)(void *host, bool ram);
  /**
   * Before the first discard, or before listening without one.
   */
  int (*postcopy_prepare_discard)(void *host);
  /**
   * Throws away `length` bytes from `start` on of a block.
   */
  int (*postcopy_discard)(void *host, const char *block, uint64_t start, uint64_t length);
  /**
   * Gets ready for page requests and lets another thread read on from the main stream.
   */
  int (*postcopy_listen)(void *host);
  /**
   * Starts the guest.
   */
  int (*postcopy_run)(void *host);
  /**
   * The source is back after a broken connection.
   */
  int (*postcopy_resume)(void *host);
  /**
   * Sends the received bitmap of a block.
   */
  int (*recv_bitmap)(void *host, const char *block);
  /**
   * Continuous replication begins.
   */
  int (*enable_colo)(void *host);
  /**
   * An error of a further channel that feeds the same load: 0 or -errno.
   */
  int (*further_error)(void *host);
  /**
   * Loading sections failed; comes before `recover`.
   */
  void (*load_failed)(void *host, int error);
  /**
   * In running postcopy of RAM: waits for a new connection and returns its file, NULL to give up. The broken file may be
   * closed from inside; its memory, and its channel's, goes when the load lets go of it.
   */
  QEMUFile *(*recover)(void *host);
  /**
   * The main loop of qemu_loadvm_state() is over; true: another thread reads on, so nothing is cleaned up yet.
   */
  bool (*main_loop_done)(void *host);
} SaveVMIncomingOps;

/**
 * Initialises a SaveVMIncomingOps.
 */
#define SAVEVM_INCOMING_OPS_INIT SAVEVM_INITIALISED(SaveVMIncomingOps)

/**
 * A change of a migration's status.
 */
typedef struct SaveVMEvent {
  /**
   * sizeof(SaveVMEvent) of the library.
   */
  size_t size;
  /**
   * Whether the guest comes in.
   */
  bool incoming;
  /**
   * The new status.
   */
  enum SaveVMStatus status;
  /**
   * QEMU's name of it.
   */
  const char *status_name;
  /**
   * The migration. The first event comes before savevm_migrate() returns this handle.
   */
  SaveVMMigration *migration;
} SaveVMEvent;

/**
 * How the hypervisor's RAM takes part in postcopy. Results are 0 or -errno; an error ends the migration, or pauses it
 * where it can be recovered. A NULL member makes what needs it an error, but where another meaning is given. On the
 * destination they come from the threads that load, without the lock. Names of blocks are the library's, as long as the
 * call.
 */
typedef struct SaveVMPostcopyOps {
  /**
   * sizeof(SaveVMPostcopyOps).
   */
  size_t size;
  /**
   * Names of all blocks, ended by NULL; they stay the host's. NULL: resume_prepare asks for the bitmaps itself, with
   * savevm_request_bitmap().
   */
  const char *const *(*blocks)(void *host);
  /**
   * Source, guest stopped, with the lock: qemu_savevm_send_postcopy_ram_discard() for what was sent but changed since.
   */
  int (*send_discards)(void *host, QEMUFile *f);
  /**
   * Source, any thread, without the lock: the guest waits for these bytes; the RAM's save_live_iterate should send
   * them next. `block` NULL: that of the last request.
   */
  int (*pages_requested)(void *host, const char *block, uint64_t start, uint32_t length);
  /**
   * Source, in a recovery, any thread: which pages of a block arrived, a bit each, little-endian, `length` bytes. All
   * others are to be sent.
   */
  int (*received)(void *host, const char *block, const uint8_t *bits, size_t length);
  /**
   * Destination: postcopy may come. NULL: fine.
   */
  int (*advise)(void *host);
  /**
   * Destination: before the first discard. NULL: fine.
   */
  int (*prepare_discard)(void *host);
  /**
   * Destination: throw away `length` bytes from `start` on of a block.
   */
  int (*discard)(void *host, const char *block, uint64_t start, uint64_t length);
  /**
   * Destination: from now on ask for what is missing with savevm_request_pages(). Pages are loaded by the
   * RAM's load_state, without the lock, on another thread than the devices.
   */
  int (*listen)(void *host, MigrationIncomingState *migration);
  /**
   * Destination: the connection broke; requests fail. NULL: nothing.
   */
  void (*paused)(void *host);
  /**
   * Destination: it is back; ask again for all that the guest waits for. NULL: nothing.
   */
  void (*resumed)(void *host);
  /**
   * Destination, in a recovery: how many bytes of bits there are for a block (-errno), and where they are, until the
   * next call. A bit for each page that arrived, little-endian.
   */
  ptrdiff_t (*received_bits)(void *host, const char *block, const uint8_t **bits);
  /**
   * Destination: everything arrived, or (not `complete`) nothing more will: let go of all who wait. NULL: nothing.
   */
  void (*end)(void *host, bool complete);
} SaveVMPostcopyOps;

/**
 * Initialises a SaveVMPostcopyOps.
 */
#define SAVEVM_POSTCOPY_OPS_INIT SAVEVM_INITIALISED(SaveVMPostcopyOps)

/**
 * What the library asks of the hypervisor. Every member may be NULL, which has the meaning given with it. The table is
 * copied; `host` is handed to every member as it was given.
 *
 * "Lock" below is the hypervisor's big lock. Members run on the thread of the call that needs them.
 */
typedef struct SaveVMHostOps {
  /**
   * sizeof(SaveVMHostOps).
   */
  size_t size;
  /**
   * Takes the lock; NULL: there is none.
   */
  void (*lock)(void *host);
  /**
   * Gives the lock back.
   */
  void (*unlock)(void *host);
  /**
   * Whether this thread holds the lock; NULL: no.
   */
  bool (*locked)(void *host);
  /**
   * Stops the guest; 0 or -errno. With the lock. NULL: there is nothing to stop.
   */
  int (*vm_stop)(void *host);
  /**
   * Lets the guest run; 0 or -errno. With the lock.
   */
  int (*vm_start)(void *host);
  /**
   * Whether the guest runs; NULL: no.
   */
  bool (*vm_running)(void *host);
  /**
   * Before devices are saved: bring the CPUs' state to where their devices save it from. With the lock.
   */
  void (*cpu_synchronize_states)(void *host);
  /**
   * Before sections are loaded. With the lock.
   */
  void (*cpu_synchronize_pre_load)(void *host);
  /**
   * After sections were loaded, well or not: give the loaded state to the CPUs. With the lock.
   */
  void (*cpu_synchronize_post_load)(void *host);
  /**
   * Name of the machine in the configuration section; the string stays the host's. NULL: "none".
   */
  const char *(*machine_name)(void *host);
  /**
   * Fills in the machine's UUID, which both sides must share, and returns true where it has one; NULL: it has none.
   */
  bool (*uuid)(void *host, uint8_t *uuid);
  /**
   * log2 of the target's page size; NULL: 12.
   */
  unsigned int (*target_page_bits)(void *host);
  /**
   * log2 of the smallest page size that the target could have; NULL: the same.
   */
  unsigned int (*target_page_bits_min)(void *host);
  /**
   * Names of the enabled capabilities that both sides must share, ended by NULL; they stay the host's. NULL: none.
   */
  const char *const *(*capabilities)(void *host);
  /**
   * SAVEVM_FLAG_* that hold now; asked each time they matter. NULL: 0.
   */
  uint32_t (*stream_flags)(void *host);
  /**
   * Union of the page sizes of all RAM blocks in bytes, for postcopy; NULL: the target's page size.
   */
  uint64_t (*ram_page_sizes)(void *host);
  /**
   * Whether the machine, whose section "ram" is in QEMU's format, has a block of RAM of that name which has, or can be
   * given, `length` bytes. NULL: nobody knows, and the format may be another one. Not asked where the library has the
   * RAM (savevm_ram_new()).
   */
  bool (*ram_fits)(void *host, const char *block, uint64_t length);
  /**
   * The path of an object as a string from malloc(), or NULL where it has none; NULL: no object has one.
   */
  char *(*object_path)(void *host, VMStateIf *object);
  /**
   * Gives the disks up before the end of the stream; 0 or -errno. With the lock.
   */
  int (*disks_inactivate)(void *host);
  /**
   * Takes the disks over before the guest starts here; 0 or -errno. With the lock.
   */
  int (*disks_activate)(void *host);
  /**
   * Slows the guest's CPUs down by so many percent of their time (0: full speed).
   */
  void (*throttle)(void *host, int percent);
  /**
   * A stage of precopy was reached. A negative result is logged and otherwise ignored.
   */
  int (*precopy_notify)(void *host, enum SaveVMPrecopyNotice notice);
  /**
   * Reports a message to the user. If NULL, messages go to the log. Any thread, any lock.
   */
  void (*report)(void *host, enum SaveVMReportLevel level, const char *text);
  /**
   * Whether a trace event of that name is wanted; the name is QEMU's. For the name NULL: whether any may be, which is
   * asked once for a device and for every other event, and has to be quick. NULL: no.
   */
  bool (*trace_wanted)(void *host, const char *event);
  /**
   * A trace event that was wanted.
   */
  void (*trace)(void *host, const char *event, const char *text);
  /**
   * For a host with an `Error` of its own: sets `*errp` to one with that text. NULL: `Error` is the library's, and so
   * are error_get_pretty() and error_free().
   */
  void (*error_set)(void *host, Error **errp, int error, const char *text);
  /**
   * The text of such an error; it stays the error's.
   */
  const char *(*error_text)(void *host, const Error *error);
  /**
   * Frees such an error.
   */
  void (*error_free)(void *host, Error *error);
  /**
   * When a timer expires in ns, -1 where it is not armed. NULL: fields of timers are an error.
   */
  int64_t (*timer_expire_ns)(void *host, QEMUTimer *timer);
  /**
   * Arms a timer.
   */
  void (*timer_set_ns)(void *host, QEMUTimer *timer, int64_t expire);
  /**
   * Disarms a timer.
   */
  void (*timer_clear)(void *host, QEMUTimer *timer);
  /**
   * Number of nodes of a tree (GLib's GTree, or what the host's descriptions name). NULL: such fields are an error.
   */
  uint32_t (*tree_count)(void *host, void *tree);
  /**
   * Visits all nodes in order, until a visit returns other than 0.
   */
  void (*tree_foreach)(void *host,
                       void *tree,
                       int (*visit)(void *key, void *value, void *data),
                       void *data);
  /**
   * Inserts a node; key (unless it is a direct one) and value come from malloc() and become the tree's.
   */
  void (*tree_insert)(void *host, void *tree, void *key, void *value);
  /**
   * Answers to the commands of a stream, for a host that has a migration driver of its own. NULL: the library's
   * driver answers. The table stays the host's and must outlive the context.
   */
  const struct SaveVMIncomingOps *incoming;
  /**
   * A migration of the library's driver changed its status. Any thread, any lock; it may call the library back, but
   * for what waits for the same migration. The event is the library's and lives as long as the call.
   */
  void (*migration_event)(void *host, const struct SaveVMEvent *event);
  /**
   * Monotonic time in ns for the driver's measurements; NULL: the system's.
   */
  uint64_t (*clock_ns)(void *host);
  /**
   * How RAM takes part in postcopy; NULL: not at all. The table is copied.
   */
  const struct SaveVMPostcopyOps *postcopy;
  /**
   * Puts the machine into the state that it is in after power-on: before savevm_snapshot_load() loads, as QEMU 7.2's
   * load_snapshot() does (migration/savevm.c), so that what the snapshot does not hold is nobody's leftover. The guest is
   * stopped. With the lock. savevm_incoming() does not call it: there, as in QEMU, the machine is a fresh one. NULL:
   * nothing.
   */
  void (*reset)(void *host);
} SaveVMHostOps;

/**
 * Initialises a SaveVMHostOps.
 */
#define SAVEVM_HOST_OPS_INIT SAVEVM_INITIALISED(SaveVMHostOps)

/**
 * What a stream may ask for at most, and how long its other end is waited for. 0 means the default.
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
   * How deep PACKAGED may stand in PACKAGED; default 4.
   */
  uint32_t packaged_depth;
  /**
   * Most memory that the VMState fields of one stream may allocate, in bytes; default 1 GiB.
   */
  uint64_t allocation;
  /**
   * Most elements that one field may add to a list or tree; default 1 Mi.
   */
  uint64_t list_elements;
  /**
   * How deep descriptions may nest; default 64.
   */
  uint32_t nesting;
  /**
   * Longest machine name in bytes; default 4096.
   */
  uint32_t machine_name;
  /**
   * How long savevm_file_open() waits for the other end; default 30000 to write, 300000 to read.
   */
  uint32_t open_timeout_ms;
} SaveVMLimits;

/**
 * Initialises a SaveVMLimits.
 */
#define SAVEVM_LIMITS_INIT SAVEVM_INITIALISED(SaveVMLimits)

/**
 * A channel of the hypervisor: the functions that a file over it calls. All but one direction are optional.
 *
 * One thread at a time reads and one writes; `shutdown` comes from any thread.
 */
typedef struct SaveVMChannelOps {
  /**
   * sizeof(SaveVMChannelOps).
   */
  size_t size;
  /**
   * Reads up to `len` bytes; 0 at the end, -errno, or -EAGAIN, after which `wait` is called. NULL: nothing comes.
   */
  ptrdiff_t (*read)(void *channel, uint8_t *buf, size_t len);
  /**
   * Writes from `count` pieces, at most 64; how many bytes went, -errno, or -EAGAIN, after which `wait` is called. NULL:
   * nothing goes.
   */
  ptrdiff_t (*writev)(void *channel, const struct iovec *iov, int count);
  /**
   * Waits until it can be written (or read); may switch to another coroutine meanwhile. 0, or -errno to give up. NULL:
   * -EAGAIN is an error.
   */
  int (*wait)(void *channel, bool write);
  /**
   * Ends both directions from any thread, and the waits in them; 0 or -errno. NULL: -ENOSYS, and who waits is not woken.
   */
  int (*shutdown)(void *channel);
  /**
   * Changes the blocking mode; 0 or -errno. NULL: nothing.
   */
  int (*set_blocking)(void *channel, bool blocking);
  /**
   * Closes the channel; called once for every file over it. 0 or -errno. NULL: nothing.
   */
  int (*close)(void *channel);
  /**
   * Frees the channel with the last file over it, from any thread. NULL: nothing.
   */
  void (*free)(void *channel);
  /**
   * Why the last `read` (or `write`) failed, in words, as a string from malloc(); or NULL. Asked once, by the thread
   * that got the failure.
   */
  char *(*error)(void *channel, bool write);
} SaveVMChannelOps;

/**
 * Initialises a SaveVMChannelOps.
 */
#define SAVEVM_CHANNEL_OPS_INIT SAVEVM_INITIALISED(SaveVMChannelOps)

/**
 * What a migration may do and how long it may take. 0, NULL and false mean the default that is given. Times are in
 * milliseconds. The struct is copied.
 */
typedef struct SaveVMParams {
  /**
   * sizeof(SaveVMParams).
   */
  size_t size;
  /**
   * Most bytes per second of precopy; 0: no limit. May change while it runs.
   */
  uint64_t max_bandwidth;
  /**
   * Most bytes per second of postcopy's background copy; 0: no limit. May change while it runs.
   */
  uint64_t max_postcopy_bandwidth;
  /**
   * How long the guest may stand still; default 300. May change while it runs.
   */
  uint32_t downtime_limit_ms;
  /**
   * For the connection; default 30000 outgoing, none incoming.
   */
  uint32_t connect_timeout_ms;
  /**
   * For the destination's first answer, and for each in a recovery; default 30000.
   */
  uint32_t handshake_timeout_ms;
  /**
   * For one wait until the peer takes or sends bytes; default 60000 outgoing, 300000 incoming.
   */
  uint32_t stall_timeout_ms;
  /**
   * For the destination's word that everything is loaded, and for its verdict; default 30000.
   */
  uint32_t switchover_timeout_ms;
  /**
   * How long a broken postcopy waits to be recovered; default: for ever. May change while it runs. The guest is lost when
   * it is over: it is stopped at the destination, with zeros for the pages that did not come.
   */
  uint32_t recover_timeout_ms;
  /**
   * Default SAVEVM_RETURN_PATH_AUTO. Incoming, SAVEVM_RETURN_PATH_ON also refuses to start the guest from a stream whose source did not ask just
   * before its end whether everything is loaded, as this library does and QEMU does not: so no damaged stream can look
   * like one that ends.
   */
  enum SaveVMReturnPath return_path;
  /**
   * First slow-down by auto-converge in percent; default 20. May change while it runs, as the next two.
   */
  uint32_t throttle_initial;
  /**
   * What comes on top each time; default 10.
   */
  uint32_t throttle_increment;
  /**
   * Most of it; default 99.
   */
  uint32_t throttle_max;
  /**
   * Postcopy may be started. Both sides must say so.
   */
  bool postcopy;
  /**
   * Slow the guest down (SaveVMHostOps.throttle) when it dirties faster than the link carries. May change while it
   * runs.
   */
  bool auto_converge;
  /**
   * With the guest stopped, wait for savevm_migration_continue() before the devices are saved.
   */
  bool pause_before_switchover;
  /**
   * No thread of its own: the caller does the work with savevm_migration_step().
   */
  bool no_thread;
  /**
   * The destination leaves the guest stopped when everything is loaded.
   */
  bool no_autostart;
  /**
   * Say nothing that only this library understands, even where both ends are of it.
   */
  bool no_extensions;
  /**
   * Path of a new file for a trace in JSON lines; NULL: none.
   */
  const char *trace;
} SaveVMParams;

/**
 * Initialises a SaveVMParams.
 */
#define SAVEVM_PARAMS_INIT SAVEVM_INITIALISED(SaveVMParams)

/**
 * How a migration stands. The caller sets `size`; what is filled in is what both sides have. Counts never go back.
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
   * QEMU's name of the status; the library's, for ever.
   */
  const char *status_name;
  /**
   * Since it began, until it ended, in microseconds.
   */
  uint64_t total_time_us;
  /**
   * Until the first round.
   */
  uint64_t setup_time_us;
  /**
   * How long the guest stood still: to the destination's verdict where it answers.
   */
  uint64_t downtime_us;
  /**
   * How long it would stand still if it were stopped now.
   */
  uint64_t expected_downtime_us;
  /**
   * What the devices took that are saved or loaded whole.
   */
  uint64_t device_time_us;
  /**
   * Bytes of their sections.
   */
  uint64_t device_bytes;
  /**
   * Bytes that went out, or (incoming) came in, over all connections. It never falls.
   */
  uint64_t transferred;
  /**
   * Bytes left that must go before the guest moves. What is left and how fast it goes, down to `dirty_rate`, is known to
   * the source alone: incoming, it is 0.
   */
  uint64_t remaining_precopy_only;
  /**
   * Bytes left that may go at any time.
   */
  uint64_t remaining_compatible;
  /**
   * Bytes left that must go after the guest stopped.
   */
  uint64_t remaining_postcopy_only;
  /**
   * How often every device had nothing more to send for now.
   */
  uint64_t rounds;
  /**
   * Bytes per second in the last tenth of a second in which anything was sent.
   */
  uint64_t bandwidth;
  /**
   * Bytes per second that the guest dirtied when that showed last: whenever a device finds more to send than before.
   */
  uint64_t dirty_rate;
  /**
   * Requests for pages.
   */
  uint64_t page_requests;
  /**
   * Recoveries that succeeded.
   */
  uint64_t recoveries;
  /**
   * How much the guest is slowed down, in percent.
   */
  uint32_t throttle;
  /**
   * Whether the destination answers.
   */
  bool return_path;
  /**
   * Whether both ends are known to be of this library.
   */
  bool extended;
  /**
   * Rounds of precopy (incoming: reading the stream), in microseconds.
   */
  uint64_t precopy_time_us;
  /**
   * From the last round until the guest was handed over, without waiting for savevm_migration_continue().
   */
  uint64_t switchover_time_us;
  /**
   * Sending what was left behind the hand-over.
   */
  uint64_t postcopy_time_us;
  /**
   * Waiting for a recovery.
   */
  uint64_t paused_time_us;
} SaveVMInfo;

/**
 * Initialises a SaveVMInfo.
 */
#define SAVEVM_INFO_INIT SAVEVM_INITIALISED(SaveVMInfo)

/**
 * What a migration measured of one device whose state is saved and loaded whole.
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
   * Bytes of its section.
   */
  uint64_t bytes;
  /**
   * Time for saving its state in microseconds; 0 on the destination.
   */
  uint64_t save_time_us;
  /**
   * Time for loading its state in microseconds; 0 on the source.
   */
  uint64_t load_time_us;
} SaveVMDeviceInfo;

/**
 * Initialises a SaveVMDeviceInfo.
 */
#define SAVEVM_DEVICE_INFO_INIT SAVEVM_INITIALISED(SaveVMDeviceInfo)

/**
 * How a snapshot is saved or loaded.
 */
typedef struct SaveVMSnapshotOptions {
  /**
   * sizeof(SaveVMSnapshotOptions).
   */
  size_t size;
  /**
   * Format; default SAVEVM_SNAPSHOT_STREAM.
   */
  enum SaveVMSnapshotFormat format;
} SaveVMSnapshotOptions;

/**
 * Initialises a SaveVMSnapshotOptions.
 */
#define SAVEVM_SNAPSHOT_OPTIONS_INIT SAVEVM_INITIALISED(SaveVMSnapshotOptions)

/**
 * How the RAM of a machine is migrated.
 */
typedef struct SaveVMRamOptions {
  /**
   * sizeof(SaveVMRamOptions).
   */
  size_t size;
  /**
   * Where dirty pages are known from; default SAVEVM_RAM_LOG_AUTO.
   */
  enum SaveVMRamLog log;
  /**
   * Shared blocks are not sent: both sides see the same memory. Both must say so (QEMU's x-ignore-shared).
   */
  bool ignore_shared;
  /**
   * Bytes of memory for remembering what was sent, so that pages that change a little are sent as a difference (XBZRLE).
   * 0: not used. It saves bandwidth, and costs CPU time and a copy.
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
   * Where it is mapped, readable and writable, aligned to its pages. It stays the hypervisor's.
   */
  void *host;
  /**
   * Bytes, in whole pages.
   */
  uint64_t length;
  /**
   * Size in bytes of the pages below it, for postcopy: that of a hugetlbfs. 0: the system's.
   */
  uint64_t page_size;
  /**
   * The guest's address; both sides must agree on it for shared memory.
   */
  uint64_t guest_address;
  /**
   * It is mapped with MAP_SHARED.
   */
  bool shared;
  /**
   * The hypervisor's own, for log_sync.
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
   * Begins to log writes to guest memory; 0 or -errno. Without the lock, unless a snapshot calls it.
   */
  int (*log_start)(void *opaque);
  /**
   * Sets a bit for every target page of the block that was written since the last call, and forgets it: bit 0 of
   * `bitmap[0]` is the first page, as in KVM_GET_DIRTY_LOG. `bitmap` is zero before and has `words` elements. 0 or -errno.
   * Without the lock; with it when the guest is stopped.
   */
  int (*log_sync)(void *opaque, const struct SaveVMRamBlock *block, uint64_t *bitmap, size_t words);
  /**
   * Ends to log. Comes once for every log_start that returned 0. With the lock.
   */
  void (*log_stop)(void *opaque);
} SaveVMRamOps;

/**
 * Initialises a SaveVMRamOps.
 */
#define SAVEVM_RAM_OPS_INIT SAVEVM_INITIALISED(SaveVMRamOps)

/**
 * Numbers of the last migration in either direction.
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
   * Bytes that are to be sent.
   */
  uint64_t dirty_bytes;
  /**
   * Pages that were sent or received as they are.
   */
  uint64_t normal_pages;
  /**
   * Pages of zeros.
   */
  uint64_t zero_pages;
  /**
   * Pages as a difference.
   */
  uint64_t xbzrle_pages;
  /**
   * Pages that were dirty, and yet the same as before.
   */
  uint64_t unchanged_pages;
  /**
   * How often the dirty log was read.
   */
  uint64_t syncs;
  /**
   * Ranges that postcopy's destination asked for.
   */
  uint64_t page_requests;
} SaveVMRamInfo;

/**
 * Initialises a SaveVMRamInfo.
 */
#define SAVEVM_RAM_INFO_INIT SAVEVM_INITIALISED(SaveVMRamInfo)

/**
 * A stream as a whole. The caller sets `size`; what is filled in is what both sides have. Strings live as long as the
 * SaveVMInspect.
 */
typedef struct SaveVMInspectSummary {
  /**
   * sizeof(SaveVMInspectSummary).
   */
  size_t size;
  /**
   * The version in the header.
   */
  uint32_t version;
  /**
   * Whether sections are closed by footers: 1, 0; -1: no section tells.
   */
  int footers;
  /**
   * Whether the stream ended with its EOF mark.
   */
  bool complete;
  /**
   * Whether the stream describes its devices.
   */
  bool described;
  /**
   * Whether pages of memory went through other channels.
   */
  bool multifd;
  /**
   * How many bytes belong to the stream.
   */
  uint64_t length;
  /**
   * How many bytes follow it.
   */
  uint64_t trailing;
  /**
   * The target's page size in bytes; 0: unknown.
   */
  uint64_t page_size;
  /**
   * How many there are for savevm_inspect_item().
   */
  size_t items;
  /**
   * How many there are for savevm_inspect_block().
   */
  size_t blocks;
  /**
   * The machine's name; NULL: the stream does not say.
   */
  const char *machine;
  /**
   * Where the stream stops making sense, in words: offset, section, what was expected and what came. NULL: nowhere.
   */
  const char *damage;
  /**
   * The byte at which that showed; -1: nowhere.
   */
  int64_t damage_offset;
  /**
   * Whether the damage is that the stream ends too early.
   */
  bool cut;
} SaveVMInspectSummary;

/**
 * Initialises a SaveVMInspectSummary.
 */
#define SAVEVM_INSPECT_SUMMARY_INIT SAVEVM_INITIALISED(SaveVMInspectSummary)

/**
 * One thing in the stream, in its order. Strings and bytes live as long as the SaveVMInspect.
 */
typedef struct SaveVMInspectItem {
  /**
   * sizeof(SaveVMInspectItem).
   */
  size_t size;
  /**
   * What it is.
   */
  enum SaveVMInspectItemKind kind;
  /**
   * How many packages it is in.
   */
  uint32_t depth;
  /**
   * Where it starts in the stream.
   */
  uint64_t offset;
  /**
   * How many bytes it takes, with header and footer; of a package with all that is in it.
   */
  uint64_t bytes;
  /**
   * The idstr of a section, the name of a command; NULL for others, and for a command that is not known.
   */
  const char *name;
  /**
   * The number of a section or a command; 0 for others.
   */
  uint32_t id;
  /**
   * A section's instance; 0 for others.
   */
  uint32_t instance_id;
  /**
   * The version of a section's layout; 0 for others.
   */
  uint32_t version_id;
  /**
   * How many sections of the same live device this stands for; 0 where it is none.
   */
  uint64_t count;
  /**
   * The state of a device that is not live; NULL for others.
   */
  const uint8_t *state;
  /**
   * Its bytes.
   */
  size_t state_len;
} SaveVMInspectItem;

/**
 * Initialises a SaveVMInspectItem.
 */
#define SAVEVM_INSPECT_ITEM_INIT SAVEVM_INITIALISED(SaveVMInspectItem)

/**
 * How many pages of one kind, and the bytes of stream for them.
 */
typedef struct SaveVMInspectPages {
  /**
   * Pages; one that was sent twice counts twice.
   */
  uint64_t pages;
  /**
   * Bytes in the stream, with their headers.
   */
  uint64_t bytes;
} SaveVMInspectPages;

/**
 * A block of guest memory. The name lives as long as the SaveVMInspect.
 */
typedef struct SaveVMInspectBlock {
  /**
   * sizeof(SaveVMInspectBlock).
   */
  size_t size;
  /**
   * Its name.
   */
  const char *name;
  /**
   * Bytes of memory; 0 where the stream does not say.
   */
  uint64_t length;
  /**
   * Pages of one repeated byte, nearly always zero.
   */
  struct SaveVMInspectPages zero;
  /**
   * Pages as they are.
   */
  struct SaveVMInspectPages plain;
  /**
   * Pages as a difference to what was sent before.
   */
  struct SaveVMInspectPages xbzrle;
  /**
   * Pages compressed with zlib.
   */
  struct SaveVMInspectPages compressed;
} SaveVMInspectBlock;

/**
 * Initialises a SaveVMInspectBlock.
 */
#define SAVEVM_INSPECT_BLOCK_INIT SAVEVM_INITIALISED(SaveVMInspectBlock)

/**
 * A field of a device, as the stream describes it. It and what it points to are gone when the callback returns.
 */
typedef struct SaveVMInspectField {
  /**
   * What it is.
   */
  enum SaveVMInspectFieldKind kind;
  /**
   * The field's name, an element's array's; NULL with SAVEVM_INSPECT_LEAVE.
   */
  const char *name;
  /**
   * The name of its type in the description; NULL for what holds fields.
   */
  const char *type_name;
  /**
   * What it is as a number, where it is one.
   */
  uint64_t value;
  /**
   * Where it is in the device's state.
   */
  size_t offset;
  /**
   * Its bytes; NULL for what holds fields.
   */
  const uint8_t *bytes;
  /**
   * How many.
   */
  size_t len;
} SaveVMInspectField;

/**
 * Takes one field after the other; not 0 ends it.
 */
typedef int (*SaveVMInspectFieldFn)(void *opaque, const struct SaveVMInspectField *field);

/**
 * The parts of an error, for a program to read. What is not known is -1 or NULL. Strings are the error's.
 */
typedef struct SaveVMErrorInfo {
  /**
   * sizeof(SaveVMErrorInfo) of the library.
   */
  size_t size;
  /**
   * The positive errno.
   */
  int error;
  /**
   * The side that failed.
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
   * Version of the device here.
   */
  int version_have;
  /**
   * Version in the stream.
   */
  int version_want;
  /**
   * Section id.
   */
  int64_t section_id;
  /**
   * Instance id of the device.
   */
  int64_t instance_id;
  /**
   * The cause alone: what was expected and what came.
   */
  const char *message;
  /**
   * The phase.
   */
  const char *phase;
  /**
   * Name of the device.
   */
  const char *idstr;
  /**
   * VMState path to the field.
   */
  const char *path;
} SaveVMErrorInfo;

/**
 * What `savevm_check_device` needs of the program that calls it. All members run on the calling thread.
 */
typedef struct SaveVMCheckOps {
  /**
   * sizeof(SaveVMCheckOps).
   */
  size_t size;
  /**
   * Makes a device like the one that is checked, as it is before anything was loaded, and registers it. This thread's
   * context is then one of the check's own. Returns what `destroy` is given, or NULL where there can't be one.
   * Called for every stream that is tried.
   */
  void *(*create)(void *opaque);
  /**
   * Takes the device's registration back and frees it, in the context of `create`. It may be half loaded. NULL: nothing
   * is freed.
   */
  void (*destroy)(void *opaque, void *device);
  /**
   * One finding in words; The text is the library's. NULL: nobody is told.
   */
  void (*report)(void *opaque, enum SaveVMCheckSeverity severity, const char *text);
  /**
   * How many lengths the stream is cut to: every one if it is no longer than this, else evenly spread ones. 0: 4096.
   */
  size_t truncations;
  /**
   * How many streams with damaged bytes are tried. 0: 4096.
   */
  size_t damages;
} SaveVMCheckOps;

/**
 * Initialises a SaveVMCheckOps.
 */
#define SAVEVM_CHECK_OPS_INIT SAVEVM_INITIALISED(SaveVMCheckOps)

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A new context: one virtual machine with its devices. `ops` is copied; NULL: no lock, nothing to stop. NULL, with the
 * reason in the log, where `ops` or a table that it names has no size. Free it with savevm_free().
 *
 * The caller promises:
 * `ops` is NULL or a table that begins with its size; what it refers to outlives the context.
 */
SaveVM *savevm_new(const struct SaveVMHostOps *ops,
                   void *opaque);

/**
 * Gives a context (NULL: this thread's) another hypervisor, for instance the default context its first. `ops` as for
 * savevm_new(). No migration may run, and no other call on the context. 0, or -EINVAL, with nothing changed and the error
 * reported, where `ops` or a table that it names has no size.
 *
 * The caller promises:
 * As savevm_new().
 */
int savevm_set_host(SaveVM *vm,
                    const struct SaveVMHostOps *ops,
                    void *opaque);

/**
 * Frees a context and forgets its devices without calling them. It must not be in use, its migrations and RAM freed
 * before; NULL and the default context are allowed, and left alone.
 *
 * The caller promises:
 * `vm` comes from savevm_new() and is not used afterwards.
 */
void savevm_free(SaveVM *vm);

/**
 * The context that QEMU's names act on where a thread has no current one. It lives for ever.
 */
SaveVM *savevm_default(void);

/**
 * Makes `vm` (NULL: the default) the context that QEMU's names act on in this thread; returns the one before.
 *
 * The caller promises:
 * `vm` is NULL or a context that is not freed while it is current.
 */
SaveVM *savevm_set_current(SaveVM *vm);

/**
 * In a strict context a second device of the same name and instance (-EEXIST) or a name over 255 bytes
 * (-ENAMETOOLONG) is refused; else both are reported and done as QEMU 7.2 does them. NULL: this thread's context.
 *
 * The caller promises:
 * `vm` is NULL or a context.
 */
void savevm_set_strict(SaveVM *vm,
                       bool strict);

/**
 * Sets the limits of a context (NULL: this thread's) for loads that begin and files that are opened from now on; 0, or
 * -EINVAL for NULL and for limits without their size.
 *
 * The caller promises:
 * `vm` is NULL or a context; `limits` is NULL or begins with its size.
 */
int savevm_set_limits(SaveVM *vm,
                      const struct SaveVMLimits *limits);

/**
 * Whether the context was given up after an internal failure (a panic, which is a mistake of the library's). What was
 * under way has failed, and a guest that was to be moved or saved runs on where it was. Whatever begins something fails
 * with -EIO from then on: migrations, snapshots, phases, registrations. What ends something works: unregistering, freeing,
 * cleanup. NULL: this thread's context. Any thread.
 *
 * The caller promises:
 * `vm` is NULL or a context.
 */
bool savevm_is_broken(SaveVM *vm);

/**
 * Calls `visit` on this thread with the name of every device that forbids migration, in order. NULL: this thread's
 * context.
 *
 * The caller promises:
 * `vm` is NULL or a context; `visit` takes `opaque`. The name is the callee's only while it runs.
 */
void savevm_non_migratable(SaveVM *vm,
                           void (*visit)(const char *name, void *opaque),
                           void *opaque);

/**
 * The version of the library, as "0.1.0"; that of the headers is SAVEVM_VERSION_MAJOR and what follows it. The string is
 * the library's.
 */
const char *savevm_version(void);

/**
 * Sends the library's log to stderr, filtered as env_logger's RUST_LOG is ("info", "savevm=trace" ...); NULL takes
 * that variable. 0, or -EBUSY where the program has a logger already. Nothing is printed before it is asked for.
 *
 * The caller promises:
 * `filter` is NULL or a terminated string.
 */
int savevm_log_init(const char *filter);

/**
 * Returns which side has the guest of `vm` (NULL: this thread's context), as far as this side knows.
 *
 * The context keeps the answer: it is valid at any time, also after the handle of the migration was freed.
 *
 * A new context is SAVEVM_OWNER_HERE. savevm_incoming() makes it SAVEVM_OWNER_THERE until the guest has arrived, and leaves
 * it so if it ends before it changed a device: such a machine has no guest. A load that fails after it changed a device
 * leaves SAVEVM_OWNER_TORN. savevm_snapshot_load() and qemu_loadvm_state() make it SAVEVM_OWNER_HERE when they loaded
 * everything. Unless it is SAVEVM_OWNER_HERE, savevm_migrate(), savevm_snapshot_save(), savevm_snapshot_save_file() and
 * savevm_ram_snapshot() fail with -EPERM and a text that says where the guest is.
 *
 * A host with SaveVMHostOps.incoming has a migration driver of its own. Its context stays SAVEVM_OWNER_HERE.
 *
 * Thread: any. Lock: either. Since 0.1.
 *
 * The caller promises:
 * `vm` is NULL or a context.
 */
enum SaveVMOwner savevm_owner(SaveVM *vm);

/**
 * Returns whether the host may start the guest of `vm` (NULL: this thread's context), or let it run: the owner is
 * SAVEVM_OWNER_HERE, and no migration or snapshot has stopped the guest and decides what follows.
 *
 * Call it with the lock, and start the guest before the lock is released: so no migration comes in between.
 *
 * Thread: any. Lock: either. Since 0.1.
 *
 * The caller promises:
 * `vm` is NULL or a context.
 */
bool savevm_may_run(SaveVM *vm);

/**
 * As savevm_may_run(), with the reason.
 *
 * Returns:
 *   0       the host may start the guest
 *   -EPERM  the whole guest is not here; `*errp` says where it is, or why it is not whole
 *   -EBUSY  a migration or a snapshot has stopped the guest and decides what follows
 *
 * Thread: any. Lock: either. Since 0.1.
 *
 * The caller promises:
 * `vm` is NULL or a context; `errp` is NULL or points to NULL.
 */
int savevm_check_may_run(SaveVM *vm, Error **errp);

/**
 * Sets the owner of the guest of `vm` (NULL: this thread's context) by the decision of an operator who sees both sides. The
 * library can't check the decision: SAVEVM_OWNER_HERE for a guest that runs elsewhere makes two of it. The host gets a
 * warning that names the change (SaveVMHostOps.report).
 *
 * Returns:
 *   0        the owner is set
 *   -EBUSY   a migration or a snapshot of the context is in progress; a paused postcopy is
 *   -EINVAL  `owner` is no SaveVMOwner
 *
 * Thread: any. Lock: either. Since 0.1.
 *
 * The caller promises:
 * `vm` is NULL or a context; `errp` is NULL or points to NULL.
 */
int savevm_override_owner(SaveVM *vm,
                          enum SaveVMOwner owner,
                          Error **errp);

/**
 * vmstate_register_with_alias_id() in the context `vm` (NULL: this thread's).
 *
 * The caller promises:
 * `vm` is NULL or a context; `vmsd` is NULL or describes `opaque` and stays, as `opaque` does, until it is unregistered;
 * `errp` is NULL or points to NULL.
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
 * vmstate_unregister() in the context `vm` (NULL: this thread's).
 *
 * The caller promises:
 * `vm` is NULL or a context; the other pointers are those of the registration, or anything: they are only compared.
 */
void savevm_unregister_vmstate(SaveVM *vm,
                               VMStateIf *obj,
                               const VMStateDescription *vmsd,
                               void *opaque);

/**
 * A file over a descriptor, which becomes the file's. NULL where it is not open that way (reported).
 *
 * The caller promises:
 * `fd` is the caller's to give.
 */
QEMUFile *savevm_file_from_fd(int fd,
                              bool writable);

/**
 * A file to read a copy of `len` bytes from.
 *
 * The caller promises:
 * `data` is valid for `len` bytes, or NULL where that is 0.
 */
QEMUFile *savevm_file_from_buffer(const void *data, size_t len);

/**
 * A file that writes to memory; see savevm_file_buffer().
 */
QEMUFile *savevm_file_to_buffer(void);

/**
 * What was written to a file of savevm_file_to_buffer() so far; it is flushed for that. The bytes are the file's and stay
 * until the next operation on it. NULL for other files.
 *
 * The caller promises:
 * `f` is NULL or a file; `len` is NULL or writable.
 */
const uint8_t *savevm_file_buffer(QEMUFile *f,
                                  size_t *len);

/**
 * A file over a channel of the hypervisor. `ops` is copied; `opaque` becomes the file's (see `free`). NULL where the
 * function for the direction is missing, and, reported, where `ops` has no size.
 *
 * The caller promises:
 * `ops` is NULL or begins with its size; its functions may be called with `opaque` until `free` was.
 */
QEMUFile *savevm_file_from_channel(const struct SaveVMChannelOps *ops,
                                   void *opaque,
                                   bool writable);

/**
 * Opens `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. To write, sockets are connected; to read,
 * they listen and wait for one connection, or until what was opened has something to read (its end included). That takes
 * at most SaveVMLimits.open_timeout_ms of this thread's context, and a descriptor that was given is closed then. NULL and
 * `*errp` on failure, -ETIMEDOUT where nobody came.
 *
 * The caller promises:
 * `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
 */
QEMUFile *savevm_file_open(const char *uri,
                           bool writable,
                           Error **errp);

/**
 * The hypervisor's pointer of a file from savevm_file_from_channel(); NULL for other files.
 *
 * The caller promises:
 * `f` is NULL or a file.
 */
void *savevm_file_channel(QEMUFile *f);

/**
 * Room for `len` bytes in one piece at the end of a file's buffer, to be filled in and put by savevm_file_commit().
 * NULL where a flush would be needed for it, or the file is in error or for reading.
 *
 * The caller promises:
 * `f` is NULL or a file.
 */
uint8_t *savevm_file_reserve(QEMUFile *f,
                             size_t len);

/**
 * Puts the first `len` bytes of what savevm_file_reserve() gave.
 *
 * The caller promises:
 * `f` is NULL or a file; `len` is no more than was reserved, and so much was filled in.
 */
void savevm_file_commit(QEMUFile *f, size_t len);

/**
 * Begins to migrate the guest of `vm` (NULL: this thread's context) to `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH`
 * or `exec:COMMAND`. NULL and `*errp` where it can't begin: a blocker, another migration, a bad URI; all else, the
 * connection included, goes on behind it. Free the result with savevm_migration_free().
 *
 * The caller promises:
 * `vm` is NULL or a context; `uri` is NULL or a terminated string; `params` is NULL (defaults) or begins with its size;
 * `errp` is NULL or points to NULL.
 */
SaveVMMigration *savevm_migrate(SaveVM *vm,
                                const char *uri,
                                const struct SaveVMParams *params,
                                Error **errp);

/**
 * As savevm_migrate(), over a channel of the hypervisor that is connected already. `ops` is copied; `opaque` becomes the
 * library's (see its `free`), also on a failure.
 *
 * The caller promises:
 * As savevm_migrate() and savevm_file_from_channel().
 */
SaveVMMigration *savevm_migrate_to_channel(SaveVM *vm,
                                           const struct SaveVMChannelOps *ops,
                                           void *opaque,
                                           const struct SaveVMParams *params,
                                           Error **errp);

/**
 * Listens on `unix:PATH`, `tcp:HOST:PORT`, or reads `fd:N`, `file:PATH`, `exec:COMMAND`, and loads the guest that comes
 * into `vm` (NULL: this thread's context), whose devices are registered and whose guest is stopped; then starts it. NULL
 * and `*errp` where it can't begin. A connection can be made once this has returned. Free the result with
 * savevm_migration_free().
 *
 * The caller promises:
 * `vm` is NULL or a context; `uri` is NULL or a terminated string; `params` is NULL (defaults) or begins with its size;
 * `errp` is NULL or points to NULL.
 */
SaveVMMigration *savevm_incoming(SaveVM *vm,
                                 const char *uri,
                                 const struct SaveVMParams *params,
                                 Error **errp);

/**
 * As savevm_incoming(), over a channel of the hypervisor that is connected already. `ops` is copied; `opaque` becomes
 * the library's (see its `free`), also on a failure.
 *
 * The caller promises:
 * As savevm_incoming() and savevm_file_from_channel().
 */
SaveVMMigration *savevm_incoming_from_channel(SaveVM *vm,
                                              const struct SaveVMChannelOps *ops,
                                              void *opaque,
                                              const struct SaveVMParams *params,
                                              Error **errp);

/**
 * Stores what an incoming migration listens on as a terminated string of at most `len` bytes, with the port that the
 * system chose in place of port 0. 0, -ENOENT where it does not listen, -ERANGE where `len` is too small, -EINVAL for an
 * outgoing one.
 *
 * The caller promises:
 * `m` is NULL or a migration; `uri` is writable for `len` bytes.
 */
int savevm_migration_uri(SaveVMMigration *m,
                         char *uri,
                         size_t len);

/**
 * With SaveVMParams.no_thread: does a piece of the work on this thread. It waits as long as the piece takes, at most as
 * the deadlines allow. 1: call again; 0: all is done; -EBUSY: another thread is at it; -EINVAL for an incoming migration.
 *
 * The caller promises:
 * `m` is NULL or a migration.
 */
int savevm_migration_step(SaveVMMigration *m);

/**
 * Waits for the end. 0: the guest has moved: outgoing, it is at the destination; incoming, it is here, and runs unless
 * no_autostart. Else -errno and `*errp`: outgoing, the guest runs on here, incoming, it does not run here (devices may
 * hold a part of the state), unless SaveVMInfo.owner says otherwise. The error may be taken any number of times. -EDEADLK
 * from inside a callback of this migration, which has yet to end. The lock is given up meanwhile, where the caller holds
 * it.
 *
 * The caller promises:
 * `m` is NULL or a migration; `errp` is NULL or points to NULL.
 */
int savevm_migration_wait(SaveVMMigration *m,
                          Error **errp);

/**
 * Ends the migration. 0, within a second: outgoing, the guest is here and runs if it ran; incoming, it does not run here.
 * -EBUSY: too late: outgoing, the destination has or may have the guest; incoming, it is here. -EINPROGRESS from inside a
 * callback of this migration: it ends behind that. -ETIMEDOUT where another callback takes longer than that second. The
 * lock is given up meanwhile, where the caller holds it.
 *
 * The caller promises:
 * `m` is NULL or a migration.
 */
int savevm_migration_cancel(SaveVMMigration *m);

/**
 * Outgoing, with pause_before_switchover: lets a migration in SAVEVM_STATUS_PRE_SWITCHOVER go on. 0, or -EINVAL where it
 * does not wait for that, and for an incoming one.
 *
 * The caller promises:
 * `m` is NULL or a migration.
 */
int savevm_migration_continue(SaveVMMigration *m);

/**
 * Outgoing: switches to postcopy as soon as that can be. 0, or -EINVAL where it was not enabled or is over, and for an
 * incoming one.
 *
 * The caller promises:
 * `m` is NULL or a migration.
 */
int savevm_migration_start_postcopy(SaveVMMigration *m);

/**
 * Breaks the connection of a running postcopy on purpose, to recover it over another one. 0, or -EINVAL in other states.
 * The other side sees the break by itself where the connection can be shut down; else it is paused there as well.
 *
 * The caller promises:
 * `m` is NULL or a migration.
 */
int savevm_migration_pause(SaveVMMigration *m);

/**
 * Continues a paused postcopy over a new connection. Incoming: listens on `uri` for the source; a connection can be made
 * once this has returned. Outgoing: connects before it returns, after this call at the other end; the lock is given up
 * meanwhile. 0, or -errno and `*errp`: -EINVAL where it is not paused. A recovery that fails leaves the postcopy paused.
 *
 * The caller promises:
 * `m` is NULL or a migration; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
 */
int savevm_migration_recover(SaveVMMigration *m,
                             const char *uri,
                             Error **errp);

/**
 * Outgoing: changes what may change while it runs; see SaveVMParams. All of it: what is 0 gets its default again, so that
 * a caller keeps the parameters that it began with and changes one of them. 0, or -errno and `*errp`: -EINVAL for
 * parameters that can't be, and for an incoming one.
 *
 * The caller promises:
 * `m` is NULL or a migration; `params` is NULL or begins with its size; `errp` is NULL or points to NULL.
 */
int savevm_migration_set_params(SaveVMMigration *m,
                                const struct SaveVMParams *params,
                                Error **errp);

/**
 * How it stands. 0, or -EINVAL for NULL and for an `info` without its size. It waits for nothing; inside callbacks too.
 *
 * The caller promises:
 * `m` is NULL or a migration; `info` is NULL or begins with its size and is writable for that.
 */
int savevm_migration_query(SaveVMMigration *m,
                           struct SaveVMInfo *info);

/**
 * What was measured of one device whose state was saved or loaded, by its place in the stream. 0, -ENOENT behind the
 * last, -EINVAL for NULL and for a `device` without its size. It waits for nothing; inside callbacks too.
 *
 * The caller promises:
 * `m` is NULL or a migration; `device` is NULL or begins with its size and is writable for that.
 */
int savevm_migration_device(SaveVMMigration *m,
                            size_t index,
                            struct SaveVMDeviceInfo *device);

/**
 * Ends what is still under way as far as that can be (see savevm_migration_cancel(); past that an outgoing one waits for
 * the end, and a paused postcopy is given up), and frees `m`. NULL is allowed. Not from inside a callback of this
 * migration.
 *
 * The caller promises:
 * `m` is NULL or a migration that is not used afterwards.
 */
void savevm_migration_free(SaveVMMigration *m);

/**
 * For a `resume_prepare`: asks which pages of a block arrived, and waits until SaveVMPostcopyOps.received was told, at most
 * handshake_timeout_ms. 0, -EINVAL outside of a recovery, -ETIMEDOUT, or the error of the connection. In a callback.
 *
 * The caller promises:
 * `s` is NULL or what `resume_prepare` was given; `block` is NULL or a terminated string.
 */
int savevm_request_bitmap(MigrationState *s,
                          const char *block);

/**
 * For the RAM in postcopy: the guest waits for `length` bytes from `start` on of a block. 0, -EINVAL where no postcopy was
 * listened for, from SaveVMPostcopyOps.listen on until its `end`, or another -errno: ask again after
 * SaveVMPostcopyOps.resumed. It waits for nothing but the connection to take a few bytes.
 *
 * The caller promises:
 * `s` is NULL or what SaveVMPostcopyOps.listen was given; `block` is NULL or a terminated string.
 */
int savevm_request_pages(MigrationIncomingState *s,
                         const char *block,
                         uint64_t start,
                         uint32_t length);

/**
 * Forbids migration of `vm` (NULL: this thread's context) for a reason, which is copied. A number above 0 for
 * savevm_del_blocker(), or -errno and `*errp`: -EBUSY while a migration runs.
 *
 * The caller promises:
 * `vm` is NULL or a context; `reason` is NULL or a terminated string; `errp` is NULL or points to NULL.
 */
int64_t savevm_add_blocker(SaveVM *vm,
                           const char *reason,
                           Error **errp);

/**
 * Takes a blocker back. 0, or -ENOENT.
 *
 * The caller promises:
 * `vm` is NULL or a context.
 */
int savevm_del_blocker(SaveVM *vm, int64_t blocker);

/**
 * Stops the guest of `vm` (NULL: this thread's context), saves everything to `uri` (as savevm_migrate() takes it), and
 * starts the guest again if it ran, also after a failure. Inside the lock, which is taken if the calling thread does not
 * hold it, and given up for setup. 0, or -errno and `*errp`: -EPERM if the whole guest is not here (savevm_owner()).
 *
 * `file:PATH` replaces a regular file only by a whole snapshot. The new file is written beside it, synced, and renamed, and
 * the directory is synced, while the guest runs again. A full disk, a crash or a kill leaves the previous file as it was,
 * and no part of a snapshot under its name. Until then both files take room. `file:PATH,offset=N` leaves the first N bytes of
 * the file alone and writes behind them in place, as do files whose directory can't be written to, files that are not
 * regular, and all other kinds of URI.
 *
 * The caller promises:
 * `vm` is NULL or a context; `uri` is NULL or a terminated string; `options` is NULL (defaults) or begins with its
 * size; `errp` is NULL or points to NULL.
 */
int savevm_snapshot_save(SaveVM *vm,
                         const char *uri,
                         const struct SaveVMSnapshotOptions *options,
                         Error **errp);

/**
 * Saves everything of `vm` (NULL: this thread's context) to a file of the caller's, from the header to cleanup. The guest
 * is stopped and the lock held; it is given up for setup. 0, or -errno, which `f` then has with what is known of it: -EBUSY
 * while a migration or a snapshot is under way.
 *
 * The caller promises:
 * `vm` is NULL or a context; `f` is NULL or a file that is open for writing.
 */
int savevm_snapshot_save_file(SaveVM *vm,
                              QEMUFile *f);

/**
 * Reads a stream of at most `length` bytes from where `f` stands and checks whether it would load into `vm` (NULL: this
 * thread's context), without changing anything there: whether it is whole up to the mark of its end, of a machine that is
 * configured as this one, and of devices, versions and blocks of RAM (SaveVMHostOps.ram_fits) that are here; whether every
 * page lies in its block. What only a device can find wrong, values inside of its state, is not looked at. Machines whose
 * sections have no footers take everything: nothing says there where a state ends. `f` stays the caller's; where it stands
 * afterwards is not said. The machine's devices must not change meanwhile.
 *
 * 0: nothing speaks against loading. Else -errno and `*errp`: -ENOMSG where no stream begins, -EINVAL where it would not
 * load, or the error of reading.
 *
 * The caller promises:
 * `vm` is NULL or a context; `f` is NULL or a file; `errp` is NULL or points to NULL.
 */
int savevm_snapshot_check_file(SaveVM *vm,
                               QEMUFile *f,
                               uint64_t length,
                               Error **errp);

/**
 * Stops the guest of `vm` (NULL: this thread's context), resets the machine (SaveVMHostOps.reset), loads everything from
 * `uri`, and starts the guest again if it ran. A regular file is checked before (see savevm_snapshot_check_file()): where
 * that fails nothing was touched, and the guest runs on. After a later failure it stays stopped: its devices hold a part
 * of each of two states. Inside the lock, as saving. 0, or -errno and `*errp`.
 *
 * The caller promises:
 * `vm` is NULL or a context; `uri` is NULL or a terminated string; `options` is NULL (defaults) or begins with its
 * size; `errp` is NULL or points to NULL.
 */
int savevm_snapshot_load(SaveVM *vm,
                         const char *uri,
                         const struct SaveVMSnapshotOptions *options,
                         Error **errp);

/**
 * Gives `vm` (NULL: this thread's context) RAM: the live device "ram", without blocks at first, which takes part in every
 * migration and snapshot from then on, and in postcopy. Call it after savevm_set_host(), with the lock. `options` (NULL:
 * the defaults) and `ops` (NULL: no dirty log of the hypervisor) are copied. NULL and `*errp` on failure. Free it with savevm_ram_free().
 *
 * The caller promises:
 * `vm` is NULL or a context that outlives the RAM; `options` and `ops` are NULL or begin with their size, and the functions
 * may be called from any thread with `opaque`; `errp` is NULL or points to NULL.
 */
struct SaveVMRam *savevm_ram_new(SaveVM *vm,
                                 const struct SaveVMRamOptions *options,
                                 const struct SaveVMRamOps *ops,
                                 void *opaque,
                                 Error **errp);

/**
 * Takes RAM out of its machine and frees it; the memory stays the hypervisor's. NULL is allowed. With the lock, which may
 * be given up meanwhile. Free the migrations of the machine first: while one is under way nothing is freed, and that is
 * reported.
 *
 * The caller promises:
 * `ram` is NULL or comes from savevm_ram_new() and is not used afterwards.
 */
void savevm_ram_free(struct SaveVMRam *ram);

/**
 * Adds a block, also while the guest runs. 0, or -errno and `*errp`: -EBUSY in a migration, -EEXIST for a name that is
 * there, -EINVAL for a block that can't be. Any thread.
 *
 * The caller promises:
 * `ram` is NULL or alive; `block` is NULL or begins with its size; its memory stays mapped until the block is removed or
 * the RAM is freed; `errp` is NULL or points to NULL.
 */
int savevm_ram_add_block(struct SaveVMRam *ram,
                         const struct SaveVMRamBlock *block,
                         Error **errp);

/**
 * Removes a block; when it returns 0 the memory may be unmapped. Else -errno and `*errp`: -EBUSY in a migration, -ENOENT.
 * Any thread.
 *
 * The caller promises:
 * `ram` is NULL or alive; `name` is NULL or a terminated string; `errp` is NULL or points to NULL.
 */
int savevm_ram_remove_block(struct SaveVMRam *ram,
                            const char *name,
                            Error **errp);

/**
 * Says that guest memory was written in a way that the dirty log does not see: by a device model (for KVM's log), by DMA, by
 * another process. It is sent again. Any thread, any lock, quick where no migration runs. Addresses outside of all blocks
 * are ignored.
 *
 * The caller promises:
 * `ram` is NULL or alive. The memory is not touched.
 */
void savevm_ram_set_dirty(struct SaveVMRam *ram,
                          const void *host,
                          uint64_t length);

/**
 * The union of the page sizes of all blocks in bytes: what SaveVMHostOps.ram_page_sizes returns where a block is on huge
 * pages.
 *
 * The caller promises:
 * `ram` is NULL or alive.
 */
uint64_t savevm_ram_page_sizes(struct SaveVMRam *ram);

/**
 * Whether this machine can be the destination of a postcopy: userfaultfd is there, this program may use it, and it can
 * handle the memory of all blocks. 0, or -errno and the reason in `*errp`. Any thread.
 *
 * The caller promises:
 * `ram` is NULL or alive; `errp` is NULL or points to NULL.
 */
int savevm_ram_check_postcopy(struct SaveVMRam *ram,
                              Error **errp);

/**
 * Saves the machine as it is at the moment of the call, while its guest runs on: the guest stops only for its devices and
 * while memory is write-protected; a page that it writes to is copied first. `uri` as for savevm_snapshot_save(). It returns
 * when everything is saved. Without the lock, which it takes when it needs it. No other live device may be registered.
 * 0, or -errno and `*errp`; the guest runs on in any case.
 *
 * The caller promises:
 * `ram` is NULL or alive; `uri` is NULL or a terminated string; `errp` is NULL or points to NULL.
 */
int savevm_ram_snapshot(struct SaveVMRam *ram,
                        const char *uri,
                        Error **errp);

/**
 * How it stands. 0, or -EINVAL for NULL. Any thread.
 *
 * The caller promises:
 * `ram` is NULL or alive; `info` is NULL or begins with its size and is writable for that.
 */
int savevm_ram_query(struct SaveVMRam *ram, struct SaveVMRamInfo *info);

/**
 * Reads a stream that is in memory, without a copy of it and without loading anything. Damage is no failure: what is there
 * up to it is told, and savevm_inspect_summary() tells of the damage. `max_memory` limits in bytes what is kept; 0: 1 GiB.
 * NULL and `*errp` on wrong arguments. Free the result with savevm_inspect_free().
 *
 * The caller promises:
 * `data` is valid for `len` bytes during the call; `errp` is NULL or points to NULL.
 */
SaveVMInspect *savevm_inspect_buffer(const void *data,
                                     size_t len,
                                     size_t max_memory,
                                     Error **errp);

/**
 * As savevm_inspect_buffer(), from where `f` stands to its end: a stream of any length in little memory. `f` stays the
 * caller's, and has nothing more to read. NULL and `*errp` where `f` can't be read.
 *
 * The caller promises:
 * `f` is NULL or a file; `errp` is NULL or points to NULL.
 */
SaveVMInspect *savevm_inspect_file(QEMUFile *f,
                                   size_t max_memory,
                                   Error **errp);

/**
 * Frees what was read, with all strings and bytes that were given out of it. NULL is allowed.
 *
 * The caller promises:
 * `s` is NULL or what one of the two functions gave, and is not used afterwards.
 */
void savevm_inspect_free(SaveVMInspect *s);

/**
 * Tells of the stream as a whole. 0; -EINVAL for NULL.
 *
 * The caller promises:
 * `s` is NULL or a read stream; `summary` is NULL or begins with its size.
 */
int savevm_inspect_summary(const SaveVMInspect *s, struct SaveVMInspectSummary *summary);

/**
 * Tells of one thing in the stream. 0; -ENOENT behind the last; -EINVAL for NULL.
 *
 * The caller promises:
 * `s` is NULL or a read stream; `item` is NULL or begins with its size.
 */
int savevm_inspect_item(const SaveVMInspect *s, size_t index, struct SaveVMInspectItem *item);

/**
 * Tells of one block of guest memory. 0; -ENOENT behind the last; -EINVAL for NULL.
 *
 * The caller promises:
 * `s` is NULL or a read stream; `block` is NULL or begins with its size.
 */
int savevm_inspect_block(const SaveVMInspect *s, size_t index, struct SaveVMInspectBlock *block);

/**
 * Calls `field` for each field of the item's device, in the order of the stream, on this thread. 0, or what `field`
 * returned that was not 0; -ENOENT where the item is no device's whole state; -ENODATA where nothing describes it;
 * -EILSEQ where the description does not fit (what fits was given); -EINVAL for NULL.
 *
 * The caller promises:
 * `s` is NULL or a read stream, and `field` does not free it.
 */
int savevm_inspect_fields(const SaveVMInspect *s,
                          size_t item,
                          SaveVMInspectFieldFn field,
                          void *opaque);

/**
 * Writes what was read to `out` as JSON, SAVEVM_INSPECT_JSON to SAVEVM_INSPECT_ANALYZE. 0; -EINVAL for NULL and for another
 * format; else the error of `out`.
 *
 * The caller promises:
 * `s` is NULL or a read stream; `out` is NULL or a file for writing.
 */
int savevm_inspect_document(const SaveVMInspect *s,
                            enum SaveVMInspectFormat format,
                            QEMUFile *out);

/**
 * The error in words: where, what was expected, what came. The string is the error's. NULL for NULL.
 *
 * The caller promises:
 * `err` is NULL or an error of this library.
 */
const char *error_get_pretty(const Error *err);

/**
 * Frees an error and everything that was read from it. NULL is allowed.
 *
 * The caller promises:
 * `err` is NULL or an error of this library that is not used afterwards.
 */
void error_free(Error *err);

/**
 * The parts of the error, for a program to read; they are the error's. NULL for NULL.
 *
 * The caller promises:
 * `err` is NULL or an error of this library.
 */
const struct SaveVMErrorInfo *savevm_error_info(const Error *err);

/**
 * Checks a device for its author: saves the device that is registered as `idstr` and `instance_id` with the context `vm`
 * (NULL: this thread's), loads what it saved into a new device, saves that and compares; then loads the stream cut to
 * every length, which has to fail, and with damaged bytes, which must do no harm. Each goes to a device of its own. The
 * damage is the same in every run. For tests: it takes as long as some thousand loads, and a device that crashes ends
 * the program (best seen under a sanitizer). With the lock.
 *
 * Returns the number of errors that were reported; -EINVAL where a pointer is NULL that must not be, -ENOENT where there
 * is no such device, -ENOTSUP for one that can't be saved whole, -ENODEV where `create` made none that could be found.
 *
 * The caller promises:
 * `vm` is NULL or a context; `idstr` is NULL or a terminated string; `ops` is NULL or begins with its size.
 */
int savevm_check_device(SaveVM *vm,
                        const char *idstr,
                        int instance_id,
                        const struct SaveVMCheckOps *ops,
                        void *opaque);

/**
 * Looks through a description, without a device: for parts that can never be saved or loaded, and for counts that come
 * from the stream and that nothing bounds. Findings go to `report` as in SaveVMCheckOps. From any thread.
 *
 * Returns the number of errors that were reported, or -EINVAL for NULL.
 *
 * The caller promises:
 * `vmsd` is NULL or a description; `report` may be called with `opaque`.
 */
int savevm_check_description(const VMStateDescription *vmsd,
                             void (*report)(void *opaque,
                                            enum SaveVMCheckSeverity severity,
                                            const char *text),
                             void *opaque);

/**
 * What QEMU's -dump-vmstate says of a type of device, for `savevm check --against` and scripts/vmstate-static-checker.py:
 * one JSON object, as a string from malloc(). In a dump it is a member of one object, under the name of the type; the
 * member "vmschkmachine" there has the machine's name as "Name". From any thread.
 *
 * Returns NULL for a NULL description, and where there is no memory.
 *
 * The caller promises:
 * `vmsd` is NULL or a description; `type_name` is NULL, for the description's own name, or a string.
 */
char *savevm_describe(const VMStateDescription *vmsd,
                      const char *type_name);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAVEVM_H */

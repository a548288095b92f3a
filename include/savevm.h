/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libsavevm's own functions: contexts, files, errors. QEMU's names are in migration/. */
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

/** A context: one virtual machine with its devices. */
typedef struct SaveVM SaveVM;

/**
 * Bits of `SaveVMHostOps.stream_flags`: what streams leave out, and where a driver of the host's own stands.
 * No configuration section is written or expected.
 */
#define SAVEVM_FLAG_NO_CONFIGURATION 1

/**
 * No section footers are written or expected.
 */
#define SAVEVM_FLAG_NO_FOOTERS 2

/**
 * No description follows the end.
 */
#define SAVEVM_FLAG_NO_VMDESC 4

/**
 * The guest was handed over; live devices with postcopy go on.
 */
#define SAVEVM_FLAG_IN_POSTCOPY 8

/**
 * Continuous replication: device states carry no header.
 */
#define SAVEVM_FLAG_IN_COLO 16

/**
 * Postcopy of RAM is agreed on.
 */
#define SAVEVM_FLAG_POSTCOPY_RAM 32

/**
 * The machine's UUID is not written; one that comes is compared all the same.
 */
#define SAVEVM_FLAG_NO_UUID 64

/**
 * Sections of live devices are refused: what they hold comes another way.
 */
#define SAVEVM_FLAG_NO_LIVE_LOAD 128

/**
 * `level` of `SaveVMHostOps.report`: something failed.
 */
#define SAVEVM_REPORT_ERROR 0

/**
 * `level` of `SaveVMHostOps.report`: something is odd and was gone past.
 */
#define SAVEVM_REPORT_WARNING 1

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
   * Sets the postcopy state (QEMU's PostcopyState, 0 to 5) and returns the one before; -1 only asks.
   */
  int (*postcopy_state)(void *host, int state);
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
   * In running postcopy of RAM: waits for a new connection and returns its file, NULL to give up.
   */
  QEMUFile *(*recover)(void *host);
  /**
   * The main loop of qemu_loadvm_state() is over; true: another thread reads on, so nothing is cleaned up yet.
   */
  bool (*main_loop_done)(void *host);
} SaveVMIncomingOps;

/**
 * What the library asks of the hypervisor. Every member may be NULL, which has the meaning given with it. The table is
 * copied; `host` is handed to every member as it was given.
 *
 * "Lock" below is the hypervisor's big lock. Members run on the thread of the call that needs them.
 */
typedef struct SaveVMHostOps {
  /**
   * sizeof(SaveVMHostOps), so that later versions may have more members.
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
   * Precopy's notices: 0 after setup, 3 before completion, 4 at the end. A result under 0 is reported and gone past.
   */
  int (*precopy_notify)(void *host, int notice);
  /**
   * Tells people (SAVEVM_REPORT_*); NULL: the log. Any thread, any lock.
   */
  void (*report)(void *host, int level, const char *text);
  /**
   * Whether a trace event of that name is wanted; the name is QEMU's. For the name NULL: whether any may be, which is
   * asked for every event and has to be quick. NULL: no.
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
} SaveVMHostOps;

/**
 * What a stream may ask for at most. 0 means the default.
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
   * Largest allocation for one VMState field in bytes; default 1 GiB.
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
} SaveVMLimits;

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
   * Reads up to `len` bytes; 0 at the end, -errno, or -EAGAIN, after which `wait` is called.
   */
  ptrdiff_t (*read)(void *channel, uint8_t *buf, size_t len);
  /**
   * Writes from `count` pieces, at most 64; how many bytes went, -errno, or -EAGAIN, after which `wait` is called.
   */
  ptrdiff_t (*writev)(void *channel, const struct iovec *iov, int count);
  /**
   * Waits until it can be written (or read); may switch to another coroutine meanwhile. 0, or -errno to give up.
   */
  int (*wait)(void *channel, bool write);
  /**
   * Ends both directions from any thread; 0 or -errno.
   */
  int (*shutdown)(void *channel);
  /**
   * Changes the blocking mode; 0 or -errno.
   */
  int (*set_blocking)(void *channel, bool blocking);
  /**
   * Closes the channel; called once for every file over it. 0 or -errno.
   */
  int (*close)(void *channel);
  /**
   * Frees the channel with the last file over it.
   */
  void (*free)(void *channel);
  /**
   * Why the last `read` (or `write`) failed, in words, as a string from malloc(); or NULL. Asked once, by the thread
   * that got the failure.
   */
  char *(*error)(void *channel, bool write);
} SaveVMChannelOps;

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
   * 0: neither side, 1: the source, 2: the destination.
   */
  int side;
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

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A new context: one virtual machine with its devices. NULL `ops`: no lock, nothing to stop. Free it with savevm_free().
 *
 * The caller promises:
 * `ops` is NULL or a table that begins with its size; what it refers to outlives the context.
 */
SaveVM *savevm_new(const struct SaveVMHostOps *ops,
                   void *host);

/**
 * Gives a context another hypervisor, for instance the default context its first. No migration may run.
 *
 * The caller promises:
 * As savevm_new().
 */
void savevm_set_host(SaveVM *vm,
                     const struct SaveVMHostOps *ops,
                     void *host);

/**
 * Frees a context and forgets its devices without calling them. It must not be in use; NULL is allowed.
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
 * Sets the limits of a context (NULL: this thread's) for loads that begin from now on; 0, or -EINVAL for NULL.
 *
 * The caller promises:
 * `vm` is NULL or a context; `limits` is NULL or begins with its size.
 */
int savevm_set_limits(SaveVM *vm,
                      const struct SaveVMLimits *limits);

/**
 * Whether the context was given up after an internal failure: what it does from now on fails with -EIO.
 *
 * The caller promises:
 * `vm` is NULL or a context.
 */
bool savevm_is_broken(SaveVM *vm);

/**
 * Calls `visit` with the name of every device that forbids migration, in order. NULL: this thread's context.
 *
 * The caller promises:
 * `vm` is NULL or a context; `visit` takes `data`. The name is the callee's only while it runs.
 */
void savevm_non_migratable(SaveVM *vm,
                           void (*visit)(const char *name, void *data),
                           void *data);

/**
 * The version of the library, as "0.1.0".
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
 * A file over a channel of the hypervisor. `ops` is copied; `channel` becomes the file's (see `free`). NULL where the
 * function for the direction is missing.
 *
 * The caller promises:
 * `ops` is NULL or begins with its size; its functions may be called with `channel` until `free` was.
 */
QEMUFile *savevm_file_from_channel(const struct SaveVMChannelOps *ops,
                                   void *channel,
                                   bool writable);

/**
 * Opens `unix:PATH`, `tcp:HOST:PORT`, `fd:N`, `file:PATH` or `exec:COMMAND`. To write, sockets are connected; to read,
 * they listen and wait for one connection. NULL and `*errp` on failure.
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

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SAVEVM_H */

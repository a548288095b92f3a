/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading a stream without loading it. No context is touched, no lock is needed, and a SaveVMInspect does not change:
 * any threads may use it at the same time. The general rules of savevm.h hold. */
/* Generated from the Rust sources by cbindgen. Do not edit. */

#ifndef SAVEVM_INSPECT_H
#define SAVEVM_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "savevm.h"

/** A stream that was read without loading it. */
typedef struct SaveVMInspect SaveVMInspect;

#ifdef __cplusplus
extern "C" {
#endif

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
  size_t state_length;
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
  size_t length;
} SaveVMInspectField;

/**
 * Takes one field after the other; not 0 ends it.
 */
typedef int SaveVMInspectFieldFn(void *opaque, const struct SaveVMInspectField *field);

/**
 * Reads a stream that is in memory, without copying it and without loading anything. A damaged stream is no failure: the
 * result has what comes before the damage, and savevm_inspect_summary() describes the damage. `max_memory` limits the bytes
 * that are kept (0: 1 GiB).
 *
 * Returns: the stream, to be freed with savevm_inspect_free(); NULL if `data` is NULL.
 */
SaveVMInspect *savevm_inspect_buffer(const void *data,
                                     size_t length,
                                     size_t max_memory,
                                     Error **errp);

/**
 * As savevm_inspect_buffer(), from the position of `f` to its end. Long streams need little memory. `f` is still owned by the
 * caller, and is at its end.
 *
 * Returns: the stream, to be freed with savevm_inspect_free(); NULL if `f` can't be read.
 */
SaveVMInspect *savevm_inspect_file(QEMUFile *f,
                                   size_t max_memory,
                                   Error **errp);

/**
 * Frees a stream that was read, and the strings and bytes that were obtained from it.
 */
void savevm_inspect_free(SaveVMInspect *s);

/**
 * Returns the properties of the whole stream.
 *
 * Returns:
 *   0        `summary` is filled in
 *   -EINVAL  NULL, or the size of `summary` is too small
 */
int savevm_inspect_summary(const SaveVMInspect *s, struct SaveVMInspectSummary *summary);

/**
 * Returns one item of the stream; `index` counts them in the order of the stream.
 *
 * Returns:
 *   0        `item` is filled in
 *   -ENOENT  there are not so many items
 *   -EINVAL  NULL, or the size of `item` is too small
 */
int savevm_inspect_item(const SaveVMInspect *s, size_t index, struct SaveVMInspectItem *item);

/**
 * Returns one block of guest memory in the stream.
 *
 * Returns:
 *   0        `block` is filled in
 *   -ENOENT  there are not so many blocks
 *   -EINVAL  NULL, or the size of `block` is too small
 */
int savevm_inspect_block(const SaveVMInspect *s, size_t index, struct SaveVMInspectBlock *block);

/**
 * Calls `field` for each field of an item's device, in the order of the stream, on the calling thread.
 *
 * Returns:
 *   0         all fields were passed
 *   -ENOENT   the item is not the whole state of a device
 *   -ENODATA  the stream does not describe the device
 *   -EILSEQ   the description does not match the state; the fields that match were passed
 *   -EINVAL   NULL
 *   other     what `field` returned that was not 0
 */
int savevm_inspect_fields(const SaveVMInspect *s,
                          size_t item,
                          SaveVMInspectFieldFn *field,
                          void *opaque);

/**
 * Writes the stream to `out` as JSON.
 *
 * Returns:
 *   0        everything is written
 *   -EINVAL  NULL, or an unknown format
 *   -errno   the error of `out`
 */
int savevm_inspect_document(const SaveVMInspect *s, enum SaveVMInspectFormat format, QEMUFile *out);

#ifdef __cplusplus
}
#endif

#endif

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
 * Kind of an item of a stream.
 */
typedef enum SaveVMInspectItemKind {
  /**
   * Magic and version.
   */
  SAVEVM_INSPECT_HEADER = 0,
  /**
   * The configuration section: the machine's name and properties.
   */
  SAVEVM_INSPECT_CONFIGURATION = 1,
  /**
   * The first section of a live device.
   */
  SAVEVM_INSPECT_START = 2,
  /**
   * Consecutive further sections of a live device.
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
   * A command to the destination.
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
 * Kind of a field that SaveVMInspectFieldFn receives.
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
   * The innermost structure, array, list or subsection ends.
   */
  SAVEVM_INSPECT_LEAVE = 4,
  /**
   * A signed number: `value` as int64_t.
   */
  SAVEVM_INSPECT_SIGNED = 5,
  /**
   * An unsigned number.
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
   * Bytes; the description has no type for them that this library knows.
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
   * The document that QEMU's analyze-migration.py prints.
   */
  SAVEVM_INSPECT_ANALYZE = 2,
} SaveVMInspectFormat;

/**
 * Properties of a whole stream. The caller sets `size`; only members within that size are filled in. Strings are owned by the
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
   * Whether sections have footers: 1 or 0; -1: unknown, because there is no section.
   */
  int footers;
  /**
   * Whether the stream ended with its EOF mark.
   */
  bool complete;
  /**
   * Whether the stream has a description.
   */
  bool described;
  /**
   * Whether pages of memory were sent over other channels (multifd).
   */
  bool multifd;
  /**
   * Length of the stream in bytes.
   */
  uint64_t length;
  /**
   * Number of bytes after the stream.
   */
  uint64_t trailing;
  /**
   * The target's page size in bytes; 0: unknown.
   */
  uint64_t page_size;
  /**
   * Number of items for savevm_inspect_item().
   */
  size_t items;
  /**
   * Number of blocks for savevm_inspect_block().
   */
  size_t blocks;
  /**
   * The machine's name; NULL: not in the stream.
   */
  const char *machine;
  /**
   * The damage as text: offset, section, what was expected and what was found. NULL: no damage.
   */
  const char *damage;
  /**
   * Offset of the damage in bytes; -1: no damage.
   */
  int64_t damage_offset;
  /**
   * Whether the only damage is that the stream ends too early.
   */
  bool cut;
} SaveVMInspectSummary;

/**
 * Initialises a SaveVMInspectSummary.
 */
#define SAVEVM_INSPECT_SUMMARY_INIT SAVEVM_INITIALISED(SaveVMInspectSummary)

/**
 * An item of the stream. Strings and bytes are owned by the SaveVMInspect.
 */
typedef struct SaveVMInspectItem {
  /**
   * sizeof(SaveVMInspectItem).
   */
  size_t size;
  /**
   * Kind.
   */
  enum SaveVMInspectItemKind kind;
  /**
   * Number of packages around it.
   */
  uint32_t depth;
  /**
   * Offset in the stream in bytes.
   */
  uint64_t offset;
  /**
   * Size in bytes, with header and footer. The size of a package includes its contents.
   */
  uint64_t bytes;
  /**
   * The idstr of a section or the name of a command; NULL for others and for an unknown command.
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
   * Number of consecutive sections of the same device in this item; 0 if it is no section.
   */
  uint64_t count;
  /**
   * The state of a device that is not live; NULL for others.
   */
  const uint8_t *state;
  /**
   * Size of the state in bytes.
   */
  size_t state_length;
} SaveVMInspectItem;

/**
 * Initialises a SaveVMInspectItem.
 */
#define SAVEVM_INSPECT_ITEM_INIT SAVEVM_INITIALISED(SaveVMInspectItem)

/**
 * Number of pages of one kind, and their size in the stream.
 */
typedef struct SaveVMInspectPages {
  /**
   * Number of pages; a page that was sent twice counts twice.
   */
  uint64_t pages;
  /**
   * Bytes in the stream, with record headers.
   */
  uint64_t bytes;
} SaveVMInspectPages;

/**
 * A block of guest memory. The name is owned by the SaveVMInspect.
 */
typedef struct SaveVMInspectBlock {
  /**
   * sizeof(SaveVMInspectBlock).
   */
  size_t size;
  /**
   * Name.
   */
  const char *name;
  /**
   * Size of the block in bytes; 0: not in the stream.
   */
  uint64_t length;
  /**
   * Pages of one repeated byte, which is almost always zero.
   */
  struct SaveVMInspectPages zero;
  /**
   * Pages with their contents.
   */
  struct SaveVMInspectPages plain;
  /**
   * Pages as a difference to previous contents (XBZRLE).
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
 * A field of a device, as the stream describes it. It is valid during the callback.
 */
typedef struct SaveVMInspectField {
  /**
   * Kind.
   */
  enum SaveVMInspectFieldKind kind;
  /**
   * The field's name; for an element, the name of the array; NULL with SAVEVM_INSPECT_LEAVE.
   */
  const char *name;
  /**
   * The name of its type in the description; NULL for kinds that contain fields.
   */
  const char *type_name;
  /**
   * The value, if the kind is a number or a bool; the version of a subsection.
   */
  uint64_t value;
  /**
   * Offset in the device's state in bytes.
   */
  size_t offset;
  /**
   * Its bytes; NULL for kinds that contain fields.
   */
  const uint8_t *bytes;
  /**
   * Number of bytes.
   */
  size_t length;
} SaveVMInspectField;

/**
 * Receives the fields one after the other. A result other than 0 ends savevm_inspect_fields().
 */
typedef int SaveVMInspectFieldFn(void *opaque, const struct SaveVMInspectField *field);

/**
 * Reads a stream that is in memory, without loading anything. `data` is only read during the call: the result has copies of what
 * it returns. A damaged stream is no failure: the
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

/** A layout that was checked, and its semantics. */
typedef struct SaveVMAbi SaveVMAbi;

/*
 * A program fills in a SaveVMAbiDescription with the headers of its QEMU version:
 *
 *     static const SaveVMAbiMember members[] = {
 *         SAVEVM_ABI_MEMBER(SaveVMHandlers, save_state),
 *         ...
 *     };
 *     static const SaveVMAbiConstant constants[] = {
 *         SAVEVM_ABI_CONSTANT(MIG_PRI_DEFAULT),
 *         ...
 *     };
 *
 * A member that the library does not know is an undeclared identifier with its name. A type that the library cannot call or
 * read has no association in _Generic. Both stop the compiler.
 */
#ifndef __cplusplus
struct Error;
struct JSONWriter;
struct MigPendingData;
struct MigrationState;
struct QEMUFile;
struct QJSON;
struct SaveCompletePrecopyThreadData;
struct SaveLiveCompletePrecopyThreadData;
struct VMStateDescription;
struct VMStateField;
struct VMStateInfo;

#if SIZE_MAX > UINT32_MAX
#define SAVEVM_ABI_SIZE_TYPE size_t: SAVEVM_ABI_SIZE,
#else
#define SAVEVM_ABI_SIZE_TYPE uint64_t: SAVEVM_ABI_UINT64,
#endif

#define SAVEVM_ABI_KIND(type, member) _Generic(((const type *)0)->member, \
    int: SAVEVM_ABI_INT32, \
    unsigned int: SAVEVM_ABI_UINT32, \
    bool: SAVEVM_ABI_BOOL8, \
    SAVEVM_ABI_SIZE_TYPE \
    const char *: SAVEVM_ABI_POINTER, \
    const struct VMStateInfo *: SAVEVM_ABI_POINTER, \
    const struct VMStateField *: SAVEVM_ABI_POINTER, \
    const struct VMStateDescription *: SAVEVM_ABI_POINTER, \
    const struct VMStateDescription **: SAVEVM_ABI_POINTER, \
    const struct VMStateDescription *const *: SAVEVM_ABI_POINTER, \
    void (*)(void *): SAVEVM_ABI_VOID, \
    bool (*)(void *): SAVEVM_ABI_BOOL, \
    int (*)(void *): SAVEVM_ABI_INT, \
    int (*)(void *, struct Error **): SAVEVM_ABI_INT_ERRP, \
    bool (*)(void *, struct Error **): SAVEVM_ABI_BOOL_ERRP, \
    int (*)(void *, int): SAVEVM_ABI_INT_VERSION, \
    bool (*)(void *, int): SAVEVM_ABI_BOOL_VERSION, \
    bool (*)(void *, int, struct Error **): SAVEVM_ABI_BOOL_VERSION_ERRP, \
    void (*)(struct QEMUFile *, void *): SAVEVM_ABI_VOID_FILE, \
    int (*)(struct QEMUFile *, void *): SAVEVM_ABI_INT_FILE, \
    int (*)(struct QEMUFile *, void *, struct Error **): SAVEVM_ABI_INT_FILE_ERRP, \
    bool (*)(struct QEMUFile *, void *, struct Error **): SAVEVM_ABI_BOOL_FILE_ERRP, \
    int (*)(struct QEMUFile *, void *, int): SAVEVM_ABI_INT_FILE_VERSION, \
    int (*)(struct MigrationState *, void *): SAVEVM_ABI_INT_MIGRATION, \
    void (*)(struct QEMUFile *, void *, uint64_t, uint64_t *, uint64_t *, uint64_t *): SAVEVM_ABI_PENDING, \
    void (*)(void *, uint64_t *, uint64_t *): SAVEVM_ABI_STATE_PENDING, \
    bool (*)(struct SaveLiveCompletePrecopyThreadData *, struct Error **): SAVEVM_ABI_SAVE_THREAD, \
    bool (*)(struct SaveCompletePrecopyThreadData *, struct Error **): SAVEVM_ABI_SAVE_THREAD, \
    bool (*)(void *, char *, size_t, struct Error **): SAVEVM_ABI_LOAD_BUFFER, \
    void (*)(void *, struct MigPendingData *, bool, bool): SAVEVM_ABI_QUERY_PENDING, \
    int (*)(struct QEMUFile *, void *, size_t, const struct VMStateField *): SAVEVM_ABI_GET, \
    int (*)(struct QEMUFile *, void *, size_t, const struct VMStateField *, struct JSONWriter *): SAVEVM_ABI_PUT, \
    int (*)(struct QEMUFile *, void *, size_t, const struct VMStateField *, struct QJSON *): SAVEVM_ABI_PUT, \
    bool (*)(struct QEMUFile *, void *, size_t, const struct VMStateField *, struct Error **): SAVEVM_ABI_LOAD_ERRP, \
    bool (*)(struct QEMUFile *, void *, size_t, const struct VMStateField *, struct JSONWriter *, struct Error **): \
        SAVEVM_ABI_SAVE_ERRP)

/** An element of SaveVMAbiDescription.members: the offset and the type of a member in the headers of the program. */
#define SAVEVM_ABI_MEMBER(type, member) \
    { SAVEVM_ABI_##type##_##member, SAVEVM_ABI_KIND(type, member), offsetof(type, member) }

/** An element of SaveVMAbiDescription.constants: the value of a constant in the headers of the program. */
#define SAVEVM_ABI_CONSTANT(name) { SAVEVM_ABI_##name, name }
#endif

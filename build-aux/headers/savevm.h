/** The version of these headers; savevm_version() returns that of the library. */
#define SAVEVM_VERSION_MAJOR @MAJOR@
#define SAVEVM_VERSION_MINOR @MINOR@
#define SAVEVM_VERSION_PATCH @PATCH@

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

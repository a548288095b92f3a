
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

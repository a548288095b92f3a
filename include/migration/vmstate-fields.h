/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The macros that describe one field: structures, arrays, buffers, lists.
 * Part of migration/vmstate.h; names and arguments are those of QEMU 5.0 to
 * 10.2. Macros that only some versions have are defined for all.
 *
 * Arguments have the same meaning in all macros:
 *   _field       the member, as written after `state->`
 *   _state       the type of the structure that contains the member
 *   _type        the type of one element
 *   _num         the number of elements, a constant
 *   _field_num   the member that holds the number of elements
 *   _field_size  the member that holds the size in bytes
 *   _version     the first version that has the field, 0 for all
 *   _test        replaces _version, unless it is NULL
 *   _info, _vmsd the VMStateInfo or VMStateDescription object, not a pointer
 *
 * The compiler checks the type of the member. It must be _type, or another
 * integer type of the same width and signedness: `unsigned long long` and the
 * kernel's `__u64` are accepted for uint64_t, `__s64` for int64_t, and an enum
 * for the integer type that represents it (in C). Plain `char` is accepted by
 * the VMSTATE_*BUFFER macros only, because its signedness depends on the
 * machine: use uint8_t or int8_t for a number, VMSTATE_BUFFER for a string. A
 * member of any other type, or an array of another length, fails with one
 * static assertion that names the member and the type that is required.
 *
 * Names that end in an underscore are internal.
 */
#ifndef QEMU_VMSTATE_FIELDS_H
#define QEMU_VMSTATE_FIELDS_H

#include "migration/vmstate.h"

/*
 * An error in a macro is reported at the line that uses the macro, without the
 * ten macros in between. GCC and Clang do so for system headers.
 */
#ifdef __GNUC__
#pragma GCC system_header
#endif

#define VMSTATE_TYPE_(_state, _field) __typeof__(((_state *)0)->_field)

/* The text of an argument, after macros in it were replaced. */
#define VMSTATE_TEXT_(_field) VMSTATE_QUOTE_(_field)
#define VMSTATE_QUOTE_(_text) #_text

/*
 * Compile-time checks. VMSTATE_ASSERT_ is a constant zero that is added to an
 * offset or a size. Strict C99 and C++ cannot have the name of the
 * member in the message.
 */
#ifdef __cplusplus
extern "C++" {
template <typename T> struct vmstate_plain_ { typedef T type; };
template <typename T> struct vmstate_plain_<const T> { typedef T type; };
template <typename T> struct vmstate_plain_<volatile T> { typedef T type; };
template <typename T> struct vmstate_plain_<const volatile T> {
    typedef T type;
};
template <typename T, typename U> struct vmstate_same_ {
    static constexpr bool value = false;
};
template <typename T> struct vmstate_same_<T, T> {
    static constexpr bool value = true;
};
template <bool holds> struct vmstate_assert_ {
    static_assert(holds, "VMSTATE: the member does not have the type that "
                         "the macro requires, see migration/vmstate-fields.h");
};
}
#define VMSTATE_COMPATIBLE_(_type1, _type2)                                 \
    (vmstate_same_<vmstate_plain_<_type1>::type,                            \
                   vmstate_plain_<_type2>::type>::value)
#define VMSTATE_ASSERT_(_condition, _message)                               \
    (0 * sizeof(vmstate_assert_<(_condition)>))
#else
#define VMSTATE_COMPATIBLE_(_type1, _type2) \
    __builtin_types_compatible_p(_type1, _type2)
/* For strict C99, glibc replaces _Static_assert by something that does not
 * work here; the message then is the name of an array of negative size. */
#ifdef _Static_assert
#define VMSTATE_ASSERT_(_condition, _message)                               \
    (0 * sizeof(struct {                                                    \
         char the_member_does_not_have_the_type_that_the_macro_requires     \
             [(_condition) ? 1 : -1];                                       \
     }))
#else
#define VMSTATE_ASSERT_(_condition, _message)                               \
    (__extension__(0 * sizeof(struct {                                      \
        _Static_assert(_condition, "VMSTATE: " _message);                   \
        char unused;                                                        \
    })))
#endif
#endif

/*
 * Two integer types of one width and signedness are different types for C, but
 * the same for a field. `long` has one such twin. The twin of any type that
 * has none is the type itself.
 */
#if __SIZEOF_LONG__ == __SIZEOF_LONG_LONG__
#define VMSTATE_LONG_TWIN_ long long
#else
#define VMSTATE_LONG_TWIN_ int
#endif
#ifdef __cplusplus
extern "C++" {
template <typename T> struct vmstate_twin_ { typedef T type; };
template <> struct vmstate_twin_<long> { typedef VMSTATE_LONG_TWIN_ type; };
template <> struct vmstate_twin_<VMSTATE_LONG_TWIN_> { typedef long type; };
template <> struct vmstate_twin_<unsigned long> {
    typedef unsigned VMSTATE_LONG_TWIN_ type;
};
template <> struct vmstate_twin_<unsigned VMSTATE_LONG_TWIN_> {
    typedef unsigned long type;
};
}
#define VMSTATE_TWIN_(_type) vmstate_twin_<_type>::type
#else
#define VMSTATE_TWIN_(_type)                                                \
    __typeof__(__builtin_choose_expr(                                       \
        VMSTATE_COMPATIBLE_(_type, long), (VMSTATE_LONG_TWIN_)0,            \
        __builtin_choose_expr(                                              \
            VMSTATE_COMPATIBLE_(_type, VMSTATE_LONG_TWIN_), (long)0,        \
            __builtin_choose_expr(                                          \
                VMSTATE_COMPATIBLE_(_type, unsigned long),                  \
                (unsigned VMSTATE_LONG_TWIN_)0,                             \
                __builtin_choose_expr(                                      \
                    VMSTATE_COMPATIBLE_(_type, unsigned VMSTATE_LONG_TWIN_), \
                    (unsigned long)0, *(_type *)0)))))
#endif

/*
 * Whether _member is a `_type _dims`, where _dims is empty, `*`, `[n]`,
 * `[n][m]` or, for an array of any length, `[]`.
 */
#define VMSTATE_FITS_(_type, _dims, _member)      \
    (VMSTATE_COMPATIBLE_(_type _dims, _member) || \
     VMSTATE_COMPATIBLE_(VMSTATE_TWIN_(_type) _dims, _member))

/* _type2 is _type1, _type1[_n], _type1[_n][_m], _type1 * */
#define type_check_(_type1, _dims, _type2)                                  \
    VMSTATE_ASSERT_(VMSTATE_FITS_(_type1, _dims, _type2),                   \
                    #_type2 " is not " #_type1 #_dims)
#define type_check_array(_type1, _type2, _n) type_check_(_type1, [_n], _type2)
#define type_check_2darray(_type1, _type2, _n, _m) \
    type_check_(_type1, [_n][_m], _type2)
#define type_check_pointer(_type1, _type2) type_check_(_type1, *, _type2)

/* The type of an element of an array, or of the target of a pointer. */
#define typeof_elt_of_field(_type, _field) VMSTATE_TYPE_(_type, _field[0])

/* The member of _type2 is an array of _type1 of any length, not a pointer. */
#ifdef __cplusplus
#define VMSTATE_ANY_LENGTH_(_type, _state, _field) \
    [sizeof(VMSTATE_TYPE_(_state, _field)) / sizeof(_type)]
#else
#define VMSTATE_ANY_LENGTH_(_type, _state, _field) []
#endif
#define type_check_varray(_type1, _type2, _field)                           \
    VMSTATE_ASSERT_(                                                        \
        VMSTATE_FITS_(_type1, VMSTATE_ANY_LENGTH_(_type1, _type2, _field),  \
                      VMSTATE_TYPE_(_type2, _field)),                       \
        "member " #_field " of " #_type2 " must be an array of " #_type1)

/*
 * The size in bytes of a member that is an array, 0 for one whose length is not
 * known (`[]`). It is stored in VMStateField.start for arrays whose count is in
 * the stream: QEMU leaves that zero and ignores it, libsavevm rejects a count
 * that is larger.
 */
#ifdef __cplusplus
#define VMSTATE_ROOM_(_state, _field) sizeof(VMSTATE_TYPE_(_state, _field))
#else
#define VMSTATE_ROOM_(_state, _field)                                       \
    (sizeof(struct {                                                        \
         char before[__alignof__(typeof_elt_of_field(_state, _field))];     \
         VMSTATE_TYPE_(_state, _field) array;                               \
     }) -                                                                   \
     __alignof__(typeof_elt_of_field(_state, _field)))
#endif

/*
 * Checked offsets: of a member that is a _type, a pointer to it, an array of
 * it (with one or two dimensions, or of any length), of an element of an
 * array, and of an array of bytes.
 */
#define VMSTATE_OFFSET_(_state, _field, _type, _dims)                       \
    (offsetof(_state, _field) +                                             \
     VMSTATE_ASSERT_(                                                       \
         VMSTATE_FITS_(_type, _dims, VMSTATE_TYPE_(_state, _field)),        \
         "member " #_field " of " #_state " must have type " #_type #_dims))
#define vmstate_offset_value(_state, _field, _type) \
    VMSTATE_OFFSET_(_state, _field, _type, )
#define vmstate_offset_pointer(_state, _field, _type) \
    VMSTATE_OFFSET_(_state, _field, _type, *)
#define vmstate_offset_array(_state, _field, _type, _num) \
    VMSTATE_OFFSET_(_state, _field, _type, [_num])
#define vmstate_offset_2darray(_state, _field, _type, _n1, _n2) \
    VMSTATE_OFFSET_(_state, _field, _type, [_n1][_n2])
#define vmstate_offset_varray(_state, _field, _type) \
    (offsetof(_state, _field) + type_check_varray(_type, _state, _field))
#define vmstate_offset_sub_array(_state, _field, _type, _start) \
    vmstate_offset_value(_state, _field[_start], _type)
#define vmstate_offset_buffer(_state, _field)                               \
    (offsetof(_state, _field) +                                             \
     VMSTATE_ASSERT_(                                                       \
         VMSTATE_BYTES_(_state, _field, unsigned char) ||                   \
             VMSTATE_BYTES_(_state, _field, signed char) ||                 \
             VMSTATE_BYTES_(_state, _field, char),                          \
         "member " #_field " of " #_state                                   \
         " must be an array of uint8_t, int8_t or char"))
#define VMSTATE_BYTES_(_state, _field, _byte)                               \
    VMSTATE_COMPATIBLE_(_byte[sizeof(VMSTATE_TYPE_(_state, _field))],       \
                        VMSTATE_TYPE_(_state, _field))

/*
 * Initialises the members. C++ requires the order of the structure and the
 * cast of the flags.
 */
#define VMSTATE_FIELD_(_name, _hint, _offset, _size, _start, _num,          \
                       _num_offset, _size_offset, _info, _flags, _vmsd,     \
                       _version, _struct_version, _test)                    \
    {                                                                       \
        .name = (_name), .err_hint = (_hint), .offset = (_offset),          \
        .size = (_size), .start = (_start), .num = (_num),                  \
        .num_offset = (_num_offset), .size_offset = (_size_offset),         \
        .info = (_info), .flags = (enum VMStateFlags)(_flags),              \
        .vmsd = (_vmsd), .version_id = (_version),                          \
        .struct_version_id = (_struct_version), .field_exists = (_test),    \
    }

/* A field, or several in a row, that an info can handle. */
#define VMSTATE_PLAIN_(_field, _offset, _size, _flags, _num, _num_offset,   \
                       _info, _version, _test)                              \
    VMSTATE_FIELD_(VMSTATE_TEXT_(_field), NULL, _offset, _size, 0, _num,    \
                   _num_offset, 0, &(_info), _flags, NULL, _version, 0,     \
                   _test)

/* An array in the state, of which a part is in use: plain, of structures. */
#define VMSTATE_PART_(_field, _state, _type, _flags, _num, _num_offset,     \
                      _info, _vmsd, _version)                               \
    VMSTATE_FIELD_(VMSTATE_TEXT_(_field), NULL,                             \
                   vmstate_offset_varray(_state, _field, _type),            \
                   sizeof(_type), VMSTATE_ROOM_(_state, _field), _num,      \
                   _num_offset, 0, _info, _flags, _vmsd, _version, 0, NULL)

/* A structure, or several in a row. */
#define VMSTATE_NESTED_(_field, _offset, _size, _flags, _num, _num_offset,  \
                        _vmsd, _version, _test)                             \
    VMSTATE_FIELD_(VMSTATE_TEXT_(_field), NULL, _offset, _size, 0, _num,    \
                   _num_offset, 0, NULL, VMS_STRUCT | (_flags), &(_vmsd),   \
                   _version, 0, _test)

/* Memory behind a pointer, whose size is in a member of type _size_type. */
#define VMSTATE_SIZED_(_field, _state, _factor, _field_size, _size_type,    \
                       _flags, _info, _version, _test)                      \
    VMSTATE_FIELD_(VMSTATE_TEXT_(_field), NULL, offsetof(_state, _field),   \
                   _factor, 0, 0, 0,                                        \
                   vmstate_offset_value(_state, _field_size, _size_type),   \
                   &(_info), VMS_VBUFFER | VMS_POINTER | (_flags), NULL,    \
                   _version, 0, _test)

/* A container; _vmsd is a pointer, and describes what is inside. */
#define VMSTATE_CONTAINER_(_field, _state, _size, _start, _info, _vmsd,     \
                           _version)                                        \
    VMSTATE_FIELD_(VMSTATE_TEXT_(_field), NULL, offsetof(_state, _field),   \
                   _size, _start, 0, 0, 0, &(_info), 0, _vmsd, _version, 0, \
                   NULL)

/* Single elements */

/* A member, with all arguments. */
#define VMSTATE_SINGLE_FULL(_field, _state, _test, _version, _info, _type,  \
                            _err_hint)                                      \
    VMSTATE_FIELD_(VMSTATE_TEXT_(_field), _err_hint,                        \
                   vmstate_offset_value(_state, _field, _type),             \
                   sizeof(_type), 0, 0, 0, 0, &(_info), VMS_SINGLE, NULL,   \
                   _version, 0, _test)

#define VMSTATE_SINGLE_TEST(_field, _state, _test, _version, _info, _type)  \
    VMSTATE_SINGLE_FULL(_field, _state, _test, _version, _info, _type, NULL)

#define VMSTATE_SINGLE(_field, _state, _version, _info, _type)              \
    VMSTATE_SINGLE_FULL(_field, _state, NULL, _version, _info, _type, NULL)

/* What a pointer points to. _type is the pointer's type, star included. */
#define VMSTATE_POINTER(_field, _state, _version, _info, _type)             \
    VMSTATE_PLAIN_(_field, vmstate_offset_value(_state, _field, _type),     \
                   sizeof(_type), VMS_SINGLE | VMS_POINTER, 0, 0, _info,    \
                   _version, NULL)

#define VMSTATE_POINTER_TEST(_field, _state, _test, _info, _type)           \
    VMSTATE_PLAIN_(_field, vmstate_offset_value(_state, _field, _type),     \
                   sizeof(_type), VMS_SINGLE | VMS_POINTER, 0, 0, _info,    \
                   0, _test)

/*
 * No data: fails the load (and the save) unless _test returns true. _name is
 * a string that says what was violated.
 */
#define VMSTATE_VALIDATE(_name, _test)                                      \
    VMSTATE_FIELD_(_name, NULL, 0, 0, 0, 0, 0, 0, NULL,                     \
                   VMS_ARRAY | VMS_MUST_EXIST, NULL, 0, 0, _test)

/* Arrays of known length */

#define VMSTATE_ARRAY(_field, _state, _num, _version, _info, _type)         \
    VMSTATE_PLAIN_(_field,                                                  \
                   vmstate_offset_array(_state, _field, _type, _num),       \
                   sizeof(_type), VMS_ARRAY, _num, 0, _info, _version, NULL)

#define VMSTATE_ARRAY_TEST(_field, _state, _num, _test, _info, _type)       \
    VMSTATE_PLAIN_(_field,                                                  \
                   vmstate_offset_array(_state, _field, _type, _num),       \
                   sizeof(_type), VMS_ARRAY, _num, 0, _info, 0, _test)

#define VMSTATE_2DARRAY(_field, _state, _n1, _n2, _version, _info, _type)   \
    VMSTATE_PLAIN_(_field,                                                  \
                   vmstate_offset_2darray(_state, _field, _type, _n1, _n2), \
                   sizeof(_type), VMS_ARRAY, (_n1) * (_n2), 0, _info,       \
                   _version, NULL)

/* _num elements from index _start on. */
#define VMSTATE_SUB_ARRAY(_field, _state, _start, _num, _version, _info,    \
                          _type)                                            \
    VMSTATE_PLAIN_(_field,                                                  \
                   vmstate_offset_sub_array(_state, _field, _type, _start), \
                   sizeof(_type), VMS_ARRAY, _num, 0, _info, _version, NULL)

/* An array of pointers; _type is the pointers' type, star included. */
#define VMSTATE_ARRAY_OF_POINTER(_field, _state, _num, _version, _info,     \
                                 _type)                                     \
    VMSTATE_PLAIN_(_field,                                                  \
                   vmstate_offset_array(_state, _field, _type, _num),       \
                   sizeof(_type), VMS_ARRAY | VMS_ARRAY_OF_POINTER, _num,   \
                   0, _info, _version, NULL)

/* Arrays whose length is a member of the state: behind a pointer */

#define VMSTATE_VARRAY_INT32(_field, _state, _field_num, _version, _info,   \
                             _type)                                         \
    VMSTATE_PLAIN_(_field, vmstate_offset_pointer(_state, _field, _type),   \
                   sizeof(_type), VMS_VARRAY_INT32 | VMS_POINTER, 0,        \
                   vmstate_offset_value(_state, _field_num, int32_t),       \
                   _info, _version, NULL)

#define VMSTATE_VARRAY_UINT32(_field, _state, _field_num, _version, _info,  \
                              _type)                                        \
    VMSTATE_PLAIN_(_field, vmstate_offset_pointer(_state, _field, _type),   \
                   sizeof(_type), VMS_VARRAY_UINT32 | VMS_POINTER, 0,       \
                   vmstate_offset_value(_state, _field_num, uint32_t),      \
                   _info, _version, NULL)

/* As many pointers as the uint32_t says, behind a pointer; _type is the
 * pointers' type, star included. */
#define VMSTATE_VARRAY_OF_POINTER_UINT32(_field, _state, _field_num,        \
                                         _version, _info, _type)            \
    VMSTATE_PLAIN_(_field, vmstate_offset_pointer(_state, _field, _type),   \
                   sizeof(_type),                                           \
                   VMS_VARRAY_UINT32 | VMS_ARRAY_OF_POINTER | VMS_POINTER,  \
                   0, vmstate_offset_value(_state, _field_num, uint32_t),   \
                   _info, _version, NULL)

#define VMSTATE_VARRAY_UINT32_ALLOC(_field, _state, _field_num, _version,   \
                                    _info, _type)                           \
    VMSTATE_PLAIN_(_field, vmstate_offset_pointer(_state, _field, _type),   \
                   sizeof(_type),                                           \
                   VMS_VARRAY_UINT32 | VMS_POINTER | VMS_ALLOC, 0,          \
                   vmstate_offset_value(_state, _field_num, uint32_t),      \
                   _info, _version, NULL)

#define VMSTATE_VARRAY_UINT16_ALLOC(_field, _state, _field_num, _version,   \
                                    _info, _type)                           \
    VMSTATE_PLAIN_(_field, vmstate_offset_pointer(_state, _field, _type),   \
                   sizeof(_type),                                           \
                   VMS_VARRAY_UINT16 | VMS_POINTER | VMS_ALLOC, 0,          \
                   vmstate_offset_value(_state, _field_num, uint16_t),      \
                   _info, _version, NULL)

/*
 * The same for an array inside the state, of which only a part is in use. A
 * count from the stream that is larger than the array fails the load; QEMU
 * does not notice, so code for both needs a VMSTATE_VALIDATE() in between.
 */

#define VMSTATE_ARRAY_INT32_UNSAFE(_field, _state, _field_num, _info,       \
                                   _type)                                   \
    VMSTATE_PART_(_field, _state, _type, VMS_VARRAY_INT32,                  \
                  0, vmstate_offset_value(_state, _field_num, int32_t),     \
                  &(_info), NULL, 0)

#define VMSTATE_VARRAY_UINT16_UNSAFE(_field, _state, _field_num, _version,  \
                                     _info, _type)                          \
    VMSTATE_PART_(_field, _state, _type, VMS_VARRAY_UINT16,                 \
                  0, vmstate_offset_value(_state, _field_num, uint16_t),    \
                  &(_info), NULL, _version)

/* The uint32_t count times the constant _multiply elements. */
#define VMSTATE_VARRAY_MULTIPLY(_field, _state, _field_num, _multiply,      \
                                _info, _type)                               \
    VMSTATE_PART_(_field, _state, _type,                                    \
                  VMS_VARRAY_UINT32 | VMS_MULTIPLY_ELEMENTS, _multiply,     \
                  vmstate_offset_value(_state, _field_num, uint32_t),       \
                  &(_info), NULL, 0)

/* Structures */

#define VMSTATE_STRUCT_TEST(_field, _state, _test, _version, _vmsd, _type)  \
    VMSTATE_NESTED_(_field, vmstate_offset_value(_state, _field, _type),    \
                    sizeof(_type), 0, 0, 0, _vmsd, _version, _test)

#define VMSTATE_STRUCT(_field, _state, _version, _vmsd, _type)              \
    VMSTATE_STRUCT_TEST(_field, _state, NULL, _version, _vmsd, _type)

/* A structure in a chosen version of its own. */
#define VMSTATE_VSTRUCT_TEST(_field, _state, _test, _version, _vmsd, _type, \
                             _struct_version)                               \
    VMSTATE_FIELD_(VMSTATE_TEXT_(_field), NULL,                             \
                   vmstate_offset_value(_state, _field, _type),             \
                   sizeof(_type), 0, 0, 0, 0, NULL, VMS_VSTRUCT, &(_vmsd),  \
                   _version, _struct_version, _test)

#define VMSTATE_VSTRUCT_V(_field, _state, _version, _vmsd, _type,           \
                          _struct_version)                                  \
    VMSTATE_VSTRUCT_TEST(_field, _state, NULL, _version, _vmsd, _type,      \
                         _struct_version)

#define VMSTATE_VSTRUCT(_field, _state, _vmsd, _type, _struct_version)      \
    VMSTATE_VSTRUCT_TEST(_field, _state, NULL, 0, _vmsd, _type,             \
                         _struct_version)

/* The structure that a pointer points to; _type is without the star. */
#define VMSTATE_STRUCT_POINTER_TEST_V(_field, _state, _test, _version,      \
                                      _vmsd, _type)                         \
    VMSTATE_NESTED_(_field, vmstate_offset_pointer(_state, _field, _type),  \
                    sizeof(_type *), VMS_POINTER, 0, 0, _vmsd, _version,    \
                    _test)

#define VMSTATE_STRUCT_POINTER_TEST(_field, _state, _test, _vmsd, _type)    \
    VMSTATE_STRUCT_POINTER_TEST_V(_field, _state, _test, 0, _vmsd, _type)

#define VMSTATE_STRUCT_POINTER_V(_field, _state, _version, _vmsd, _type)    \
    VMSTATE_STRUCT_POINTER_TEST_V(_field, _state, NULL, _version, _vmsd,    \
                                  _type)

#define VMSTATE_STRUCT_POINTER(_field, _state, _vmsd, _type)                \
    VMSTATE_STRUCT_POINTER_TEST_V(_field, _state, NULL, 0, _vmsd, _type)

/* Arrays of structures, of known length */

#define VMSTATE_STRUCT_ARRAY_TEST(_field, _state, _num, _test, _version,    \
                                  _vmsd, _type)                             \
    VMSTATE_NESTED_(_field,                                                 \
                    vmstate_offset_array(_state, _field, _type, _num),      \
                    sizeof(_type), VMS_ARRAY, _num, 0, _vmsd, _version,     \
                    _test)

#define VMSTATE_STRUCT_ARRAY(_field, _state, _num, _version, _vmsd, _type)  \
    VMSTATE_STRUCT_ARRAY_TEST(_field, _state, _num, NULL, _version, _vmsd,  \
                              _type)

#define VMSTATE_STRUCT_2DARRAY_TEST(_field, _state, _n1, _n2, _test,        \
                                    _version, _vmsd, _type)                 \
    VMSTATE_NESTED_(_field,                                                 \
                    vmstate_offset_2darray(_state, _field, _type, _n1, _n2), \
                    sizeof(_type), VMS_ARRAY, (_n1) * (_n2), 0, _vmsd,      \
                    _version, _test)

#define VMSTATE_STRUCT_2DARRAY(_field, _state, _n1, _n2, _version, _vmsd,   \
                               _type)                                       \
    VMSTATE_STRUCT_2DARRAY_TEST(_field, _state, _n1, _n2, NULL, _version,   \
                                _vmsd, _type)

#define VMSTATE_STRUCT_SUB_ARRAY(_field, _state, _start, _num, _version,    \
                                 _vmsd, _type)                              \
    VMSTATE_NESTED_(_field,                                                 \
                    vmstate_offset_sub_array(_state, _field, _type, _start), \
                    sizeof(_type), VMS_ARRAY, _num, 0, _vmsd, _version, NULL)

/* An array of pointers to structures; _type is without the star. */
#define VMSTATE_ARRAY_OF_POINTER_TO_STRUCT(_f, _s, _n, _v, _vmsd, _type)    \
    VMSTATE_NESTED_(_f, vmstate_offset_array(_s, _f, _type *, _n),          \
                    sizeof(_type *), VMS_ARRAY | VMS_ARRAY_OF_POINTER, _n,  \
                    0, _vmsd, _v, NULL)

/* A pointer to _num structures; neither type nor pointer is checked. */
#define VMSTATE_STRUCT_VARRAY_POINTER_KNOWN(_field, _state, _num, _version, \
                                            _vmsd, _type)                   \
    VMSTATE_NESTED_(_field, offsetof(_state, _field), sizeof(_type),        \
                    VMS_ARRAY | VMS_POINTER, _num, 0, _vmsd, _version, NULL)

/* Arrays of structures whose length is a member: inside the state */

#define VMSTATE_STRUCT_VARRAY_UINT8(_field, _state, _field_num, _version,   \
                                    _vmsd, _type)                           \
    VMSTATE_PART_(_field, _state, _type, VMS_STRUCT | VMS_VARRAY_UINT8,     \
                  0, vmstate_offset_value(_state, _field_num, uint8_t),     \
                  NULL, &(_vmsd), _version)

#define VMSTATE_STRUCT_VARRAY_INT32(_field, _state, _field_num, _version,   \
                                    _vmsd, _type)                           \
    VMSTATE_PART_(_field, _state, _type, VMS_STRUCT | VMS_VARRAY_INT32,     \
                  0, vmstate_offset_value(_state, _field_num, int32_t),     \
                  NULL, &(_vmsd), _version)

#define VMSTATE_STRUCT_VARRAY_UINT32(_field, _state, _field_num, _version,  \
                                     _vmsd, _type)                          \
    VMSTATE_PART_(_field, _state, _type, VMS_STRUCT | VMS_VARRAY_UINT32,    \
                  0, vmstate_offset_value(_state, _field_num, uint32_t),    \
                  NULL, &(_vmsd), _version)

/* ... and behind a pointer */

#define VMSTATE_STRUCT_VARRAY_POINTER_INT32(_field, _state, _field_num,     \
                                            _vmsd, _type)                   \
    VMSTATE_NESTED_(_field, vmstate_offset_pointer(_state, _field, _type),  \
                    sizeof(_type), VMS_POINTER | VMS_VARRAY_INT32, 0,       \
                    vmstate_offset_value(_state, _field_num, int32_t),      \
                    _vmsd, 0, NULL)

/* The flag is that for int32_t, as in QEMU. */
#define VMSTATE_STRUCT_VARRAY_POINTER_UINT32(_field, _state, _field_num,    \
                                             _vmsd, _type)                  \
    VMSTATE_NESTED_(_field, vmstate_offset_pointer(_state, _field, _type),  \
                    sizeof(_type), VMS_POINTER | VMS_VARRAY_INT32, 0,       \
                    vmstate_offset_value(_state, _field_num, uint32_t),     \
                    _vmsd, 0, NULL)

#define VMSTATE_STRUCT_VARRAY_POINTER_UINT16(_field, _state, _field_num,    \
                                             _vmsd, _type)                  \
    VMSTATE_NESTED_(_field, vmstate_offset_pointer(_state, _field, _type),  \
                    sizeof(_type), VMS_POINTER | VMS_VARRAY_UINT16, 0,      \
                    vmstate_offset_value(_state, _field_num, uint16_t),     \
                    _vmsd, 0, NULL)

/* Allocated when loading; the count is an int32_t. */
#define VMSTATE_STRUCT_VARRAY_ALLOC(_field, _state, _field_num, _version,   \
                                    _vmsd, _type)                           \
    VMSTATE_NESTED_(_field, vmstate_offset_pointer(_state, _field, _type),  \
                    sizeof(_type),                                          \
                    VMS_VARRAY_INT32 | VMS_ALLOC | VMS_POINTER, 0,          \
                    vmstate_offset_value(_state, _field_num, int32_t),      \
                    _vmsd, _version, NULL)

/* Bytes */

/* The bytes from index _start up to, not including, _size of an array. */
#define VMSTATE_STATIC_BUFFER(_field, _state, _version, _test, _start,      \
                              _size)                                        \
    VMSTATE_PLAIN_(_field,                                                  \
                   vmstate_offset_buffer(_state, _field) + (_start),        \
                   (_size) - (_start), VMS_BUFFER, 0, 0,                    \
                   vmstate_info_buffer, _version, _test)

/* _size bytes of a member of any type, as they are in memory. */
#define VMSTATE_BUFFER_UNSAFE_INFO_TEST(_field, _state, _test, _version,    \
                                        _info, _size)                       \
    VMSTATE_PLAIN_(_field, offsetof(_state, _field), _size, VMS_BUFFER, 0,  \
                   0, _info, _version, _test)

#define VMSTATE_BUFFER_UNSAFE_INFO(_field, _state, _version, _info, _size)  \
    VMSTATE_BUFFER_UNSAFE_INFO_TEST(_field, _state, NULL, _version, _info,  \
                                    _size)

/* _size bytes behind a pointer. */
#define VMSTATE_BUFFER_POINTER_UNSAFE(_field, _state, _version, _size)      \
    VMSTATE_PLAIN_(_field, offsetof(_state, _field), _size,                 \
                   VMS_BUFFER | VMS_POINTER, 0, 0, vmstate_info_buffer,     \
                   _version, NULL)

/* As many bytes behind a pointer as a member says, of type int32_t ... */
#define VMSTATE_VBUFFER(_field, _state, _version, _test, _field_size)       \
    VMSTATE_SIZED_(_field, _state, 0, _field_size, int32_t, 0,              \
                   vmstate_info_buffer, _version, _test)

/* ... or of type uint32_t; more than fits an int32_t is an error anyway */
#define VMSTATE_VBUFFER_UINT32(_field, _state, _version, _test, _field_size) \
    VMSTATE_SIZED_(_field, _state, 0, _field_size, uint32_t, 0,             \
                   vmstate_info_buffer, _version, _test)

/* ... allocated when loading */
#define VMSTATE_VBUFFER_ALLOC_UINT32(_field, _state, _version, _test,       \
                                     _field_size)                           \
    VMSTATE_SIZED_(_field, _state, 0, _field_size, uint32_t, VMS_ALLOC,     \
                   vmstate_info_buffer, _version, _test)

/* ... _multiply times as many */
#define VMSTATE_VBUFFER_MULTIPLY(_field, _state, _version, _test,           \
                                 _field_size, _multiply)                    \
    VMSTATE_SIZED_(_field, _state, _multiply, _field_size, uint32_t,        \
                   VMS_MULTIPLY, vmstate_info_buffer, _version, _test)

/* A pointer to unsigned longs; _field_size is an int32_t and counts bits. */
#define VMSTATE_BITMAP_TEST(_field, _state, _test, _version, _field_size)   \
    VMSTATE_SIZED_(_field, _state, 0, _field_size, int32_t, 0,              \
                   vmstate_info_bitmap, _version, _test)

#define VMSTATE_BITMAP(_field, _state, _version, _field_size)               \
    VMSTATE_BITMAP_TEST(_field, _state, NULL, _version, _field_size)

/*
 * Bytes that are in the stream but no longer in the state. _size counts what
 * was sent, which for a bool is 1 whatever sizeof says.
 */
#define VMSTATE_UNUSED_BUFFER(_test, _version, _size)                       \
    VMSTATE_FIELD_("unused", NULL, 0, _size, 0, 0, 0, 0,                    \
                   &vmstate_info_unused_buffer, VMS_BUFFER, NULL, _version, \
                   0, _test)

/* The same, as often as the uint32_t _field_num says. */
#define VMSTATE_UNUSED_VARRAY_UINT32(_state, _test, _version, _field_num,   \
                                     _size)                                 \
    VMSTATE_FIELD_("unused", NULL, 0, _size, 0, 0,                          \
                   vmstate_offset_value(_state, _field_num, uint32_t), 0,   \
                   &vmstate_info_unused_buffer,                             \
                   VMS_VARRAY_UINT32 | VMS_BUFFER, NULL, _version, 0, _test)

/* State that is computed */

/*
 * Saves and loads a temporary _tmp_type instead of a member. Its first member,
 * `parent`, points to the state. The functions of _vmsd copy the values between
 * both. The temporary exists for one save or load, and is not zeroed.
 */
#define VMSTATE_WITH_TMP_TEST(_state, _test, _tmp_type, _vmsd)              \
    VMSTATE_FIELD_("tmp", NULL, 0,                                          \
                   sizeof(_tmp_type) +                                      \
                   VMSTATE_ASSERT_(offsetof(_tmp_type, parent) == 0,        \
                                   "parent must be the first member of "    \
                                   #_tmp_type) +                            \
                   0 * vmstate_offset_pointer(_tmp_type, parent, _state),   \
                   0, 0, 0, 0, &vmstate_info_tmp, 0, &(_vmsd), 0, 0, _test)

#define VMSTATE_WITH_TMP(_state, _tmp_type, _vmsd) \
    VMSTATE_WITH_TMP_TEST(_state, NULL, _tmp_type, _vmsd)

/*
 * Containers. Loading allocates each element with malloc() and adds it to what
 * is there already; the container has to be initialised. _next is the link in
 * an element of type _type. _version is the version the elements are read in.
 */
#define VMSTATE_QTAILQ_V(_field, _state, _version, _vmsd, _type, _next)     \
    VMSTATE_CONTAINER_(_field, _state, sizeof(_type),                       \
                       offsetof(_type, _next), vmstate_info_qtailq,         \
                       &(_vmsd), _version)

#define VMSTATE_QLIST_V(_field, _state, _version, _vmsd, _type, _next)      \
    VMSTATE_CONTAINER_(_field, _state, sizeof(_type),                       \
                       offsetof(_type, _next), vmstate_info_qlist,          \
                       &(_vmsd), _version)

/*
 * A GLib tree. _vmsd is a pointer to two descriptions, first of the values,
 * then of the keys; with direct keys, which are integers in the place of
 * pointers, to the values' alone.
 */
#define VMSTATE_GTREE_V(_field, _state, _version, _vmsd, _key_type,         \
                        _val_type)                                          \
    VMSTATE_CONTAINER_(_field, _state, sizeof(_val_type),                   \
                       sizeof(_key_type), vmstate_info_gtree, _vmsd,        \
                       _version)

#define VMSTATE_GTREE_DIRECT_KEY_V(_field, _state, _version, _vmsd,         \
                                   _val_type)                               \
    VMSTATE_CONTAINER_(_field, _state, sizeof(_val_type), 0,                \
                       vmstate_info_gtree, _vmsd, _version)

/* The end of every table. */
#if SAVEVM_QEMU_VERSION >= 800
#define VMSTATE_END_OF_LIST() \
    VMSTATE_FIELD_(NULL, NULL, 0, 0, 0, 0, 0, 0, NULL, VMS_END, NULL, 0, 0, NULL)
#elif defined(__cplusplus)
#define VMSTATE_END_OF_LIST() {}
#else
#define VMSTATE_END_OF_LIST() { 0 }
#endif

#endif /* QEMU_VMSTATE_FIELDS_H */

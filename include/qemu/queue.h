/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked lists that VMSTATE_QLIST_V() and VMSTATE_QTAILQ_V() can save, for
 * hypervisors that have none of their own. Layout, names and guard are those
 * of QEMU 7.2's include/qemu/queue.h; QEMU's singly linked lists and simple
 * queues are not here, VMState has no macros for them.
 *
 * The links sit inside the elements and own nothing: the caller allocates and
 * frees, and locks. An element can be in one list per link. Arguments are
 * evaluated more than once.
 *
 *     struct Job {
 *         uint32_t id;
 *         QTAILQ_ENTRY(Job) next;
 *     };
 *     QTAILQ_HEAD(JobList, Job) jobs;
 *
 * QLIST: one pointer in the head, insertion before and after any element,
 * walks forward. QTAILQ: two pointers, also insertion at the end, and walks in
 * both directions.
 */
#ifndef QEMU_SYS_QUEUE_H
#define QEMU_SYS_QUEUE_H

#include <stddef.h>

/* Names that end in an underscore are not for use elsewhere. */

/* QLIST */

#define QLIST_HEAD(_name, _type)                                            \
    struct _name {                                                          \
        struct _type *lh_first; /* NULL: empty */                           \
    }

#define QLIST_HEAD_INITIALIZER(_head) { NULL }

#define QLIST_ENTRY(_type)                                                  \
    struct {                                                                \
        struct _type *le_next;  /* NULL: the last */                        \
        struct _type **le_prev; /* the pointer that points here */          \
    }

#define QLIST_FIRST(_head) ((_head)->lh_first)
#define QLIST_NEXT(_elm, _field) ((_elm)->_field.le_next)
#define QLIST_EMPTY(_head) (!QLIST_FIRST(_head))

/* Whether an element is in a list; needs a link that started as zeros. */
#define QLIST_IS_INSERTED(_elm, _field) ((_elm)->_field.le_prev != NULL)

#define QLIST_INIT(_head)                                                   \
    do {                                                                    \
        (_head)->lh_first = NULL;                                           \
    } while (0)

/* Makes `*_slot` point to the element, and the element to what was there. */
#define QLIST_PUT_(_slot, _elm, _field)                                     \
    do {                                                                    \
        (_elm)->_field.le_next = *(_slot);                                  \
        (_elm)->_field.le_prev = (_slot);                                   \
        if ((_elm)->_field.le_next) {                                       \
            (_elm)->_field.le_next->_field.le_prev =                        \
                &(_elm)->_field.le_next;                                    \
        }                                                                   \
        *(_elm)->_field.le_prev = (_elm);                                   \
    } while (0)

#define QLIST_INSERT_HEAD(_head, _elm, _field)                              \
    QLIST_PUT_(&(_head)->lh_first, _elm, _field)

#define QLIST_INSERT_AFTER(_listelm, _elm, _field)                          \
    QLIST_PUT_(&(_listelm)->_field.le_next, _elm, _field)

#define QLIST_INSERT_BEFORE(_listelm, _elm, _field)                         \
    QLIST_PUT_((_listelm)->_field.le_prev, _elm, _field)

/* Takes an element out, and clears its link. */
#define QLIST_REMOVE(_elm, _field)                                          \
    do {                                                                    \
        *(_elm)->_field.le_prev = (_elm)->_field.le_next;                   \
        if ((_elm)->_field.le_next) {                                       \
            (_elm)->_field.le_next->_field.le_prev =                        \
                (_elm)->_field.le_prev;                                     \
        }                                                                   \
        (_elm)->_field.le_next = NULL;                                      \
        (_elm)->_field.le_prev = NULL;                                      \
    } while (0)

/* The same, if it is in one. */
#define QLIST_SAFE_REMOVE(_elm, _field)                                     \
    do {                                                                    \
        if (QLIST_IS_INSERTED(_elm, _field)) {                              \
            QLIST_REMOVE(_elm, _field);                                     \
        }                                                                   \
    } while (0)

/* Exchanges what is in two lists. */
#define QLIST_SWAP(_list1, _list2, _field)                                  \
    do {                                                                    \
        __typeof__((_list1)->lh_first) q_first_ = (_list1)->lh_first;       \
        (_list1)->lh_first = (_list2)->lh_first;                            \
        (_list2)->lh_first = q_first_;                                      \
        if ((_list1)->lh_first) {                                           \
            (_list1)->lh_first->_field.le_prev = &(_list1)->lh_first;       \
        }                                                                   \
        if (q_first_) {                                                     \
            q_first_->_field.le_prev = &(_list2)->lh_first;                 \
        }                                                                   \
    } while (0)

#define QLIST_FOREACH(_var, _head, _field)                                  \
    for ((_var) = QLIST_FIRST(_head); (_var);                               \
         (_var) = QLIST_NEXT(_var, _field))

/* The element may be removed or freed in the body. */
#define QLIST_FOREACH_SAFE(_var, _head, _field, _next)                      \
    for ((_var) = QLIST_FIRST(_head);                                       \
         (_var) && ((_next) = QLIST_NEXT(_var, _field), 1);                 \
         (_var) = (_next))

/*
 * QTAILQ. Head and links are the same pair of pointers: forward to the next
 * element, back to the previous pair (of an element or of the head), where the
 * head follows the last element. That makes the union: the typed pointer is
 * there to be seen, all code here goes through the untyped pair, so that each
 * pointer in memory is only ever accessed as one type.
 */
typedef struct QTailQLink {
    void *tql_next;
    struct QTailQLink *tql_prev;
} QTailQLink;

#define QTAILQ_HEAD(_name, _type)                                           \
    union _name {                                                           \
        struct _type *tqh_first; /* NULL: empty */                          \
        QTailQLink tqh_circ;                                                \
    }

#define QTAILQ_HEAD_INITIALIZER(_head)                                      \
    { .tqh_circ = { NULL, &(_head).tqh_circ } }

#define QTAILQ_ENTRY(_type)                                                 \
    union {                                                                 \
        struct _type *tqe_next; /* NULL: the last */                        \
        QTailQLink tqe_circ;                                                \
    }

#define QTAILQ_FIRST(_head)                                                 \
    ((__typeof__((_head)->tqh_first))(_head)->tqh_circ.tql_next)
#define QTAILQ_NEXT(_elm, _field)                                           \
    ((__typeof__((_elm)->_field.tqe_next))(_elm)->_field.tqe_circ.tql_next)
#define QTAILQ_EMPTY(_head) (!(_head)->tqh_circ.tql_next)

/*
 * Two pairs back there is the pointer that leads to the element one pair
 * back; seen from the first element it is the last one's, which is NULL.
 */
#define QTAILQ_LINK_PREV(_link) ((_link).tql_prev->tql_prev->tql_next)
#define QTAILQ_LAST(_head)                                                  \
    ((__typeof__((_head)->tqh_first))QTAILQ_LINK_PREV((_head)->tqh_circ))
#define QTAILQ_PREV(_elm, _field)                                           \
    ((__typeof__((_elm)->_field.tqe_next))                                  \
     QTAILQ_LINK_PREV((_elm)->_field.tqe_circ))

/* Whether an element is in a queue; needs a link that started as zeros. */
#define QTAILQ_IN_USE(_elm, _field)                                         \
    ((_elm)->_field.tqe_circ.tql_prev != NULL)

#define QTAILQ_INIT(_head)                                                  \
    do {                                                                    \
        (_head)->tqh_circ.tql_next = NULL;                                  \
        (_head)->tqh_circ.tql_prev = &(_head)->tqh_circ;                    \
    } while (0)

/* The pair after `_elm`, or the head's if that is NULL. */
#define QTAILQ_FOLLOWER_(_head, _elm, _field)                               \
    (*((_elm) ? &(_elm)->_field.tqe_circ : &(_head)->tqh_circ))

/* Inserts between the pair `_before` and the element it leads to. */
#define QTAILQ_PUT_(_head, _before, _elm, _field)                           \
    do {                                                                    \
        QTailQLink *q_prev_ = (_before);                                    \
        (void)sizeof((_head)->tqh_first == (_elm)); /* the same type */     \
        (_elm)->_field.tqe_circ.tql_next = q_prev_->tql_next;               \
        (_elm)->_field.tqe_circ.tql_prev = q_prev_;                         \
        QTAILQ_FOLLOWER_(_head, QTAILQ_NEXT(_elm, _field), _field).tql_prev = \
            &(_elm)->_field.tqe_circ;                                       \
        q_prev_->tql_next = (_elm);                                         \
    } while (0)

#define QTAILQ_INSERT_HEAD(_head, _elm, _field)                             \
    QTAILQ_PUT_(_head, &(_head)->tqh_circ, _elm, _field)

#define QTAILQ_INSERT_TAIL(_head, _elm, _field)                             \
    QTAILQ_PUT_(_head, (_head)->tqh_circ.tql_prev, _elm, _field)

#define QTAILQ_INSERT_AFTER(_head, _listelm, _elm, _field)                  \
    QTAILQ_PUT_(_head, &(_listelm)->_field.tqe_circ, _elm, _field)

#define QTAILQ_INSERT_BEFORE(_listelm, _elm, _field)                        \
    do {                                                                    \
        (_elm)->_field.tqe_circ.tql_next = (_listelm);                      \
        (_elm)->_field.tqe_circ.tql_prev =                                  \
            (_listelm)->_field.tqe_circ.tql_prev;                           \
        (_listelm)->_field.tqe_circ.tql_prev->tql_next = (_elm);            \
        (_listelm)->_field.tqe_circ.tql_prev = &(_elm)->_field.tqe_circ;    \
    } while (0)

/* Joins what is before `_left` with what is after `_right`. */
#define QTAILQ_REMOVE_SEVERAL(_head, _left, _right, _field)                 \
    do {                                                                    \
        QTailQLink *q_prev_ = (_left)->_field.tqe_circ.tql_prev;            \
        q_prev_->tql_next = (_right)->_field.tqe_circ.tql_next;             \
        QTAILQ_FOLLOWER_(_head, QTAILQ_NEXT(_right, _field), _field)        \
            .tql_prev = q_prev_;                                            \
    } while (0)

/* Takes an element out, and clears its link. */
#define QTAILQ_REMOVE(_head, _elm, _field)                                  \
    do {                                                                    \
        QTAILQ_REMOVE_SEVERAL(_head, _elm, _elm, _field);                   \
        (_elm)->_field.tqe_circ.tql_next = NULL;                            \
        (_elm)->_field.tqe_circ.tql_prev = NULL;                            \
    } while (0)

#define QTAILQ_FOREACH(_var, _head, _field)                                 \
    for ((_var) = QTAILQ_FIRST(_head); (_var);                              \
         (_var) = QTAILQ_NEXT(_var, _field))

#define QTAILQ_FOREACH_REVERSE(_var, _head, _field)                         \
    for ((_var) = QTAILQ_LAST(_head); (_var);                               \
         (_var) = QTAILQ_PREV(_var, _field))

/* The element may be removed or freed in the body. */
#define QTAILQ_FOREACH_SAFE(_var, _head, _field, _next)                     \
    for ((_var) = QTAILQ_FIRST(_head);                                      \
         (_var) && ((_next) = QTAILQ_NEXT(_var, _field), 1);                \
         (_var) = (_next))

#define QTAILQ_FOREACH_REVERSE_SAFE(_var, _head, _field, _prev)             \
    for ((_var) = QTAILQ_LAST(_head);                                       \
         (_var) && ((_prev) = QTAILQ_PREV(_var, _field), 1);                \
         (_var) = (_prev))

#endif /* QEMU_SYS_QUEUE_H */

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files.h on top of a built QEMU tree; compiled with its flags. */
#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#if __has_include("qobject/json-writer.h")
#include "qobject/json-writer.h"
#elif __has_include("qapi/qmp/json-writer.h")
#include "qapi/qmp/json-writer.h"
#else
#include "migration/qjson.h"
#endif
#include "io/channel-buffer.h"
#include "io/channel-socket.h"
#include "migration/qemu-file.h"
#include "migration/vmstate.h"

#include "qapi/error.h"

#define SAVEVM_QEMU_VERSION (QEMU_VERSION_MAJOR * 100 + QEMU_VERSION_MINOR)
#include "files.h"
#include "reference/files_5_2_qemu.h"
#include "test-case.h"

/* A QJSON is an object from the beginning. */
#if SAVEVM_QEMU_VERSION < 600
#define json_writer_new(pretty) qjson_new()
#define json_writer_start_object(writer, name)
#define json_writer_end_object qjson_finish
#define json_writer_str json_prop_str
#define json_writer_int64 json_prop_int
#define json_writer_get qjson_get_str
#define json_writer_free qjson_destroy
#endif

/*
 * QEMU 10.2 aborts if a structure inside of another fails to save: it sets an
 * error where one is set. The first error stays here, so that the rest of what
 * happens can be compared.
 */
void __real_error_setg_internal(Error **errp, const char *src, int line,
                                const char *func, const char *fmt, ...)
    G_GNUC_PRINTF(5, 6);
void __wrap_error_setg_internal(Error **errp, const char *src, int line,
                                const char *func, const char *fmt, ...)
    G_GNUC_PRINTF(5, 6);

void __wrap_error_setg_internal(Error **errp, const char *src, int line,
                                const char *func, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list arguments;

    if (errp && *errp) {
        return;
    }
    va_start(arguments, fmt);
    text = g_strdup_vprintf(fmt, arguments);
    va_end(arguments);
    __real_error_setg_internal(errp, src, line, func, "%s", text);
}

void files_start(void)
{
    module_call_init(MODULE_INIT_QOM);
#if SAVEVM_QEMU_VERSION >= 1002
    qemu_init_clocks(NULL);
#else
    init_clocks(NULL);
#endif
}

void files_stop(void)
{
}

static QEMUFile *open_buffer(const uint8_t *bytes, size_t len, bool writable)
{
    QIOChannelBuffer *buffer = qio_channel_buffer_new(len + 1);
    QEMUFile *f;

    if (len) {
        memcpy(buffer->data, bytes, len);
        buffer->usage = len;
    }
    if (writable) {
        f = qemu_file_new_output(QIO_CHANNEL(buffer));
    } else {
        f = qemu_file_new_input(QIO_CHANNEL(buffer));
    }
    object_unref(OBJECT(buffer));
    return f;
}

QEMUFile *files_writer(void)
{
    return open_buffer(NULL, 0, true);
}

QEMUFile *files_reader(const uint8_t *bytes, size_t len)
{
    return open_buffer(bytes, len, false);
}

static QIOChannel *socket_channel(int fd)
{
    return QIO_CHANNEL(qio_channel_socket_new_fd(fd, &error_abort));
}

void files_socket_pair(QEMUFile **writer, QEMUFile **reader)
{
    int pair[2] = { -1, -1 };
    QIOChannel *near, *far;

    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    near = socket_channel(pair[0]);
    far = socket_channel(pair[1]);
    *writer = qemu_file_new_output(near);
    *reader = qemu_file_new_input(far);
    object_unref(OBJECT(near));
    object_unref(OBJECT(far));
}

uint8_t *files_written(QEMUFile *f, size_t *len)
{
    QIOChannelBuffer *buffer;
    uint8_t *copy;

    qemu_fflush(f);
    buffer = QIO_CHANNEL_BUFFER(qemu_file_get_ioc(f));
    *len = buffer->usage;
    copy = malloc(buffer->usage + 1);
    memcpy(copy, buffer->data, buffer->usage);
    return copy;
}

/* What savevm.c writes around a device when it builds the description. */
char *files_describe(const VMStateDescription *vmsd, void *obj)
{
    JSONWriter *writer = json_writer_new(false);
    QEMUFile *f = files_writer();
    char *text = NULL;

    json_writer_start_object(writer, NULL);
    json_writer_str(writer, "name", vmsd->name);
    json_writer_int64(writer, "instance_id", 0);
    if (SAVE(f, vmsd, obj, writer) == 0) {
        json_writer_end_object(writer);
        text = strdup(json_writer_get(writer));
    }
    json_writer_free(writer);
    qemu_fclose(f);
    return text;
}

void files_error(Error **errp, const char *text)
{
    error_setg(errp, "%s", text);
}

static void timer_ignored(void *opaque)
{
}

void files_timer_init(QEMUTimer *timer, int64_t expire)
{
    timer_init_ns(timer, QEMU_CLOCK_VIRTUAL, timer_ignored, NULL);
    if (expire != -1) {
        timer_mod_ns(timer, expire);
    }
}

int64_t files_timer_expires(QEMUTimer *timer)
{
    return (int64_t)timer_expire_time_ns(timer);
}

void files_timer_drop(QEMUTimer *timer)
{
    timer_del(timer);
}

static int compare_integers(const void *a, const void *b)
{
    return (a > b) - (a < b);
}

static int compare_through(const void *a, const void *b, void *compare)
{
    return ((int (*)(const void *, const void *))compare)(a, b);
}

void *files_tree(int (*compare)(const void *a, const void *b))
{
    if (compare == NULL) {
        return g_tree_new_full(compare_through, compare_integers, NULL, free);
    }
    return g_tree_new_full(compare_through, compare, free, free);
}

void files_tree_insert(void *tree, void *key, void *value)
{
    g_tree_insert(tree, key, value);
}

void files_tree_walk(void *tree, int (*visit)(void *key, void *value,
                                              void *data), void *data)
{
    g_tree_foreach(tree, visit, data);
}

void files_tree_free(void *tree)
{
    g_tree_unref(tree);
}

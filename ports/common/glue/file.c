/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * QEMUFile over QIOChannel, and the host operations that every program of QEMU
 * implements. The unit tests link this file as well, so it may use only QEMU's
 * io and util.
 */
#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/log.h"
#include "migration/qemu-file.h"
#include "trace/control.h"
#include "glue.h"
#include "savevm/file.h"

static ssize_t channel_done(GlueChannel *c, bool write, ssize_t ret, Error *err)
{
    if (ret >= 0) {
        return ret;
    }
    if (ret == QIO_CHANNEL_ERR_BLOCK) {
        return -EAGAIN;
    }
    g_free(c->failure[write]);
    c->failure[write] = err ? g_strdup(error_get_pretty(err)) : NULL;
    error_free(err);
    return -EIO;
}

static ssize_t channel_read(void *channel, uint8_t *buf, size_t len)
{
    GlueChannel *c = channel;
    Error *err = NULL;
    ssize_t ret = glue_read(c, buf, len, &err);

    return channel_done(c, false, ret, err);
}

static ssize_t channel_writev(void *channel, const struct iovec *iov, int count)
{
    GlueChannel *c = channel;
    Error *err = NULL;
    ssize_t ret = qio_channel_writev(c->ioc, iov, count, &err);

    if (ret > 0) {
        c->written += ret;
        glue_account(ret);
    }
    return channel_done(c, true, ret, err);
}

static int channel_wait(void *channel, bool write)
{
    GlueChannel *c = channel;
    GIOCondition condition = write ? G_IO_OUT : G_IO_IN;

    if (qemu_in_coroutine()) {
        qio_channel_yield(c->ioc, condition);
    } else {
        qio_channel_wait(c->ioc, condition);
    }
    return 0;
}

static char *channel_error(void *channel, bool write)
{
    GlueChannel *c = channel;

    return g_steal_pointer(&c->failure[write]);
}

static int channel_shutdown(void *channel)
{
    GlueChannel *c = channel;

    if (!qio_channel_has_feature(c->ioc, QIO_CHANNEL_FEATURE_SHUTDOWN)) {
        return -ENOSYS;
    }
    return qio_channel_shutdown(c->ioc, QIO_CHANNEL_SHUTDOWN_BOTH, NULL) < 0
           ? -EIO : 0;
}

static int channel_set_blocking(void *channel, bool blocking)
{
    GlueChannel *c = channel;

    /* As in QEMU, channels that do not support this report no error. */
    qio_channel_set_blocking(c->ioc, blocking, NULL);
    return 0;
}

static int channel_close(void *channel)
{
    GlueChannel *c = channel;

    return qio_channel_close(c->ioc, NULL);
}

static void channel_free(void *channel)
{
    GlueChannel *c = channel;

    glue_channel_clear(c);
    object_unref(OBJECT(c->ioc));
    g_free(c->failure[false]);
    g_free(c->failure[true]);
    g_free(c);
}

static const SaveVMChannelOps channel_ops = {
    .size = sizeof(SaveVMChannelOps),
    .read = channel_read,
    .writev = channel_writev,
    .wait = channel_wait,
    .shutdown = channel_shutdown,
    .set_blocking = channel_set_blocking,
    .close = channel_close,
    .free = channel_free,
    .error = channel_error,
};

static QEMUFile *file_over(QIOChannel *ioc, bool writable)
{
    GlueChannel *c = g_new0(GlueChannel, 1);

    object_ref(OBJECT(ioc));
    c->ioc = ioc;
    return savevm_file_from_channel(&channel_ops, c, writable);
}

QEMUFile *qemu_file_new_output(QIOChannel *ioc)
{
    return file_over(ioc, true);
}

QEMUFile *qemu_file_new_input(QIOChannel *ioc)
{
    return file_over(ioc, false);
}

QIOChannel *qemu_file_get_ioc(QEMUFile *f)
{
    GlueChannel *c = savevm_file_channel(f);

    return c->ioc;
}

/* Host operations of every program */

static void program_report(void *host, SaveVMReportLevel level, const char *text)
{
    if (level == SAVEVM_REPORT_WARNING) {
        warn_report("%s", text);
    } else {
        error_report("%s", text);
    }
}

static void program_error_set(void *host, Error **errp, int error,
                              const char *text)
{
    error_setg(errp, "%s", text);
}

static const char *program_error_text(void *host, const Error *error)
{
    return error_get_pretty(error);
}

static void program_error_free(void *host, Error *error)
{
    error_free(error);
}

/* Indexes all events by name. QEMU's own lookup is a linear search. */
static gpointer index_events(gpointer unused)
{
    GHashTable *events = g_hash_table_new(g_str_hash, g_str_equal);
    TraceEventIter iter;
    TraceEvent *event;

    trace_event_iter_init_all(&iter);
    while ((event = trace_event_iter_next(&iter))) {
        g_hash_table_insert(events, (void *)trace_event_get_name(event), event);
    }
    return events;
}

static bool program_trace_wanted(void *host, const char *name)
{
    static GOnce indexed = G_ONCE_INIT;
    TraceEvent *event;

    if (!trace_events_enabled_count || !qemu_loglevel_mask(LOG_TRACE)) {
        return false;
    }
    if (!name) {
        return true;
    }
    event = g_hash_table_lookup(g_once(&indexed, index_events, NULL), name);
    return event && trace_event_get_state_dynamic(event);
}

static void program_trace(void *host, const char *name, const char *text)
{
    if (message_with_timestamp) {
        gint64 now = g_get_real_time();

        qemu_log("%d@%" PRId64 ".%06d:%s %s\n", qemu_get_thread_id(),
                 now / G_USEC_PER_SEC, (int)(now % G_USEC_PER_SEC), name, text);
    } else {
        qemu_log("%s %s\n", name, text);
    }
}

static uint32_t program_tree_count(void *host, void *tree)
{
    return g_tree_nnodes(tree);
}

static void program_tree_foreach(void *host, void *tree,
                                 int (*visit)(void *, void *, void *),
                                 void *data)
{
    g_tree_foreach(tree, visit, data);
}

static void program_tree_insert(void *host, void *tree, void *key, void *value)
{
    g_tree_insert(tree, key, value);
}

void glue_program_ops(SaveVMHostOps *ops)
{
    ops->report = program_report;
    ops->trace_wanted = program_trace_wanted;
    ops->trace = program_trace;
    ops->error_set = program_error_set;
    ops->error_text = program_error_text;
    ops->error_free = program_error_free;
    ops->tree_count = program_tree_count;
    ops->tree_foreach = program_tree_foreach;
    ops->tree_insert = program_tree_insert;
}

static void __attribute__((constructor(101))) program_init(void)
{
    SaveVMHostOps ops = SAVEVM_HOST_OPS_INIT;

    glue_program_ops(&ops);
    savevm_set_host(savevm_default(), &ops, NULL);
    glue_set_layout();
}

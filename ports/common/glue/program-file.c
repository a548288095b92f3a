/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host operations that every program of QEMU implements. The unit tests
 * link this file as well, so it may use only QEMU's io and util.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/log.h"
#include "io/channel.h"
#include "trace/control.h"
#include "glue.h"

ssize_t glue_result(ssize_t ret)
{
    return ret >= 0 ? ret : ret == QIO_CHANNEL_ERR_BLOCK ? -EAGAIN : -EIO;
}

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
#if GLUE_VERSION != 702
    glue_set_layout();
#endif
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-case.h"

#include <stdarg.h>

#include "files.h"

/* Follows every load, and has to be what is read next. */
static const uint8_t after[] = { 0x7e, 0x5a };

uint64_t trace_sum;
bool trace_quiet;

static void emit(const char *text)
{
    if (!trace_quiet) {
        fputs(text, stdout);
    }
    for (; *text; text++) {
        trace_sum = (trace_sum ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    }
}

static void emitf(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static void emitf(const char *format, ...)
{
    char line[2048];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    emit(line);
}

static void emit_hex(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        emitf("%02x", bytes[i]);
    }
}

void say(const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    emitf("%s\n", line);
}

/* Calls */

static char notes[4096];
static size_t notes_len;

void note(const char *format, ...)
{
    va_list args;
    int n;

    if (notes_len + 100 > sizeof(notes)) {
        return;
    }
    notes[notes_len++] = ' ';
    va_start(args, format);
    n = vsnprintf(notes + notes_len, 90, format, args);
    va_end(args);
    notes_len += n < 90 ? (size_t)n : 89;
}

static void notes_clear(void)
{
    notes[0] = '\0';
    notes_len = 0;
}

static void emit_notes(void)
{
    if (notes_len) {
        emitf(" calls:%s", notes);
    }
    notes_clear();
}

/* Objects and what is seen of them */

typedef struct Region {
    char label[32];
    uint8_t *bytes; /* a copy */
    size_t len;
    bool is_text;
} Region;

struct View {
    Region *regions;
    size_t count;
};

void view(View *v, const char *label, const void *at, size_t bytes)
{
    Region *r;

    v->regions = realloc(v->regions, (v->count + 1) * sizeof(*v->regions));
    r = &v->regions[v->count++];
    snprintf(r->label, sizeof(r->label), "%s", label);
    r->bytes = malloc(bytes + 1);
    memcpy(r->bytes, at, bytes);
    r->len = bytes;
    r->is_text = false;
}

void view_text(View *v, const char *label, const char *text)
{
    view(v, label, text, strlen(text) + 1);
    v->regions[v->count - 1].is_text = true;
}

static void view_free(View *v)
{
    for (size_t i = 0; i < v->count; i++) {
        free(v->regions[i].bytes);
    }
    free(v->regions);
}

static void look(const TestCase *t, void *obj, View *v)
{
    memset(v, 0, sizeof(*v));
    if (t->show) {
        t->show(obj, v);
    } else {
        view(v, "", obj, t->size);
    }
}

static const Region *find(const View *v, const Region *like)
{
    for (size_t i = 0; i < v->count; i++) {
        if (strcmp(v->regions[i].label, like->label) == 0 &&
            v->regions[i].len == like->len) {
            return &v->regions[i];
        }
    }
    return NULL;
}

/* Runs of changed bytes, as offset:bytes. */
static void emit_changes(const Region *now, const Region *then)
{
    size_t i = 0;

    while (i < now->len) {
        size_t end = i;

        while (end < now->len &&
               (!then || now->bytes[end] != then->bytes[end])) {
            end++;
        }
        if (end > i) {
            emitf(" %s+%zu:", now->label, i);
            emit_hex(now->bytes + i, end - i);
        }
        i = end > i ? end : i + 1;
    }
}

static void emit_difference(const View *now, const View *then)
{
    for (size_t i = 0; i < now->count; i++) {
        const Region *r = &now->regions[i];

        if (r->is_text) {
            emitf(" %s=%s", r->label, (char *)r->bytes);
        } else {
            emit_changes(r, find(then, r));
        }
    }
}

static void *object_to_save(const TestCase *t)
{
    uint8_t *obj = calloc(1, t->size);

    if (t->fill) {
        t->fill(obj);
    } else {
        for (size_t i = 0; i < t->size; i++) {
            obj[i] = (uint8_t)(i * 37 + 11);
        }
    }
    return obj;
}

static void *object_to_load(const TestCase *t)
{
    void *obj = malloc(t->size);

    memset(obj, 0xa5, t->size);
    if (t->blank) {
        t->blank(obj);
    }
    return obj;
}

static void object_free(const TestCase *t, void *obj)
{
    if (t->drop) {
        t->drop(obj);
    }
    free(obj);
}

/* The table */

static void emit_field(const VMStateField *f)
{
    bool embedded = f->flags & (VMS_VARRAY_INT32 | VMS_VARRAY_UINT32 |
                                VMS_VARRAY_UINT16 | VMS_VARRAY_UINT8) &&
                    !(f->flags & VMS_POINTER);

    emitf("  field %s", f->name);
    emitf(" flags=%x at=%zu size=%zu", (unsigned)f->flags, f->offset, f->size);
    /* Here libsavevm's header has more than QEMU's. */
    if (f->start && !embedded) {
        emitf(" start=%zu", f->start);
    }
    if (f->num) {
        emitf(" num=%d", f->num);
    }
    if (f->num_offset) {
        emitf(" num_at=%zu", f->num_offset);
    }
    if (f->size_offset) {
        emitf(" size_at=%zu", f->size_offset);
    }
    if (f->version_id) {
        emitf(" version=%d", f->version_id);
    }
    if (f->struct_version_id) {
        emitf(" struct_version=%d", f->struct_version_id);
    }
    emitf("%s%s%s%s%s%s%s\n", f->info ? " info=" : "",
          !f->info ? "" : f->info->name ? f->info->name : "-",
          f->vmsd ? " vmsd=" : "",
          f->vmsd ? f->vmsd->name : "", f->field_exists ? " test" : "",
          f->err_hint ? " hint=" : "", f->err_hint ? f->err_hint : "");
}

void case_table(const VMStateDescription *vmsd)
{
    for (const VMStateField *f = vmsd->fields; f->name; f++) {
        emit_field(f);
    }
}

/* Save and load */

int case_save(const TestCase *t, int version, uint8_t **bytes, size_t *len)
{
    void *obj = object_to_save(t);
    QEMUFile *f = files_writer();
    int ret;

    notes_clear();
    if (version == t->vmsd->version_id) {
        ret = SAVE(f, t->vmsd, obj, NULL);
    } else {
        ret = SAVE_VERSION(f, t->vmsd, obj, NULL, version);
    }
    emitf("  save v%d: ret %d", version, ret);
    if (qemu_file_get_error(f)) {
        emitf(" error %d", qemu_file_get_error(f));
    }
    *bytes = files_written(f, len);
    /* From QEMU 8.2 on, a file with an error drops what it did not send. */
    if (SAVEVM_QEMU_VERSION >= 802 && qemu_file_get_error(f)) {
        *len = 0;
    }
    emitf(" bytes %zu ", *len);
    emit_hex(*bytes, *len);
    emit_notes();
    emit("\n");
    qemu_fclose(f);
    object_free(t, obj);
    return ret;
}

/* A file with the bytes and what follows them. */
static QEMUFile *reader(const uint8_t *bytes, size_t len)
{
    uint8_t *all = malloc(len + sizeof(after));
    QEMUFile *f;

    memcpy(all, bytes, len);
    memcpy(all + len, after, sizeof(after));
    f = files_reader(all, len + sizeof(after));
    free(all);
    return f;
}

/* Byte by byte: at its end QEMU 7.2 returns the wrong part of a buffer. */
static void emit_rest(QEMUFile *f)
{
    uint8_t rest[300];
    size_t len = 0;

    while (len < sizeof(rest)) {
        rest[len] = (uint8_t)qemu_get_byte(f);
        if (qemu_file_get_error(f)) {
            break;
        }
        len++;
    }
    if (len != sizeof(after) || memcmp(rest, after, len) != 0) {
        emit(" rest ");
        emit_hex(rest, len);
    }
}

void case_load(const TestCase *t, int version, const uint8_t *bytes, size_t len)
{
    void *obj = object_to_load(t);
    QEMUFile *f = reader(bytes, len);
    View then, now;
    int ret;

    look(t, obj, &then);
    notes_clear();
    ret = LOAD(f, t->vmsd, obj, version);
    emitf("  load v%d: ret %d", version, ret);
    if (qemu_file_get_error(f)) {
        emitf(" error %d", qemu_file_get_error(f));
    } else {
        emit_rest(f);
    }
    if (ret == 0 || !t->brief) {
        look(t, obj, &now);
        emit_difference(&now, &then);
        view_free(&now);
    }
    emit_notes();
    emit("\n");
    view_free(&then);
    qemu_fclose(f);
    object_free(t, obj);
}

/* What one cut leads to, as text. */
static void cut(const TestCase *t, int version, const uint8_t *bytes, size_t len,
                char *out, size_t room)
{
    void *obj = object_to_load(t);
    QEMUFile *f = files_reader(bytes, len);
    int ret;

    notes_clear();
    ret = LOAD(f, t->vmsd, obj, version);
    snprintf(out, room, "ret %d error %d%s%s", ret, qemu_file_get_error(f),
             notes_len ? " calls:" : "", notes);
    notes_clear();
    qemu_fclose(f);
    object_free(t, obj);
}

void case_cuts(const TestCase *t, int version, const uint8_t *bytes, size_t len)
{
    char last[4200] = "", now[4200];
    size_t since = 0;
    size_t step = t->brief ? len / 24 + 1 : 1;

    for (size_t n = 0; n <= len; n += step) {
        cut(t, version, bytes, n, now, sizeof(now));
        if (n && strcmp(now, last) != 0) {
            emitf("  cut %zu-%zu: %s\n", since, n - step, last);
            since = n;
        }
        memcpy(last, now, sizeof(now));
    }
    emitf("  cut %zu-%zu: %s\n", since, len, last);
}

void case_describe(const TestCase *t)
{
    void *obj = object_to_save(t);
    char *text = files_describe(t->vmsd, obj);

    emit("  json ");
    emit(text ? text : "none");
    emit("\n");
    notes_clear();
    free(text);
    object_free(t, obj);
}

void case_undescribed(const TestCase *t)
{
    const VMStateDescription *vmsd = t->vmsd;
    uint8_t *bytes = NULL;
    size_t len = 0;

    say("%s", t->name);
    case_table(vmsd);
    for (int v = vmsd->minimum_version_id; v <= vmsd->version_id; v++) {
        free(bytes);
        case_save(t, v, &bytes, &len);
        case_load(t, v, bytes, len);
    }
    if (bytes) {
        case_cuts(t, vmsd->version_id, bytes, len);
    }
    free(bytes);
}

void case_all(const TestCase *t)
{
    case_undescribed(t);
    case_describe(t);
}

static int nibble(char c)
{
    return c >= 'a' ? c - 'a' + 10 : c - '0';
}

void case_load_hex(const TestCase *t, int version, const char *hex)
{
    uint8_t bytes[1024];
    size_t len = 0;

    for (; hex[0]; hex++) {
        if (hex[0] != ' ') {
            bytes[len++] = (uint8_t)(nibble(hex[0]) << 4 | nibble(hex[1]));
            hex++;
        }
    }
    emitf("  given ");
    emit_hex(bytes, len);
    emit("\n");
    case_load(t, version, bytes, len);
}

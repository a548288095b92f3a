/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * -dump-vmstate: every device's description as JSON, in the form that
 * scripts/vmstate-static-checker.py reads.
 */
#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "migration/misc.h"
#include "migration/vmstate.h"

typedef struct Out {
    FILE *file;
    int depth;
    bool first;
} Out;

static void next_line(Out *out)
{
    fprintf(out->file, "\n%*s", 2 * out->depth, "");
}

/* The next member of what is open, up to its value; elements have no key. */
static void member(Out *out, const char *key)
{
    if (!out->first) {
        fputc(',', out->file);
    }
    out->first = false;
    next_line(out);
    if (key) {
        fprintf(out->file, "\"%s\": ", key);
    }
}

static void begin(Out *out, char bracket)
{
    fputc(bracket, out->file);
    out->depth++;
    out->first = true;
}

static void end(Out *out, char bracket)
{
    out->depth--;
    next_line(out);
    fputc(bracket, out->file);
    out->first = false;
}

static void text(Out *out, const char *key, const char *value)
{
    member(out, key);
    fprintf(out->file, "\"%s\"", value);
}

static void number(Out *out, const char *key, int64_t value)
{
    member(out, key);
    fprintf(out->file, "%" PRId64, value);
}

static void description(Out *out, const VMStateDescription *vmsd);

static void fields(Out *out, const VMStateField *field)
{
    member(out, "Fields");
    begin(out, '[');
    for (; field->name; field++) {
        /* Checks are no state. */
        if (field->flags & VMS_MUST_EXIST) {
            continue;
        }
        member(out, NULL);
        begin(out, '{');
        text(out, "field", field->name);
        number(out, "version_id", field->version_id);
        member(out, "field_exists");
        fputs(field->field_exists ? "true" : "false", out->file);
        number(out, "size", field->size);
        if (field->vmsd) {
            member(out, "Description");
            description(out, field->vmsd);
        }
        end(out, '}');
    }
    end(out, ']');
}

static void description(Out *out, const VMStateDescription *vmsd)
{
    const VMStateDescription **sub = vmsd->subsections;

    begin(out, '{');
    text(out, "name", vmsd->name);
    number(out, "version_id", vmsd->version_id);
    number(out, "minimum_version_id", vmsd->minimum_version_id);
    if (vmsd->fields) {
        fields(out, vmsd->fields);
    }
    if (sub) {
        member(out, "Subsections");
        begin(out, '[');
        for (; *sub; sub++) {
            member(out, NULL);
            description(out, *sub);
        }
        end(out, ']');
    }
    end(out, '}');
}

static void device(ObjectClass *class, void *opaque)
{
    const VMStateDescription *vmsd = DEVICE_CLASS(class)->vmsd;
    const char *name = object_class_get_name(class);
    Out *out = opaque;

    if (vmsd) {
        member(out, name);
        begin(out, '{');
        text(out, "Name", name);
        number(out, "version_id", vmsd->version_id);
        number(out, "minimum_version_id", vmsd->minimum_version_id);
        member(out, "Description");
        description(out, vmsd);
        end(out, '}');
    }
}

void dump_vmstate_json_to_file(FILE *out_file)
{
    Out out = { .file = out_file };

    begin(&out, '{');
    member(&out, "vmschkmachine");
    begin(&out, '{');
    text(&out, "Name", MACHINE_GET_CLASS(current_machine)->name);
    end(&out, '}');
    object_class_foreach(device, TYPE_DEVICE, true, &out);
    end(&out, '}');
    fputc('\n', out_file);
    fclose(out_file);
}

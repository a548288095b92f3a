/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random descriptions, tried like the others.
 *
 *   random sums SEED CASES...   a sum for each case; CASES counts from 0
 *   random show SEED CASE       the whole trace of one
 *   random choices SEED CASE    the draws that make it
 *   random replay               the trace for draws that are read from stdin
 */
#include "generate.h"
#include "groups.h"

static const Made *made;

static void fill(void *obj)
{
    hooks_start(made, false);
    object_fill(made->layout, obj, made->contents);
}

static void blank(void *obj)
{
    hooks_start(made, true);
    object_blank(made->layout, obj, made->contents);
}

static void show(void *obj, View *v)
{
    object_show(made->layout, obj, v);
}

static void drop(void *obj)
{
    object_drop(made->layout, obj);
}

static void tables(const VMStateDescription *vmsd, int depth)
{
    say("%*s%s: version %d from %d on", depth, "", vmsd->name,
        vmsd->version_id, vmsd->minimum_version_id);
    case_table(vmsd);
    for (const VMStateField *f = vmsd->fields; f->name; f++) {
        if (f->vmsd) {
            tables(f->vmsd, depth + 1);
        }
    }
    for (int i = 0; vmsd->subsections && vmsd->subsections[i]; i++) {
        tables(vmsd->subsections[i], depth + 1);
    }
}

/* Single bytes changed, where that cannot make an array any longer. */
static void damage(const TestCase *t, const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len + 1);

    for (unsigned i = 0; len && made->fixed && i < 8; i++) {
        size_t at = mix(made->contents * 100 + i) % len;

        memcpy(copy, bytes, len);
        copy[at] ^= (uint8_t)(1 + mix(i + at) % 255);
        say("  byte %zu is %02x", at, copy[at]);
        case_load(t, t->vmsd->version_id, copy, len);
    }
    free(copy);
}

static void run(void)
{
    TestCase t = { "random", NULL, 0, fill, blank, show, drop, true };
    uint8_t *bytes = NULL;
    size_t len = 0;
    int v, ret = 0;

    made = generate();
    t.vmsd = made->vmsd;
    t.size = made->layout->size;
    tables(t.vmsd, 0);
    for (v = t.vmsd->minimum_version_id; v <= t.vmsd->version_id; v++) {
        free(bytes);
        ret = case_save(&t, v, &bytes, &len);
        /* What follows half a stream must not be taken for a count. */
        if (ret == 0) {
            case_load(&t, v, bytes, len);
        }
    }
    case_cuts(&t, t.vmsd->version_id, bytes, len);
    if (ret == 0) {
        damage(&t, bytes, len);
    }
    /* From QEMU 10.0 on, it aborts if a device fails while the stream is described. */
    if (ret == 0 || SAVEVM_QEMU_VERSION < 1000) {
        case_describe(&t);
    }
    free(bytes);
}

static void seed_case(const char *seed, unsigned long number)
{
    choices_seed(mix(strtoul(seed, NULL, 0)) + number);
}

static void sums(const char *seed, unsigned long cases)
{
    for (unsigned long i = 0; i < cases; i++) {
        seed_case(seed, i);
        trace_quiet = true;
        trace_sum = 0;
        run();
        trace_quiet = false;
        printf("%s %lu %016llx\n", seed, i, (unsigned long long)trace_sum);
        fflush(stdout);
    }
}

static void print_choices(void)
{
    const uint32_t *choices;
    size_t count;

    trace_quiet = true;
    run();
    count = choices_made(&choices);
    for (size_t i = 0; i < count; i++) {
        printf("%u\n", choices[i]);
    }
}

static void replay(void)
{
    static uint32_t choices[10000];
    size_t count = 0;

    while (count < COUNT(choices) && scanf("%u", &choices[count]) == 1) {
        count++;
    }
    choices_give(choices, count);
    run();
}

int group_random(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 3 && strcmp(argv[0], "sums") == 0) {
        sums(argv[1], strtoul(argv[2], NULL, 0));
    } else if (argc == 3 && strcmp(argv[0], "show") == 0) {
        seed_case(argv[1], strtoul(argv[2], NULL, 0));
        run();
    } else if (argc == 3 && strcmp(argv[0], "choices") == 0) {
        seed_case(argv[1], strtoul(argv[2], NULL, 0));
        print_choices();
    } else if (argc == 1 && strcmp(argv[0], "replay") == 0) {
        replay();
    } else {
        fputs("usage: random sums SEED CASES | show SEED CASE |"
              " choices SEED CASE | replay\n", stderr);
        return 2;
    }
    return 0;
}

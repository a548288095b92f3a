#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares the functions in the headers of a QEMU version with those in QEMU's own headers: names, results and parameters.

usage: QEMU_TREES="502=TREE 1000=TREE" prototypes-of-trees.py INCLUDE_DIR

The trees need not be built. Without QEMU_TREES the test is skipped. Functions that only one side has are ignored: QEMU's
headers also declare functions of other files, and those of the library declare what newer or older versions have as well.
migration/savevm.h is not compared, because it has the phases of QEMU 7.2 for every version."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

HEADERS = ["register.h", "vmstate.h", "qemu-file-types.h", "qemu-file.h"]
# Functions that have the parameters of QEMU 7.2 for every version, as docs/qemu-versions.md says.
AS_IN_7_2 = ["qemu_file_set_blocking"]
# Headers of a tree that declare nothing that the prototypes need, or need a configured tree.
EMPTY = ["zlib.h", "io/channel.h", "exec/cpu-common.h", "hw/vmstate-if.h"]
# What those headers and qemu/osdep.h declare.
PRELUDE = """
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#define G_DEFINE_AUTOPTR_CLEANUP_FUNC(type, function)
#define coroutine_fn
#define coroutine_mixed_fn
#include "qemu/typedefs.h"
typedef struct JSONWriter JSONWriter;
typedef struct QIOChannel QIOChannel;
typedef struct VMStateIf VMStateIf;
typedef struct z_stream z_stream;
typedef uint64_t ram_addr_t;
"""
PROTOTYPE = re.compile(r"^/\* .*/migration/.*:.(.) \*/ (?:extern |static )?(.*?)(\w+) \((.*?)\);?(?: /\*.*)?$", re.M)


def prototypes(text, options, work):
    """Returns the prototypes that a C program sees, by the function's name."""
    source, listing = work / "program.c", work / "prototypes.txt"
    source.write_text(text + "".join(f'#include "migration/{name}"\n' for name in HEADERS))
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, "-std=gnu11", "-w", "-fsyntax-only", *options, "-aux-info", listing, source], check=True)
    found = {}
    for defined, result, name, parameters in PROTOTYPE.findall(listing.read_text()):
        if defined == "F":
            # Only a definition is listed with the names of its parameters.
            parameters = re.sub(r" ?\b\w+(?=,|$)", "", parameters)
        found[name] = f"{result}({parameters})".replace("struct ", "")
    return found


def of_library(version, include, work):
    return prototypes("", [f"-DSAVEVM_QEMU_VERSION={version}", "-DSAVEVM_PLAIN_NAMES", f"-I{include}"], work)


def of_tree(tree, work):
    # Only this header is taken from migration/, so that the others of this directory hide no header of include/.
    first = work / "first"
    for name in EMPTY:
        path = first / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (first / "migration").mkdir(exist_ok=True)
    (first / "migration" / "qemu-file.h").write_text((tree / "migration" / "qemu-file.h").read_text())
    return prototypes(PRELUDE, [f"-I{first}", f"-I{tree / 'include'}"], work)


def main():
    trees = os.environ.get("QEMU_TREES")
    if not trees:
        print("QEMU_TREES names no source trees of QEMU, such as 1000=/path: skipped")
        sys.exit(77)
    failed = False
    for version, tree in (entry.split("=", 1) for entry in trees.split()):
        with tempfile.TemporaryDirectory() as work:
            ours = of_library(version, pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(work))
            theirs = of_tree(pathlib.Path(tree), pathlib.Path(work))
        common = sorted((ours.keys() & theirs.keys()) - set(AS_IN_7_2))
        differ = [name for name in common if ours[name] != theirs[name]]
        for name in differ:
            print(f"QEMU {version}: {name}\n  the library: {ours[name]}\n  QEMU:        {theirs[name]}")
        print(f"QEMU {version}: {len(common) - len(differ)} of {len(common)} functions are the same")
        failed = failed or bool(differ) or not common
    sys.exit(failed)


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Adds libsavevm to the build files of a QEMU 7.2 tree: edit-build.py TREE. Files that have it are not changed."""

import pathlib
import re
import sys

REPLACED = ["qemu-file.c", "savevm.c", "vmstate.c", "vmstate-types.c"]
FOR_ALL = ["file.c"]
FOR_EMULATORS = ["host.c", "incoming.c", "snapshot.c"]
DEPENDENCY = "savevm_dep = dependency('savevm')"


def replace_once(text, old, new, where):
    if text.count(old) != 1:
        sys.exit(f"{where}: expected one {old!r}: is this QEMU 7.2?")
    return text.replace(old, new)


def files(names):
    return "".join(f"  'libsavevm/{name}',\n" for name in names)


def edit_migration(text, where):
    for name in REPLACED:
        text = replace_once(text, f"  '{name}',\n", "", where)
    text = replace_once(text, "migration_files = files(\n", f"migration_files = files(\n{files(FOR_ALL)}", where)
    first = "softmmu_ss.add(files(\n"
    text = replace_once(text, first, f"softmmu_ss.add(savevm_dep)\n\n{first}{files(FOR_EMULATORS)}", where)
    return f"{DEPENDENCY}\n\n{text}"


def edit_top(text, where):
    library = "libmigration = static_library('migration', sources: migration_files + genh,\n"
    text = replace_once(text, library, f"{library}                              dependencies: savevm_dep,\n", where)
    declared = re.search(r"migration = declare_dependency\(link_with: libmigration,\s*dependencies: \[", text)
    if not declared:
        sys.exit(f"{where}: the declaration of 'migration' was not found: is this QEMU 7.2?")
    return text[: declared.end()] + "savevm_dep, " + text[declared.end():]


def main():
    tree = pathlib.Path(sys.argv[1])
    for path, edit in ((tree / "migration/meson.build", edit_migration), (tree / "meson.build", edit_top)):
        text = path.read_text()
        if "savevm_dep" not in text:
            path.write_text(edit(text, path))


main()

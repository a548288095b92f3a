#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Adds libsavevm to the build files of a QEMU tree: edit-build.py TREE. The original of a file is kept beside it, as
NAME.unmodified.

It also corrects an error in migration/colo.c up to QEMU 5.2: after a failover, the primary keeps the pointer to its closed file of
the return path, and shuts this file down when QEMU ends. With the library this can wait forever.

The files of the glue are those in migration/libsavevm/ of the tree. Those whose names end with file.c are linked to the
unit tests as well."""

import pathlib
import re
import sys

REPLACED = ["qemu-file.c", "savevm.c", "vmstate.c", "vmstate-types.c"]
DEPENDENCY = "savevm_dep = dependency('savevm')"


def replace_once(text, old, new, where):
    if text.count(old) != 1:
        sys.exit(f"{where}: expected one {old!r}: is this the right version of QEMU?")
    return text.replace(old, new)


def files(names):
    return "".join(f"  'libsavevm/{name}',\n" for name in names)


def edit_migration(text, where):
    glue = sorted(path.name for path in (where.parent / "libsavevm").glob("*.c"))
    for_all = [name for name in glue if name.endswith("file.c")]
    for_emulators = [name for name in glue if name not in for_all]
    for name in REPLACED:
        text = replace_once(text, f"  '{name}',\n", "", where)
    text = replace_once(text, "migration_files = files(\n", f"migration_files = files(\n{files(for_all)}", where)
    emulators = re.search(r"^(softmmu|system)_ss\.add\(files\(\n", text, flags=re.M)
    if not emulators:
        sys.exit(f"{where}: the files of the emulators were not found: is this the right version of QEMU?")
    group = f"{emulators.group(1)}_ss.add(savevm_dep)\n\n"
    at = emulators.start()
    text = text[:at] + group + emulators.group() + files(for_emulators) + text[emulators.end():]
    return f"{DEPENDENCY}\n\n{text}"


def edit_top(text, where):
    library = "libmigration = static_library('migration', sources: migration_files + genh,\n"
    text = replace_once(text, library, f"{library}                              dependencies: savevm_dep,\n", where)
    declared = re.search(r"migration = declare_dependency\([^\[]*dependencies: \[", text)
    if not declared:
        sys.exit(f"{where}: the declaration of 'migration' was not found: is this the right version of QEMU?")
    return text[: declared.end()] + "savevm_dep, " + text[declared.end():]


def edit_colo(text, _where):
    close = "        qemu_fclose(s->rp_state.from_dst_file);\n"
    forget = "        s->rp_state.from_dst_file = NULL;\n"
    return text if close + forget in text else text.replace(close, close + forget)


def main():
    tree = pathlib.Path(sys.argv[1])
    edits = {"migration/meson.build": edit_migration, "meson.build": edit_top, "migration/colo.c": edit_colo}
    for path, edit in ((tree / name, edit) for name, edit in edits.items()):
        original = path.with_name(f"{path.name}.unmodified")
        if not original.exists():
            original.write_text(path.read_text())
        edited = edit(original.read_text(), path)
        if edited != path.read_text():
            path.write_text(edited)


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes layout.h, which describes the tables of a QEMU tree to libsavevm: describe-layout.py TREE.

The members and constants are those of QEMU's headers; the compiler finds out their offsets, types and values. A member that
the library does not know is an undeclared name for the compiler."""

import pathlib
import re
import sys

STRUCTS = ["SaveVMHandlers", "VMStateDescription", "VMStateField", "VMStateInfo"]


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)


def body(text, start, end):
    found = re.search(start + r"\s*\{(.*?)\n\}" + end, text, flags=re.S)
    if not found:
        sys.exit(f"{start} was not found: is this a QEMU tree?")
    return found.group(1)


def members(text, struct):
    typedef = f"typedef struct {struct}" in text and re.search(rf"typedef struct {struct}\s*\{{", text)
    content = body(text, rf"(?:typedef )?struct {struct}", rf"\s*{struct};" if typedef else ";")
    for declaration in content.split(";"):
        name = re.search(r"\(\*(\w+)\)\s*\(", declaration) or re.search(r"(\w+)\s*$", declaration)
        if name:
            yield name.group(1)


def constants(text):
    flags = re.findall(r"\b(VMS_[A-Z0-9_]+)\s*=", body(text, "enum VMStateFlags", ";"))
    priorities = re.findall(r"\b(MIG_PRI_[A-Z0-9_]+)\b", body(text, "typedef enum", r"\s*MigrationPriority;"))
    return list(dict.fromkeys(priorities)) + flags


def main():
    tree = pathlib.Path(sys.argv[1])
    headers = tree / "include/migration"
    text = "\n".join(without_comments((headers / name).read_text()) for name in ("register.h", "vmstate.h"))
    print("/* Made by describe-layout.py. */")
    print("static const SaveVMAbiMember layout_members[] = {")
    for struct in STRUCTS:
        for member in members(text, struct):
            print(f"    SAVEVM_ABI_MEMBER({struct}, {member}),")
    print("};\n\nstatic const SaveVMAbiConstant layout_constants[] = {")
    for constant in constants(text):
        print(f"    SAVEVM_ABI_CONSTANT({constant}),")
    print("};")


main()

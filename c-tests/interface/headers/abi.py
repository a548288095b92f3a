#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a program that was built with the headers of the last release works with this library.

What the headers promise (functions, data, types down to each member, values of constants) is compared with the baseline,
what they promised at the last release, and each change that breaks such a program is reported by abidiff. What only comes
along is no change for it: functions, constants, and members at the end of structures that begin with their size. So the
baseline is renewed at a release (docs/release.md), or for a new soname.

The headers are the interface: tests/headers.rs and exports.sh check that the library matches them.

usage: abi.py HEADERS EXPORTS BASELINE             compares; skipped (77) without abigail-tools
       abi.py --update HEADERS EXPORTS BASELINE    writes the baseline
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

COMPILER = os.environ.get("CC", "cc").split()
CONSTANT = "value_of_"
# Options besides the default with which the headers declare further names: the newest version of QEMU, and versions that have
# functions of their own.
SELECTIONS = [["-DSAVEVM_QEMU_VERSION=1002"],
              ["-DSAVEVM_QEMU_VERSION=502", "-DSAVEVM_PLAIN_NAMES"],
              ["-DSAVEVM_QEMU_VERSION=1000", "-DSAVEVM_PLAIN_NAMES"]]
NUMBER = r"\(?(?:-?(?:0[xX][0-9a-fA-F]+|\d+)|\d+ << \d+)[uU]?\)?"


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def top_level(text):
    """The declarations of preprocessed C without what is in braces, and without functions that have a body."""
    depth, declaration = 0, ""
    for token in re.findall(r"[{};]|[^{};]+", text):
        if token == "}":
            depth -= 1
            if depth == 0 and re.search(r"\binline\b", declaration):
                declaration = ""
        elif token == "{":
            depth += 1
        elif depth == 0 and token == ";":
            yield " ".join(declaration.split())
            declaration = ""
        elif depth == 0:
            declaration += token


def declarations(headers, file, *options):
    """What the headers declare, and all macros."""
    preprocess = [*COMPILER, "-std=gnu11", *options, "-I", headers, "-E", file]
    text, macros = run(*preprocess), run(*preprocess, "-dM")
    ours, own = "", False
    for line in text.splitlines():
        marker = re.match(r'# \d+ "(.*?)"', line)
        if marker:
            own = Path(marker[1]).is_relative_to(headers)
        elif own:
            ours += line + "\n"
    return list(top_level(ours)), macros


def interface(headers):
    """A unit that defines whatever the headers declare, and the names of that. The unit has the types of the default version
    of QEMU; names that only a program for another version sees are defined as well."""
    unit = "".join(f'#include "{path}"\n' for path in sorted(headers.rglob("*.h")))
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(unit)
        file.flush()
        declared, macros = declarations(headers, file.name)
        for options in SELECTIONS:
            declared += declarations(headers, file.name, *options)[0]
    names = set()
    for declaration in declared:
        function = re.match(r"(?!typedef)[\w\s*]*?\b(\w+) ?\(.*\)$", declaration)
        data = re.match(r"extern (.*\b(\w+))$", declaration)
        if function and function[1] not in names:
            unit += f"{declaration} {{ __builtin_trap(); }}\n"
            names.add(function[1])
        elif data and data[2] not in names:
            unit += data[1] + ";\n"
            names.add(data[2])
    # A type for each: abidiff takes two enumerators of one type that have the same value for the same.
    for constant in re.findall(rf"^#define ((?:SAVEVM|QEMU_VM|VMS|VMSTATE)_\w+) {NUMBER}$", macros, re.M):
        if not constant.startswith("SAVEVM_VERSION_"):
            unit += f"enum {constant}_type {{ {constant}_value = {constant} }} {CONSTANT}{constant};\n"
    return unit, names


def describe(unit, headers, soname, work):
    """What abidw reads from the debug information of that unit, as XML."""
    source, library, description = work / "interface.c", work / "interface.so", work / "interface.abi"
    source.write_text(unit)
    flags = ["-std=gnu11", "-g", "-gdwarf-4", "-O0", "-w", "-fPIC", "-shared", "-nostdlib"]
    run(*COMPILER, *flags, f"-Wl,-soname,{soname}", "-I", headers, "-o", library, source)
    run("abidw", "--no-corpus-path", "--no-comp-dir-path", "--no-elf-needed", "--no-show-locs",
        "--type-id-style", "hash", "--out-file", description, library)
    tree = xml.parse(description)
    tree.find("abi-instr").attrib.pop("path")
    return tree


def structures(tree):
    return {item.get("name"): item for item in tree.iter("class-decl") if item.get("size-in-bits")}


def member(item):
    return item.find("var-decl").get("name")


def without_additions(new, old):
    """Takes out of `new` what a program of `old` never gets to see, and returns the names of that."""
    additions = []
    known = structures(old)
    for name, item in structures(new).items():
        before = known.get(name)
        members = item.findall("data-member")
        if before is None or not members or member(members[0]) != "size":
            continue
        size = int(before.get("size-in-bits"))
        for late in (entry for entry in members if int(entry.get("layout-offset-in-bits")) >= size):
            item.remove(late)
            additions.append(f"{name}.{member(late)}")
        item.set("size-in-bits", before.get("size-in-bits"))
    symbols = {entry.get("name") for entry in old.iter("elf-symbol")}
    late = [entry.get("name") for entry in new.iter("elf-symbol") if entry.get("name") not in symbols]
    return additions + [name.removeprefix(CONSTANT) for name in late]


def main():
    update = sys.argv[1:2] == ["--update"]
    headers, exports, baseline = (Path(name).resolve() for name in sys.argv[1 + update:])
    if not shutil.which("abidw") or not shutil.which("abidiff"):
        print("SKIPPED: no abidw and abidiff (abigail-tools); the interface was not compared")
        return 77
    if not run(*COMPILER, "-dumpmachine").startswith("x86_64"):
        print("SKIPPED: the baseline is that of x86-64; the interface was not compared")
        return 77
    unit, names = interface(headers)
    exported = {line.split()[1] for line in exports.read_text().splitlines()}
    if names != exported:
        print("exported but not declared:", *sorted(exported - names) or ["nothing"])
        print("declared but not exported:", *sorted(names - exported) or ["nothing"])
        return 1
    soname = baseline.stem
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        new = describe(unit, headers, soname, work)
        if update:
            new.write(baseline)
            return 0
        additions = without_additions(new, xml.parse(baseline))
        compared = work / "compared.abi"
        new.write(compared)
        compare = ["abidiff", "--harmless", "--no-added-syms", baseline, compared]
        said = subprocess.run(compare, stdout=subprocess.PIPE, text=True)
    print(f"{len(names)} names, {len(structures(new))} structures; since the baseline came:", *additions or ["nothing"])
    if said.returncode:
        print(said.stdout)
        print(f"programs that were built for {soname} break: this needs another soname")
    return int(said.returncode != 0)


sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compiles the device files of a built QEMU with its own migration/vmstate.h and register.h and with ours: the objects are
the same.

usage: QEMU_BUILD=tree qemu-devices.py VERSION INCLUDE [PART]

QEMU_BUILD names the tree of QEMU 7.2, and variables such as QEMU_BUILD_10_2 those of other versions. Every C file of the tree
that has a VMStateDescription or SaveVMHandlers is compiled twice, unchanged. The objects have to be equal to the byte, code and
tables, but for one thing: where an array in place has a count from the stream, our macros write the size
of that array into the field's `start`, which QEMU leaves at 0 and does not read, so that the loader knows its end.
Files that do not compile with QEMU's own headers are listed and otherwise ignored: they need a library that the tree was
configured without.
PART is a piece of the path: only those files.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
WORD = 8


def device_files(build, part):
    """Command, directory and path of each file with descriptions."""
    seen = set()
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = (pathlib.Path(entry["directory"]) / entry["file"]).resolve()
        if path in seen or path.suffix != ".c" or part not in str(path):
            continue
        if {"tests", "migration"} & set(path.parts):
            continue
        seen.add(path)
        if path.exists() and re.search(r"VMSTATE_|VMStateDescription|SaveVMHandlers", path.read_text(errors="replace")):
            command = shlex.split(entry["command"])
            # A tree that was configured with ccache names it first.
            yield command[os.path.basename(command[0]) == "ccache":], entry["directory"], path


def compile_to(target, command, directory, headers, version):
    """Compiles without optimisation and debugging information; `headers` come before QEMU's. None if the compiler fails."""
    kept, words = [], iter(command[1:])
    for word in words:
        if word in ("-o", "-MF", "-MQ", "-MT"):
            next(words)
        elif word not in ("-MD", "-g", "-c") and not word.startswith("-O"):
            kept.append(word)
    before = ["-iquote", headers, "-I", headers, f"-DSAVEVM_QEMU_VERSION={version}"] if headers else []
    result = subprocess.run([command[0], *before, *kept, "-O0", "-g0", "-c", "-o", target], cwd=directory,
                            stderr=subprocess.PIPE, text=True)
    if result.returncode:
        if headers:
            print(result.stderr, end="")
        return None
    compiled = target.read_bytes()
    target.unlink()
    return compiled


def array_sizes(theirs, ours):
    """How many words differ, all of them such that QEMU has 0 there; None for any other difference."""
    if len(theirs) != len(ours):
        return None
    count = 0
    for at in range(0, len(theirs), WORD):
        if theirs[at:at + WORD] != ours[at:at + WORD]:
            if any(theirs[at:at + WORD]):
                return None
            count += 1
    return count


def main():
    major, minor = sys.argv[1].split(".")
    version = int(major) * 100 + int(minor)
    arguments = sys.argv[2:]
    # As c-tests/lib/qemu-tree.sh.
    variable = "QEMU_BUILD" if version == 702 else f"QEMU_BUILD_{major}_{minor}"
    build = os.environ.get(variable)
    if not build or not (pathlib.Path(build) / "compile_commands.json").exists():
        print(f"{variable} names no built QEMU {major}.{minor} tree: skipped")
        return SKIPPED
    include = pathlib.Path(arguments[0])
    part = arguments[1] if len(arguments) > 1 else ""
    with tempfile.TemporaryDirectory() as work:
        # Only the headers in question: the others are QEMU's.
        headers = pathlib.Path(work) / "headers"
        for folder, pattern in [("migration", "vmstate*.h"), ("migration", "register*.h"), ("savevm", "qemu-version.h")]:
            (headers / folder).mkdir(parents=True, exist_ok=True)
            for header in (include / folder).glob(pattern):
                shutil.copy(header, headers / folder)

        def compare(number, file):
            """The file, whether QEMU's headers compile it, and what array_sizes() returns."""
            command, directory, path = file
            target = pathlib.Path(work) / f"device-{number}.o"
            theirs = compile_to(target, command, directory, None, version)
            if theirs is None:
                return path, False, None
            ours = compile_to(target, command, directory, headers, version)
            return path, True, None if ours is None else array_sizes(theirs, ours)

        files = list(device_files(pathlib.Path(build), part))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(compare, range(len(files)), files))
    compiled = [(path, sizes) for path, compiles, sizes in results if compiles]
    for path in (path for path, compiles, _ in results if not compiles):
        print(f"{path}: does not compile in this tree")
    wrong = [path for path, sizes in compiled if sizes is None]
    for path in wrong:
        print(f"{path}: no object, or another one")
    sizes = sum(sizes for _, sizes in compiled if sizes)
    print(f"{len(compiled)} files compiled, {len(results) - len(compiled)} not; {len(wrong)} with another object; "
          f"{sizes} arrays have their size besides")
    return 1 if wrong or not compiled else 0


if __name__ == "__main__":
    sys.exit(main())

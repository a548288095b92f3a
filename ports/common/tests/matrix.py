#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migrates a machine of many devices between QEMUs of several versions, each as source and as destination.

usage: matrix.py BOARD-VERSION NAME=EMULATOR NAME=EMULATOR...

The machine type is pc-BOARD-VERSION, such as q35-5.2. Prints one line for each pair, with the ways that failed.
"""

import pathlib
import sys

import machines
from moves import case_file, case_postcopy, case_precopy
from qemu import run_case

WAYS = {"precopy": case_precopy, "postcopy": case_postcopy, "file": case_file}


def main():
    board, version = sys.argv[1].split("-")
    kind = machines.machine_type("x86_64", version, board)
    emulators = {}
    for argument in sys.argv[2:]:
        name, path = argument.split("=", 1)
        emulators[name] = str(pathlib.Path(path).resolve())
    results = {}
    for source in emulators:
        for target in emulators:
            pair = f"{source} to {target}"
            results[pair] = {
                way: run_case(f"{kind}: {way}, {pair}", lambda place, case=case: case(
                    place, machines.machine("x86_64", place, kind, True), emulators[source], emulators[target]))
                for way, case in WAYS.items()}
    for pair, ways in results.items():
        failed = [way for way, passed in ways.items() if not passed]
        print(f"{kind}, {pair}: {', '.join(failed) + ' failed' if failed else 'passed'}")
    passed = sum(sum(ways.values()) for ways in results.values())
    print(f"{kind}: {passed} of {len(WAYS) * len(results)} migrations passed")
    sys.exit(passed != len(WAYS) * len(results))


main()

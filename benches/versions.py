#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMState under the layouts of QEMU 7.2, 10.0 and 10.2, and QEMU 10.2's own objects, in turns; prints Markdown.

usage: QEMU_BUILD_10_2=tree versions.py LIBDIR [--runs N]

LIBDIR holds libsavevm.a, built for release. The best of N runs (5) counts. Fails if a goal is missed.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RIVAL = "QEMU 10.2"
VERSIONS = {"7.2": [], "10.0": ["-DSAVEVM_QEMU_VERSION=1000"], "10.2": ["-DSAVEVM_QEMU_VERSION=1002"]}
# How many times as fast as QEMU 10.2 under the layout of 10.2, and how many times as slow as under that of 7.2.
FASTER, SLOWER = 3, 1.1


def build(library, work):
    compiler, source = os.environ.get("CC", "cc"), ROOT / "benches/vmstate.c"
    options = ["-O2", "-g", "-std=gnu11", f"-I{ROOT / 'include'}", f"-I{ROOT / 'c-tests/lib'}"]
    programs = {}
    for version, selected in VERSIONS.items():
        programs[version] = work / f"vmstate-{version}"
        subprocess.run([compiler, *options, *selected, "-o", programs[version], source, ROOT / "c-tests/lib/trace.c",
                        ROOT / "c-tests/lib/backend_savevm.c", library / "libsavevm.a", "-lpthread", "-ldl", "-lm"], check=True)
    unit = work / "vmstate.o"
    subprocess.run([compiler, *options, "-fPIE", *VERSIONS["10.2"], "-DSAVEVM_PLAIN_NAMES", "-c", "-o", unit, source], check=True)
    programs[RIVAL] = work / "vmstate-qemu"
    reference = ROOT / "c-tests/reference"
    environment = {**os.environ, "QEMU_BUILD": os.environ["QEMU_BUILD_10_2"],
                   "QEMU_UNITS": f"{reference / 'backend_files_qemu.c'} {reference / 'start_qemu.c'}"}
    subprocess.run([ROOT / "c-tests/vmstate/link-qemu.sh", programs[RIVAL], unit], check=True, env=environment)
    return programs


def measure(program):
    """Nanoseconds by name."""
    text = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name: float(time) for name, time in (line.split("\t") for line in text.splitlines() if "\t" in line)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    if not os.environ.get("QEMU_BUILD_10_2"):
        sys.exit("QEMU_BUILD_10_2 names no built QEMU 10.2 tree")
    with tempfile.TemporaryDirectory() as work:
        programs = build(arguments.library, pathlib.Path(work))
        best = {name: {} for name in programs}
        for _ in range(arguments.runs):
            for name, program in programs.items():
                for measurement, time in measure(program).items():
                    best[name][measurement] = min(time, best[name].get(measurement, time))
    missed = False
    print("| | 7.2, ns | 10.0, ns | 10.2, ns | QEMU 10.2, ns | 10.2 as fast as QEMU | 10.2 beside 7.2 |")
    print("|---|---|---|---|---|---|---|")
    for name in best["7.2"]:
        times = [best[of][name] for of in (*VERSIONS, RIVAL)]
        faster, slower = times[3] / times[2], times[2] / times[0]
        card = name.endswith(" card")
        missed |= card and (faster < FASTER or slower > SLOWER)
        print(f"| {name} |", " | ".join(f"{time:.1f}" for time in times), f"| {faster:.2f} | {slower:.2f} |")
    print(f"\nGoals for the card: at least {FASTER} times as fast, at most {SLOWER} times as slow.")
    return missed


if __name__ == "__main__":
    sys.exit(main())

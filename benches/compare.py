#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same measurements with libsavevm and with QEMU 7.2's own objects, in turns; prints Markdown.

usage: QEMU_BUILD=tree compare.py LIBDIR [--runs N] [--growth] [--profile]

LIBDIR holds libsavevm.a, built for release. The best of N runs (3) counts. --growth adds what a device costs among 16 to
65,536 of them. --profile shows where the time goes in the measurement that is worst beside its goal, with perf.
Fails if a goal is missed.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FEW, MANY = 256, 16384
# How many times as fast as QEMU.
GOALS = {
    "put_byte": 1.2, "put_be32": 4, "put_be64": 6, "get_byte": 1, "get_be32": 3, "get_be64": 5, "page_out": 1,
    "page_in": 1, f"register_{MANY}": 40, f"load_{MANY}": 20, f"unregister_{MANY}": 40,
    "save card": 4, "load card": 3,
}
# At most so many times as much for each device.
GROWTH_GOAL = 1.5
KINDS = ["register", "load", "unregister", "save"]


def build(library, work):
    """Programs by measurement and side."""
    programs = {}
    for name in ["engine", "vmstate"]:
        source = ROOT / f"benches/{name}.c"
        subprocess.run([ROOT / "c-tests/reference/link.sh", work, source], check=True)
        ours = work / f"{name}-savevm"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-g", "-std=gnu11", f"-I{ROOT / 'include'}",
                        f"-I{ROOT / 'c-tests/lib'}", "-o", ours, source, ROOT / "c-tests/lib/trace.c",
                        ROOT / "c-tests/lib/backend_savevm.c", library / "libsavevm.a", "-lpthread", "-ldl", "-lm"], check=True)
        programs[name] = {"savevm": ours, "qemu": work / f"{name}-qemu"}
    return programs


def measure(program, *arguments):
    """Nanoseconds by name."""
    text = subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name: float(time) for name, time in (line.split("\t") for line in text.splitlines() if "\t" in line)}


def keep_best(best, found):
    for name, time in found.items():
        best[name] = min(time, best.get(name, time))


def in_turns(programs, runs):
    best = {"savevm": {}, "qemu": {}}
    for _ in range(runs):
        for sides in programs.values():
            for side, program in sides.items():
                keep_best(best[side], measure(program))
    return best


def print_ratios(best):
    """The share of its goal that each measurement reaches."""
    shares = {}
    print("| | libsavevm, ns | QEMU, ns | times as fast | goal |\n|---|---|---|---|---|")
    for name, ours in best["savevm"].items():
        theirs = best["qemu"][name]
        goal = GOALS.get(name)
        verdict = ""
        if goal:
            shares[name] = theirs / ours / goal
            verdict = f"{goal}{'' if shares[name] >= 1 else ', missed'}"
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} | {verdict} |")
    return shares


def print_factors(best):
    shares = {}
    print(f"\nA device among {MANY}, beside one among {FEW} (goal for libsavevm: at most {GROWTH_GOAL})\n")
    print("| | libsavevm | QEMU |\n|---|---|---|")
    for kind in KINDS:
        ours, theirs = (best[side][f"{kind}_{MANY}"] / best[side][f"{kind}_{FEW}"] for side in ("savevm", "qemu"))
        if kind != "save":
            shares[f"{kind}_{MANY}"] = GROWTH_GOAL / ours
        missed = ", missed" if kind != "save" and ours > GROWTH_GOAL else ""
        print(f"| {kind} | {ours:.2f}{missed} | {theirs:.2f} |")
    return shares


def print_growth(program):
    counts = [16, 256, 1024, 4096, 16384, 65536]
    print("\nNanoseconds for each device among so many, libsavevm\n")
    print("| |", " | ".join(f"{count:,}" for count in counts), "|\n|---|" + "---|" * len(counts))
    found = measure(program, "devices", *counts)
    for kind in KINDS:
        print(f"| {kind} |", " | ".join(f"{found[f'{kind}_{count}']:.0f}" for count in counts), "|")


def profile(programs, name, work):
    if name.split("_")[0] in KINDS and name.endswith(str(MANY)):
        command = [programs["engine"]["savevm"], "devices", str(MANY)]
    elif name in ("save card", "load card"):
        command = [programs["vmstate"]["savevm"]]
    else:
        command = [programs["engine"]["savevm"], name]
    data = work / "perf.data"
    subprocess.run(["perf", "record", "-q", "-o", data, *command], stdout=subprocess.DEVNULL, check=True)
    text = subprocess.run(["perf", "report", "-i", data, "--stdio", "-q", "--no-children", "--percent-limit", "2"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    print(f"\nThe worst beside its goal is `{name}`; its time goes to\n")
    print("\n".join("    " + line.strip() for line in text.splitlines() if line.strip()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if not os.environ.get("QEMU_BUILD"):
        sys.exit("QEMU_BUILD names no built QEMU 7.2 tree")
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        programs = build(arguments.library, work)
        best = in_turns(programs, arguments.runs)
        shares = print_ratios(best)
        for name, share in print_factors(best).items():
            shares[name] = min(share, shares[name])
        if arguments.growth:
            print_growth(programs["engine"]["savevm"])
        worst = min(shares, key=shares.get)
        if arguments.profile:
            profile(programs, worst, work)
    return 1 if shares[worst] < 1 else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast RAM moves over a unix socket to another process: a bare loop, libsavevm and an unmodified QEMU 7.2, in turns.

usage: ram.py LIBDIR [--mib MIB] [--runs N] [--growth]      1024 MiB of random bytes, 3 runs

LIBDIR holds libsavevm.a, built for release. QEMU_SYSTEM names the emulator (qemu-system-x86_64). QEMU's guest runs its
firmware, which finds nothing to boot, with the random bytes in its memory. Best and median of each count.
--growth adds libsavevm alone with 64 MiB to 4 GiB. Fails if a goal is missed.
"""
import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ports/common/tests"))
from qemu import Place, Qemu  # noqa: E402
from build import build  # noqa: E402

# At least these times QEMU's throughput and the bare loop's; at most so many milliseconds of downtime.
GOAL_QEMU, GOAL_LOOP, GOAL_DOWNTIME = 2, 0.85, 10
# What QEMU's firmware may use below and above the random bytes.
FIRMWARE_MIB = 64


def ours(program, mib):
    """GB/s of the bare loop, GB/s and milliseconds of downtime of libsavevm."""
    text = subprocess.run([program, str(mib), "1"], stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"bare loop (\S+) GB/s.*migration (\S+) GB/s.*downtime (\S+) ms", text)
    return tuple(map(float, found.groups()))


def theirs(emulator, place, mib, content):
    """The same two of QEMU. The whole time counts, as 7.2 does not report its setup separately."""
    machine = ["-machine", "pc-i440fx-7.2,accel=tcg", "-m", f"{mib + 2 * FIRMWARE_MIB}M"]
    full = ["-device", f"loader,file={content},addr={FIRMWARE_MIB << 20:#x},force-raw=on"]
    address = f"unix:{place / 'migration'}"
    with Qemu(emulator, place, "target", *machine, "-incoming", address), \
            Qemu(emulator, place, "source", *machine, *full) as source:
        source.qmp("migrate-set-parameters", max_bandwidth=1 << 40, downtime_limit=300)
        source.qmp("migrate", uri=address)
        info = source.wait_status("completed")
        sent = info["ram"]["transferred"]
        if sent < mib << 20:
            sys.exit(f"QEMU sent {sent} bytes alone")
        if info["total-time"] == 0:
            # Rarely, 7.2 reports "completed" before it has stored the duration.
            info = source.qmp("query-migrate")
        return sent / 1e6 / info["total-time"], info["downtime"]


def print_growth(program):
    print("\n| MiB | bare loop, GB/s | libsavevm, GB/s | downtime, ms |\n|---|---|---|---|")
    for mib in (64, 256, 1024, 4096):
        bare, speed, downtime = ours(program, mib)
        print(f"| {mib} | {bare:.2f} | {speed:.2f} | {downtime:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--growth", action="store_true")
    arguments = parser.parse_args()
    emulator = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    if not emulator:
        sys.exit("there is no qemu-system-x86_64")
    loop, library, qemu = [], [], []
    print("| run | bare loop, GB/s | libsavevm, GB/s | downtime, ms | QEMU, GB/s | downtime, ms |\n|" + "---|" * 6)
    with Place() as place:
        program = build("ram", arguments.library, place.path)
        content = place / "content"
        with open(content, "wb") as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(1 << 20))
        for run in range(arguments.runs):
            bare, *own = ours(program, arguments.mib)
            loop.append(bare)
            library.append(own)
            subprocess.run([program, str(arguments.mib), "warm"], check=True)
            qemu.append(theirs(emulator, place, arguments.mib, content))
            print(f"| {run + 1} | {bare:.2f} | {own[0]:.2f} | {own[1]:.1f} | {qemu[-1][0]:.2f} | {qemu[-1][1]} |",
                  flush=True)
        missed = False
        for what, choose in ("Best", max), ("Median", statistics.median):
            speed = choose([speed for speed, _ in library])
            times, share = speed / choose([speed for speed, _ in qemu]), speed / choose(loop)
            # The best of a time is the least.
            downtime = -choose([-time for _, time in library])
            missed |= times < GOAL_QEMU or share < GOAL_LOOP or downtime > GOAL_DOWNTIME
            print(f"\n{what}: {speed:.2f} GB/s, {times:.1f} times QEMU (goal {GOAL_QEMU}), {100 * share:.0f}% of the bare "
                  f"loop (goal {100 * GOAL_LOOP:.0f}%), downtime {downtime:.1f} ms (goal {GOAL_DOWNTIME})")
        if arguments.growth:
            print_growth(program)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What RAM over several connections costs, beside unmodified QEMUs in the same setting, in turns.

usage: multifd.py LIBDIR [--mib MIB] [--runs N] [--channels N,...] [--method NAME,...] [--memory touched|fresh]

Defaults: 512 MiB of half-compressible bytes without zero pages, 5 runs, 2 and 4 channels, all methods, touched memory.
LIBDIR holds libsavevm.a, built for release. QEMU_SYSTEM names the emulators, separated by commas (qemu-system-x86_64). QEMU's
machine `none` has the same memory: the source a private mapping of the same file, of which every page was written to; the
destination anonymous memory that was written to before ("touched"), or that is new ("fresh"). A run that is not counted
precedes the others of each row. The CPU seconds of both ends are counted, from the command that starts the migration until both
ends have completed it. Prints medians, and the ratio of the CPU seconds to QEMU's. Fails if plain pages cost more CPU per GiB
than those of a QEMU.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "c-tests/lib"))
from qmp import Qmp, listening  # noqa: E402
from build import build  # noqa: E402

METHODS = ("none", "zlib", "zstd", "auto")


def ours(program, work, setting, content):
    """Seconds, CPU seconds of both ends, MiB on the wire."""
    address = work / "ours"
    address.unlink(missing_ok=True)
    text = subprocess.run([program, f"unix:{address}", str(setting.mib), str(setting.channels), setting.method, content,
                           setting.memory], check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, source, destination, sent = map(float, text.split())
    return seconds, source + destination, sent


def cpu(process):
    """CPU seconds of all threads of a process so far, also of those that have ended (clock_getcpuclockid)."""
    return time.clock_gettime(~process.pid << 3 | 2)


def start(emulator, work, name, mib, *arguments):
    control = work / f"{name}-qmp"
    control.unlink(missing_ok=True)
    process = subprocess.Popen([emulator, "-M", "none,memory-backend=m", "-m", f"{mib}M", "-nodefaults", "-display", "none",
                                "-S", "-qmp", f"unix:{control},server=on,wait=off", *arguments])
    return process, Qmp(str(control), process)


class Failed(Exception):
    """A migration of QEMU's failed."""


def completed(qmp):
    """Waits for the event, because queries would use CPU time."""
    while True:
        message = json.loads(qmp.lines.readline())
        status = message.get("data", {}).get("status") if message.get("event") == "MIGRATION" else None
        if status in ("failed", "cancelled"):
            raise Failed(qmp("query-migrate").get("error-desc"))
        if status == "completed":
            return


def theirs_once(emulator, work, setting, content):
    address, mib = work / "theirs", setting.mib
    address.unlink(missing_ok=True)
    touched = "on" if setting.memory == "touched" else "off"
    source, sends = start(emulator, work, "source", mib, "-object",
                          f"memory-backend-file,id=m,size={mib}M,mem-path={content},share=off,prealloc=on")
    target, receives = start(emulator, work, "target", mib, "-object",
                             f"memory-backend-ram,id=m,size={mib}M,prealloc={touched}", "-incoming", "defer")
    try:
        for qmp in sends, receives:
            qmp.capabilities("multifd", "return-path", "events")
            qmp("migrate-set-parameters", **{"multifd-channels": setting.channels, "multifd-compression": setting.method,
                                             "max-bandwidth": 1 << 40})
        receives("migrate-incoming", uri=f"unix:{address}")
        listening(str(address))
        before, since = cpu(source) + cpu(target), time.monotonic()
        sends("migrate", uri=f"unix:{address}")
        completed(sends)
        seconds = time.monotonic() - since
        completed(receives)
        used = cpu(source) + cpu(target) - before
        return seconds, used, sends("query-migrate")["ram"]["transferred"] / 1048576
    finally:
        for process in source, target:
            process.kill()
            process.wait()


def theirs(emulator, work, setting, content):
    """The same of a QEMU. Its connections rarely arrive in an order that its destination refuses; that run is repeated."""
    for _ in range(3):
        try:
            return theirs_once(emulator, work, setting, content)
        except Failed as failed:
            print(f"QEMU did not migrate: {failed}", file=sys.stderr)
    sys.exit(1)


def fill(path, mib):
    """Half of each 64 KiB is random, half repeats: deflate and zstd shrink it to about half."""
    with open(path, "wb") as file:
        for _ in range(mib * 16):
            file.write(os.urandom(32 << 10) + os.urandom(64) * 512)


def names_of(emulators):
    """The QEMUs by version."""
    names = {}
    for emulator in emulators:
        text = subprocess.run([emulator, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
        names["QEMU " + text.split("version ")[1].split()[0]] = emulator
    return names


def measure(rivals, runs, gib):
    """Prints the medians of all, which take turns. Returns whether the first costs more CPU time than another."""
    results = {name: [] for name in rivals}
    for run in range(runs + 1):
        for name, measured in rivals.items():
            found = measured()
            if run > 0:
                results[name].append(found)
    medians = {name: [statistics.median(column) for column in zip(*found)] for name, found in results.items()}
    first = next(iter(rivals))
    for name, (seconds, used, sent) in medians.items():
        each = [used / gib for _, used, _ in results[name]]
        ratio = "" if name == first else f"{medians[first][1] / used:.2f}"
        print(f"| {name} | {gib * 1.073741824 / seconds:.2f} | {used / gib:.3f} | {min(each):.3f} to {max(each):.3f} | {sent:.0f} | "
              f"{ratio} |", flush=True)
    return any(medians[first][1] > used for _, used, _ in medians.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--channels", default="2,4")
    parser.add_argument("--method", default=",".join(METHODS))
    parser.add_argument("--memory", choices=("touched", "fresh"), default="touched")
    arguments = parser.parse_args()
    emulators = (os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64") or "").split(",")
    if emulators == [""]:
        sys.exit("there is no qemu-system-x86_64")
    qemus, missed = names_of(emulators), False
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        program, content = build("multifd", arguments.library, work), work / "content"
        fill(content, arguments.mib)
        for method in arguments.method.split(","):
            for channels in map(int, arguments.channels.split(",")):
                setting = argparse.Namespace(mib=arguments.mib, channels=channels, method=method, memory=arguments.memory)
                print(f"\n{method}, {channels} channels, destination's memory {arguments.memory}\n\n"
                      f"| | GB/s | CPU s per GiB | least to most | wire, MiB | libsavevm's CPU by it |\n|{'---|' * 6}")
                rivals = {"libsavevm": lambda: ours(program, work, setting, content)}
                for name, emulator in qemus.items() if method != "auto" else ():
                    rivals[name] = lambda emulator=emulator: theirs(emulator, work, setting, content)
                missed |= measure(rivals, arguments.runs, arguments.mib / 1024) and method == "none"
    print("\nGoal: plain pages cost at most QEMU's CPU per GiB" + (": missed" if missed else ""))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

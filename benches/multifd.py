#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What RAM over several connections costs, beside an unmodified QEMU 7.2 in the same setting, in turns.

usage: multifd.py LIBDIR [--mib MIB] [--runs N] [--channels N]      512 MiB of half-compressible bytes, 3 runs, 4 channels

LIBDIR holds libsavevm.a, built for release. QEMU_SYSTEM names the emulator (qemu-system-x86_64), whose machine `none` has the
same memory. CPU seconds of both ends are counted. Prints medians. Fails if plain pages cost more CPU per GiB than QEMU's.
"""
import argparse
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

TICKS = os.sysconf("SC_CLK_TCK")


def build(library, work):
    program = work / "multifd"
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-std=gnu11", f"-I{ROOT / 'include'}", "-o", program,
                    ROOT / "benches/multifd.c", library / "libsavevm.a", "-lpthread", "-ldl", "-lm"], check=True)
    return program


def ours(program, work, mib, channels, method, content):
    """Seconds, CPU seconds of both ends, MiB on the wire."""
    address = work / "ours"
    address.unlink(missing_ok=True)
    text = subprocess.run([program, f"unix:{address}", str(mib), str(channels), method, content], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    seconds, source, destination, sent = map(float, text.split())
    return seconds, source + destination, sent


def cpu(process):
    with open(f"/proc/{process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start(emulator, work, name, mib, *arguments):
    control = work / f"{name}-qmp"
    control.unlink(missing_ok=True)
    process = subprocess.Popen([emulator, "-M", "none,memory-backend=m", "-m", f"{mib}M", "-nodefaults", "-display", "none",
                                "-S", "-qmp", f"unix:{control},server=on,wait=off", *arguments])
    return process, Qmp(str(control), process)


def theirs(emulator, work, mib, channels, method, content):
    """The same of QEMU."""
    address = work / "theirs"
    address.unlink(missing_ok=True)
    source, sends = start(emulator, work, "source", mib, "-object",
                          f"memory-backend-file,id=m,size={mib}M,mem-path={content},share=off,prealloc=on")
    target, receives = start(emulator, work, "target", mib, "-object", f"memory-backend-ram,id=m,size={mib}M",
                             "-incoming", "defer")
    try:
        for qmp in sends, receives:
            qmp.capabilities("multifd", "return-path")
            qmp("migrate-set-parameters", **{"multifd-channels": channels, "multifd-compression": method,
                                             "max-bandwidth": 1 << 40})
        receives("migrate-incoming", uri=f"unix:{address}")
        listening(str(address))
        before, since = cpu(source) + cpu(target), time.monotonic()
        if sends.migrate(f"unix:{address}") != "completed":
            sys.exit("QEMU did not migrate")
        seconds = time.monotonic() - since
        info = sends("query-migrate")
        return seconds, cpu(source) + cpu(target) - before, info["ram"]["transferred"] / 1048576
    finally:
        for process in source, target:
            process.kill()
            process.wait()


def fill(path, mib):
    """Half of each 64 KiB is random, half repeats: deflate and zstd shrink it to about half."""
    with open(path, "wb") as file:
        for _ in range(mib * 16):
            file.write(os.urandom(32 << 10) + os.urandom(64) * 512)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--channels", type=int, default=4)
    arguments = parser.parse_args()
    emulator = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    if not emulator:
        sys.exit("there is no qemu-system-x86_64")
    missed, gib = False, arguments.mib / 1024
    print("| compression | libsavevm: GB/s | CPU s per GiB | wire, MiB | QEMU: GB/s | CPU s per GiB | wire, MiB |\n|" + "---|" * 7)
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        program, content = build(arguments.library, work), work / "content"
        fill(content, arguments.mib)
        for method in "none", "zlib", "zstd", "auto":
            own, other = [], []
            for _ in range(arguments.runs):
                own.append(ours(program, work, arguments.mib, arguments.channels, method, content))
                if method != "auto":
                    other.append(theirs(emulator, work, arguments.mib, arguments.channels, method, content))

            def row(results):
                if not results:
                    return "| | | "
                seconds, used, sent = (statistics.median(column) for column in zip(*results))
                return f"| {gib * 1.073741824 / seconds:.2f} | {used / gib:.2f} | {sent:.0f} "

            print(f"| {method} {row(own)}{row(other)}|", flush=True)
            if method == "none":
                missed = statistics.median([used for _, used, _ in own]) > statistics.median([used for _, used, _ in other])
        print("\nGoal: plain pages cost at most QEMU's CPU per GiB" + (": missed" if missed else ""))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

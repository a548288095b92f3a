#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast `savevm inspect` is, and how much memory it takes.

usage: inspect.py SAVEVM [--script ANALYZE_MIGRATION] [--gib SIZE] [STREAM...]

First a stream of SIZE GiB (2) that is made here, half of its pages plain and half zero: from a pipe, and mapped from the
page cache, where it is as it was written and then as it was read from the disk. Kernels read ahead in large pieces, which
are faster to map than those of a program that writes. Then the STREAMs, such as QEMU's, as the document of QEMU's
analyze-migration.py. With the script both are compared with it. The best of several runs counts, by the clock; what the
processors spent, all threads taken together, is printed beside it. Exit status 1: less than 2 GB/s, less than 50 times as
fast as the script, or more than 32 MiB of memory for a pipe.
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time

PAGE = 4096
PLAIN, ZERO, SAME, SIZES, END = 8, 2, 32, 4, 16


def footer(section):
    return b"\x7e" + struct.pack(">I", section)


def make(path, gib):
    """A stream with so many bytes of plain pages in `ram`."""
    pages = gib << 18
    with open(path, "wb", buffering=1 << 20) as out:
        length = 2 * pages * PAGE
        out.write(b"QEVM\0\0\0\3\7" + struct.pack(">I", 4) + b"none")
        out.write(b"\1" + struct.pack(">I", 2) + b"\3ram" + struct.pack(">II", 0, 4))
        out.write(struct.pack(">Q", length | SIZES) + b"\3ram" + struct.pack(">QQ", length, END) + footer(2))
        out.write(b"\3" + struct.pack(">I", 2))
        same, name = 0, b"\3ram"
        for page in range(pages):
            address = 2 * page * PAGE
            out.write(struct.pack(">Q", address | PLAIN | same) + name + bytes([page & 255 | 1]) * PAGE)
            same, name = SAME, b""
            out.write(struct.pack(">Q", address + PAGE | ZERO | same) + b"\0")
        out.write(struct.pack(">Q", END) + footer(2))
        out.write(b"\3" + struct.pack(">IQ", 2, END) + footer(2) + b"\0")
        description = b'{"configuration": {}, "page_size": 4096, "devices": []}'
        out.write(b"\6" + struct.pack(">I", len(description)) + description)


def read_from_disk(path):
    """Has the kernel forget a file and read it again."""
    with open(path, "rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 20):
            pass


def run(command, feed=None):
    """Seconds by the clock and of the processors, and the most memory in KiB."""
    begin = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
    if feed:
        with open(feed, "rb", buffering=0) as source:
            left = os.fstat(source.fileno()).st_size
            while left:
                left -= os.splice(source.fileno(), child.stdin.fileno(), min(left, 1 << 20))
        child.stdin.close()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {child.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def best(runs, *arguments):
    seconds, cpu, memory = zip(*(run(*arguments) for _ in range(runs)))
    return min(seconds), min(cpu), max(memory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("savevm")
    parser.add_argument("--script")
    parser.add_argument("--gib", type=int, default=2)
    parser.add_argument("streams", nargs="*")
    args = parser.parse_intermixed_args()
    missed = []

    def compare(what, path, ours, our_cpu):
        if args.script:
            seconds, cpu, _ = best(3, ["python3", args.script, "-f", path])
            times = f"{seconds / ours:.0f} times, {cpu / our_cpu:.0f} times of CPU"
            print(f"{'the script':>30} {seconds:8.4f} s, {cpu:.4f} s of CPU: {times}", flush=True)
            if seconds < 50 * ours:
                missed.append(f"{what}: {seconds / ours:.0f} times as fast as the script")

    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as work:
        path = os.path.join(work, "large")
        make(path, args.gib)
        size = os.path.getsize(path)

        def large(what, source, feed=None):
            seconds, cpu, memory = best(9, [args.savevm, "inspect", source], feed)
            rate = size / seconds / 1e9
            # What is mapped is the page cache's.
            note = f", {memory / 1024:.1f} MiB of memory" if feed else ""
            times = f"{seconds:8.4f} s, {cpu:.4f} s of CPU"
            print(f"{size / 1e9:6.2f} GB {what:20} {times}, {rate:.1f} GB/s{note}", flush=True)
            if feed:
                if memory > 32 << 10:
                    missed.append(f"{what}: {memory} KiB of memory")
                return
            if rate < 2:
                missed.append(f"{what}: {rate:.1f} GB/s")
            compare(what, path, seconds, cpu)

        large("from a pipe", "-", feed=path)
        large("as written", path)
        read_from_disk(path)
        large("as read", path)
    for path in args.streams:
        seconds, cpu, _ = best(19, [args.savevm, "inspect", "-f", "analyze", path])
        name = os.path.basename(path)
        print(f"{os.path.getsize(path) / 1e6:6.2f} MB {name:20} {seconds:8.4f} s, {cpu:.4f} s of CPU", flush=True)
        compare(name, path, seconds, cpu)
    for line in missed:
        print(f"MISSED: {line}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

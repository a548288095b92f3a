#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long snapshots take, beside an unmodified QEMU with mapped-ram and dd: saves and loads of 2 GiB of random bytes, and the time
from a lazy load's call to the guest's first access. In that part full loads run a tenth as often, and at most 2 GiB of the memory
have random bytes; the rest is zero. A chain is a full snapshot and three incremental ones, with 57 MiB of changed pages each.
"Clock" is the longest gap meanwhile of a thread that only reads a clock: that of the machine.

usage: snapshot.py LIBDIR [--runs N] [--mib MIB] [--start MIB...] [--directory DIR]
                   [--only first|start|save|load...] [--cache yes|no]

--only measures only the first accesses, these and full loads, the saves, or the loads. --cache: only those through the page
cache (yes) or past it (no).

LIBDIR holds libsavevm.a, built for release. QEMU is the first of version 9.0 or later among qemu-system-x86_64 and those in
QEMU_OTHERS, which are separated by colons. Each figure is the median and the 99th percentile of --runs runs (50). Programs
alternate. Before each run, a process writes to memory and frees it: the host of a virtual machine takes free memory back, and a
program that needs it again waits 0.1 to 2.3 s per GiB for the host.

"Written" is the time to the last write of a page: for libsavevm the time for which the guest is stopped, for QEMU the time to
"completed". QEMU does not sync its file. A save of libsavevm includes the sync, and its benchmark syncs QEMU's file as well. dd
runs with conv=fsync, or with oflag=direct and iflag=direct. A bare loop of one or more threads reads the file into new memory, as a
load must; dd reads into the same buffer again and again.
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "c-tests/lib"))
from qmp import Qmp, emulators  # noqa: E402
from build import build  # noqa: E402

# libsavevm's default; QEMU's default number of channels, and more of them.
THREADS, CHANNELS = 0, (2, 8)
# Memory that is free before a measurement of a start, in MiB.
START_TOUCH = 256
# Threads of the bare loop that reads a file.
READERS = {"page cache": (1, 2), "direct": (1, 8)}
# Memory with random bytes in the measurements of starts, in MiB.
RANDOM_MAX = 2048


class Qemu:
    def __init__(self, qemu, directory, mib, *arguments):
        control = directory / "qmp"
        control.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [qemu, "-M", "none", "-nodefaults", "-display", "none", "-m", str(mib), "-accel", "tcg",
             "-qmp", f"unix:{control},server=on,wait=off", *arguments])
        self.qmp = Qmp(str(control), self.process)
        text = self.qmp("human-monitor-command", **{"command-line": "info ramblock"})
        self.address = int(re.search(r"^\s*ram\s.* 0x(\w+)\s+rw", text, re.MULTILINE).group(1), 16)

    def fill(self, path):
        with open(f"/proc/{self.process.pid}/mem", "r+b", buffering=0) as memory, open(path, "rb") as content:
            memory.seek(self.address)
            while part := content.read(16 << 20):
                memory.write(part)

    def use(self, direct, channels):
        """No channels: a plain stream."""
        if channels:
            self.qmp.capabilities("mapped-ram", "multifd")
            self.qmp("migrate-set-parameters", **{"multifd-channels": channels, "direct-io": direct})
        self.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 40})

    def wait(self):
        while (status := self.qmp.status()) not in ("completed", "failed"):
            time.sleep(0.0005)
        if status != "completed":
            sys.exit("QEMU's migration failed")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait()


class Bench:
    def __init__(self, program, qemu, directory):
        self.program, self.qemu, self.directory = program, qemu, directory
        self.content, self.file = directory / "content", directory / "file"

    def ours(self, *arguments):
        done = subprocess.run([self.program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
        return [float(number) for number in done.stdout.split()]

    def touch(self, mib):
        """Makes the host allocate so much of the free memory."""
        subprocess.run([self.program, "touch", str(mib)], check=True)

    def make(self, mib):
        with open(self.content, "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))

    def forget(self):
        self.file.unlink(missing_ok=True)

    def save(self, mib, flag):
        self.forget()
        return self.ours("save", self.file, mib, "mapped", THREADS, flag, self.content)

    def drop_cache(self, path):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def qemu_save(self, mib, direct, channels=2):
        """ms until QEMU has written, and until the file is synced."""
        self.forget()
        with Qemu(self.qemu, self.directory, mib, "-S") as qemu:
            qemu.use(direct, channels)
            qemu.fill(self.content)
            begin = time.perf_counter()
            qemu.qmp("migrate", uri=f"file:{self.file}")
            qemu.wait()
            written = time.perf_counter()
            fd = os.open(self.file, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            return [(written - begin) * 1e3, (time.perf_counter() - begin) * 1e3]

    def qemu_load(self, mib, direct, channels=2):
        with Qemu(self.qemu, self.directory, mib, "-incoming", "defer") as qemu:
            qemu.use(direct, channels)
            begin = time.perf_counter()
            qemu.qmp("migrate-incoming", uri=f"file:{self.file}")
            qemu.wait()
            return [(time.perf_counter() - begin) * 1e3]

    def dd(self, source, target, *flags):
        begin = time.perf_counter()
        subprocess.run(["dd", f"if={source}", f"of={target}", "bs=1M", "status=none", *flags], check=True)
        return [(time.perf_counter() - begin) * 1e3]


def rows(title, columns, runs, before=lambda: None):
    """Runs each of `columns` (name, function) in turns, each after `before`, and prints a table. Returns the medians."""
    found = {name: [] for name, _ in columns}
    for _ in range(runs):
        for name, run in columns:
            before()
            found[name].append(run())
    print(f"\n{title}\n\n| what | median, ms | p99, ms | least, ms |\n|---|---|---|---|")
    medians = {}
    for name, _ in columns:
        for number, part in enumerate(name.split(", then ")):
            times = sorted(times[number] for times in found[name])
            medians[part] = statistics.median(times)
            print(f"| {part} | {medians[part]:.1f} | {times[min(len(times) - 1, len(times) * 99 // 100)]:.1f} "
                  f"| {times[0]:.1f} |", flush=True)
    return medians


def saves(bench, mib, runs, direct):
    kind, flag = ("direct", "direct") if direct else ("page cache", "buffered")

    def dd_out():
        bench.forget()
        return bench.dd(bench.content, bench.file, "oflag=direct" if direct else "conv=fsync", "iflag=fullblock")

    columns = [("libsavevm: written, then libsavevm: all with sync", lambda: bench.save(mib, flag))]
    columns += [(f"QEMU, {channels} channels: written, then QEMU, {channels} channels: all with sync",
                 lambda channels=channels: bench.qemu_save(mib, direct, channels)) for channels in CHANNELS]
    columns.append(("dd" if direct else "dd with sync", dd_out))
    # The memory of the guest, and the pages of the file.
    medians = rows(f"Save of {mib} MiB, {kind}", columns, runs, lambda: bench.touch(2 * mib + 512))
    for part in "written", "all with sync":
        qemu = min(medians[f"QEMU, {channels} channels: {part}"] for channels in CHANNELS)
        print(f"\n{part}: {qemu / medians[f'libsavevm: {part}']:.2f} times QEMU (goal 1.5)")
    dd = medians["dd" if direct else "dd with sync"] / medians["libsavevm: all with sync"]
    print(f"\n{dd:.2f} of dd (goal 0.9)", flush=True)


def loads(bench, mib, runs, direct):
    kind, flag = ("direct", "direct") if direct else ("page cache", "buffered")
    # A file of each, as QEMU's section ids begin elsewhere; both read the same pages.
    theirs, ours = bench.directory / "theirs", bench.file
    bench.file = theirs
    bench.qemu_save(mib, direct)
    bench.file = ours
    bench.save(mib, flag)

    def load(path, run):
        bench.file = path
        if direct:
            bench.drop_cache(path)
        return run()

    def dd_in():
        return bench.dd(ours, "/dev/null", *(["iflag=direct"] if direct else []))

    columns = [("libsavevm", lambda: load(ours, lambda: bench.ours("load", ours, mib, THREADS, flag))),
               ("dd to /dev/null", lambda: load(ours, dd_in))]
    columns += [(f"bare loop, threads: {threads}",
                 lambda threads=threads: load(ours, lambda: bench.ours("read", ours, mib, threads, flag)))
                for threads in READERS[kind]]
    columns += [(f"QEMU, {channels} channels",
                 lambda channels=channels: load(theirs, lambda: bench.qemu_load(mib, direct, channels))) for channels in CHANNELS]
    medians = rows(f"Load of {mib} MiB, {kind}", columns, runs, lambda: bench.touch(mib + 512))
    qemu = min(medians[f"QEMU, {channels} channels"] for channels in CHANNELS)
    bare = min(medians[f"bare loop, threads: {threads}"] for threads in READERS[kind])
    ours_ms = medians["libsavevm"]
    print(f"\n{qemu / ours_ms:.2f} times QEMU (goal 1.5), {medians['dd to /dev/null'] / ours_ms:.2f} of dd (goal 0.9), "
          f"{bare / ours_ms:.2f} of a bare loop", flush=True)
    theirs.unlink()
    bench.file = ours


def starts(bench, sizes, runs, full):
    for mib in sizes:
        bench.make(min(mib, RANDOM_MAX))
        first, columns = [], []
        for name, form in (("fixed places", "mapped"), ("stream", "stream"), ("stream with index", "stream"),
                           ("chain", "chain")):
            path, index = bench.directory / form, []
            if name == "stream with index":
                index = [bench.directory / "index"]
                bench.ours("index", path, mib, THREADS, *index)
            elif name == "chain":
                bench.ours("chain", path, mib, "stream", THREADS, "buffered", bench.content)
                path = path.with_suffix(".3")
            else:
                bench.ours("save", path, mib, form, THREADS, "buffered", bench.content)
                columns.append((f"libsavevm, full load, {name}",
                                lambda path=path: bench.ours("load", path, mib, THREADS, "buffered")))
            arguments = (path, mib, THREADS, *index)
            first.append((f"libsavevm, lazy, {name}: first access, then libsavevm, lazy, {name}: clock",
                          lambda rest=arguments: bench.ours("first", *rest)))
            columns.append((f"libsavevm, lazy, {name}: first access, then libsavevm, lazy, {name}: clock, "
                            f"then libsavevm, lazy, {name}: all read", lambda rest=arguments: bench.ours("lazy", *rest)))
        for name, channels in (("mapped-ram", 2), ("plain", 0)) if full else ():
            path = bench.directory / f"qemu-{name}"
            bench.file = path
            bench.qemu_save(mib, False, channels)

            def load(path=path, channels=channels):
                bench.file = path
                return bench.qemu_load(mib, False, channels)

            columns.append((f"QEMU, full load, {name}", load))
        bench.content.unlink()
        rows(f"From the load's call to the guest, {mib} MiB in the page cache (goal 5 ms)", first, runs,
             lambda: bench.touch(START_TOUCH))
        if full:
            rows(f"The same with the end of the reading, and full loads, {mib} MiB", columns, max(runs // 10, 1),
                 lambda: bench.touch(min(mib, RANDOM_MAX) + 512))
        for path in bench.directory.glob("*"):
            if path != bench.program:
                path.unlink()
        bench.file = bench.directory / "file"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--start", type=int, nargs="*", default=[1024, 4096, 8192])
    parser.add_argument("--directory", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    parser.add_argument("--only", nargs="*", choices=["first", "start", "save", "load"], default=["start", "save", "load"])
    parser.add_argument("--cache", choices=["yes", "no"])
    arguments = parser.parse_args()
    qemu = next((path for path, version, _ in emulators() if version >= 9), None)
    if qemu is None and set(arguments.only) != {"first"}:
        sys.exit("snapshot.py: QEMU_OTHERS names no QEMU of version 9.0 or later")
    with tempfile.TemporaryDirectory(prefix="savevm-bench-", dir=arguments.directory) as directory:
        bench = Bench(build("snapshot", arguments.library, pathlib.Path(directory)), qemu, pathlib.Path(directory))
        only = arguments.only
        if "first" in only or "start" in only:
            starts(bench, arguments.start, arguments.runs, "start" in only)
        if "save" in only or "load" in only:
            bench.make(arguments.mib)
        for direct in (direct for cache, direct in (("yes", False), ("no", True)) if arguments.cache in (None, cache)):
            for name, measure in ("save", saves), ("load", loads):
                if name in only:
                    measure(bench, arguments.mib, arguments.runs, direct)


if __name__ == "__main__":
    main()

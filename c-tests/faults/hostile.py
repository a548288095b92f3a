#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Feeds hostile streams to the savevm command and to the library's inspect, check and load functions (read-any), with
limits on memory, time and the size of files. Streams are damaged copies of good ones: bytes changed, cut, appended,
repeated, lengths made huge, files with large holes, compressed with long runs of zeros.

It fails if a program ends by a signal, panics, exceeds a limit, or leaves large files.

usage: hostile.py COMMAND READ_ANY [--seconds N | --runs N] [--seed N] [--verbose] [--keep]

Prints the seed of a failing input; the same seed makes the same input. SAVEVM_TEST_SLOW multiplies the time limits.
"""
import argparse
import gzip
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

SLOW = max(1, int(os.environ.get("SAVEVM_TEST_SLOW", "1")))
MEGABYTE = 1 << 20
# Limits for one program: address space, room that its files take on the disk, processor seconds, seconds without any use of
# a processor. On a busy machine a program may need much longer than its processor seconds.
ADDRESS_SPACE, DISK, CPU_SECONDS, SECONDS = 1024 * MEGABYTE, 256 * MEGABYTE, 30 * SLOW, 120 * SLOW
# Peak of resident memory. A bomb has 256 MiB, which the command maps, and a damaged section may make it keep all of that as
# the state of one device. More than that it must not need; its own limit (--max-memory) is 1 GiB.
RESIDENT = 640 * MEGABYTE


def mutate(rng, data):
    """A damaged copy of a stream, and in words what was done."""
    data, done = bytearray(data), []
    for _ in range(rng.choice([1, 1, 2, 4])):
        kind = rng.choice(["bytes", "bytes", "cut", "length", "length", "repeat", "repeat many", "insert", "names", "random"])
        # Half of the changes near the beginning or the end, where the headers and the description are.
        at = rng.randrange(len(data)) if data else 0
        if rng.random() < 0.5 and data:
            at = min(len(data) - 1, int(300 * rng.random())) if rng.random() < 0.5 else \
                max(0, len(data) - 1 - int(1500 * rng.random()))
        done.append(f"{kind} at {at}")
        if kind == "bytes":
            for _ in range(rng.choice([1, 1, 8])):
                if data:
                    data[min(len(data) - 1, at + rng.randrange(16))] = rng.randrange(256)
        elif kind == "cut":
            del data[at:]
        elif kind == "length":
            width = rng.choice([1, 2, 4, 8])
            data[at:at + width] = rng.choice([b"\xff", b"\x7f", b"\0", b"\x80"]) + b"\xff" * (width - 1)
        elif kind in ("repeat", "repeat many"):
            piece = bytes(data[at:at + rng.choice([1, 8, 40, 400, 4000])])
            data[at:at] = piece * (rng.choice([1, 10]) if kind == "repeat" else min(100000, 4 * MEGABYTE // (len(piece) + 1)))
        elif kind == "insert":
            data[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
        elif kind == "names":
            names = ["a\nb", "\u202egpj", "\x1b[31m", "x" * 255, "\u2028", "../../etc", "%s%n"]
            name = rng.choice(names).encode()[:255]
            data[at:at] = bytes([len(name)]) + name
        else:
            data[at:] = rng.randbytes(min(len(data) - at, 4096))
    return bytes(data), done


def wrap(rng, path, done):
    """Sometimes compresses the file or makes it long."""
    kind = rng.choice(["plain"] * 4 + ["gzip", "zstd", "padded", "sparse", "bomb"])
    done.append(kind)
    if kind == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    elif kind == "zstd" and shutil.which("zstd"):
        subprocess.run(["zstd", "-q", "-1", "-f", "--rm", path, "-o", str(path) + ".zst"], check=True)
        os.rename(str(path) + ".zst", path)
    elif kind == "padded":
        with open(path, "ab") as file:
            file.write(bytes(rng.choice([1, 512, 1 << 16])))
    elif kind == "sparse":
        os.truncate(path, path.stat().st_size + rng.choice([1 << 20, 1 << 30]))
    elif kind == "bomb":
        # The rest of the stream is a quarter of a gibibyte of zeros, in a few hundred kilobytes.
        with gzip.open(str(path) + ".gz", "wb", 1) as file:
            file.write(path.read_bytes())
            for _ in range(64):
                file.write(bytes(4 * MEGABYTE))
        os.rename(str(path) + ".gz", path)


def limit():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def room(process):
    """Bytes on the disk of the files that the process has open for writing, also of those without a name."""
    total = 0
    for number in range(1, 64):
        try:
            if int(open(f"/proc/{process.pid}/fdinfo/{number}").read().split("flags:")[1].split()[0], 8) & 3:
                total += os.stat(f"/proc/{process.pid}/fd/{number}").st_blocks * 512
        except OSError:
            pass
    return total


def processor_time(process):
    """Clock ticks that the process has used."""
    try:
        fields = open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except OSError:
        return 0


def run(command, work, scratch):
    """What is wrong with how the command ended; None if nothing."""
    environment = dict(os.environ, TMPDIR=str(scratch))
    with open(work / "out", "wb") as out, open(work / "err", "wb") as err:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=limit,
                                   env=environment, cwd=work)
        until, used, most, ended, pause = time.monotonic() + SECONDS, 0, 0, 0, 0.002
        while not ended and time.monotonic() < until and most <= DISK:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not ended:
                time.sleep(pause)
                pause = min(2 * pause, 0.05)
                most = max(most, room(process))
                now_used = processor_time(process)
                if now_used > used:
                    until, used = time.monotonic() + SECONDS, now_used
        if not ended:
            process.kill()
            os.wait4(process.pid, 0)
        process.returncode = 0
    if most > DISK:
        return f"it wrote {most // MEGABYTE} MiB to the disk"
    if not ended:
        return f"it did nothing for {SECONDS} s"
    if os.WIFSIGNALED(status):
        return f"it ended by signal {os.WTERMSIG(status)}, after {usage.ru_utime + usage.ru_stime:.1f} s of processor time"
    if os.WEXITSTATUS(status) not in (0, 1, 2):
        return f"its exit status is {os.WEXITSTATUS(status)}"
    if usage.ru_maxrss * 1024 > RESIDENT:
        return f"it used {usage.ru_maxrss // 1024} MiB of memory"
    said = (work / "err").read_bytes()
    if b"panicked" in said or b"internal error" in said:
        return "it panicked: " + said.decode(errors="replace")[:300]
    left = sum(file.stat().st_size for file in scratch.rglob("*") if file.is_file())
    if left > MEGABYTE:
        return f"it left {left} bytes in the temporary directory"
    return None


def commands(command, reader, path, good):
    name, other = str(path), str(good)
    yield [command, "inspect", name]
    yield [command, "inspect", "--device", "*", "--hex", name]
    yield [command, "inspect", "--format", "json", name]
    yield [command, "check", name]
    yield [command, "diff", name, other]
    yield [command, "schema", name]
    yield [command, "extract", "--ram", "memory", "--output", "image", name]
    yield [command, "plot", "--output", "plot.svg", name]
    yield [reader, "read", name]


def trial(options, seed, work, good):
    rng = random.Random(seed)
    path, scratch = work / "stream", work / "scratch"
    data, done = mutate(rng, good.read_bytes())
    path.write_bytes(data)
    wrap(rng, path, done)
    for command in commands(options.command, options.reader, path, good):
        scratch.mkdir()
        wrong = run(command, work, scratch)
        shutil.rmtree(scratch)
        for name in ("image", "plot.svg"):
            (work / name).unlink(missing_ok=True)
        if wrong:
            return f"{' '.join(map(str, command))}: {wrong} ({', '.join(done)})"
    if options.verbose:
        print(f"seed {seed}: {path.stat().st_size} bytes, {', '.join(done)}", flush=True)
    return None


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("command", type=os.path.abspath)
    parser.add_argument("reader", type=os.path.abspath)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep failing inputs")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    begin, done, failed = time.monotonic(), 0, 0
    work = pathlib.Path(tempfile.mkdtemp(prefix="savevm-hostile-"))
    try:
        good = work / "good"
        subprocess.run([options.reader, "make", good], check=True, stdout=subprocess.DEVNULL)
        # A good stream passes, so that the damaged ones are what is tested.
        for command in ([options.command, "check", good], [options.reader, "read", good]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        while time.monotonic() - begin < options.seconds if options.seconds else done < options.runs:
            wrong = trial(options, options.seed + done, work, good)
            if wrong:
                failed += 1
                print(f"FAILED: seed {options.seed + done}: {wrong}", flush=True)
                if options.keep:
                    shutil.copy(work / "stream", f"hostile-{options.seed + done}")
            done += 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{done} streams, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

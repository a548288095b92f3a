#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Predicted against actual downtime, over many migrations of a minivmm whose guest writes to its memory.

usage: downtime.py MINIVMM [--runs N] [--mib MIB]      200 migrations of 64 MiB

One source migrates to a new destination again and again; in between it loads a snapshot of its guest. A relay between the two
is a link of constant speed. Each pair of a rate of writes and a speed has its own source. The CPU runs in software. The error of
a run is |predicted - actual| / actual. Prints the median and other quantiles, also of the first runs of the contexts, which know
nothing of their devices. Fails if the median exceeds 15%.
"""
import argparse
import os
import pathlib
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

GOAL = 15
# MiB per second that the guest writes, and that the link carries.
CASES = [(20, 50), (40, 50), (40, 100), (80, 100)]
# What the relay may send at once after it was kept from sending.
BURST = 1 << 20
FOUND = re.compile(r"predicted downtime: (\S+) ms, actual (\S+) ms; predicted memory (\S+), save (\S+), load (\S+), "
                   r"round trips (\S+), rest (\S+)")


class Vmm:
    """A minivmm with its monitor."""

    def __init__(self, program, mib, dirty, *options):
        command = [program, "--software", "-m", str(mib), "--dirty", str(dirty), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def tell(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def wait(self, pattern, limit=120):
        """Returns the match of a pattern in the output since the last one."""
        until = time.monotonic() + limit
        while not (found := re.search(pattern, self.text)):
            left = until - time.monotonic()
            if left <= 0 or self.process.poll() is not None:
                sys.exit(f"no '{pattern}' in: {self.text[-2000:]}")
            if select.select([self.process.stdout], [], [], left)[0]:
                self.text += os.read(self.process.stdout.fileno(), 1 << 16).decode(errors="replace")
        self.text = self.text[found.end():]
        return found


def pump(source, target, rate):
    """Copies until the end, at so many bytes per second (0: at once)."""
    begin, sent = time.monotonic(), 0
    try:
        while data := source.recv(1 << 16):
            if rate:
                now = time.monotonic()
                begin = max(begin, now - (sent + BURST) / rate)
                sent += len(data)
                time.sleep(max(0, begin + sent / rate - now))
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def relay(near, far, rate):
    """Listens at `near`, and connects the first client with `far` over a link of that speed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(near)
    listener.listen(1)

    def serve():
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(far)
        back = threading.Thread(target=pump, args=(server, client, 0), daemon=True)
        back.start()
        pump(client, server, rate)
        back.join()
        client.close()
        server.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()


def migrate(source, arguments, place, number, limit):
    """Predicted and actual milliseconds of downtime, and the parts of the prediction."""
    near, far = f"{place}/near{number}", f"{place}/far{number}"
    address = f"unix:{far}"
    with Vmm(arguments.minivmm, arguments.mib, 0, "--incoming", address) as destination:
        destination.tell("info migrate")
        destination.wait("Migration status: setup")
        relay(near, far, limit << 20)
        source.tell(f"migrate unix:{near}")
        source.wait(r"\[outgoing\] completed")
        source.tell("info migrate")
        found = source.wait(FOUND.pattern)
        destination.wait(r"\[incoming\] completed")
    return [float(number) for number in found.groups()]


def describe(name, errors):
    errors = sorted(errors)
    quantile = lambda part: errors[min(len(errors) - 1, int(len(errors) * part))]  # noqa: E731
    print(f"| {name} | {len(errors)} | {statistics.median(errors):.1f} | {quantile(0.75):.1f} | {quantile(0.9):.1f} |")
    return statistics.median(errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minivmm", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    runs, firsts = {}, []
    with tempfile.TemporaryDirectory() as place:
        for case, (dirty, limit) in enumerate(CASES):
            snapshot = f"{place}/snapshot{case}"
            with Vmm(arguments.minivmm, arguments.mib, dirty) as source:
                time.sleep(2)
                source.tell(f"savevm {snapshot}")
                source.wait("saved")
                for number in range(-(-arguments.runs // len(CASES))):
                    result = migrate(source, arguments, place, f"{case}-{number}", limit)
                    (firsts if number == 0 else runs.setdefault((dirty, limit), [])).append(result)
                    if arguments.verbose:
                        print(dirty, limit, *result, flush=True)
                    source.tell(f"loadvm {snapshot}")
                    source.wait("loaded")
                    source.tell("cont")
                    time.sleep(0.5)
    error = lambda run: 100 * abs(run[0] - run[1]) / run[1]  # noqa: E731
    print("\n| guest writes, link (MiB/s) | downtime, ms: median | predicted: median |\n|---|---|---|")
    for (dirty, limit), results in runs.items():
        actual, predicted = (statistics.median(run[at] for run in results) for at in (1, 0))
        print(f"| {dirty}, {limit} | {actual:.1f} | {predicted:.1f} |")
    print("\n| error in percent | migrations | median | 75% | 90% |\n|---|---|---|---|---|")
    for (dirty, limit), results in runs.items():
        describe(f"{dirty}, {limit}", map(error, results))
    describe("the first of a context", map(error, firsts))
    median = describe("all", [error(run) for results in [*runs.values(), firsts] for run in results])
    if median > GOAL:
        sys.exit(f"the median error is {median:.1f}%, the goal is {GOAL}%")


if __name__ == "__main__":
    main()

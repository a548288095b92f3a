#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Predicted against actual downtime, over many migrations of a minivmm whose guest writes to its memory.

usage: downtime.py MINIVMM [--runs N] [--mib MIB]      200 migrations of 256 MiB

One source migrates to a new destination again and again; in between it loads a snapshot of its guest. The guest's rate of
writes and the bandwidth limit change from run to run, in a fixed order. The CPU runs in software. The error of a run is
|predicted - actual| / actual. Prints the median and other quantiles, also of the first run of the context alone, which knows
nothing of its devices. Fails if the median exceeds 15%.
"""
import argparse
import os
import pathlib
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time

GOAL = 15
# MiB per second that the guest writes, and the bandwidth limit in MiB per second (0: none).
CASES = [(32, 0), (128, 0), (64, 200), (128, 400)]
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


def migrate(source, arguments, place, number, limit):
    """Predicted and actual milliseconds of downtime, and the parts of the prediction."""
    address = f"unix:{place}/socket{number}"
    with Vmm(arguments.minivmm, arguments.mib, 0, "--incoming", address) as destination:
        destination.tell("info migrate")
        destination.wait("Migration status: setup")
        source.tell(f"set max-bandwidth {limit}")
        source.tell(f"migrate {address}")
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
    parser.add_argument("--mib", type=int, default=256)
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
    print("\n| guest writes, limit (MiB/s) | downtime, ms: median | predicted: median |\n|---|---|---|")
    for (dirty, limit), results in runs.items():
        actual, predicted = (statistics.median(run[at] for run in results) for at in (1, 0))
        print(f"| {dirty}, {limit or 'none'} | {actual:.1f} | {predicted:.1f} |")
    print("\n| error in percent | migrations | median | 75% | 90% |\n|---|---|---|---|---|")
    for (dirty, limit), results in runs.items():
        describe(f"{dirty}, {limit or 'none'}", map(error, results))
    describe("the first of a context", map(error, firsts))
    median = describe("all", [error(run) for results in [*runs.values(), firsts] for run in results])
    if median > GOAL:
        sys.exit(f"the median error is {median:.1f}%, the goal is {GOAL}%")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Downtime of a QEMU on libsavevm and of an unmodified one, with other work on the machine.

usage: contention.py PORTED UNMODIFIED [--rounds N] [--busy 0,2,4,6] [--mib N] [--dirty N] [--devices N]
                     [--results FILE] [--seconds N]
       contention.py --results FILE

The guest fills a part of its memory and then writes to --dirty MiB again and again, at full speed. In each round it migrates
once with either QEMU: alone, one after the other, and together, both at the same time. The order changes from round to round,
and so does the number of processes that use a processor meanwhile. The downtime is the time from the event STOP of the source
to the event RESUME of the destination, by the clock of the machine.

Prints medians, and for each mode the p of Wilcoxon's signed-rank test of the rounds (two-sided): both QEMUs of a round had the
same conditions. With --results, rounds are added to a file, and the report is about all of its rounds, so that short runs can
be added up. Fails if the ported QEMU is slower with p below 0.05.
"""
import argparse
import json
import math
import pathlib
import statistics
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "ports/common/tests"))
import machines  # noqa: E402
from qemu import Place, Qemu  # noqa: E402

MODES = ("alone", "together")
NAMES = ("ported", "unmodified")
SIGNIFICANT = 0.05
MEGABYTE = 1 << 20
FILLED = 64


def firmware(filled, dirty):
    """A BIOS that enters protected mode, writes to each page of `filled` bytes from 1 MiB on, and then to each page of `dirty`
    bytes again and again. It prints a letter after each 64 passes."""
    base, begin = 0xf0000, MEGABYTE
    number = lambda value: struct.pack("<I", value)  # noqa: E731
    pages = lambda write, end: write + b"\x81\xc6" + number(0x1000) + b"\x81\xfe" + number(begin + end)  # noqa: E731

    def loop(write, end):
        """mov esi, begin; again: write; add esi, 1000h; cmp esi, begin + end; jb again"""
        body = pages(write, end)
        return b"\xbe" + number(begin) + body + b"\x72" + struct.pack("b", -len(body) - 2)

    # mov ax, 10h; mov ds, ax; fill: mov [esi], esi; mov bl, 'a'
    code = bytes.fromhex("66b810008ed8") + loop(b"\x89\x36", filled) + b"\xb3\x61"
    # more: mov ecx, 64; pass: inc byte [esi]; dec ecx; jnz pass
    once = loop(b"\xfe\x06", dirty) + b"\x49"
    more = b"\xb9" + number(64) + once + b"\x75" + struct.pack("b", -len(once) - 2)
    # mov dx, 3f8h; mov al, bl; out dx, al; next letter; jmp more
    more += bytes.fromhex("66baf80388d8eefec380fb7b7502b361")
    code += more + b"\xeb" + struct.pack("b", -len(more) - 2)
    # cli; lgdt cs:[gdtr]; set cr0.pe; jmp 8:code; gdtr; null, code and data segments
    head_len, gdtr_len = 24, 6
    gdt = base + head_len + gdtr_len
    head = b"\xfa\x2e\x66\x0f\x01\x16" + struct.pack("<H", head_len) + bytes.fromhex("0f20c00c010f22c0")
    head += b"\x66\xea" + number(gdt + 24) + b"\x08\x00"
    assert len(head) == head_len
    table = bytes(8) + bytes.fromhex("ffff0000009acf00ffff00000092cf00")
    image = head + struct.pack("<H", 23) + number(gdt) + table + code
    return (image.ljust(0xfff0, b"\0") + bytes.fromhex("ea000000f0")).ljust(0x10000, b"\0")


class Guest:
    """A guest that migrates from one process to the next."""

    def __init__(self, binary, place, name, mib, devices):
        self.binary, self.place, self.name, self.count = binary, place, name, 0
        self.arguments = ["-M", "pc", "-accel", "tcg", "-m", f"{mib}M", "-bios", place / "dirty.bios"]
        self.arguments += machines.virtio_devices(devices)
        self.source, self.target = self.start(), None
        self.source.wait_letters(2)

    def start(self, *options):
        self.count += 1
        return Qemu(self.binary, self.place, f"{self.name}{self.count}", *self.arguments, *options)

    def prepare(self):
        self.uri = f"unix:{self.place / self.name}.{self.count}"
        self.target = self.start("-incoming", self.uri)
        self.source.qmp("migrate-set-parameters", max_bandwidth=1 << 34, downtime_limit=300)

    def begin(self):
        self.source.qmp("migrate", uri=self.uri)

    def finish(self):
        """Returns the downtime in ms."""
        self.source.wait_status("completed")
        self.target.wait_run()
        downtime = 1e3 * (self.target.event_time("RESUME") - self.source.event_time("STOP"))
        self.source.quit()
        self.source, self.target = self.target, None
        return downtime

    def close(self):
        for process in (self.source, self.target):
            if process:
                process.quit()


def run_round(guests, mode, busy, number):
    """Returns the downtimes of both QEMUs."""
    order = [0, 1] if number % 2 == 0 else [1, 0]
    result = [0.0, 0.0]
    for at in order:
        guests[at].prepare()
    work = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        for at in order:
            guests[at].begin()
            if mode == "alone":
                result[at] = guests[at].finish()
        if mode == "together":
            for at in order:
                result[at] = guests[at].finish()
    finally:
        for process in work:
            process.kill()
            process.wait()
    return result


def measure(options):
    """Yields the rounds."""
    done, until = 0, time.monotonic() + options.seconds
    with Place() as place:
        (place / "dirty.bios").write_bytes(firmware(FILLED * MEGABYTE, options.dirty * MEGABYTE))
        guests = []
        try:
            for binary, name in zip((options.ported, options.unmodified), NAMES):
                guests.append(Guest(binary, place, name, options.mib, options.devices))
            while done < options.rounds and time.monotonic() < until:
                mode, number = MODES[done % 2], options.first + done // 2
                # Each number of busy processes has both orders.
                busy = options.busy[number // 2 % len(options.busy)]
                yield {"mode": mode, "busy": busy, "ms": run_round(guests, mode, busy, number)}
                done += 1
        finally:
            for guest in guests:
                guest.close()


def signed_rank(differences):
    """The two-sided p of Wilcoxon's signed-rank test, by the normal distribution; 1 for few values."""
    values = sorted((value for value in differences if value), key=abs)
    count = len(values)
    if count < 10:
        return 1.0
    plus = sum(rank for rank, value in enumerate(values, 1) if value > 0)
    mean, deviation = count * (count + 1) / 4, math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    return math.erfc(abs(plus - mean) / deviation / math.sqrt(2))


def busy_counts(rounds):
    return sorted({entry["busy"] for entry in rounds})


def report(rounds):
    """Prints the table. Returns whether the ported QEMU is slower in a mode."""
    slower = False
    print("| migrations | busy processes | rounds | ported, ms: median | unmodified, ms: median | ratio |")
    print("|---|---|---|---|---|---|")
    for mode in MODES:
        own = [entry for entry in rounds if entry["mode"] == mode]
        groups = {busy: [entry for entry in own if entry["busy"] == busy] for busy in busy_counts(own)}
        for busy, entries in [*groups.items(), ("all", own)]:
            if entries:
                ported, unmodified = (statistics.median(entry["ms"][at] for entry in entries) for at in (0, 1))
                print(f"| {mode} | {busy} | {len(entries)} | {ported:.1f} | {unmodified:.1f} | {ported / unmodified:.2f} |")
    for mode in MODES:
        differences = [entry["ms"][0] - entry["ms"][1] for entry in rounds if entry["mode"] == mode]
        if differences:
            p, middle = signed_rank(differences), statistics.median(differences)
            print(f"{mode}: median of the differences {middle:+.1f} ms, p = {p:.3f}, n = {len(differences)}")
            slower |= middle > 0 and p < SIGNIFICANT
    return slower


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ported", nargs="?")
    parser.add_argument("unmodified", nargs="?")
    parser.add_argument("--rounds", type=int, default=88, help="half of them in each mode")
    parser.add_argument("--busy", type=lambda text: [int(number) for number in text.split(",")], default=[0, 2, 4, 6])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--dirty", type=int, default=8)
    parser.add_argument("--devices", type=int, default=0, help="virtio devices besides those of the machine")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no round after this time")
    parser.add_argument("--results", type=pathlib.Path)
    options = parser.parse_args()
    saved = options.results.read_text().splitlines() if options.results and options.results.exists() else []
    rounds = [json.loads(line) for line in saved]
    options.first = len(rounds) // 2
    if options.unmodified:
        for entry in measure(options):
            rounds.append(entry)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
    if report(rounds):
        sys.exit("the ported QEMU is slower")


if __name__ == "__main__":
    main()

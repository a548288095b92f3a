#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Downtime and total time of a QEMU on libsavevm compared with an unmodified one, in turns, with the same guest.

usage: downtime.py PORTED UNMODIFIED [ROUNDS]

Prints the medians and their ratio, ported to unmodified: for a small machine, and for one with 500 virtio devices, 100 from
QEMU 10 on. The downtime is QEMU's own: from stopping the guest until the stream is complete.
"""

import pathlib
import re
import statistics
import subprocess
import sys

import machines
from qemu import Place, Qemu


def machine(place, devices):
    arguments = ["-M", "pc", "-accel", "tcg", "-m", "128M", "-bios", place / "x86.bios"]
    return arguments + machines.virtio_devices(devices)


def migrate(binary, devices):
    """(downtime, total time) in ms, of a guest that runs."""
    with Place() as place:
        uri = f"unix:{place / 'socket'}"
        arguments = machine(place, devices)
        with (Qemu(binary, place, "source", *arguments) as source,
              Qemu(binary, place, "target", *arguments, "-incoming", uri) as target):
            source.wait_letters()
            source.qmp("migrate-set-parameters", downtime_limit=2000, max_bandwidth=1 << 32)
            source.qmp("migrate", uri=uri)
            info = source.wait_status("completed")
            target.wait_status("completed")
            target.wait_letters()
            return info["downtime"], info["total-time"]


def measure(title, devices, binaries, rounds):
    results = [[], []]
    for _ in range(rounds):
        for result, binary in zip(results, binaries):
            result.append(migrate(binary, devices))
    for at, what in enumerate(("downtime", "total time")):
        ported, unmodified = (statistics.median(run[at] for run in result) for result in results)
        print(f"{title}: {what} {ported:.0f} ms, unmodified {unmodified:.0f} ms, "
              f"ratio {ported / max(unmodified, 1):.2f}", flush=True)


def many_devices(binary):
    """QEMU 10 needs memory in proportion to the square of the number of virtio devices: 18 GB for 500."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return 100 if int(re.search(r"version (\d+)", text).group(1)) >= 10 else 500


def main():
    binaries = [str(pathlib.Path(path).resolve()) for path in sys.argv[1:3]]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    measure("small machine", 0, binaries, rounds)
    devices = many_devices(binaries[0])
    measure(f"{devices} virtio devices", devices, binaries, rounds)


main()

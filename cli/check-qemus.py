#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks whether the guest of one running QEMU could be migrated to another one, which waits. Neither is changed.

  check-qemus.py [--strict] [--savevm COMMAND] SOURCE_QMP DESTINATION_QMP

The arguments are the paths of their QMP sockets on this machine. The check compares the machine types, the blocks of RAM and the
capabilities, which both answer over QMP; the devices, by their states, which the command xen-save-devices-state writes to a
file (it needs no Xen, and pauses a running guest for some milliseconds); and the descriptions of the devices, which
-dump-vmstate of both programs prints. `savevm check` compares them. The exit status is 0 if nothing prevents the migration, 1 if
something does, and 2 if the check failed.
"""
import argparse
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile

TIMEOUT = 30  # s, for one answer


class Failure(Exception):
    pass


class Qemu:
    """One QEMU behind its QMP socket."""

    def __init__(self, path, name, directory):
        self.name, self.directory = name, directory
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")
        json.loads(self.lines.readline())
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            line = self.lines.readline()
            if not line:
                raise Failure(f"{self.name}: QEMU closed the connection at {command}")
            answer = json.loads(line)
            if "error" in answer:
                raise Failure(f"{self.name}: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def program(self):
        """The path of its program, by the process behind the socket."""
        peer = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return f"/proc/{struct.unpack('3i', peer)[0]}/exe"

    def machine(self):
        kind = self("qom-get", path="/machine", property="type")
        return kind.removesuffix("-machine")

    def capabilities(self):
        return {entry["capability"]: entry["state"] for entry in self("query-migrate-capabilities")}

    def blocks(self):
        """Lengths in bytes of the blocks of RAM, as the monitor's `info ramblock` prints them."""
        text = self("human-monitor-command", **{"command-line": "info ramblock"})
        blocks = {}
        for line in text.splitlines():
            found = re.match(r"\s*(\S+)\s+\S+ \S+\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)", line)
            if found:
                blocks[found[1]] = int(found[2], 16)
        return blocks

    def states(self):
        """A file with the states of its devices."""
        path = os.path.join(self.directory, f"{self.name}.states")
        self("xen-save-devices-state", filename=path, live=False)
        return path

    def dump(self):
        """A file with the descriptions that its program has for its machine."""
        path = os.path.join(self.directory, f"{self.name}.json")
        done = subprocess.run([self.program(), "-machine", self.machine(), "-dump-vmstate", path],
                              capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if done.returncode != 0:
            raise Failure(f"{self.name}: -dump-vmstate: {done.stderr.strip()}")
        return path


def differences(source, destination):
    """What QMP shows: texts of what prevents a migration."""
    if source.machine() != destination.machine():
        yield f"the source is machine {source.machine()}, the destination {destination.machine()}"
    here, there = source.capabilities(), destination.capabilities()
    for name in sorted(here.keys() | there.keys()):
        if here.get(name, False) != there.get(name, False):
            state = lambda on: "on" if on else "off"
            yield f"the capability {name} is {state(here.get(name))} at the source, {state(there.get(name))} at the destination"
    here, there = source.blocks(), destination.blocks()
    for name in sorted(here.keys() | there.keys()):
        # QEMU resizes the blocks of firmware tables.
        if here.get(name) != there.get(name) and not name.startswith("/rom@"):
            yield f"RAM block {name}: {here.get(name, 'no')} bytes at the source, {there.get(name, 'no')} at the destination"


def schema(command, states):
    """The devices in a file of states: the path of `savevm schema`'s output."""
    path = states + ".schema"
    subprocess.run([command, "schema", states, "-o", path], check=True, stderr=subprocess.DEVNULL)
    return path


def in_use(dump, devices):
    """Leaves the descriptions of these devices alone in a dump. A device is named by its path and its description."""
    with open(devices, encoding="utf-8") as file:
        names = {device["name"].rsplit("/", 1)[-1] for device in json.load(file)["devices"]}
    with open(dump, encoding="utf-8") as file:
        entries = json.load(file)
    kept = {key: entry for key, entry in entries.items()
            if key == "vmschkmachine" or entry.get("Description", {}).get("name") in names}
    with open(dump, "w", encoding="utf-8") as file:
        json.dump(kept, file)
    return len(kept) > 1


def check(command, strict, file, against):
    """Runs `savevm check`. Returns whether it passes."""
    words = [command, "check", file, "--against", against] + (["--strict"] if strict else [])
    status = subprocess.run(words, check=False).returncode
    if status not in (0, 1):
        raise Failure(f"{' '.join(words)}: status {status}")
    return status == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="fail on warnings too")
    parser.add_argument("--savevm", default="savevm", help="the command savevm (default: %(default)s)")
    parser.add_argument("source", help="QMP socket of the QEMU with the guest")
    parser.add_argument("destination", help="QMP socket of the QEMU that waits")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        source = Qemu(args.source, "source", directory)
        destination = Qemu(args.destination, "destination", directory)
        passes = True
        for difference in differences(source, destination):
            print(f"error: {difference}")
            passes = False
        states, dump = source.states(), source.dump()
        passes &= check(args.savevm, args.strict, states, schema(args.savevm, destination.states()))
        if in_use(dump, schema(args.savevm, states)):
            passes &= check(args.savevm, args.strict, dump, destination.dump())
    print("nothing prevents the migration" if passes else "the migration would fail")
    return 0 if passes else 1


try:
    sys.exit(main())
except (Failure, OSError, subprocess.SubprocessError) as error:
    print(f"check-qemus: {error}", file=sys.stderr)
    sys.exit(2)

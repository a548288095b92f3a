#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lets an unmodified QEMU write streams, and the C program read them.

usage: qemu-stream.py PROGRAM

QEMU is stopped (-S) the whole time. QEMU_SYSTEM names the emulator
(qemu-system-x86_64); without one of version 7.2 the test is skipped.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from qmp import DEADLINE, Qemu, listening  # noqa: E402

MACHINE = "pc-i440fx-7.2"
UUID = "550e8400-e29b-41d4-a716-446655440000"


def stopped(program, work, *arguments):
    """A QEMU that does not run its guest."""
    return Qemu(program, work, "-S", "-machine", MACHINE, "-m", "1", *arguments)


def size_of(description):
    """Bytes on the wire of a device, or of a part of it."""
    total = sum(field["size"] * field.get("array_len", 1) for field in description.get("fields", []))
    for part in description.get("subsections", []):
        total += 1 + 1 + len(part["vmsd_name"]) + 4 + size_of(part)
    return total


def table_of(stream, path):
    """Writes what the program must know of a stream, from the description at its end."""
    start = stream.rindex(b'{"page_size"')
    devices = json.loads(stream[start:])["devices"]
    with open(path, "w") as table:
        for device in devices:
            version = device.get("version")
            if version is None:
                # A device of the old kind: the version is only in its section.
                name = device["name"].encode()
                at = stream.index(bytes([len(name)]) + name) + 1 + len(name)
                version = int.from_bytes(stream[at + 4:at + 8], "big")
            print(device["name"], device["instance_id"], version, size_of(device), sep="\t", file=table)
    return len(devices)


class Test:
    def __init__(self, emulator, program, work):
        self.emulator, self.program, self.work = emulator, program, work
        self.table = os.path.join(work, "table")
        self.failed = 0

    def check(self, what, condition):
        print(("ok: " if condition else "FAILED: ") + what, flush=True)
        self.failed += not condition

    def read(self, uri, *arguments, machine=MACHINE):
        return subprocess.run([self.program, machine, self.table, uri, *arguments], timeout=DEADLINE).returncode

    def files(self):
        path = os.path.join(self.work, "stream")
        qemu = stopped(self.emulator, self.work)
        self.check("QEMU writes a file", qemu.migrate(f"exec:cat >{path}") == "completed")
        qemu.close()
        with open(path, "rb") as file:
            stream = file.read()
        devices = table_of(stream, self.table)
        self.check(f"it has {len(stream)} bytes and {devices} devices", devices > 5)
        self.check("the library reads it", self.read(f"file:{path}") == 0)
        self.check("another machine is refused", self.read(f"file:{path}", machine="q35") == 1)
        cut = os.path.join(self.work, "cut")
        end = stream.rindex(b'{"page_size"') - 6
        for length in (0, 7, 20, end // 2, end):
            with open(cut, "wb") as file:
                file.write(stream[:length])
            self.check(f"cut at {length} it is refused", self.read(f"file:{cut}") == 1)
        swapped = stream.replace(b"\x7e\0\0\0\x02", b"\x7e\0\0\0\x03", 1)
        with open(cut, "wb") as file:
            file.write(swapped)
        self.check("a wrong footer is refused", swapped != stream and self.read(f"file:{cut}") == 1)

    def configuration(self):
        path = os.path.join(self.work, "configured")
        qemu = stopped(self.emulator, self.work, "-uuid", UUID)
        qemu.capabilities("validate-uuid", "x-ignore-shared")
        self.check("QEMU writes a UUID and a capability", qemu.migrate(f"exec:cat >{path}") == "completed")
        qemu.close()
        with open(path, "rb") as file:
            table_of(file.read(), self.table)
        self.check("both are read", self.read(f"file:{path}", UUID, "x-ignore-shared") == 0)
        self.check("another UUID is refused", self.read(f"file:{path}", UUID[::-1], "x-ignore-shared") == 1)
        self.check("another capability is refused", self.read(f"file:{path}", UUID) == 1)

    def live(self, *capabilities):
        socket_path = os.path.join(self.work, "-".join(("live", *capabilities)))
        qemu = stopped(self.emulator, self.work)
        reader = None
        try:
            if capabilities:
                qemu.capabilities(*capabilities)
            reader = subprocess.Popen([self.program, MACHINE, self.table, f"unix:{socket_path}"])
            listening(socket_path)
            status = qemu.migrate(f"unix:{socket_path}")
            words = " and ".join(("a live migration", *capabilities))
            self.check(f"{words}: QEMU says it is {status}", status == "completed")
            self.check(f"{words}: the library has it", reader.wait(DEADLINE) == 0)
        finally:
            qemu.close()
            if reader and reader.poll() is None:
                reader.kill()
                reader.wait()


def main():
    emulator = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    if not emulator:
        print("there is no qemu-system-x86_64: skipped")
        return 77
    version = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True).stdout
    if " 7.2" not in version.splitlines()[0]:
        print(f"{version.splitlines()[0]} is not 7.2: skipped")
        return 77
    with tempfile.TemporaryDirectory() as work:
        test = Test(emulator, os.path.abspath(sys.argv[1]), work)
        test.files()
        test.live()
        test.live("return-path")
        test.configuration()
    return 1 if test.failed else 0


if __name__ == "__main__":
    sys.exit(main())

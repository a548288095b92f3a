#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lets an unmodified QEMU write streams, and the C program read them.

usage: qemu-stream.py PROGRAM

QEMU stands still (-S) the whole time. QEMU_SYSTEM names the emulator
(qemu-system-x86_64); without one of version 7.2 the test is skipped.
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

MACHINE = "pc-i440fx-7.2"
UUID = "550e8400-e29b-41d4-a716-446655440000"
DEADLINE = 60


def listens(path):
    """Raises an OSError until somebody listens there: the path alone is there a moment earlier."""
    with open("/proc/net/unix") as sockets:
        for line in sockets:
            fields = line.split()
            if fields[-1] == path and int(fields[3], 16) & 0x10000:
                return
    raise FileNotFoundError(path)


class Qemu:
    def __init__(self, program, work, *arguments):
        path = os.path.join(work, "qmp")
        if os.path.exists(path):
            os.unlink(path)
        self.process = subprocess.Popen(
            [program, "-S", "-machine", MACHINE, "-accel", "tcg", "-nodefaults", "-m", "1", "-display", "none",
             "-qmp", f"unix:{path},server=on,wait=off", *arguments])
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.until(lambda: self.socket.connect(path))
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.command("qmp_capabilities")

    def until(self, attempt):
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return attempt()
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    def command(self, name, **arguments):
        self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']['desc']}")

    def migrate(self, uri):
        self.command("migrate", uri=uri)
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            state = self.command("query-migrate")
            if state["status"] in ("completed", "failed", "cancelled"):
                return state["status"]
            time.sleep(0.05)
        return "not over in time"

    def capabilities(self, *names):
        self.command("migrate-set-capabilities",
                     capabilities=[{"capability": name, "state": True} for name in names])

    def close(self):
        self.process.kill()
        self.process.wait()


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
                # A device of the old kind: the version stands only in its section.
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
        qemu = Qemu(self.emulator, self.work)
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
        qemu = Qemu(self.emulator, self.work, "-uuid", UUID)
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
        qemu = Qemu(self.emulator, self.work)
        reader = None
        try:
            if capabilities:
                qemu.capabilities(*capabilities)
            reader = subprocess.Popen([self.program, MACHINE, self.table, f"unix:{socket_path}"])
            qemu.until(lambda: listens(socket_path))
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

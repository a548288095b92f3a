#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots with fixed places of pages (mapped-ram) between an unmodified QEMU of version 9.0 or later and the library, in
both directions. The memory of every block is compared byte by byte.

usage: qemu-mapped.py LOAD-RAM SAVE-RAM        QEMU: $QEMU_MAPPED, or a new enough qemu-system-x86_64
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from qmp import DEADLINE, Qmp  # noqa: E402

SKIPPED = 77
MEGABYTE = 1 << 20
SIZE = 37 * MEGABYTE
PAGE = 4096


class Qemu:
    """The machine "none": its RAM is the block "ram", which nothing writes to."""

    def __init__(self, qemu, directory, *arguments):
        control = f"{directory}/qmp"
        if os.path.exists(control):
            os.unlink(control)
        self.process = subprocess.Popen(
            [qemu, "-M", "none", "-nodefaults", "-display", "none", "-m", f"{SIZE // MEGABYTE}", "-accel", "tcg",
             "-qmp", f"unix:{control},server=on,wait=off", *arguments])
        self.qmp = Qmp(control, self.process)
        text = self.qmp("human-monitor-command", **{"command-line": "info ramblock"})
        self.address = int(re.search(r"^\s*ram\s.* 0x(\w+)\s+rw", text, re.MULTILINE).group(1), 16)

    def memory(self, mode):
        file = open(f"/proc/{self.process.pid}/mem", mode, buffering=0)
        file.seek(self.address)
        return file

    def read(self):
        with self.memory("rb") as memory:
            return memory.read(SIZE)

    def write(self, content):
        with self.memory("r+b") as memory:
            assert memory.write(content) == len(content)

    def use(self, capabilities, **parameters):
        self.qmp.capabilities("mapped-ram", *capabilities)
        if parameters:
            self.qmp("migrate-set-parameters", **parameters)

    def close(self):
        self.process.kill()
        self.process.wait()


def content(seed):
    """Random pages, zero pages and runs of both."""
    import random
    random.seed(seed)
    pages = []
    while len(pages) < SIZE // PAGE:
        run = random.choice([1, 2, 3, 64, 300])
        pages += [bytes(PAGE) if random.random() < 0.4 else random.randbytes(PAGE) for _ in range(run)] \
            if run < 10 else [random.randbytes(PAGE)] * run if random.random() < 0.5 else [bytes(PAGE)] * run
    return b"".join(pages[:SIZE // PAGE])


class Test:
    def __init__(self, qemu, load_ram, save_ram, directory):
        self.qemu, self.load_ram, self.save_ram, self.directory = qemu, load_ram, save_ram, directory
        self.failed = 0

    def check(self, what, condition):
        print(("ok: " if condition else "FAILED: ") + what, flush=True)
        self.failed += not condition

    def from_qemu(self, what, capabilities, **parameters):
        path, expected = f"{self.directory}/from", content(what)
        qemu = Qemu(self.qemu, self.directory)
        try:
            qemu.use(capabilities, **parameters)
            qemu.write(expected)
            self.check(f"{what}: QEMU saves", qemu.qmp.migrate(f"file:{path}") == "completed")
        finally:
            qemu.close()
        # By descriptor: a named file would be checked first, and refused for the devices that are not there.
        fd = os.open(path, os.O_RDONLY)
        loaded = subprocess.run([self.load_ram, f"fd:{fd}", "none", self.directory, f"ram={SIZE}"], pass_fds=[fd],
                                stdout=subprocess.PIPE, text=True, timeout=DEADLINE)
        os.close(fd)
        with open(f"{self.directory}/0", "rb") as file:
            have = file.read()
        self.check(f"{what}: the library has the same memory", loaded.returncode == 0 and have == expected)
        os.unlink(path)

    def to_qemu(self, what, capabilities, offset=0, direct=False, **parameters):
        path, expected = f"{self.directory}/to", content(what)
        with open(f"{self.directory}/content", "wb") as file:
            file.write(expected)
        with open(path, "wb") as file:
            file.write(b"x" * offset)
        uri = f"file:{path}" + (f",offset={offset}" if offset else "")
        environment = dict(os.environ, **({"SAVE_DIRECT": "1"} if direct else {}))
        saved = subprocess.run([self.save_ram, uri, "none", f"ram={self.directory}/content"], env=environment,
                               stderr=subprocess.PIPE, text=True, timeout=DEADLINE)
        if direct and "leave out the option" in saved.stderr:
            print(f"SKIPPED: {what}: {saved.stderr}")
            return
        self.check(f"{what}: the library saves {saved.stderr}", saved.returncode == 0)
        qemu = Qemu(self.qemu, self.directory, "-incoming", "defer")
        try:
            qemu.use(capabilities, **parameters)
            qemu.qmp("migrate-incoming", uri=uri)
            self.check(f"{what}: QEMU loads", qemu.qmp.finished() == "completed")
            self.check(f"{what}: QEMU has the same memory", qemu.read() == expected)
        finally:
            qemu.close()


def main():
    qemu = os.environ.get("QEMU_MAPPED") or shutil.which("qemu-system-x86_64")
    if not qemu:
        print("SKIPPED: there is no qemu-system-x86_64")
        return SKIPPED
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    if int(re.search(r"version (\d+)", version).group(1)) < 9:
        print(f"SKIPPED: {version} has no mapped-ram; QEMU_MAPPED names a QEMU of version 9.0 or later")
        return SKIPPED
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="savevm-mapped-") as directory:
        test = Test(qemu, *(os.path.abspath(program) for program in sys.argv[1:3]), directory)
        test.from_qemu("from QEMU, one thread", [])
        test.from_qemu("from QEMU, multifd", ["multifd"], **{"multifd-channels": 3})
        test.to_qemu("to QEMU, one thread", [])
        test.to_qemu("to QEMU, multifd", ["multifd"], **{"multifd-channels": 3})
        test.to_qemu("to QEMU, behind an offset", [], offset=12345)
        test.to_qemu("to QEMU, direct", [], direct=True)
    print(f"{version}: {time.monotonic() - begin:.1f} s")
    return 1 if test.failed else 0


if __name__ == "__main__":
    sys.exit(main())

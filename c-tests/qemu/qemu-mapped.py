#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots with fixed places of pages (mapped-ram) between unmodified QEMUs of version 9.0 or later and the library, in both
directions. The memory of every block is compared byte by byte.

usage: qemu-mapped.py LOAD-RAM SAVE-RAM        QEMU: qemu-system-x86_64, or $QEMU_SYSTEM; further ones, separated by colons:
                                               $QEMU_OTHERS
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from qmp import DEADLINE, Qemu, emulators  # noqa: E402

SKIPPED = 77
MEGABYTE = 1 << 20
SIZE = 37 * MEGABYTE
PAGE = 4096


class Machine(Qemu):
    """The machine "none": its RAM is the block "ram", which nothing writes to."""

    def __init__(self, qemu, directory, *arguments):
        super().__init__(qemu, directory, "-M", "none", "-m", f"{SIZE // MEGABYTE}", *arguments)
        text = self("human-monitor-command", **{"command-line": "info ramblock"})
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
        self.capabilities("mapped-ram", *capabilities)
        if parameters:
            self("migrate-set-parameters", **parameters)


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

    def skip(self, what, reason):
        print(f"SKIPPED: {what}: {reason}", flush=True)

    def has_direct_io(self):
        """Whether the directory's file system has O_DIRECT."""
        try:
            os.close(os.open(f"{self.directory}/direct", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
            return True
        except OSError:
            return False

    def from_qemu(self, what, capabilities, offset=0, **parameters):
        path, expected = f"{self.directory}/from", content(what)
        if parameters.get("direct-io") and not self.has_direct_io():
            return self.skip(what, "the file system has no O_DIRECT")
        uri = f"file:{path}" + (f",offset={offset}" if offset else "")
        qemu = Machine(self.qemu, self.directory)
        try:
            qemu.use(capabilities, **parameters)
            qemu.write(expected)
            self.check(f"{what}: QEMU saves", qemu.migrate(uri) == "completed")
        finally:
            qemu.close()
        for how, environment in (("eagerly", {}), ("lazily", {"LOAD_LAZY": "1"})):
            loaded = subprocess.run([self.load_ram, uri, "none", self.directory, f"ram={SIZE}"], capture_output=True, text=True,
                                    env=dict(os.environ, **environment), timeout=DEADLINE)
            if environment and "userfaultfd" in loaded.stderr:
                self.skip(f"{what}, {how}", loaded.stderr)
                continue
            self.check(f"{what}: the library loads it {how} {loaded.stderr}", loaded.returncode == 0)
            have = pathlib.Path(f"{self.directory}/0")
            self.check(f"{what}: it has the same memory", have.exists() and have.read_bytes() == expected)
            have.unlink(missing_ok=True)
        os.unlink(path)

    def to_qemu(self, what, capabilities, offset=0, environment=None, **parameters):
        path, expected = f"{self.directory}/to", content(what)
        environment = environment or {}
        if (environment.get("SAVE_DIRECT") or parameters.get("direct-io")) and not self.has_direct_io():
            return self.skip(what, "the file system has no O_DIRECT")
        pathlib.Path(f"{self.directory}/content").write_bytes(expected)
        pathlib.Path(path).write_bytes(b"x" * offset)
        uri = f"file:{path}" + (f",offset={offset}" if offset else "")
        saved = subprocess.run([self.save_ram, uri, "none", f"ram={self.directory}/content"],
                               env=dict(os.environ, **environment), stderr=subprocess.PIPE, text=True, timeout=DEADLINE)
        if "SAVE_BACKGROUND" in environment and "userfaultfd" in saved.stderr:
            return self.skip(what, saved.stderr)
        self.check(f"{what}: the library saves {saved.stderr}", saved.returncode == 0)
        qemu = Machine(self.qemu, self.directory, "-incoming", "defer")
        try:
            qemu.use(capabilities, **parameters)
            qemu("migrate-incoming", uri=uri)
            self.check(f"{what}: QEMU loads", qemu.finished() == "completed")
            self.check(f"{what}: QEMU has the same memory", qemu.read() == expected)
        finally:
            qemu.close()

    def run(self):
        channels = {"multifd-channels": 3}
        self.from_qemu("from QEMU, one thread", [])
        self.from_qemu("from QEMU, multifd", ["multifd"], **channels)
        self.from_qemu("from QEMU, direct", ["multifd"], **channels, **{"direct-io": True})
        self.from_qemu("from QEMU, behind an offset", [], offset=12345)
        self.from_qemu("from QEMU, multifd, behind an offset", ["multifd"], offset=4096, **channels)
        self.to_qemu("to QEMU, one thread", [])
        self.to_qemu("to QEMU, multifd", ["multifd"], **channels)
        self.to_qemu("to QEMU, direct in QEMU", ["multifd"], **channels, **{"direct-io": True})
        self.to_qemu("to QEMU, behind an offset", [], offset=12345)
        self.to_qemu("to QEMU, multifd, behind an offset", ["multifd"], offset=4096, **channels)
        self.to_qemu("to QEMU, direct", [], environment={"SAVE_DIRECT": "1"})
        self.to_qemu("to QEMU, saved in the background", [], environment={"SAVE_BACKGROUND": "1"})


def main():
    qemus = emulators()
    able = [(path, line) for path, version, line in qemus if version >= 9]
    if not able:
        print(f"SKIPPED: {[line for *_, line in qemus]}: no mapped-ram; QEMU_OTHERS names QEMUs of version 9.0 or later")
        return SKIPPED
    failed = 0
    for qemu, version in able:
        print(f"== {version}", flush=True)
        with tempfile.TemporaryDirectory(prefix="savevm-mapped-") as directory:
            test = Test(qemu, *(os.path.abspath(program) for program in sys.argv[1:3]), directory)
            test.run()
            failed += test.failed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Postcopy between an unmodified QEMU 7.2 and the library, in both directions, whole and with a recovery: what the guest
finds in its memory is compared with what the other end had.

usage: qemu-postcopy.py PROGRAM        QEMU: qemu-system-x86_64, or $QEMU_SYSTEM
"""
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from qmp import DEADLINE, Qmp, listening  # noqa: E402

SKIPPED = 77
MEGABYTE = 1 << 20
SIZE = 24 * MEGABYTE


class Qemu:
    """The machine "none": its RAM is the block "ram"."""

    def __init__(self, qemu, directory, *arguments):
        control = f"{directory}/qmp"
        self.process = subprocess.Popen(
            [qemu, "-M", "none", "-nodefaults", "-display", "none", "-m", f"{SIZE // MEGABYTE}",
             "-qmp", f"unix:{control},server=on,wait=off", *arguments])
        self.qmp = Qmp(control, self.process)
        self.qmp.capabilities("postcopy-ram")
        self.qmp("migrate-set-parameters", **{"max-bandwidth": 4 * MEGABYTE, "max-postcopy-bandwidth": 4 * MEGABYTE})

    def wait(self, *wanted):
        until = time.monotonic() + DEADLINE
        while True:
            status = self.qmp.status()
            if status in wanted:
                return
            if status in ("failed", "cancelled", "completed") or time.monotonic() > until:
                sys.exit(f"QEMU's migration is {status}, expected {wanted}")
            time.sleep(0.02)

    def close(self):
        self.process.kill()
        self.process.wait()


class Ours:
    def __init__(self, program, *arguments):
        self.process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.found = {}

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip())
        self.lines.put("gone")

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait(self, wanted):
        """Until a line begins like that."""
        until = time.monotonic() + DEADLINE
        while True:
            try:
                line = self.lines.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                sys.exit(f"ours did not say '{wanted}'")
            print("      ", line)
            word, _, rest = line.partition(" ")
            self.found[word] = rest
            if line.startswith(wanted):
                return
            if word in ("failed", "gone", "end"):
                sys.exit(f"ours said '{line}', expected '{wanted}'")

    def close(self):
        self.process.kill()
        self.process.wait()


def make_content(path):
    """Every fourth page is zeros."""
    with open(path, "wb") as file:
        for page in range(SIZE // 4096):
            file.write(bytes(4096) if page % 4 == 3 else os.urandom(4096))


def expect(wrong, what, holds):
    if not holds:
        wrong.append(what)


def expect_end(wrong, ours, recovery):
    expect(wrong, f"it ended {ours.found['end']}", ours.found["end"] == "0 well")
    expect(wrong, "no page was asked for", int(ours.found["requests"]) > 0)
    expect(wrong, f"{ours.found['recoveries']} recoveries", int(ours.found["recoveries"]) == bool(recovery))


def from_qemu(qemu, program, directory, recovery):
    """QEMU is the source; our guest reads all pages while they come, and asks for what is missing."""
    first, second, content = f"{directory}/first", f"{directory}/second", f"{directory}/content"
    make_content(content)
    source = Qemu(qemu, directory, "-device", f"loader,file={content},addr=0,force-raw=on")
    ours = Ours(program, "in", f"unix:{first}", content, f"{directory}/dump")
    wrong = []
    try:
        listening(first)
        source.qmp("migrate", uri=f"unix:{first}")
        ours.wait("status active")
        source.qmp("migrate-start-postcopy")
        ours.wait("status postcopy-active")
        if recovery:
            source.wait("postcopy-active")
            if recovery == "ours":
                ours.tell("pause")
            else:
                source.qmp("migrate-pause")
            ours.wait("status postcopy-paused")
            source.wait("postcopy-paused")
            ours.tell(f"recover unix:{second}")
            listening(second)
            source.qmp("migrate", uri=f"unix:{second}", resume=True)
        ours.tell("wait")
        ours.wait("end")
        source.wait("completed")
        pages = SIZE // 4096
        expect(wrong, f"the guest found {ours.found.get('read')}", ours.found.get("read") == f"{pages} wrong 0")
        expect_end(wrong, ours, recovery)
    finally:
        ours.close()
        source.close()
    return wrong


def to_qemu(qemu, program, directory, recovery):
    """QEMU is the destination; what reads its memory is its monitor."""
    first, second, content = f"{directory}/first", f"{directory}/second", f"{directory}/content"
    dump, seen = f"{directory}/dump", f"{directory}/seen"
    make_content(content)
    destination = Qemu(qemu, directory, "-incoming", "defer")
    destination.qmp("migrate-incoming", uri=f"unix:{first}")
    listening(first)
    ours = Ours(program, "out", f"unix:{first}", content, dump)
    wrong = []
    try:
        ours.wait("status active")
        ours.tell("postcopy")
        ours.wait("status postcopy-active")
        if recovery:
            destination.wait("postcopy-active")
            ours.tell("pause")
            ours.wait("status postcopy-paused")
            destination.wait("postcopy-paused")
            destination.qmp("migrate-recover", uri=f"unix:{second}")
            listening(second)
            ours.tell(f"recover unix:{second}")
            ours.wait("status postcopy-active")
        # Pages that have not come yet stop QEMU's main thread until they do.
        destination.qmp("pmemsave", val=0, size=SIZE, filename=seen)
        ours.tell("wait")
        ours.wait("end")
        destination.wait("completed")
        with open(dump, "rb") as ours_has, open(seen, "rb") as qemu_has:
            want, have = ours_has.read(), qemu_has.read()
        different = sum(want[at:at + 4096] != have[at:at + 4096] for at in range(0, SIZE, 4096))
        with open(content, "rb") as file:
            expect(wrong, "the guest changed nothing", file.read() != want)
        expect(wrong, f"{different} pages differ", different == 0 and len(have) == SIZE)
        expect_end(wrong, ours, recovery)
    finally:
        ours.close()
        destination.close()
    return wrong


def main():
    qemu = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True).stdout if qemu else "none"
    if " 7.2" not in version:
        print("SKIPPED: there is no qemu-system-x86_64 of version 7.2")
        return SKIPPED
    if not os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        print("SKIPPED: there is no /dev/userfaultfd, which postcopy needs")
        return SKIPPED
    wrong = []
    for name, run, recovery in [("from QEMU", from_qemu, None), ("from QEMU, paused here", from_qemu, "ours"),
                                ("from QEMU, paused there", from_qemu, "QEMU's"), ("to QEMU", to_qemu, None),
                                ("to QEMU, paused", to_qemu, "ours")]:
        print(f"-- {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="savevm-postcopy-") as directory:
            wrong += [f"{name}: {what}" for what in run(qemu, os.path.abspath(sys.argv[1]), directory, recovery)]
    for what in wrong:
        print(what)
    print("every page is what the other end had" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Unmodified QEMUs load what `savevm merge` writes from chains of snapshots. A chain begins with a snapshot of the library, or
with one of a QEMU. Memory is compared byte by byte.

usage: qemu-chain.py SAVE-CHAIN SAVEVM         QEMU: qemu-system-x86_64, or $QEMU_SYSTEM; further ones, separated by colons:
                                               $QEMU_OTHERS
"""
import os
import pathlib
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from qmp import DEADLINE, Qemu, emulators  # noqa: E402

SKIPPED = 77
MEGABYTE = 1 << 20
SIZE = 8 * MEGABYTE
PAGE = 4096
# Nothing writes to the memory of this machine.
MACHINE = ["-M", "none", "-m", f"{SIZE // MEGABYTE}"]


def make_contents(directory, count):
    """The memory at each snapshot: random pages, zero pages, and pages that become zero."""
    random.seed(21)
    pages = [random.randbytes(PAGE) if random.random() < 0.6 else bytes(PAGE) for _ in range(SIZE // PAGE)]
    paths = []
    for number in range(count):
        for page in random.sample(range(len(pages)), 100 if number else 0):
            pages[page] = random.choice([random.randbytes(PAGE), bytes(PAGE), bytes([7]) * PAGE])
        paths.append(f"{directory}/content-{number}")
        pathlib.Path(paths[-1]).write_bytes(b"".join(pages))
    return paths


def load(qemu, directory, path, mapped):
    """The memory of a QEMU that has loaded the snapshot, or None."""
    seen = pathlib.Path(f"{directory}/seen")
    seen.unlink(missing_ok=True)
    with Qemu(qemu, directory, *MACHINE, "-incoming", "defer") as qmp:
        if mapped:
            qmp.capabilities("mapped-ram")
        qmp("migrate-incoming", uri=f"file:{path}" if mapped else f"exec:cat {path}")
        if qmp.finished() != "completed":
            return None
        qmp("pmemsave", val=0, size=SIZE, filename=str(seen))
        return seen.read_bytes()


def save(qemu, directory, path, content, mapped):
    """Saves a snapshot of a QEMU with this memory."""
    device = ["-device", f"loader,file={content},addr=0,force-raw=on"]
    with Qemu(qemu, directory, *MACHINE, *device) as qmp:
        if mapped:
            qmp.capabilities("mapped-ram")
        if qmp.migrate(f"file:{path}" if mapped else f"exec:cat > {path}") != "completed":
            sys.exit(f"QEMU does not save {path}")


class Test:
    def __init__(self, save_chain, savevm, directory):
        self.save_chain, self.savevm, self.directory = save_chain, savevm, directory
        self.contents = make_contents(directory, 3)
        self.expected = pathlib.Path(self.contents[-1]).read_bytes()
        self.qemus = emulators()
        self.failed = 0

    def make_chain(self, formats):
        """Saves a chain. False if the machine can't."""
        saved = subprocess.run([self.save_chain, self.directory, "none", "ram", formats, *self.contents], capture_output=True,
                               text=True, timeout=DEADLINE)
        if "userfaultfd" in saved.stderr:
            print(f"SKIPPED: {saved.stderr}")
            return False
        if saved.returncode != 0:
            sys.exit(saved.stderr)
        return True

    def check_merged(self, what):
        """Merges the chain in both formats, and loads the result into all QEMUs."""
        for form in ("stream", "mapped"):
            whole = f"{self.directory}/whole"
            subprocess.run([self.savevm, "merge", f"{self.directory}/2", "--format", form, "-o", whole], check=True,
                           timeout=DEADLINE)
            subprocess.run([self.savevm, "check", whole], check=True, timeout=DEADLINE)
            for qemu, version, line in self.qemus:
                if form == "mapped" and version < 9:
                    continue
                same = load(qemu, self.directory, whole, form == "mapped") == self.expected
                print(f"{'ok' if same else 'FAILED'}: {what}, merged as {form}, in {line}", flush=True)
                self.failed += not same

    def run(self):
        for formats in ("sss", "msm"):
            if not self.make_chain(formats):
                return SKIPPED
            self.check_merged(f"chain {formats}")
        for qemu, version, line in self.qemus:
            for mapped in (False, True) if version >= 9 else (False,):
                save(qemu, self.directory, f"{self.directory}/0", self.contents[0], mapped)
                self.make_chain("qms")
                self.check_merged(f"chain that begins with a {'mapped file' if mapped else 'stream'} of {line}")
        return 1 if self.failed else 0


def main():
    if not emulators():
        print("SKIPPED: there is no qemu-system-x86_64")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="savevm-chain-") as directory:
        return Test(*(os.path.abspath(program) for program in sys.argv[1:3]), directory).run()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Unmodified QEMUs load what `savevm merge` writes from chains of snapshots. Their memory is compared byte by byte.

usage: qemu-chain.py SAVE-CHAIN SAVEVM         QEMU: qemu-system-x86_64, and $QEMU_MAPPED, a QEMU of version 9.0 or later
"""
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from qmp import DEADLINE, Qmp  # noqa: E402

SKIPPED = 77
MEGABYTE = 1 << 20
SIZE = 8 * MEGABYTE
PAGE = 4096


def version_of(qemu):
    text = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"version (\d+)", text).group(1))


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
    control, seen = f"{directory}/qmp", f"{directory}/seen"
    for name in (control, seen):
        if os.path.exists(name):
            os.unlink(name)
    process = subprocess.Popen(
        [qemu, "-M", "none", "-nodefaults", "-display", "none", "-m", f"{SIZE // MEGABYTE}", "-accel", "tcg",
         "-incoming", "defer", "-qmp", f"unix:{control},server=on,wait=off"])
    try:
        qmp = Qmp(control, process)
        if mapped:
            qmp.capabilities("mapped-ram")
        qmp("migrate-incoming", uri=f"file:{path}" if mapped else f"exec:cat {path}")
        if qmp.finished() != "completed":
            return None
        qmp("pmemsave", val=0, size=SIZE, filename=seen)
        return pathlib.Path(seen).read_bytes()
    finally:
        process.kill()
        process.wait()


def main():
    save_chain, savevm = (os.path.abspath(program) for program in sys.argv[1:3])
    found = [shutil.which("qemu-system-x86_64"), os.environ.get("QEMU_MAPPED")]
    qemus = [qemu for qemu in found if qemu]
    if not qemus:
        print("SKIPPED: there is no qemu-system-x86_64")
        return SKIPPED
    failed = 0
    with tempfile.TemporaryDirectory(prefix="savevm-chain-") as directory:
        contents = make_contents(directory, 3)
        expected = pathlib.Path(contents[-1]).read_bytes()
        for formats in ("sss", "msm"):
            saved = subprocess.run([save_chain, directory, "none", "ram", formats, *contents], capture_output=True, text=True,
                                   timeout=DEADLINE)
            if "userfaultfd" in saved.stderr:
                print(f"SKIPPED: {saved.stderr}")
                return SKIPPED
            if saved.returncode != 0:
                sys.exit(saved.stderr)
            for form in ("stream", "mapped"):
                whole = f"{directory}/whole"
                subprocess.run([savevm, "merge", f"{directory}/2", "--format", form, "-o", whole], check=True, timeout=DEADLINE)
                for qemu in qemus:
                    version = version_of(qemu)
                    if form == "mapped" and version < 9:
                        print(f"SKIPPED: QEMU {version} has no mapped-ram; QEMU_MAPPED names a newer one")
                        continue
                    same = load(qemu, directory, whole, form == "mapped") == expected
                    print(f"{'ok' if same else 'FAILED'}: chain {formats}, merged as {form}, in QEMU {version}", flush=True)
                    failed += not same
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

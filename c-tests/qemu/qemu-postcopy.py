#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Postcopy between an unmodified QEMU 7.2 and the library, in both directions, whole and with a recovery: what the guest
finds in its memory is compared with what the other end had.

usage: qemu-postcopy.py PROGRAM        QEMU: qemu-system-x86_64, or $QEMU_SYSTEM
"""
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from ends import from_qemu, run_cases, to_qemu  # noqa: E402

SKIPPED = 77
CASES = [
    ("from QEMU", from_qemu, {}),
    ("from QEMU, paused here", from_qemu, {"recovery": "ours"}),
    ("from QEMU, paused there", from_qemu, {"recovery": "QEMU's"}),
    ("to QEMU", to_qemu, {}),
    ("to QEMU, paused", to_qemu, {"recovery": "ours"}),
]


def main():
    qemu = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True).stdout if qemu else "none"
    if " 7.2" not in version:
        print("SKIPPED: there is no qemu-system-x86_64 of version 7.2")
        return SKIPPED
    if not os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        print("SKIPPED: there is no /dev/userfaultfd, which postcopy needs")
        return SKIPPED
    wrong = run_cases(qemu, sys.argv[1], CASES)
    for what in wrong:
        print(what)
    print("every page is what the other end had" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

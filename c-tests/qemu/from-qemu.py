#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Loads streams that an unmodified QEMU 7.2 wrote, and compares every RAM block with QEMU's own memory: what pmemsave
says for guest memory, and the process's memory for blocks that the guest's address space does not show.

usage: from-qemu.py LOAD-RAM        QEMU: qemu-system-x86_64, or $QEMU_SYSTEM
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
# QEMU 7.2 loses writes of a running guest under TCG: reading the dirty log does not reset the TLB. So only KVM will do.
KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)


def monitor(qmp, line):
    return qmp("human-monitor-command", **{"command-line": line}).replace("\r\n", "\n")


def ram_blocks(qmp):
    """(name, length) of every block, the guest's main memory first."""
    text = monitor(qmp, "info ramblock")
    found = re.findall(r"^\s*(\S+)\s+\d+ \w+B\s+0x\w+\s+0x(\w+)", text, re.MULTILINE)
    if not found:
        sys.exit(f"info ramblock is not understood:\n{text}")
    return sorted(((name, int(used, 16)) for name, used in found), key=lambda block: block[0] != "pc.ram")


def mapped(qmp, name):
    """Where the guest sees a block: (address, length, offset in the block)."""
    view = re.search(r'AS "memory", root: system\n.*?\n\n', monitor(qmp, "info mtree -f") + "\n", re.DOTALL)
    line = re.compile(r"^\s+(\w{16})-(\w{16}) \(prio -?\d+, (?:ram|rom)\): (\S+)(?: @(\w{16}))?", re.MULTILINE)
    for start, end, region, offset in line.findall(view.group(0) if view else ""):
        # A block is known by its region's name behind the path of its device.
        if name.split("/")[-1] == region:
            yield int(start, 16), int(end, 16) - int(start, 16) + 1, int(offset or "0", 16)


def stands_in(process, content):
    """Whether the process has these bytes somewhere, at the start of a page."""
    first = next((at for at in range(0, len(content), 4096) if any(content[at:at + 4096])), None)
    if first is None:
        return True
    page = content[first:first + 4096]
    with open(f"/proc/{process.pid}/maps") as maps, open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            # Blocks are anonymous memory.
            if line.split()[1][:2] != "rw" or len(line.split()) > 5:
                continue
            for at in range(start, end, 1 << 24):
                memory.seek(at)
                part = memory.read(min(end - at, 1 << 24)) or b""
                found = part.find(page)
                while found >= 0:
                    if found % 4096 == 0:
                        memory.seek(at + found - first)
                        if memory.read(len(content)) == content:
                            return True
                    found = part.find(page, found + 1)
    return False


# A guest that never rests, in place of the firmware: it counts in the first word of each page from 0x20000 to 0x7ffff,
# forever.
#   start: mov ax, 0x2000
#   segment: mov ds, ax; xor bx, bx
#   page: inc word [bx]; add bx, 0x1000; jnz page; add ax, 0x1000; cmp ax, 0x8000; jne segment; jmp start
# The processor begins 16 bytes before the end of the image, with a jump to its start.
GUEST = bytes.fromhex("b80020 8ed8 31db ff07 81c30010 75f8 050010 3d0080 75ec ebe7").ljust(0xfff0, b"\xf4")
GUEST += bytes.fromhex("e90d00").ljust(16, b"\xf4")


def migrate(qmp, stream, variant):
    if variant == "stopped":
        qmp("stop")
    if variant == "differences":
        qmp.capabilities("xbzrle")
        # The guest's pages take longer than one window of 100 ms, so it has written to all of them meanwhile.
        qmp("migrate-set-parameters", **{"max-bandwidth": 512 << 10, "downtime-limit": 1})
    qmp("migrate", uri=f"exec:cat > {stream}")
    until = time.monotonic() + DEADLINE
    while True:
        info = qmp("query-migrate")
        if info.get("status") == "completed":
            return
        if info.get("status") in ("failed", "cancelled") or time.monotonic() > until:
            sys.exit(f"QEMU's migration: {info}")
        if info.get("xbzrle-cache", {}).get("pages", 0) > 100:
            qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "downtime-limit": 1000})
        time.sleep(0.05)


def compare(qmp, process, blocks, directory):
    wrong = []
    for number, (name, length) in enumerate(blocks):
        with open(f"{directory}/{number}", "rb") as file:
            have = file.read()
        seen = set()
        for address, size, offset in mapped(qmp, name):
            path = f"{directory}/pmemsave"
            qmp("pmemsave", val=address, size=size, filename=path)
            with open(path, "rb") as file:
                want = file.read()
            seen |= set(range(offset, offset + size, 4096))
            for at in range(0, size, 4096):
                if want[at:at + 4096] != have[offset + at:offset + at + 4096]:
                    wrong.append(f"block {name} differs from offset 0x{offset + at:x} on")
                    break
        if len(seen) * 4096 < length and not stands_in(process, have):
            wrong.append(f"block {name} is not what QEMU has")
        print(f"   {name}: 0x{length:x} bytes, 0x{len(seen) * 4096:x} of them by pmemsave")
    return wrong


def case(qemu, load_ram, variant, directory):
    control, stream = f"{directory}/qmp", f"{directory}/stream"
    with open(f"{directory}/guest", "wb") as guest, open(f"{directory}/content", "wb") as content:
        guest.write(GUEST)
        content.write(os.urandom(1 << 20 if variant == "differences" else 16 << 20))
    process = subprocess.Popen(
        [qemu, "-machine", f"pc-i440fx-7.2,accel={'kvm' if KVM else 'tcg'}", "-m", "128", "-display", "none",
         "-vga", "std", "-net", "none", "-serial", "none", "-qmp", f"unix:{control},server=on,wait=off",
         "-bios", f"{directory}/guest",
         "-device", f"loader,file={directory}/content,addr=0x2000000,force-raw=on"])
    try:
        qmp = Qmp(control, process)
        counted = f"{directory}/counted"
        until = time.monotonic() + DEADLINE
        while True:
            qmp("pmemsave", val=0x7F000, size=2, filename=counted)
            with open(counted, "rb") as file:
                if any(file.read()):
                    break
            if time.monotonic() > until:
                sys.exit("the guest does not run")
            time.sleep(0.1)
        migrate(qmp, stream, variant)
        blocks = ram_blocks(qmp)
        arguments = [f"{name}={length}" for name, length in blocks]
        # Through a pipe: a file would be checked first, and refused for the devices that are not there.
        loaded = subprocess.run([load_ram, f"exec:cat {stream}", "pc-i440fx-7.2", directory, *arguments],
                                stdout=subprocess.PIPE, text=True, timeout=DEADLINE)
        print(f"-- {variant}: {len(blocks)} blocks, {os.path.getsize(stream)} bytes")
        print(loaded.stdout, end="")
        if loaded.returncode != 0:
            return ["the load failed"]
        if variant == "differences" and "xbzrle 0\n" in loaded.stdout:
            return ["no difference was sent"]
        return compare(qmp, process, blocks, directory)
    finally:
        process.kill()
        process.wait()


def main():
    qemu = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    if not qemu:
        print("SKIPPED: there is no qemu-system-x86_64; streams of an unmodified QEMU were not loaded")
        return SKIPPED
    wrong = []
    variants = ["stopped", "running", "differences"]
    if not KVM:
        print("SKIPPED: there is no /dev/kvm; no stream of a running guest was loaded")
        variants = variants[:1]
    for variant in variants:
        with tempfile.TemporaryDirectory(prefix="savevm-ram-") as directory:
            wrong += [f"{variant}: {what}" for what in case(qemu, sys.argv[1], variant, directory)]
    for what in wrong:
        print(what)
    print("every RAM block is what QEMU has" if not wrong else f"{len(wrong)} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

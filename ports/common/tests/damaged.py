#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Damaged snapshots in a qcow2 image with a QEMU on libsavevm: what shows before anything is touched leaves guest and disk
as they are, and the guest runs on.

usage: damaged.py QEMU QEMU-IMG
"""

import pathlib
import re
import struct
import subprocess
import sys

from qemu import Failure, run_case
from snapshot import expect, frozen, goes_on, image, loads, quiet_hmp, start

RTL8139 = rb"....:..:..\.0/rtl8139"


class Image:
    """Damages and repairs the last snapshot of a qcow2 image file, also while QEMU has it open."""

    def __init__(self, path):
        self.path = path
        self.data = path.read_bytes()

    def last(self, pattern):
        """Returns the end of the last match."""
        found = list(re.finditer(pattern, self.data, re.DOTALL))
        if len(found) < 2:
            raise Failure(f"{pattern!r} is {len(found)} times in the image, expected once in either snapshot")
        return found[-1].end()

    def section(self, name):
        """Returns the end of the name in the FULL section of a device of the last snapshot."""
        return self.last(rb"\x7e....\x04....[\x01-\x40]" + name)

    def put(self, at, data):
        with open(self.path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def flip(self, at):
        self.put(at, bytes([self.data[at] ^ 0x20]))

    def mend(self, at, length):
        self.put(at, self.data[at:at + length])


def head(disk):
    """The first byte of the header of a section: its type."""
    name = disk.section(RTL8139)
    return name - len("0000:00:00.0/rtl8139") - 1 - 4 - 1


def page(disk):
    """Returns the offset of the block name in the record of a page, which follows address and flags."""
    return disk.last(rb"\0\0\0\0...[\x02\x08]\x06pc\.ram") - len("pc.ram") - 1


def first_device(disk):
    """The first byte of the section behind the memory. From QEMU 10.2 on the APIC comes before the timer."""
    return min(disk.section(name) - len(name) - 6 for name in (b"timer", b"apic"))


# The damages: place in the image, number of bytes, new bytes (None: one bit is flipped), expected message.
DAMAGES = {
    "the type of a section": (head, 1, b"\x0c", "the footer"),
    "the number of a section": (lambda disk: head(disk) + 4, 1, None, "the footer"),
    "the footer of a section": (lambda disk: head(disk) - 1, 1, None, "the footer"),
    "the name of a device": (lambda disk: disk.section(RTL8139) - 5, 1, None, "rtL8139' 0"),
    "the instance of a device": (lambda disk: disk.section(RTL8139) + 3, 1, None, "Unknown savevm section or instance"),
    "a version that is too new": (lambda disk: disk.section(RTL8139) + 7, 1, b"\x63", "unsupported version 99"),
    "a version that is too old": (lambda disk: disk.section(RTL8139) + 7, 1, b"\x01", "version 1 in the stream"),
    "zeros in place of a device": (head, 4096, bytes(4096), "the footer"),
    "zeros behind the memory": (first_device, 4096, bytes(4096), "after the end"),
    "the machine": (lambda disk: disk.last(rb"\x07\0\0\0.pc-i440fx") - 1, 1, None, "Machine type received"),
    "the name of a block of memory": (lambda disk: disk.last(rb"\x06pc\.ram\0\0\0\0") - 5, 1, None, "RAM block"),
    "the size of a block of memory": (lambda disk: disk.last(rb"\x06pc\.ram\0\0\0\0") - 1, 1, b"\x40", "RAM block"),
    "the flags of a page": (lambda disk: page(disk) - 1, 1, b"\x01", "RAM record"),
    "the address of a page": (lambda disk: page(disk) - 8, 1, b"\x7f", "a page within"),
    "the block of a page": (lambda disk: page(disk) + 1, 1, None, "a known RAM block"),
}


def disk_io(vm, command, pattern):
    """The output of the process, without the monitor's."""
    before = len(vm.output())
    vm.hmp(f'qemu-io -d hd "{command} -P {pattern} 64k 4k"')
    return vm.output()[before:]


def write_disk(vm, pattern):
    expect("a write to the disk", "wrote 4096" in disk_io(vm, "write", pattern), True)


def check_disk(vm, pattern):
    said = disk_io(vm, "read", pattern)
    expect("the disk's content", ("read 4096" in said, "verification failed" in said), (True, False))


def two_snapshots(place, binary, img):
    """An image with the snapshots "good" and "bad"; "bad" is of a guest with this memory."""
    path = image(place, img)
    with start(binary, place, path) as vm:
        vm.wait_letters()
        write_disk(vm, 1)
        quiet_hmp(vm, "savevm good")
        vm.wait_letters()
        write_disk(vm, 2)
        memory = frozen(vm)
        quiet_hmp(vm, "savevm bad")
    return path, memory


def check_goes_on(vm, what, said, wanted):
    """Checks that a load of the snapshot "bad" changed nothing."""
    if "not loaded, and nothing was changed" not in said or not re.search(wanted, said):
        raise Failure(f"{what}: {said!r}, expected {wanted!r}")
    expect(f"{what}: the guest runs", vm.qmp("query-status")["status"], "running")
    vm.wait_letters()
    check_disk(vm, 3)


def case_damages(place, binary, img):
    path, memory = two_snapshots(place, binary, img)
    disk = Image(path)
    with start(binary, place, path) as vm:
        vm.wait_letters()
        write_disk(vm, 3)
        for what, (where, length, data, wanted) in DAMAGES.items():
            at = where(disk)
            disk.put(at, data) if data else disk.flip(at)
            for said in loads(vm, "bad"):
                check_goes_on(vm, what, said, wanted)
            disk.mend(at, length)
        # A stopped guest is not started.
        disk.flip(head(disk) - 1)
        vm.qmp("stop")
        before = vm.counters()
        vm.hmp("loadvm bad")
        expect("a guest that was stopped", vm.qmp("query-status")["status"], "paused")
        expect("its memory", vm.counters(), before)
        disk.mend(head(disk) - 1, 1)
        for tag, pattern in (("good", 1), ("bad", 2)):
            quiet_hmp(vm, f"loadvm {tag}")
            check_disk(vm, pattern)
            goes_on(vm)
        quiet_hmp(vm, "loadvm bad")
        expect("memory after loadvm", vm.counters(), memory)
    return f"{len(DAMAGES)} damages"


def entry(data):
    """Returns the offset of the last entry of the image's snapshot table."""
    count, at = struct.unpack_from(">IQ", data, 60)
    for _ in range(count):
        last = at
        id_size, name_size = struct.unpack_from(">HH", data, at + 12)
        extra, = struct.unpack_from(">I", data, at + 36)
        at = (at + 40 + extra + id_size + name_size + 7) & ~7
    return last


def case_cut(place, binary, img):
    path, _ = two_snapshots(place, binary, img)
    disk = Image(path)
    at = entry(disk.data)
    size, = struct.unpack_from(">Q", disk.data, at + 40)
    if not 100_000 < size < 1 << 30:
        raise Failure(f"a snapshot of {size} bytes")
    disk.put(at + 40, struct.pack(">Q", size // 2))
    with start(binary, place, path) as vm:
        vm.wait_letters()
        write_disk(vm, 3)
        check_goes_on(vm, "a snapshot that is cut", vm.hmp("loadvm bad"), f"cut off at offset .*{size // 2}")
        quiet_hmp(vm, "loadvm good")
        vm.wait_letters()


def case_missing(place, binary, img):
    with start(binary, place, image(place, img)) as vm:
        vm.wait_letters()
        for said in loads(vm, "none"):
            expect("a snapshot that is not there", "does not exist" in said, True)
            expect("the guest", vm.qmp("query-status")["status"], "running")
            vm.wait_letters()


def case_values(place, binary, img):
    """A value that only the device rejects is detected during the load: the guest must not run with a partial state."""
    path, _ = two_snapshots(place, binary, img)
    disk = Image(path)
    # After instance, version and the version of the PCI device: the vendor id, which cannot change.
    disk.flip(disk.section(RTL8139) + 12)
    with start(binary, place, path) as vm:
        vm.wait_letters()
        said = vm.hmp("loadvm bad")
        expect("a wrong value", "while loading VM state" in said, True)
        expect("the guest", vm.qmp("query-status")["status"], "restore-vm")
        expect("what is not there does not start it", "does not exist" in vm.hmp("loadvm none"), True)
        expect("the guest", vm.qmp("query-status")["status"], "restore-vm")
        quiet_hmp(vm, "loadvm good")
        goes_on(vm)
        return said.strip().splitlines()[0]


def case_resized(place, binary, img):
    """In an image that grew, the state of an older snapshot is at another offset than that of a new one."""
    path, memory = two_snapshots(place, binary, img)
    subprocess.run([img, "resize", "-q", str(path), "3G"], check=True)
    with start(binary, place, path) as vm:
        vm.wait_letters()
        vm.qmp("stop")
        quiet_hmp(vm, "loadvm bad")
        expect("memory after loadvm", vm.counters(), memory)
        goes_on(vm)


def main():
    binary, img = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    cases = [("each kind of damage", case_damages), ("one that is cut", case_cut), ("one that is not there", case_missing),
             ("a value that a device refuses", case_values), ("in an image that grew", case_resized)]
    results = [run_case(f"damaged snapshots: {title}", case, binary, img) for title, case in cases]
    sys.exit(not all(results))


main()

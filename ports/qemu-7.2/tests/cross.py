#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migration between a QEMU on libsavevm and an unmodified one, in both directions, with a machine of many devices.

usage: cross.py PORTED UNMODIFIED [MACHINE]
"""

import pathlib
import re
import sys

from qemu import Failure, Qemu, check_letters, run_case

# A QEMU with the fewest features has all of them, and they can be migrated. Not am53c974: it saves what its memory held
# before, addresses of the process among it, so that no two streams are the same.
DEVICES = """
VGA
pci-bridge,chassis_nr=1,id=bridge
virtio-net-pci,netdev=n0,romfile=
virtio-scsi-pci,id=scsi
scsi-hd,drive=d0,bus=scsi.0
virtio-blk-pci,drive=d1
virtio-serial-pci
virtserialport,chardev=c0
virtio-rng-pci
virtio-balloon-pci
virtio-keyboard-pci
virtio-tablet-pci
e1000,romfile=,bus=bridge
e1000e,romfile=,bus=bridge
rtl8139,romfile=,bus=bridge
pcnet,romfile=,bus=bridge
ne2k_pci,romfile=,bus=bridge
i82559er,romfile=,bus=bridge
vmxnet3,romfile=,bus=bridge
tulip,romfile=,bus=bridge
qemu-xhci,id=xhci
nec-usb-xhci,id=nec
ich9-usb-ehci1,id=ehci
usb-tablet,bus=xhci.0
usb-kbd,bus=xhci.0
usb-mouse,bus=nec.0
usb-hub,bus=nec.0
lsi53c895a
megasas
mptsas1068
pvscsi
ich9-ahci,id=sata
intel-hda
hda-duplex,audiodev=a0
AC97,audiodev=a0
ES1370,audiodev=a0
sb16,audiodev=a0
adlib,audiodev=a0
gus,audiodev=a0
cs4231a,audiodev=a0
sdhci-pci
i6300esb
ib700
tpci200
pci-serial-4x,chardev1=c1,chardev2=c2,chardev3=c3,chardev4=c4
isa-debugcon,chardev=c5
isa-parallel,chardev=c6
pvpanic
vmcoreinfo
vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87
isa-ipmi-kcs,bmc=bmc0
""".split()


def machine(place, kind, smp=2):
    """The arguments of a machine with the guest on its first disk."""
    arguments = ["-M", kind, "-accel", "tcg", "-m", "128M", "-smp", str(smp), "-rtc", "clock=vm,base=2022-02-02",
                 "-uuid", "12345678-1234-1234-1234-123456789abc",
                 "-drive", f"file={place / 'guest'},format=raw,if=none,id=g0", "-device", "ide-hd,drive=g0,bootindex=0",
                 "-netdev", "hubport,hubid=0,id=n0", "-audiodev", "none,id=a0", "-device", "ipmi-bmc-sim,id=bmc0"]
    for disk in ("d0", "d1"):
        arguments += ["-drive", f"driver=null-co,size=16M,if=none,id={disk}"]
    for chardev in range(7):
        arguments += ["-chardev", f"null,id=c{chardev}"]
    for device in DEVICES:
        arguments += ["-device", device]
    return arguments


def set_up(vm, capabilities=(), **parameters):
    if capabilities:
        vm.qmp("migrate-set-capabilities",
               capabilities=[{"capability": capability, "state": True} for capability in capabilities])
    vm.qmp("migrate-set-parameters", **{"downtime_limit": 20000, "max_bandwidth": 1 << 32, **parameters})


def sent(source, target):
    """The guest arrived, runs, and nothing of it is lost."""
    target.wait_run()
    letters = source.serial()
    target.wait_letters()
    target.qmp("stop")
    target.check_counters()
    check_letters(letters, target.serial())


def case_precopy(place, arguments, source_binary, target_binary):
    uri = f"unix:{place / 'socket'}"
    with (Qemu(source_binary, place, "source", *arguments) as source,
          Qemu(target_binary, place, "target", *arguments, "-incoming", uri) as target):
        source.wait_letters()
        set_up(source)
        source.qmp("migrate", uri=uri)
        info = source.wait_status("completed")
        target.wait_status("completed")
        sent(source, target)
        return f"downtime {info['downtime']} ms"


def case_postcopy(place, arguments, source_binary, target_binary):
    uri = f"unix:{place / 'socket'}"
    with (Qemu(source_binary, place, "source", *arguments) as source,
          Qemu(target_binary, place, "target", *arguments, "-incoming", "defer") as target):
        for vm in (source, target):
            set_up(vm, ("postcopy-ram",), max_bandwidth=1 << 20, downtime_limit=1, max_postcopy_bandwidth=0)
        target.qmp("migrate-incoming", uri=uri)
        source.wait_letters()
        source.qmp("migrate", uri=uri)
        source.wait_status("active")
        source.qmp("migrate-start-postcopy")
        source.wait_status("completed")
        target.wait_status("completed")
        sent(source, target)
        if source.qmp("query-migrate")["ram"]["postcopy-requests"] == 0:
            return "no page was asked for"
        return f"{source.qmp('query-migrate')['ram']['postcopy-requests']} pages were asked for"


def write_file(vm, path):
    set_up(vm)
    vm.qmp("migrate", uri=f"exec:cat > {path}")
    vm.wait_status("completed")
    return path.read_bytes()


def case_file(place, arguments, source_binary, target_binary):
    path = place / "stream"
    with Qemu(source_binary, place, "source", *arguments) as source:
        source.wait_letters()
        write_file(source, path)
        with Qemu(target_binary, place, "target", *arguments, "-incoming", f"exec:cat {path}") as target:
            target.wait_status("completed")
            sent(source, target)
    return f"{path.stat().st_size} bytes"


def without_rounds(stream):
    """How much RAM goes in one round depends on how fast the machine is: a round's end and the next one's head go."""
    end = b"\0\0\0\0\0\0\0\x10"
    return re.sub(end + b"\x7e(....)\x02\\1", b"", stream, flags=re.DOTALL)


def compare(*streams):
    ours, theirs = map(without_rounds, streams)
    if ours == theirs:
        return
    at = next((at for at, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    near = slice(max(0, at - 64), at + 32)
    raise Failure(f"the streams have {len(ours)} and {len(theirs)} bytes and differ at {at}:\n"
                  f"  ported     {ours[near]!r}\n  unmodified {theirs[near]!r}")


def described(stream):
    """How many bytes of description end the stream."""
    at = stream.rfind(b'{"page_size"')
    if at < 0 or int.from_bytes(stream[at - 4:at], "big") != len(stream) - at or stream[at - 5] != 6:
        raise Failure("no description ends the stream")
    return len(stream) - at


def case_same_bytes(place, arguments, ported, unmodified):
    """What was saved once, both load and save again to the byte, with all that a running guest left in the devices."""
    path = place / "first"
    with Qemu(unmodified, place, "source", *arguments) as source:
        source.wait_letters()
        source.qmp("stop")
        write_file(source, path)
    streams = []
    for binary in (ported, unmodified):
        with Qemu(binary, place, "again", *arguments, "-S", "-incoming", f"exec:cat {path}") as vm:
            vm.wait_status("completed")
            streams.append(write_file(vm, place / "again.stream"))
    compare(*streams)
    return f"{len(streams[0])} bytes, {described(streams[0])} of them description"


def case_same_bytes_new(place, arguments, ported, unmodified):
    """Machines that never ran."""
    streams = []
    for binary in (ported, unmodified):
        with Qemu(binary, place, "new", *arguments, "-S") as vm:
            streams.append(write_file(vm, place / "stream"))
    compare(*streams)
    return f"{len(streams[0])} bytes, {described(streams[0])} of them description"


def main():
    ported, unmodified = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    kind = sys.argv[3] if len(sys.argv) > 3 else "pc-i440fx-7.2"
    results = []

    def run(title, case, *binaries):
        results.append(run_case(f"{kind}: {title}", lambda place: case(place, machine(place, kind), *binaries)))

    run("the same bytes from machines that never ran", case_same_bytes_new, ported, unmodified)
    run("the same bytes from what both loaded", case_same_bytes, ported, unmodified)
    for names, pair in (("ported to unmodified", (ported, unmodified)), ("unmodified to ported", (unmodified, ported)),
                        ("ported to ported", (ported, ported))):
        run(f"precopy, {names}", case_precopy, *pair)
        run(f"postcopy, {names}", case_postcopy, *pair)
        run(f"through a file, {names}", case_file, *pair)
    sys.exit(not all(results))


main()

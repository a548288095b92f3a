# SPDX-License-Identifier: LGPL-2.1-or-later
"""Machines with many devices, by target. A QEMU with the fewest features has these devices and can migrate them."""

import collections

# am53c974 is left out: it saves uninitialised memory, such as addresses of the process, so two streams always differ.
PCI = """
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
pci-bridge,chassis_nr=1,id=bridge
e1000,romfile=,bus=bridge,addr=1
e1000e,romfile=,bus=bridge,addr=2
rtl8139,romfile=,bus=bridge,addr=3
pcnet,romfile=,bus=bridge,addr=4
ne2k_pci,romfile=,bus=bridge,addr=5
i82559er,romfile=,bus=bridge,addr=6
vmxnet3,romfile=,bus=bridge,addr=7
tulip,romfile=,bus=bridge,addr=8
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
sdhci-pci
i6300esb
tpci200
pci-serial-4x,chardev1=c1,chardev2=c2,chardev3=c3,chardev4=c4
"""

X86 = """
sb16,audiodev=a0
adlib,audiodev=a0
gus,audiodev=a0
cs4231a,audiodev=a0
ib700
isa-debugcon,chardev=c5
isa-parallel,chardev=c6
isa-ipmi-kcs,bmc=bmc0
pvpanic
vmcoreinfo
vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87
"""

PPC64 = """
spapr-vlan,netdev=n1
spapr-vscsi,id=vscsi
scsi-hd,drive=d2,bus=vscsi.0
spapr-rng,use-kvm=off,rng=r0
spapr-pci-host-bridge,index=1
VGA
"""

S390X = """
virtio-net-ccw,netdev=n0
virtio-scsi-ccw,id=scsi
scsi-hd,drive=d0,bus=scsi.0
virtio-blk-ccw,drive=d1
virtio-serial-ccw
virtserialport,chardev=c0
virtio-rng-ccw
virtio-balloon-ccw
virtio-keyboard-ccw
virtio-tablet-ccw
diag288
"""

# handlers: sections that are written only by handlers of the target.
Machine = collections.namedtuple("Machine", "arguments handlers")


def machine_type(target, version, board="i440fx"):
    """The machine type of a version of QEMU. `board`: of x86_64."""
    name = {"x86_64": f"pc-{board}", "ppc64": "pseries", "s390x": "s390-ccw-virtio"}[target]
    return f"{name}-{version}"


def machine(target, place, kind, foreign):
    """The machine of a target with its guest. With a foreign emulator, it has no other firmware."""
    arguments = ["-accel", "tcg", "-M", kind, "-m", "128M" if target == "x86_64" else "256M", "-smp", "2", "-rtc", "clock=vm,base=2022-02-02",
                 "-uuid", "12345678-1234-1234-1234-123456789abc", "-audiodev", "none,id=a0", "-seed", "1"]
    for net in range(2):
        arguments += ["-netdev", f"hubport,hubid={net},id=n{net}"]
    for disk in range(3):
        arguments += ["-drive", f"driver=null-co,size=16M,if=none,id=d{disk}"]
    for chardev in range(7):
        arguments += ["-chardev", f"null,id=c{chardev}"]
    if target == "x86_64":
        arguments += ["-drive", f"file={place / 'x86.disk'},format=raw,if=none,id=guest",
                      "-device", "ide-hd,drive=guest,bootindex=0", "-device", "ipmi-bmc-sim,id=bmc0", "-device", "VGA"]
        if foreign:
            arguments += ["-bios", place / "x86.bios"]
        devices, handlers = PCI + X86, []
    elif target == "ppc64":
        arguments += ["-bios", place / "ppc64.bios", "-object", "rng-random,id=r0"]
        devices, handlers = PCI + PPC64, ["spapr/htab"]
    else:
        arguments += ["-bios", place / "s390x.bios"]
        devices, handlers = S390X, ["s390-skeys", "s390-storage_attributes", "todclock"]
    for device in devices.split():
        arguments += ["-device", device]
    return Machine(arguments, handlers)


def virtio_devices(count):
    """Options for so many virtio devices behind bridges."""
    arguments = []
    for bus in range((count + 199) // 200):
        arguments += ["-device", f"pci-bridge,id=bridge{bus},chassis_nr={bus + 1}"]
    for at in range(count):
        slot, function = divmod(at % 200, 8)
        arguments += ["-device", f"virtio-rng-pci,bus=bridge{at // 200},addr={slot + 1:x}.{function},multifunction=on"]
    return arguments

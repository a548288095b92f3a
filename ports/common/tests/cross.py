#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migration between a QEMU on libsavevm and an unmodified one, in both directions, with a machine of many devices.

usage: cross.py PORTED UNMODIFIED TARGET all | quick | foreign

`quick`: a selection. `foreign`: the unmodified QEMU has another configuration, so its section ids may differ.
"""

import json
import pathlib
import re
import subprocess
import sys

import machines
from moves import (case_background, case_compressed, case_file, case_postcopy, case_precopy, migrate_postcopy, write_file)
from qemu import Failure, Qemu, major_version, run_case

# The end of RAM in a section, and the head of the section with the clock of a pseries machine: ticks and the time of day.
END = b"\0\0\0\0\0\0\0\x10"
CLOCK = b"\x05spapr\0\0\0\0\0\0\0\3"


def comparable(stream):
    """Removes parts that depend on time: the ends of RAM rounds with the heads of the next ones, and a clock that runs while
    the guest is stopped."""
    stream = re.sub(END + b"\x7e(....)[\2\3]\\1", b"", stream, flags=re.DOTALL)
    return re.sub(CLOCK + b".{16}", CLOCK, stream, flags=re.DOTALL)


def compare(*streams):
    ours, theirs = map(comparable, streams)
    if ours == theirs:
        return
    at = next((at for at, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    near = slice(max(0, at - 64), at + 32)
    raise Failure(f"the streams have {len(ours)} and {len(theirs)} bytes and differ at {at}:\n"
                  f"  ported     {ours[near]!r}\n  unmodified {theirs[near]!r}")


def described(stream):
    """Returns the size of the description at the end of the stream."""
    # From QEMU 10.0 on, the configuration section comes first. QEMU 5.2 writes a space after a bracket.
    at = max(stream.rfind(start) for start in (b'{"page_size"', b'{ "page_size"', b'{"configuration"'))
    if at < 0 or int.from_bytes(stream[at - 4:at], "big") != len(stream) - at or stream[at - 5] != 6:
        raise Failure("no description ends the stream")
    return len(stream) - at


def case_same_bytes(place, machine, ported, unmodified):
    """Both load the same stream of a guest that ran, and save the same bytes again."""
    path = place / "first"
    with Qemu(unmodified, place, "source", *machine.arguments) as source:
        source.wait_letters()
        source.qmp("stop")
        write_file(source, path)
    streams = []
    for binary in (ported, unmodified):
        with Qemu(binary, place, "again", *machine.arguments, "-S", "-incoming", f"exec:cat {path}") as vm:
            vm.wait_status("completed")
            streams.append(write_file(vm, place / "again.stream"))
    compare(*streams)
    return f"{len(streams[0])} bytes, {described(streams[0])} of them description"


def case_same_bytes_new(place, machine, ported, unmodified):
    """Machines that never ran."""
    streams = []
    for binary in (ported, unmodified):
        with Qemu(binary, place, "new", *machine.arguments, "-S") as vm:
            streams.append(write_file(vm, place / "stream"))
    compare(*streams)
    return f"{len(streams[0])} bytes, {described(streams[0])} of them description"


# The devices as with Xen's accelerator, without CPU state that is in guest memory, which Xen migrates.
XEN = ["-global", "apic-common.vapic=off"]
for off in ("store-global-state", "send-configuration", "send-section-footer"):
    XEN += ["-global", f"migration.{off}=off"]


def save_devices(vm, path):
    path.unlink(missing_ok=True)
    vm.qmp("xen-save-devices-state", filename=str(path), live=False)
    return path.read_bytes()


def load_devices(vm, path):
    vm.qmp("xen-load-devices-state", filename=str(path))
    return save_devices(vm, path.with_suffix(".again"))


def case_same_devices(place, machine, ported, unmodified):
    """Xen's files of device state: both save the same bytes, and have the same state after they load each other's file."""
    path = place / "first"
    with Qemu(unmodified, place, "source", *machine.arguments, *XEN) as source:
        source.wait_letters()
        source.qmp("stop")
        write_file(source, path)
    saved, loaded = [], []
    for binary in (ported, unmodified):
        with Qemu(binary, place, "again", *machine.arguments, *XEN, "-S", "-incoming", f"exec:cat {path}") as vm:
            vm.wait_status("completed")
            saved.append(save_devices(vm, place / f"devices{len(saved)}"))
            if binary == ported:
                # As in Xen's COLO, where an unmodified QEMU aborts.
                vm.qmp("system_reset")
                compare(load_devices(vm, place / "devices0"), saved[0])
    compare(*saved)
    # Starts an incoming migration that is never used: without it, an unmodified QEMU aborts at the end of the load.
    waiting = ["-S", "-incoming", f"unix:{place / 'socket'}"]
    for at, binary in ((1, ported), (0, unmodified)):
        with Qemu(binary, place, "fresh", *machine.arguments, *XEN, *waiting) as vm:
            loaded.append(load_devices(vm, place / f"devices{at}"))
    compare(*loaded)
    return f"{len(saved[0])} bytes"


# Off, because libsavevm has no trace events for the configuration section.
TRACES = ["-global", "migration.send-configuration=off"]
for pattern in ("vmstate_*", "get_qtailq*", "put_qtailq*", "get_qlist*", "put_qlist*", "get_gtree*", "put_gtree*"):
    TRACES += ["-trace", pattern]


def events(vm):
    """Returns the trace events in the log, without those of live devices, whose number depends on time."""
    told = re.findall(r"^(?:vmstate|get|put)_.*(?<!, \(old\))$", vm.output(), flags=re.MULTILINE)
    if not told:
        raise Failure(f"{vm.name} told nothing")
    return told


def case_same_traces(place, machine, ported, unmodified):
    """Saves and loads a machine that never ran: the trace events of all fields are equal."""
    told = []
    for binary in (ported, unmodified):
        path = place / "stream"
        with Qemu(binary, place, "source", *machine.arguments, "-S", *TRACES) as source:
            write_file(source, path)
            saved = events(source)
        with Qemu(binary, place, "target", *machine.arguments, "-S", *TRACES, "-incoming", f"exec:cat {path}") as target:
            target.wait_status("completed")
            told.append(saved + events(target))
    for at, (ours, theirs) in enumerate(zip(*told)):
        if ours != theirs:
            raise Failure(f"event {at} is {ours!r}, unmodified {theirs!r}")
    if len(told[0]) != len(told[1]):
        raise Failure(f"{len(told[0])} events, unmodified {len(told[1])}")
    return f"{len(told[0])} events"


PHASES = []
for pattern in ("savevm_*", "loadvm_*", "qemu_savevm_*", "qemu_loadvm_*", "postcopy_ram_listen_*", "qemu_file_fclose"):
    PHASES += ["-trace", pattern]


def shapes(vm):
    """Returns the kinds of events in the log. Their numbers and values depend on time."""
    told = re.findall(r"^(?:qemu_)?(?:savevm|loadvm|postcopy|file)_.*$", vm.output(), flags=re.MULTILINE)
    # Which blocks have pages to discard depends on time as well.
    told = [re.sub(r"(discard(?:_header)?) .*:", r"\1 block:", line) for line in told]
    return {re.sub(r"\d+", "N", line) for line in told}


def case_same_postcopy_traces(place, machine, ported, unmodified):
    """The events of phases, sections and commands are equal on both sides."""
    told = []
    for binary in (ported, unmodified):
        with (Qemu(binary, place, "source", *machine.arguments, *PHASES) as source,
              Qemu(binary, place, "target", *machine.arguments, *PHASES, "-incoming", "defer") as target):
            migrate_postcopy(place, source, target)
            told.append((shapes(source), shapes(target)))
    for side, ours, theirs in zip(("source", "target"), *told):
        if ours != theirs:
            raise Failure(f"{side}: only ported {sorted(ours - theirs)}, only unmodified {sorted(theirs - ours)}")
    return f"{len(told[0][0])} kinds of events in the source, {len(told[0][1])} in the target"


def case_same_descriptions(place, machine, ported, unmodified):
    """The output of -dump-vmstate is equal, apart from whitespace."""
    dumps = []
    for binary in (ported, unmodified):
        path = place / "dump.json"
        subprocess.run([binary, "-M", machine.arguments[machine.arguments.index("-M") + 1], "-dump-vmstate", path], check=True)
        dumps.append(json.loads(path.read_bytes()))
    ours, theirs = dumps
    different = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if different:
        raise Failure(f"{different[0]}: {ours.get(different[0])}, unmodified {theirs.get(different[0])}")
    return f"{len(ours)} devices"


def main():
    ported, unmodified = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    target, selection = sys.argv[3:5]
    foreign = selection == "foreign"
    version = major_version(ported)
    machine_type = machines.machine_type(target, "5.2" if version < 7 else "7.2")
    results = []

    def run(title, case, *binaries):
        title = f"{target}: {title}"
        results.append(
            run_case(title, lambda place: case(place, machines.machine(target, place, machine_type, foreign), *binaries)))

    if not foreign:
        run("the same bytes from machines that never ran", case_same_bytes_new, ported, unmodified)
        run("the same bytes from what both loaded", case_same_bytes, ported, unmodified)
        if target == "x86_64" and version == 7:
            run("the same device state, as for Xen", case_same_devices, ported, unmodified)
        if version == 7:
            # The library has the trace events of QEMU 7.2.
            run("the same traces of all fields", case_same_traces, ported, unmodified)
            run("the same traces of a postcopy", case_same_postcopy_traces, ported, unmodified)
        run("the same descriptions", case_same_descriptions, ported, unmodified)
    pairs = [("ported to unmodified", ported, unmodified), ("unmodified to ported", unmodified, ported),
             ("ported to ported", ported, ported)]
    for names, *pair in pairs:
        run(f"precopy, {names}", case_precopy, *pair)
        if selection != "quick":
            run(f"postcopy, {names}", case_postcopy, *pair)
            if version < 8:
                run(f"compressed, {names}", case_compressed, *pair)
            run(f"through a file, {names}", case_file, *pair)
            if version > 5:
                run(f"a background snapshot, {names}", case_background, *pair)
    sys.exit(not all(results))


main()

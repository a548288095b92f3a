#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""COLO between a QEMU on libsavevm and an unmodified one: checkpoints, and each side continues when the other ends.

usage: colo.py PORTED UNMODIFIED all | quick

The machines have no disks and no networks, so only the migration engine is tested. The test needs KVM: with TCG, QEMU hangs soon,
because a checkpoint waits for the CPUs without releasing the big lock.
"""

import pathlib
import sys

from qemu import Failure, Qemu, run_case

# In milliseconds. The secondary of QEMU 5.2 hangs if it takes over while a checkpoint begins: the failover waits for the thread of
# the checkpoints, which waits for the big lock. So this test requests each checkpoint there, and none is in progress when it ends
# a process.
OFTEN, SELDOM = 100, 10_000_000

# A byte in the memory of the real-time clock, which the guest does not use.
SELECT, VALUE = "o /b 0x70 0x50", 0x5A


def start(binary, place, name, *more):
    return Qemu(binary, place, name, "-M", "pc", "-accel", "kvm", "-m", "64M", "-bios", place / "x86.bios",
                "-device", "virtio-rng-pci", "-trace", "colo_send_message", *more)


def set_delay(primary, milliseconds):
    """Sets the time between checkpoints. If COLO runs already, this also starts a checkpoint."""
    primary.qmp("migrate-set-parameters", x_checkpoint_delay=milliseconds)


def wait_checkpoints(primary, secondary, more):
    """Waits until the secondary has loaded this number of further checkpoints."""
    loaded = "Send 'vmstate-loaded' message"
    for _ in range(more):
        goal = secondary.output().count(loaded) + 1
        if primary.version < 6:
            set_delay(primary, SELDOM)
        secondary.wait("checkpoints", lambda vm: vm.output().count(loaded) >= goal)


def replicate(place, primary, secondary):
    """Starts COLO, and checks that the secondary follows the primary."""
    uri = f"unix:{place / 'socket'}"
    primary.wait_letters()
    for vm in (primary, secondary):
        vm.qmp("migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": True}])
    secondary.qmp("migrate-incoming", uri=uri)
    set_delay(primary, SELDOM if primary.version < 6 else OFTEN)
    primary.qmp("migrate-set-parameters", max_bandwidth=1 << 32)
    primary.qmp("migrate", uri=uri)
    for vm, mode in ((primary, "primary"), (secondary, "secondary")):
        vm.wait_status("colo")
        if vm.qmp("query-colo-status")["mode"] != mode:
            raise Failure(f"{vm.name} has another mode: {vm.qmp('query-colo-status')}")
    wait_checkpoints(primary, secondary, 2)
    primary.hmp(SELECT)
    primary.hmp(f"o /b 0x71 {VALUE}")
    # One checkpoint may have been in progress.
    wait_checkpoints(primary, secondary, 2)
    # The index of the selected byte was migrated as well.
    said = secondary.hmp("i /b 0x71")
    if f"= {VALUE:#04x}" not in said:
        raise Failure(f"the secondary does not have what was written in the primary: {said!r}")


def case_failover(place, primary_binary, secondary_binary, gone):
    with (start(primary_binary, place, "primary") as primary,
          start(secondary_binary, place, "secondary", "-incoming", "defer") as secondary):
        replicate(place, primary, secondary)
        lost, left = (primary, secondary) if gone == "primary" else (secondary, primary)
        lost.process.kill()
        left.qmp("x-colo-lost-heartbeat")
        left.wait_status("completed")
        left.wait_run()
        left.wait_letters()
        left.qmp("stop")
        left.check_counters()
        left.end()


def main():
    ported, unmodified = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    pairs = [("ported to unmodified", ported, unmodified), ("unmodified to ported", unmodified, ported),
             ("ported to ported", ported, ported)]
    if not pathlib.Path("/dev/kvm").exists():
        print("skip COLO: there is no KVM", flush=True)
        return
    results = []
    for names, *pair in pairs[2:] if sys.argv[3] == "quick" else pairs:
        for gone in ("primary", "secondary"):
            results.append(run_case(f"COLO, {names}, the {gone} is killed",
                                    lambda place: case_failover(place, *pair, gone)))
    sys.exit(not all(results))


main()

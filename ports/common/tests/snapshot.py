#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Snapshots in a qcow2 image with a QEMU on libsavevm: HMP, QMP jobs, a disk that fails, a QEMU that is killed.

usage: snapshot.py QEMU QEMU-IMG
"""

import pathlib
import subprocess
import sys
import time

from qemu import DEADLINE, Failure, Qemu, major_version, run_case


def image(place, img):
    path = place / "disk.qcow2"
    convert = [img, "convert", "-f", "raw", "-O", "qcow2", str(place / "x86.disk"), str(path)]
    subprocess.run(convert, check=True, cwd=place.path)
    subprocess.run([img, "resize", "-q", str(path), "1M"], check=True)
    return path


def start(binary, place, disk, *more, file=None):
    file = file or f"file.driver=file,file.filename={disk}"
    return Qemu(binary, place, "guest", "-accel", "tcg", "-m", "64M",
                "-blockdev", f"driver=qcow2,node-name=disk,{file}", "-device", "ide-hd,drive=disk,id=hd",
                "-device", "virtio-rng-pci", "-device", "rtl8139", "-device", "qemu-xhci", "-device", "VGA", *more)


def expect(what, seen, wanted):
    if seen != wanted:
        raise Failure(f"{what}: {seen!r}, expected {wanted!r}")


def quiet_hmp(vm, line):
    said = vm.hmp(line).strip()
    expect(line, said, "")


def frozen(vm):
    """Stops the guest and returns its memory."""
    vm.qmp("stop")
    vm.check_counters()
    return vm.counters()


def goes_on(vm):
    vm.qmp("cont")
    vm.wait_letters()
    vm.qmp("stop")
    vm.check_counters()


def case_hmp(place, binary, img):
    with start(binary, place, image(place, img)) as vm:
        vm.wait_letters()
        before = frozen(vm)
        quiet_hmp(vm, "savevm one")
        goes_on(vm)
        quiet_hmp(vm, "loadvm one")
        expect("memory after loadvm", vm.counters(), before)
        goes_on(vm)
        vm.qmp("cont")
        quiet_hmp(vm, "savevm two")
        expect("the guest after savevm", vm.qmp("query-status")["running"], True)
        vm.wait_letters()
        quiet_hmp(vm, "loadvm two")
        vm.wait_letters()
        expect("two snapshots", [tag in vm.hmp("info snapshots") for tag in ("one", "two")], [True, True])
        quiet_hmp(vm, "delvm one")
        said = vm.hmp("loadvm one")
        expect("a snapshot that is gone", "does not exist" in said, True)
        goes_on(vm)


def job(vm, command, **arguments):
    """Runs a job. Returns its error, or None."""
    vm.qmp(command, job_id="job", devices=["disk"], **arguments)

    def concluded(vm):
        return next((job for job in vm.qmp("query-jobs") if job["status"] == "concluded"), None)

    done = vm.wait("the job", concluded)
    vm.qmp("job-dismiss", id="job")
    return done.get("error")


def loads(vm, tag):
    """Loads a snapshot in each way that the version has. Yields their messages."""
    yield vm.hmp(f"loadvm {tag}")
    if vm.version >= 6:
        yield job(vm, "snapshot-load", tag=tag, vmstate="disk")


def case_jobs(place, binary, img):
    with start(binary, place, image(place, img)) as vm:
        vm.wait_letters()
        before = frozen(vm)
        expect("snapshot-save", job(vm, "snapshot-save", tag="one", vmstate="disk"), None)
        goes_on(vm)
        expect("snapshot-load", job(vm, "snapshot-load", tag="one", vmstate="disk"), None)
        expect("memory after snapshot-load", vm.counters(), before)
        goes_on(vm)
        twice = job(vm, "snapshot-save", tag="one", vmstate="disk")
        expect("a name that is taken", "already exists" in twice, True)
        expect("snapshot-delete", job(vm, "snapshot-delete", tag="one"), None)
        gone = job(vm, "snapshot-load", tag="one", vmstate="disk")
        expect("a snapshot that is gone", "does not exist" in gone, True)
        goes_on(vm)


def case_failing_disk(place, binary, img):
    disk = image(place, img)
    rule = "inject-error.0.event=pwritev,inject-error.0.errno=28,inject-error.0.once=off,inject-error.0.state=2"
    state = "set-state.0.event=vmstate_save,set-state.0.state=1,set-state.0.new_state=2"
    file = ",".join(f"file.{part}" for part in f"driver=blkdebug,{rule},{state}".split(","))
    file += f",file.image.driver=file,file.image.filename={disk}"
    with start(binary, place, disk, file=file) as vm:
        vm.wait_letters()
        said = vm.hmp("savevm one")
        expect("savevm to a full disk fails", "No space left" in said or "Input/output error" in said, True)
        expect("the guest runs on", vm.qmp("query-status")["running"], True)
        vm.wait_letters()
        vm.qmp("stop")
        vm.check_counters()
        return said.strip()


def kill_in_savevm(place, binary, disk, tag):
    """Kills QEMU as soon as the image grows. Returns whether the snapshot is in the image."""
    with start(binary, place, disk) as vm:
        vm.wait_letters()
        size = disk.stat().st_size
        vm.send("human-monitor-command", command_line=f"savevm {tag}")
        end = time.monotonic() + DEADLINE
        # No pause: the snapshot is written within a moment.
        while disk.stat().st_size == size and time.monotonic() < end:
            pass
        vm.process.kill()
    with start(binary, place, disk) as vm:
        return tag in vm.hmp("info snapshots")


def case_killed(place, binary, img):
    disk = image(place, img)
    with start(binary, place, disk) as vm:
        vm.wait_letters()
        quiet_hmp(vm, "savevm good")
    # A snapshot that was completed before the kill is valid. Try again with the next one.
    tags = [f"late{number}" for number in range(8)]
    interrupted = next((tag for tag in tags if not kill_in_savevm(place, binary, disk, tag)), None)
    expect("a snapshot that was interrupted", interrupted is not None, True)
    whole = tags[:tags.index(interrupted)]
    with start(binary, place, disk) as vm:
        for tag in ["good", *whole]:
            quiet_hmp(vm, f"loadvm {tag}")
            goes_on(vm)
    return f"after {len(whole)} that were faster"


def main():
    binary, img = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    cases = [("savevm and loadvm", case_hmp),
             *([("snapshot jobs", case_jobs)] if major_version(binary) >= 6 else []),
             ("savevm to a disk that fails", case_failing_disk), ("savevm of a QEMU that is killed", case_killed)]
    results = [run_case(f"snapshot: {title}", case, binary, img) for title, case in cases]
    sys.exit(not all(results))


if __name__ == "__main__":
    main()

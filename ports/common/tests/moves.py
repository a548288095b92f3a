# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ways to migrate a machine from one QEMU to another. Each checks that the guest continues with its memory and output complete."""

from qemu import Failure, Qemu, check_letters


def set_up(vm, capabilities=(), **parameters):
    if capabilities:
        vm.qmp("migrate-set-capabilities",
               capabilities=[{"capability": capability, "state": True} for capability in capabilities])
    vm.qmp("migrate-set-parameters", **{"downtime_limit": 20000, "max_bandwidth": 1 << 32, **parameters})


def sent(source, target):
    """Checks that the guest runs on the target, and that its state is complete."""
    target.wait_run()
    letters = source.serial()
    target.wait_letters()
    target.qmp("stop")
    target.check_counters()
    check_letters(letters, target.serial())


def case_precopy(place, machine, source_binary, target_binary):
    uri = f"unix:{place / 'socket'}"
    with (Qemu(source_binary, place, "source", *machine.arguments) as source,
          Qemu(target_binary, place, "target", *machine.arguments, "-incoming", uri) as target):
        source.wait_letters()
        set_up(source)
        source.qmp("migrate", uri=uri)
        info = source.wait_status("completed")
        target.wait_status("completed")
        sent(source, target)
        return f"downtime {info['downtime']} ms"


def case_compressed(place, machine, source_binary, target_binary):
    """Compressed pages. The guest is stopped, because QEMU 7.2 loses writes of a running guest."""
    uri = f"unix:{place / 'socket'}"
    with (Qemu(source_binary, place, "source", *machine.arguments) as source,
          Qemu(target_binary, place, "target", *machine.arguments, "-incoming", "defer") as target):
        for vm in (source, target):
            set_up(vm, ("compress",))
        target.qmp("migrate-incoming", uri=uri)
        source.wait_letters()
        source.qmp("stop")
        source.qmp("migrate", uri=uri)
        pages = source.wait_status("completed")["compression"]["pages"]
        target.wait_status("completed")
        target.qmp("cont")
        sent(source, target)
        if pages == 0:
            raise Failure("no page was compressed")
        return f"{pages} pages"


def case_background(place, machine, source_binary, target_binary):
    """A background snapshot of a running guest."""
    path = place / "stream"
    with Qemu(source_binary, place, "source", *machine.arguments) as source:
        source.wait_letters()
        set_up(source, ("background-snapshot",))
        source.qmp("migrate", uri=f"exec:cat > {path}")
        source.wait_status("completed")
        source.wait_run()
        source.wait_letters()
    with Qemu(target_binary, place, "target", *machine.arguments, "-incoming", f"exec:cat {path}") as target:
        target.wait_status("completed")
        target.wait_run()
        target.wait_letters()
        target.qmp("stop")
        target.check_counters()
        return f"{path.stat().st_size} bytes"


def migrate_postcopy(place, source, target):
    uri = f"unix:{place / 'socket'}"
    for vm in (source, target):
        set_up(vm, ("postcopy-ram",), max_bandwidth=1 << 20, downtime_limit=1, max_postcopy_bandwidth=1 << 21)
    target.qmp("migrate-incoming", uri=uri)
    source.wait_letters()
    source.qmp("migrate", uri=uri)
    source.wait_status("active")
    source.qmp("migrate-start-postcopy")
    source.wait_status("completed")
    target.wait_status("completed")


def case_postcopy(place, machine, source_binary, target_binary):
    with (Qemu(source_binary, place, "source", *machine.arguments) as source,
          Qemu(target_binary, place, "target", *machine.arguments, "-incoming", "defer") as target):
        migrate_postcopy(place, source, target)
        sent(source, target)
        if source.qmp("query-migrate")["ram"]["postcopy-requests"] == 0:
            return "no page was asked for"
        return f"{source.qmp('query-migrate')['ram']['postcopy-requests']} pages were asked for"


def write_file(vm, path):
    set_up(vm)
    vm.qmp("migrate", uri=f"exec:cat > {path}")
    vm.wait_status("completed")
    return path.read_bytes()


def case_file(place, machine, source_binary, target_binary):
    path = place / "stream"
    with Qemu(source_binary, place, "source", *machine.arguments) as source:
        source.wait_letters()
        write_file(source, path)
        with Qemu(target_binary, place, "target", *machine.arguments, "-incoming", f"exec:cat {path}") as target:
            target.wait_status("completed")
            sent(source, target)
    stream = path.read_bytes()
    for name in machine.handlers:
        if bytes([len(name)]) + name.encode() not in stream:
            raise Failure(f"no section of {name}")
    return f"{len(stream)} bytes"

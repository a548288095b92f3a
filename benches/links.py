#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Total time and downtime of migrations over network links: libsavevm and an unmodified QEMU in turns, in each mode. Two network
namespaces are the hosts. tc (tbf) limits the rate of the link between them; wire.c delays and loses packets. Needs root.

usage: links.py LIBDIR [--links NAME,...] [--modes NAME,...] [--runs N]

LIBDIR holds libsavevm.a, built for release with TLS. QEMU_SYSTEM names the emulator (qemu-system-x86_64); QEMU_ZSTD another one for
zstd, if that was built without it (qemu-system-x86_64 of the PATH). Half of the memory can be compressed to almost nothing. The
guest writes to the pages of a quarter of the memory at a constant rate, in QEMU with TCG. The downtime is the time from the stop of
the guest at the source to its start at the destination, for both by the same clock. Prints medians. Fails if a goal is missed:
on the link of 1 Gbit/s, zstd is 1.7 times as fast as one plain connection, and not slower than QEMU's.
"""
import argparse
import dataclasses
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ports/common/tests"))
sys.path.insert(0, str(ROOT / "benches"))
from qemu import Failure, Place, Qemu  # noqa: E402
from build import build  # noqa: E402
from multifd import fill  # noqa: E402
from tls import make_certificates  # noqa: E402

GOAL_ZSTD = 1.7
# A migration that takes longer does not converge.
LIMIT = 60
TARGET, PORT = "10.77.0.2", 7700


@dataclasses.dataclass
class Link:
    """A network, and the guest that moves over it."""

    title: str
    rate: str
    mib: int
    # KiB that the guest writes to in a second, at least 400.
    dirty: int
    runs: int
    # In each direction.
    delay_ms: float = 0
    loss_per_million: int = 0


LINKS = {
    "100m": Link("100 Mbit/s", "100mbit", 64, 2 << 10, 3),
    "1g": Link("1 Gbit/s, 20 ms there and back", "1gbit", 512, 20 << 10, 5, delay_ms=10),
    "1g-loss": Link("1 Gbit/s, 20 ms there and back, 0.1% of the packets lost", "1gbit", 32, 400, 3, delay_ms=10,
                    loss_per_million=1000),
    "10g": Link("10 Gbit/s", "10gbit", 1024, 50 << 10, 5),
}


@dataclasses.dataclass
class Mode:
    """How a migration is done."""

    channels: int = 0
    method: str = "none"
    tls: bool = False


MODES = {
    "plain": Mode(),
    "TLS": Mode(tls=True),
    "4 connections": Mode(4),
    "4 connections, TLS": Mode(4, tls=True),
    "zlib": Mode(4, "zlib"),
    "zstd": Mode(4, "zstd"),
    "auto": Mode(4, "auto"),
}


class Unavailable(Exception):
    """This system can't have such a link."""


class Endless(Exception):
    """A migration did not end within the limit."""


def do(*command):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, command))}: {result.stderr.strip()}")


class Network:
    """Two hosts with a link between them."""

    def __init__(self, link, wire):
        self.hosts = [f"savevm-{os.getpid()}-{name}" for name in ("source", "target")]
        self.wire = None
        try:
            for host in self.hosts:
                do("ip", "netns", "add", host)
            source, target = self.hosts
            if link.delay_ms or link.loss_per_million:
                command = [wire, source, target, str(link.delay_ms), str(link.loss_per_million)]
                self.wire = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                if self.wire.stdout.readline() != "ready\n":
                    raise Unavailable("wire.c could not make its devices")
            else:
                do("ip", "link", "add", "link0", "netns", source, "type", "veth", "peer", "name", "link0", "netns", target)
            for host, address in ((source, "10.77.0.1"), (target, TARGET)):
                do("ip", "-n", host, "address", "add", f"{address}/24", "dev", "link0")
                do("ip", "-n", host, "link", "set", "link0", "txqueuelen", 10000)
                do("ip", "-n", host, "link", "set", "link0", "up")
                do("tc", "-n", host, "qdisc", "add", "dev", "link0", "root", "tbf", "rate", link.rate, "burst",
                   "2mb" if link.rate == "10gbit" else "128kb", "latency", "50ms")
                # The congestion control that most systems have.
                do("ip", "-n", host, "route", "replace", "10.77.0.0/24", "dev", "link0", "src", address, "congctl", "cubic")
        except (Unavailable, OSError) as error:
            self.close()
            raise Unavailable(str(error)) from None

    def prefix(self, side):
        """What comes before a command on that host."""
        return ["nsenter", f"--net=/run/netns/{self.hosts[side]}"]

    def close(self):
        if self.wire:
            self.wire.stdin.close()
            self.wire.wait()
        for host in self.hosts:
            subprocess.run(["ip", "netns", "delete", host], capture_output=True)


def compile_all(library, place):
    for name in ("wire", "links"):
        build(name, library, place)


def make_firmware(link, place):
    size = link.mib << 20
    values = {"PAGES": (link.dirty << 10) // 4096 // 100, "FROM": size // 4, "END": size // 2}
    symbols = [word for name, value in values.items() for word in ("--defsym", f"{name}={value}")]
    subprocess.run(["as", "--32", *symbols, "-o", place / "guest.o", ROOT / "benches/links-guest.S"], check=True)
    subprocess.run(["objcopy", "-O", "binary", place / "guest.o", place / "guest"], check=True)


@dataclasses.dataclass
class Result:
    """Of one migration: seconds, and MiB that were sent."""

    total: float
    downtime: float
    sent: float


def ours(network, place, link, mode):
    arguments = [f"tcp:{TARGET}:{PORT}", link.mib, mode.channels, mode.method, link.dirty, place / "content"]
    arguments += [place / "certificates"] if mode.tls else []

    def start(side, name):
        command = [*network.prefix(side), place / "links", name, *arguments]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)

    target = start(1, "incoming")
    source = None
    try:
        if target.stdout.readline() != "ready\n":
            raise Failure("the destination did not start")
        source = start(0, "outgoing")
        sent, loaded = source.communicate(timeout=LIMIT)[0].split(), target.communicate(timeout=LIMIT)[0].split()
    except subprocess.TimeoutExpired:
        raise Endless from None
    finally:
        for process in filter(None, (source, target)):
            process.kill()
            process.wait()
    if len(sent) != 4 or len(loaded) != 2 or sent[3] != loaded[1]:
        raise Failure(f"the memory did not arrive: {sent} {loaded}")
    return Result(float(sent[0]), float(loaded[0]) - float(sent[1]), float(sent[2]))


def theirs(emulator, network, place, link, mode):
    memory = f"memory-backend-file,id=m,size={link.mib}M,mem-path={place / 'content'},share=off,prealloc=on"
    machine = ["-M", "pc,memory-backend=m", "-accel", "tcg", "-m", f"{link.mib}M", "-vga", "none", "-bios", place / "guest"]

    def side(number, name, endpoint, *arguments):
        program = place / f"qemu-{name}"
        program.write_text(f"#!/bin/sh\nexec {' '.join(network.prefix(number))} {emulator} \"$@\"\n")
        program.chmod(0o755)
        tls = ["-object", f"tls-creds-x509,id=tls,dir={place / 'certificates'},endpoint={endpoint}"] if mode.tls else []
        return Qemu(program, place, name, *machine, *tls, *arguments)

    with side(1, "target", "server", "-object", f"memory-backend-ram,id=m,size={link.mib}M", "-incoming", "defer") as target, \
            side(0, "source", "client", "-object", memory) as source:
        for end in (target, source):
            names = ["return-path"] + (["multifd"] if mode.channels else [])
            end.qmp("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])
            parameters = {"max_bandwidth": 1 << 40}
            if mode.channels:
                parameters |= {"multifd_channels": mode.channels, "multifd_compression": mode.method}
            if mode.tls:
                parameters |= {"tls_creds": "tls", "tls_hostname": "localhost"}
            end.qmp("migrate-set-parameters", **parameters)
        target.qmp("migrate-incoming", uri=f"tcp:{TARGET}:{PORT}")
        source.qmp("migrate", uri=f"tcp:{TARGET}:{PORT}")
        end = time.monotonic() + LIMIT
        while source.wait_status("setup", "active", "device", "completed")["status"] != "completed":
            if time.monotonic() > end:
                raise Endless
            time.sleep(0.05)
        info = source.qmp("query-migrate")
        return Result(info["total-time"] / 1000, target.event_time("RESUME") - source.event_time("STOP"),
                      info["ram"]["transferred"] / 1048576)


def version(emulator):
    return subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True).stdout.split()[3]


def choose_emulator(place, mode):
    """The emulator for a mode. `None`: there is none that has it."""
    names = [os.environ.get("QEMU_SYSTEM"), os.environ.get("QEMU_ZSTD"), "qemu-system-x86_64"]
    for name in filter(None, names):
        emulator = shutil.which(name)
        if not emulator or mode.method == "auto":
            continue
        with Qemu(emulator, place, "probe", "-M", "none") as probe:
            if "error" not in probe.ask("migrate-set-parameters", multifd_compression=mode.method):
                return emulator
    return None


def in_turns(programs, runs):
    """Runs each program so many times. Returns the results of each; `None` if it does not end."""
    results = [[] for _ in programs]
    for _ in range(runs):
        for number, program in enumerate(programs):
            if program and results[number] is not None:
                try:
                    results[number].append(program())
                except Endless:
                    results[number] = None
    return results


def measure(link, wire, place, modes, emulators, runs):
    """Prints the table of a link. Returns the medians of both programs by mode."""
    fill(place / "content", link.mib)
    make_firmware(link, place)
    print(f"\n{link.title}; {link.mib} MiB, the guest writes to {link.dirty / 1024:.1f} MiB/s, {runs or link.runs} runs:\n")
    print("| mode | libsavevm: total, s | downtime, ms | sent, MiB | QEMU: total, s | downtime, ms | sent, MiB |\n|" + "---|" * 7)
    medians = {}
    network = Network(link, wire)
    try:
        for name in modes:
            mode, emulator, row = MODES[name], emulators[name], f"| {name} "
            programs = [lambda: ours(network, place, link, mode),
                        (lambda: theirs(emulator, network, place, link, mode)) if emulator else None]
            for number, results in enumerate(in_turns(programs, runs or link.runs)):
                if not results:
                    row += "| | | " if results is not None else f"| over {LIMIT} | | "
                    continue
                middle = Result(*(statistics.median(column) for column in zip(*map(dataclasses.astuple, results))))
                medians[name, number] = middle
                row += f"| {middle.total:.2f} | {1000 * middle.downtime:.0f} | {middle.sent:.0f} "
            print(row + "|", flush=True)
    finally:
        network.close()
    return medians


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--links", default=",".join(LINKS))
    parser.add_argument("--modes", default=";".join(MODES), help="separated by semicolons")
    parser.add_argument("--runs", type=int, help="of each mode, instead of the link's own number")
    arguments = parser.parse_args()
    modes = [name.strip() for name in arguments.modes.split(";")]
    # The namespaces are deleted then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if os.geteuid() != 0:
        print("SKIPPED: network namespaces need root")
        return 0
    missed = False
    with Place() as place:
        compile_all(arguments.library, place)
        make_certificates(place / "certificates")
        emulators = {name: choose_emulator(place, MODES[name]) for name in modes}
        for emulator in sorted(set(filter(None, emulators.values()))):
            print(f"QEMU {version(emulator)}: {', '.join(name for name in modes if emulators[name] == emulator)}")
        for name in arguments.links.split(","):
            try:
                medians = measure(LINKS[name], place / "wire", place, modes, emulators, arguments.runs)
            except Unavailable as error:
                print(f"\nSKIPPED: {name}: {error}")
                continue
            if name == "1g" and {("plain", 0), ("zstd", 0), ("zstd", 1)} <= set(medians):
                zstd = medians["zstd", 0].total
                times, other = medians["plain", 0].total / zstd, medians["zstd", 1].total / zstd
                print(f"\nzstd is {times:.2f} times as fast as plain (goal {GOAL_ZSTD}) and {other:.2f} times as fast as QEMU's "
                      "(goal 1)")
                missed |= times < GOAL_ZSTD or other < 1
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

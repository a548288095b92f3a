#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Preflights between minivmms that differ in one thing: each difference is named at both ends before memory is sent, and the guest
runs on.

usage: minivmms.py MINIVMM_SOURCES INCLUDE_DIRECTORY LIBRARY CC...

Builds minivmm with the CPU in software from its sources, and a variant of it for each difference.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from certificates import issue_certificate, make_ca  # noqa: E402

SOURCES = ["main.c", "machine.c", "migrate.c", "progress.c", "serial.c", "timer.c", "disk.c", "soft.c", "guest/guest.c"]
DEADLINE = 60 * int(os.environ.get("SAVEVM_TEST_SLOW", "1"))

# What the destination has instead: file, text, another text; and what is found there.
VARIANTS = {
    "a renamed device": ("timer.c", 'register_savevm_live("timer"', 'register_savevm_live("clock"',
                         ["error: timer: the machine has no such device"]),
    "a field that is gone": ("serial.c", "        VMSTATE_UINT32(used, Serial),\n", "",
                             ["error: serial: used: the machine does not read this field"]),
    "a new field": ("serial.c", "        VMSTATE_UINT32(used, Serial),\n", "        VMSTATE_UINT32(used, Serial),\n"
                    "        VMSTATE_UINT32_V(used, Serial, 1),\n",
                    ["error: serial: used[1]: the stream does not have this field, which the machine reads"]),
    "a shorter buffer": ("serial.c", "uint8_t line[128]", "uint8_t line[64]",
                         ["error: serial: line: 128 bytes, the machine reads 64"]),
    "a device that needs a later version": ("disk.c", ".version_id = 1,\n    .minimum_version_id = 1",
                                            ".version_id = 3,\n    .minimum_version_id = 2",
                                            ["error: disk: version 1 is too old, the machine knows 2 and later"]),
    "another machine": ("migrate.c", 'return "minivmm";', 'return "maxivmm";',
                        ["error: machine: the stream is of machine minivmm, not maxivmm"]),
    "another name for memory": ("migrate.c", 'block.name = "memory";', 'block.name = "dimm";',
                                ["error: machine: RAM block memory: the machine has no such block",
                                 "error: machine: RAM block dimm: the stream does not have it"]),
}
# The verdict passes, and the rehearsal does not.
REFUSES = ("serial.c", "return state.used < sizeof(state.line) ? 0 : -EINVAL;", "return -EINVAL;", "'serial' instance 0")


class Minivmm:
    def __init__(self, program, *arguments):
        self.process = subprocess.Popen([program, "-m", "16", "--dirty", "1", *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.output, self.changed = "", threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.output += line
                self.changed.notify_all()

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def expect(self, part, count=1):
        """Waits until the output has the text that many times."""
        until = time.monotonic() + DEADLINE
        with self.changed:
            while self.output.count(part) < count:
                if not self.changed.wait(max(0, until - time.monotonic())) and time.monotonic() > until:
                    sys.exit(f"'{part}' is not in:\n{self.output}")

    def beats(self):
        return self.output.count("[guest] beat")

    def runs_on(self):
        self.expect("[guest] beat", self.beats() + 1)

    def end(self):
        self.process.kill()
        self.process.wait()


def build(directory, sources, include, library, cc, change=None):
    """Compiles minivmm, with one text in its sources replaced."""
    work = pathlib.Path(directory) / f"build-{len(os.listdir(directory))}"
    (work / "guest").mkdir(parents=True)
    for path in pathlib.Path(sources).rglob("*.[ch]"):
        text = path.read_text()
        if change and path.name == change[0]:
            if change[1] not in text:
                sys.exit(f"{path.name} no longer has: {change[1]}")
            text = text.replace(change[1], change[2])
        (work / path.relative_to(sources)).write_text(text)
    program = work / "minivmm"
    folder, name = os.path.split(os.path.abspath(library))
    subprocess.run([*cc, "-std=gnu11", "-O1", f"-I{include}", "-o", program, *(work / name for name in SOURCES),
                    os.path.join(folder, name), f"-Wl,-rpath,{folder}", "-lpthread"], check=True)
    return str(program)


def certificates(directory):
    """A directory with certificates of a CA for both sides, which are for localhost."""
    ca, base = os.path.join(directory, "ca"), os.path.join(directory, "certificates")
    make_ca(ca, "test CA")
    for side in "server", "client":
        issue_certificate(ca, base, side, f"/O=Test/CN={side}")
    return base


def has_tls(library):
    """Whether the library was built with TLS, and the test can make certificates."""
    return shutil.which("openssl") and b"ca-crl.pem" in pathlib.Path(library).read_bytes()


def check_certificate(directory, program, source):
    """A wrong name in a certificate is named at both ends in the form of a verdict, and the right one passes."""
    keys, path = certificates(directory), os.path.join(directory, "tls.sock")
    other = Minivmm(program, "--tls-dir", keys, "--incoming", f"unix:{path}")
    listening(path, other.process)
    source.tell(f"set tls-dir {keys}")
    source.tell("set tls-hostname elsewhere")
    source.tell(f"preflight unix:{path}")
    found = "error: machine: TLS: the destination's certificate (O=Test,CN=server) is refused: it is not for the name 'elsewhere'"
    source.expect(found)
    other.expect("TLS: the source refused this side's certificate")
    other.expect("it is not for the name that the source expects")
    source.runs_on()
    before = source.output.count("nothing prevents the migration")
    source.tell("set tls-hostname localhost")
    source.tell(f"preflight unix:{path}")
    source.expect("nothing prevents the migration", before + 1)
    source.tell("set tls-dir off")
    other.end()
    print(f"another name in the certificate: {found}")


def listening(path, process):
    until = time.monotonic() + DEADLINE
    while not os.path.exists(path):
        if process.poll() is not None or time.monotonic() > until:
            sys.exit(f"nothing listens at {path}")
        time.sleep(0.02)


def main(sources, include, library, *cc):
    with tempfile.TemporaryDirectory() as directory:
        plain = build(directory, sources, include, library, cc)
        source = Minivmm(plain)
        source.runs_on()
        for number, (name, (file, old, new, found)) in enumerate(VARIANTS.items()):
            path = os.path.join(directory, f"{number}.sock")
            other = Minivmm(build(directory, sources, include, library, cc, (file, old, new)), "--incoming", f"unix:{path}")
            listening(path, other.process)
            before = source.output.count("[outgoing] failed")
            source.tell(f"preflight unix:{path}")
            for problem in found:
                source.expect(problem)
                other.expect(problem.split(": ", 2)[-1].split(": ")[-1])
            source.runs_on()
            source.tell(f"migrate unix:{path}")
            source.expect("[outgoing] failed", before + 1)
            other.expect("[incoming] failed")
            if "[outgoing] active" in source.output or "[incoming] active" in other.output:
                sys.exit(f"{name}: memory was sent")
            source.runs_on()
            other.end()
            print(f"{name}: {found[0]}")
        path = os.path.join(directory, "refuses.sock")
        file, old, new, found = REFUSES
        other = Minivmm(build(directory, sources, include, library, cc, (file, old, new)), "--incoming", f"unix:{path}")
        listening(path, other.process)
        source.tell(f"preflight unix:{path}")
        source.expect("nothing prevents the migration")
        source.tell(f"rehearse unix:{path}")
        source.expect(found)
        source.runs_on()
        other.end()
        print(f"a device that refuses: {found}")
        if has_tls(library):
            check_certificate(directory, plain, source)
        else:
            print("SKIPPED: certificates, because the library has no TLS or there is no openssl")
        source.end()


main(*sys.argv[1:])

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migrations between a QEMU with the machine "none" and the program qemu-postcopy, in both directions, plain or with TLS.
What the guest finds in its memory is compared with what the other end had."""
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time

from qmp import DEADLINE, Qmp, listening

MEGABYTE = 1 << 20
SIZE = 24 * MEGABYTE
# The name in the destination's certificate, if there is TLS.
HOSTNAME = "localhost"


def compatible(qemu):
    """Options that switch off what QEMU 7.2 does not have. Machine types of older versions switch it off themselves."""
    text = subprocess.run([qemu, "--version"], capture_output=True, text=True).stdout
    major = int(text.split("version ")[1].split(".")[0])
    return ["-global", "migration.send-switchover-start=off"] if major >= 10 else []


class Qemu:
    """The machine "none": its RAM is the block "ram"."""

    def __init__(self, qemu, directory, tls, endpoint, *arguments):
        control = f"{directory}/qmp"
        objects = ["-object", f"tls-creds-x509,id=tls,dir={tls},endpoint={endpoint}"] if tls else []
        self.errors = open(f"{directory}/qemu-errors", "w+")
        self.process = subprocess.Popen(
            [qemu, "-M", "none", "-nodefaults", "-display", "none", "-m", f"{SIZE // MEGABYTE}",
             "-qmp", f"unix:{control},server=on,wait=off", *compatible(qemu), *objects, *arguments], stderr=self.errors)
        self.qmp = Qmp(control, self.process)
        if tls:
            self.qmp("migrate-set-parameters", **{"tls-creds": "tls", "tls-hostname": HOSTNAME})
        self.qmp.capabilities("postcopy-ram")
        self.qmp("migrate-set-parameters", **{"max-bandwidth": 4 * MEGABYTE, "max-postcopy-bandwidth": 4 * MEGABYTE})

    def wait(self, *wanted):
        until = time.monotonic() + DEADLINE
        while True:
            status = self.qmp.status()
            if status in wanted:
                return
            if status in ("failed", "cancelled", "completed") or time.monotonic() > until:
                sys.exit(f"QEMU's migration is {status}, expected {wanted}")
            time.sleep(0.02)

    def said(self):
        """What it has written to its standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.errors.close()


class Ours:
    def __init__(self, program, *arguments):
        self.process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.found = {}

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip())
        self.lines.put("gone")

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait(self, wanted):
        """Until a line begins like that."""
        until = time.monotonic() + DEADLINE
        while True:
            try:
                line = self.lines.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                sys.exit(f"ours did not say '{wanted}'")
            print("      ", line)
            word, _, rest = line.partition(" ")
            self.found[word] = rest
            if line.startswith(wanted):
                return
            if word in ("failed", "gone", "end"):
                sys.exit(f"ours said '{line}', expected '{wanted}'")

    def close(self):
        self.process.kill()
        self.process.wait()


def make_content(path):
    """Every fourth page is zeros."""
    with open(path, "wb") as file:
        for page in range(SIZE // 4096):
            file.write(bytes(4096) if page % 4 == 3 else os.urandom(4096))


def expect(wrong, what, holds):
    if not holds:
        wrong.append(what)


def expect_end(wrong, ours, precopy, recovery):
    expect(wrong, f"it ended {ours.found['end']}", ours.found["end"] == "0 well")
    if not precopy:
        expect(wrong, "no page was asked for", int(ours.found["requests"]) > 0)
    expect(wrong, f"{ours.found['recoveries']} recoveries", int(ours.found["recoveries"]) == bool(recovery))


def from_qemu(qemu, program, directory, precopy=False, recovery=None, tls=None):
    """QEMU is the source; our guest reads all pages while they come, and asks for what is missing."""
    first, second, content = f"{directory}/first", f"{directory}/second", f"{directory}/content"
    make_content(content)
    source = Qemu(qemu, directory, tls, "client", "-device", f"loader,file={content},addr=0,force-raw=on")
    ours = Ours(program, "in", f"unix:{first}", content, f"{directory}/dump", *([tls] if tls else []))
    wrong = []
    try:
        listening(first)
        source.qmp("migrate", uri=f"unix:{first}")
        ours.wait("status active")
        if precopy:
            source.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
        else:
            source.qmp("migrate-start-postcopy")
            ours.wait("status postcopy-active")
        if recovery:
            source.wait("postcopy-active")
            if recovery == "ours":
                ours.tell("pause")
            else:
                source.qmp("migrate-pause")
            ours.wait("status postcopy-paused")
            source.wait("postcopy-paused")
            ours.tell(f"recover unix:{second}")
            listening(second)
            source.qmp("migrate", uri=f"unix:{second}", resume=True)
        ours.tell("wait")
        ours.wait("end")
        source.wait("completed")
        pages = SIZE // 4096
        expect(wrong, f"the guest found {ours.found.get('read')}", ours.found.get("read") == f"{pages} wrong 0")
        expect_end(wrong, ours, precopy, recovery)
    finally:
        ours.close()
        source.close()
    return wrong


def to_qemu(qemu, program, directory, precopy=False, recovery=None, tls=None):
    """QEMU is the destination; what reads its memory is its monitor."""
    first, second, content = f"{directory}/first", f"{directory}/second", f"{directory}/content"
    dump, seen = f"{directory}/dump", f"{directory}/seen"
    make_content(content)
    destination = Qemu(qemu, directory, tls, "server", "-incoming", "defer")
    destination.qmp("migrate-incoming", uri=f"unix:{first}")
    listening(first)
    ours = Ours(program, "out", f"unix:{first}", content, dump, *([tls] if tls else []))
    wrong = []
    try:
        ours.wait("status active")
        ours.tell("precopy" if precopy else "postcopy")
        ours.wait("status completed" if precopy else "status postcopy-active")
        if recovery:
            destination.wait("postcopy-active")
            ours.tell("pause")
            ours.wait("status postcopy-paused")
            destination.wait("postcopy-paused")
            destination.qmp("migrate-recover", uri=f"unix:{second}")
            listening(second)
            ours.tell(f"recover unix:{second}")
            ours.wait("status postcopy-active")
        # Pages that have not come yet stop QEMU's main thread until they do.
        destination.qmp("pmemsave", val=0, size=SIZE, filename=seen)
        ours.tell("wait")
        ours.wait("end")
        destination.wait("completed")
        with open(dump, "rb") as ours_has, open(seen, "rb") as qemu_has:
            want, have = ours_has.read(), qemu_has.read()
        different = sum(want[at:at + 4096] != have[at:at + 4096] for at in range(0, SIZE, 4096))
        with open(content, "rb") as file:
            expect(wrong, "the guest changed nothing", file.read() != want)
        expect(wrong, f"{different} pages differ", different == 0 and len(have) == SIZE)
        expect_end(wrong, ours, precopy, recovery)
    finally:
        ours.close()
        destination.close()
    return wrong


def run_cases(qemu, program, cases):
    """Each case: a name, `from_qemu` or `to_qemu`, and its further arguments. Returns what is wrong."""
    wrong = []
    for name, run, arguments in cases:
        print(f"-- {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="savevm-qemu-") as directory:
            wrong += [f"{name}: {what}" for what in run(qemu, os.path.abspath(program), directory, **arguments)]
    return wrong

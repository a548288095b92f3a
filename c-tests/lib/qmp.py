# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QEMU's control socket, for the tests that have one at the other end."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

DEADLINE = 60


def emulators():
    """The QEMUs for a test: (path, major version, version line) of $QEMU_SYSTEM or else qemu-system-x86_64, and of those in
    $QEMU_OTHERS, which are separated by colons."""
    first = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64") or ""
    found = []
    for path in filter(None, [first, *os.environ.get("QEMU_OTHERS", "").split(":")]):
        line = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        found.append((path, int(re.search(r"version (\d+)", line).group(1)), line))
    return found


class Qmp:
    def __init__(self, path, process):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        until = time.monotonic() + DEADLINE
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit("QEMU does not answer")
                time.sleep(0.05)
        self.lines = self.socket.makefile("r")
        json.loads(self.lines.readline())
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                sys.exit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def capabilities(self, *names):
        """Switches capabilities of migration on."""
        self("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])

    def status(self):
        """The migration's."""
        return self("query-migrate").get("status")

    def migrate(self, uri):
        """Migrates, and returns how that ended."""
        self("migrate", uri=uri)
        return self.finished()

    def finished(self):
        """How the migration ended."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            status = self.status()
            if status in ("completed", "failed", "cancelled"):
                return status
            time.sleep(0.02)
        return "not over in time"


class Qemu(Qmp):
    """A QEMU and its control socket, for a `with` statement or until close()."""

    def __init__(self, program, directory, *arguments):
        path = os.path.join(directory, "qmp")
        if os.path.exists(path):
            os.unlink(path)
        self.process = subprocess.Popen(
            [program, "-accel", "tcg", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on,wait=off", *arguments])
        super().__init__(path, self.process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()


def listening(path):
    """Waits until a program listens at a unix socket. Its path exists slightly earlier."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        with open("/proc/net/unix") as sockets:
            for line in sockets:
                fields = line.split()
                if fields[-1] == path and int(fields[3], 16) & 0x10000:
                    return
        time.sleep(0.02)
    sys.exit(f"no program listens at {path}")

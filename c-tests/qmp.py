# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QEMU's control socket."""
import json
import socket
import sys
import time

DEADLINE = 60


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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Processes of minivmm, and a proxy between two of them that injects faults into the stream."""
import os
import re
import signal
import socket
import subprocess
import threading
import time

SLOW = max(1, int(os.environ.get("SAVEVM_TEST_SLOW", "1")))
# Seconds in which a command of the monitor is answered, and in which a migration without faults ends. A busy machine
# with two CPUs needs a fraction of this.
ANSWER = 30 * SLOW
CONCLUSION = 120 * SLOW

BEAT = re.compile(r"^\[guest\] beat (\d+): count (\d+), round \d+, errors (\d+)")
EVENT = re.compile(r"^\[(outgoing|incoming)\] (\S+)$")


class Violation(Exception):
    """An invariant does not hold."""


class Machine:
    """A process of minivmm: its monitor, its output, and what its guest reports."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace")
        self.lines, self.changed, self.killed = [], threading.Condition(), False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        self.process.wait()
        with self.changed:
            self.changed.notify_all()

    def alive(self):
        return self.process.poll() is None

    def tell(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass

    def position(self):
        with self.changed:
            return len(self.lines)

    def await_line(self, pattern, seconds, start=0):
        """The first line from `start` on that matches; None if the process ended or the time is over."""
        until = time.monotonic() + seconds
        with self.changed:
            while True:
                for line in self.lines[start:]:
                    if re.search(pattern, line):
                        return line
                start = len(self.lines)
                left = until - time.monotonic()
                if left <= 0 or not self.alive():
                    return None
                self.changed.wait(min(left, 1))

    def ask(self, command, pattern):
        """The answer, or None if the process ended. It is a violation if a living process does not answer."""
        start = self.position()
        self.tell(command)
        line = self.await_line(pattern, ANSWER, start)
        if line is None and self.alive():
            raise Violation(f"{self.name} does not answer '{command}' within {ANSWER} s")
        return line

    def running(self):
        answer = self.ask("info status", r"^VM status: ")
        return bool(answer) and answer.startswith("VM status: running")

    def event(self, direction):
        """The latest status of its outgoing or incoming migration."""
        with self.changed:
            for line in reversed(self.lines):
                match = EVENT.match(line)
                if match and match.group(1) == direction:
                    return match.group(2)
        return "none"

    def beats(self, start=0):
        """Numbers of the guest's heartbeats, and the errors that each reports."""
        with self.changed:
            found = [BEAT.match(line) for line in self.lines[start:]]
        return [(int(beat.group(1)), int(beat.group(3))) for beat in found if beat]

    def kill(self):
        self.killed = True
        self.process.kill()
        self.process.wait()

    def freeze(self, seconds):
        """Stops the process for some time, in the background."""
        def thaw():
            time.sleep(seconds)
            self.signal(signal.SIGCONT)
        self.signal(signal.SIGSTOP)
        threading.Thread(target=thaw, daemon=True).start()

    def signal(self, number):
        if self.alive():
            self.process.send_signal(number)

    def quit(self):
        """Ends it by its own command; a process that does not end, or crashes, is a violation."""
        if not self.killed:
            self.tell("quit")
            try:
                self.process.wait(ANSWER)
            except subprocess.TimeoutExpired:
                raise Violation(f"{self.name} does not quit within {ANSWER} s") from None
            if self.process.returncode < 0 or self.process.returncode == 101:
                raise Violation(f"{self.name} ended with status {self.process.returncode}")

    def end(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        self.reader.join(5)


def listens(path):
    """Whether a unix socket accepts connections; found without connecting."""
    with open("/proc/net/unix") as sockets:
        return any(line.rstrip().endswith(" " + path) and int(line.split()[3], 16) & 0x10000
                   for line in sockets if not line.startswith("Num"))


def await_listener(path, machine):
    until = time.monotonic() + ANSWER
    while not listens(path):
        if not machine.alive():
            return False
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class Fault:
    """`action` is called once with the proxy, a direction and the bytes, where `trigger` says: a byte offset, or a mark.

    It returns the bytes to pass on, or None to end this direction.
    """

    def __init__(self, direction, trigger, name, action):
        self.direction, self.trigger, self.name, self.action = direction, trigger, name, action
        self.done = False

    def __str__(self):
        where = self.trigger if isinstance(self.trigger, int) else "mark " + self.trigger.hex()
        return f"{self.name} at {where} of the {self.direction} stream"


class Proxy:
    """Accepts one connection and forwards it to `target`; "forth" is the stream, "back" the return path."""

    CHUNK = 16 << 10

    def __init__(self, path, target, faults):
        self.target, self.faults = target, faults
        self.sockets, self.passed = {}, {"forth": 0, "back": 0}
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen(1)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            source, _ = self.server.accept()
            destination = socket.socket(socket.AF_UNIX)
            self.sockets = {"forth": (source, destination), "back": (destination, source)}
            destination.connect(self.target)
        except OSError:
            self.cut()
            return
        for direction in ("forth", "back"):
            threading.Thread(target=self._pump, args=(direction,), daemon=True).start()

    def _pump(self, direction):
        origin, target = self.sockets[direction]
        try:
            while data := origin.recv(self.CHUNK):
                for fault in self.faults:
                    if fault.direction == direction and not fault.done:
                        data = self._inject(fault, data)
                        if data is None:
                            break
                if data is None:
                    break
                self.passed[direction] += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self.cut()

    def _inject(self, fault, data):
        begin = self.passed[fault.direction]
        if isinstance(fault.trigger, int):
            at = fault.trigger - begin
        else:
            at = data.find(fault.trigger)
        if not 0 <= at < len(data):
            return data
        fault.done = True
        # What is before the place arrives before the fault.
        self.sockets[fault.direction][1].sendall(data[:at])
        self.passed[fault.direction] += at
        return fault.action(self, fault.direction, data[at:])

    def cut(self):
        for pair in list(self.sockets.values())[:1]:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.cut()
        self.server.close()
        for pair in list(self.sockets.values())[:1]:
            for end in pair:
                end.close()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QEMU process that is controlled over QMP, and checks of its guest's state."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

import guests

DEADLINE = 120


class Failure(Exception):
    """A failed check."""


def major_version(binary):
    """Returns the major version of an emulator."""
    text = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    return int(re.search(r"version (\d+)", text).group(1))


class Place:
    """A directory for one test's files."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="savevm-port-"))
        for name, data in guests.FILES.items():
            (self.path / name).write_bytes(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def __truediv__(self, name):
        return self.path / name


class Qemu:
    """A QEMU process. `arguments` are added to the common ones."""

    def __init__(self, binary, place, name, *arguments):
        self.name = name
        self.events = []
        self.serial_path = place / f"{name}.serial"
        self.serial_path.unlink(missing_ok=True)
        self.log = open(place / f"{name}.log", "w+", encoding="utf-8", errors="replace")
        server = socket.socket(socket.AF_UNIX)
        path = str(place / f"{name}.qmp")
        pathlib.Path(path).unlink(missing_ok=True)
        server.bind(path)
        server.listen(1)
        server.settimeout(DEADLINE)
        command = [str(binary), "-display", "none", "-nodefaults", "-qmp", f"unix:{path}"]
        command += ["-serial", f"file:{self.serial_path}", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        while True:
            server.settimeout(0.5)
            try:
                self.socket, _ = server.accept()
                break
            except TimeoutError:
                if self.process.poll() is not None:
                    raise Failure(f"{name} did not start:\n{self.output()}") from None
        self.socket.settimeout(DEADLINE)
        self.stream = self.socket.makefile("r")
        self.version = self._message()["QMP"]["version"]["qemu"]["major"]
        self.qmp("qmp_capabilities")

    def output(self):
        """The output of the process."""
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(encoding="utf-8", errors="replace")

    def _message(self):
        try:
            line = self.stream.readline()
        except ConnectionResetError:
            line = ""
        if not line:
            raise Failure(f"{self.name} is gone ({self.process.wait(DEADLINE)}):\n{self.output()}")
        return json.loads(line)

    def send(self, command, **arguments):
        """Sends a command."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.socket.sendall(json.dumps(message).encode())

    def ask(self, command, **arguments):
        """Returns the whole answer to a command."""
        self.send(command, **arguments)
        while True:
            answer = self._message()
            if "event" in answer:
                self.events.append(answer)
            else:
                return answer

    def qmp(self, command, **arguments):
        """Returns the result of a command."""
        answer = self.ask(command, **arguments)
        if "error" in answer:
            raise Failure(f"{self.name}: {command}: {answer['error']['desc']}\n{self.output()}")
        return answer["return"]

    def hmp(self, line):
        """Returns the output of a command of the human monitor."""
        return self.qmp("human-monitor-command", command_line=line)

    def wait(self, what, done):
        """Waits until `done(self)` is true, and returns that."""
        end = time.monotonic() + DEADLINE
        while not (result := done(self)):
            if time.monotonic() > end:
                raise Failure(f"{self.name}: waited in vain for {what}\n{self.output()}")
            time.sleep(0.02)
        return result

    def wait_status(self, *wanted):
        """Waits until the migration has one of these states. Returns the answer to query-migrate."""

        def look(_):
            info = self.qmp("query-migrate")
            status = info.get("status")
            if status == "failed" and "failed" not in wanted:
                raise Failure(f"{self.name}: the migration failed: {info.get('error-desc')}\n{self.output()}")
            return info if status in wanted else None

        return self.wait(f"a migration that is {' or '.join(wanted)}", look)

    def wait_run(self):
        """Waits until the guest runs."""
        self.wait("a guest that runs", lambda _: self.qmp("query-status")["running"])

    def event_time(self, name):
        """Waits for an event. Returns the time of the last one with this name in seconds."""

        def look(_):
            self.qmp("query-status")
            return [event["timestamp"] for event in self.events if event["event"] == name]

        stamp = self.wait(f"the event {name}", look)[-1]
        return stamp["seconds"] + stamp["microseconds"] / 1e6

    def serial(self):
        """Returns the letters that the guest has printed."""
        return self.serial_path.read_bytes() if self.serial_path.exists() else b""

    def wait_letters(self, more=40):
        """Waits until the guest has printed this number of further letters."""
        goal = len(self.serial()) + more
        self.wait("letters of the guest", lambda _: len(self.serial()) >= goal)

    def counters(self):
        """Returns the counted bytes. The guest is stopped."""
        path = str(self.serial_path) + ".memory"
        counted = guests.COUNTED
        self.qmp("pmemsave", val=counted.start, size=counted.stop - counted.start, filename=path)
        return pathlib.Path(path).read_bytes()[:: counted.step]

    def check_counters(self):
        """Each pass counts all bytes, so they differ by one at most. The guest is stopped."""
        counters = self.counters()
        first, *rest = sorted({(byte - counters[0] + 1) % 256 for byte in counters})
        if rest and (first, rest) not in ((0, [1]), (1, [2])):
            raise Failure(f"{self.name}: the memory is not whole: {[first, *rest]}")

    def end(self):
        """Checks that the process ends by itself."""
        self.send("quit")
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} does not end\n{self.output()}") from None
        if code != 0:
            raise Failure(f"{self.name} ended with {code}\n{self.output()}")

    def quit(self):
        """Ends the process."""
        if self.process.poll() is None:
            try:
                self.ask("quit")
            except (Failure, OSError):
                pass
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.socket.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.quit()


def check_letters(before, after):
    """Checks that `after` continues `before`, and that no letter is missing or repeated."""
    text = before + after
    for at in range(1, len(text)):
        if (text[at] - text[at - 1]) % 26 not in (1,):
            raise Failure(f"letter {at} of {len(before)} + {len(after)} is wrong: {text[max(0, at - 8):at + 8]}")


def run_case(title, case, *arguments):
    """Runs a test and prints its result. Returns False if it failed."""
    began = time.monotonic()
    try:
        with Place() as place:
            said = case(place, *arguments)
    except Failure as failure:
        print(f"FAIL {title}: {failure}", flush=True)
        return False
    seconds = time.monotonic() - began
    print(f"ok   {title} ({seconds:.1f} s){': ' + said if said else ''}", flush=True)
    return True


#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Validates real output against the JSON Schemas in docs/: the traces of both sides of a precopy and of a postcopy between
two minivmm, and what `savevm inspect --format json` prints for a snapshot of minivmm.

usage: formats.py DOCS MINIVMM [SAVEVM]

Status 77: the Python module jsonschema is missing.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

try:
    import jsonschema
except ImportError:
    print("SKIPPED: the Python module jsonschema is missing")
    sys.exit(77)

SLOW = int(os.environ.get("SAVEVM_TEST_SLOW", "1"))
DEADLINE = 60 * SLOW


class Vmm:
    """A minivmm process with its monitor on standard input and its output in a file."""

    def __init__(self, program, work, name, *options):
        self.log = work / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [program, "--software", "-m", "16", "--dirty", "4", *options],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True)

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait_for(self, text):
        until = time.monotonic() + DEADLINE
        while text not in self.log.read_text():
            if time.monotonic() > until or self.process.poll() is not None:
                sys.exit(f"'{text}' does not appear:\n{self.log.read_text()}")
            time.sleep(0.02)

    def end(self):
        self.process.stdin.close()
        self.process.wait(DEADLINE)


def wait_for_path(path):
    until = time.monotonic() + DEADLINE
    while not path.exists():
        if time.monotonic() > until:
            sys.exit(f"{path} does not appear")
        time.sleep(0.02)


def can_postcopy():
    sysctl = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")
    return os.access("/dev/userfaultfd", os.R_OK) or (sysctl.exists() and sysctl.read_text().strip() == "1")


def migrate(program, work, postcopy):
    """Migrates a guest, and returns the traces of both sides."""
    name = "postcopy" if postcopy else "precopy"
    socket = work / f"{name}.socket"
    traces = [work / f"{name}.{side}.trace" for side in ("source", "destination")]
    destination = Vmm(program, work, f"{name}.destination", "--incoming", f"unix:{socket}", "--trace", traces[1])
    wait_for_path(socket)
    source = Vmm(program, work, f"{name}.source", "--trace", traces[0])
    source.wait_for("[guest] beat")
    if postcopy:
        source.tell("set postcopy-ram on")
        source.tell("set max-bandwidth 1")
    source.tell(f"migrate unix:{socket}")
    if postcopy:
        source.wait_for("[outgoing] active")
        source.tell("migrate-start-postcopy")
    source.wait_for("[outgoing] completed")
    destination.wait_for("[incoming] completed")
    source.end()
    destination.end()
    return traces


def check_trace(validator, path):
    """Validates each line; returns which kinds of events there were."""
    events, last = set(), 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        event = json.loads(line)
        errors = [error.message for error in validator.iter_errors(event)]
        if errors:
            sys.exit(f"{path.name}, line {number}: {line}\n{errors[0]}")
        if event["t_ns"] < last:
            sys.exit(f"{path.name}, line {number}: the time goes back")
        last = event["t_ns"]
        events.add(event["event"])
    return events


def schema(path):
    text = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(text)


def check_traces(docs, program, work):
    validator = schema(docs / "trace-format.schema.json")
    # A schema that accepts everything would prove nothing.
    for wrong in ({"t_ns": 1, "event": "device", "section": 3}, {"t_ns": -1, "event": "error", "message": ""}, {"t_ns": 1}):
        if validator.is_valid(wrong):
            sys.exit(f"the schema accepts {wrong}")
    modes = [False, True] if can_postcopy() else [False]
    for postcopy in modes:
        source, destination = (check_trace(validator, path) for path in migrate(program, work, postcopy))
        for name, events, wanted in (
                ("source", source, {"trace", "status", "phase", "device", "downtime"}),
                ("destination", destination, {"trace", "status", "phase", "device"})):
            if not wanted <= events:
                sys.exit(f"the trace of the {name} has no {', '.join(sorted(wanted - events))}")
        print(f"{'postcopy' if postcopy else 'precopy'}: {', '.join(sorted(source | destination))}")


def check_inspect(docs, program, savevm, work):
    validator = schema(docs / "inspect-json.schema.json")
    state = work / "state"
    vmm = Vmm(program, work, "snapshot")
    vmm.wait_for("[guest] beat")
    vmm.tell(f"savevm {state}")
    vmm.wait_for("saved")
    vmm.end()
    for options in ([], ["--device", "*"]):
        text = subprocess.run([savevm, "inspect", "--format", "json", *options, state],
                              check=True, capture_output=True, timeout=DEADLINE).stdout
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(text))]
        if errors:
            sys.exit(f"savevm inspect {' '.join(options)}: {errors[0]}")
    print("savevm inspect: valid")


def main():
    docs, program, *savevm = map(os.path.abspath, sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        check_traces(pathlib.Path(docs), program, pathlib.Path(work))
        if savevm and (pathlib.Path(docs) / "inspect-json.schema.json").exists():
            check_inspect(pathlib.Path(docs), program, savevm[0], pathlib.Path(work))


main()

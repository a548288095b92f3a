#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migrates the guests of examples/minivmm between processes that are killed, frozen and cut off, and checks what must
hold whatever happens:

  - two guests never run: no heartbeat is seen twice, and two processes never both report that their guest runs
  - a torn guest never runs: no heartbeat reports an error in its memory
  - a guest that runs makes progress
  - a guest that is lost is reported: no migration claims to be completed whose guest runs nowhere
  - nothing hangs: each command is answered and each migration ends within a deadline
  - no process crashes

Faults are chosen from a seed: SIGKILL, SIGSTOP for a while, and, in a proxy between the two, a cut, the end of one
direction, a pause, a damaged or a missing piece. They come at random bytes, at marks of the stream (commands, the return
path's messages) or at random times. Four scenarios: precopy, postcopy, recovery of a postcopy, snapshot.

usage: processes.py MINIVMM [--seconds N | --runs N] [--seed N] [--jobs N] [--scenario NAME] [--verbose] [--keep]

Ends with 1 and prints the seed if an invariant does not hold; with 77 where userfaultfd is not permitted and only
postcopies were asked for. SAVEVM_TEST_SLOW multiplies the deadlines.
"""
import argparse
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

from machines import ANSWER, CONCLUSION, Fault, Machine, Proxy, Violation, await_listener

MEGABYTE = 1 << 20
MEMORY = 8
SCENARIOS = ("precopy", "postcopy", "recovery", "snapshot")
# Beginnings of messages: the header, a section, commands (type 8, number, length), the end; then of the return path.
MARKS_FORTH = [b"QEVM", b"\x01\0\0\0", b"\x02\0\0\0", b"\x03\0\0\0", b"\x04\0\0\0", *(b"\x08\0" + bytes([number, 0])
               for number in (1, 2, 3, 4, 6, 7, 8, 9))]
MARKS_BACK = [b"\0\x01\0\x04", b"\0\x02\0\x04", b"\0\x03\0", b"\0\x04\0", b"\0\x05\0", b"\0\x06\0"]
OVER = ("completed", "failed", "cancelled")
PAUSED = "postcopy-paused"


def may_use_kvm():
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def may_use_userfaultfd():
    allowed = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")
    return os.access("/dev/userfaultfd", os.R_OK) or (allowed.exists() and allowed.read_text().strip() == "1")


class Run:
    def __init__(self, program, seed, scenario, directory):
        self.program, self.seed, self.directory = program, seed, directory
        self.random = random.Random(seed)
        self.scenario = scenario or self.random.choice(SCENARIOS if may_use_userfaultfd() else ("precopy", "snapshot"))
        self.machines, self.proxies, self.notes = [], [], []
        self.damaged = False
        self.options = ["-m", str(MEMORY), "--dirty", "4"]
        if not may_use_kvm() or self.random.random() < 0.5:
            self.options.append("--software")
        if self.random.random() < 0.5:
            disk = directory / "disk"
            disk.write_bytes(bytes(64 << 10))
            self.options += ["--disk", str(disk)]

    def note(self, text):
        self.notes.append(text)

    def path(self, name):
        return str(self.directory / name)

    def start(self, name, *options):
        machine = Machine(name, [self.program, *self.options, *options])
        self.machines.append(machine)
        return machine

    # Faults

    def signal_fault(self, machine):
        """A name, and a function that kills or freezes the machine."""
        if self.random.random() < 0.5:
            return f"kill {machine.name}", machine.kill
        seconds = self.random.uniform(0.05, 2)
        return f"freeze {machine.name} for {seconds:.2f} s", lambda: machine.freeze(seconds)

    def stream_fault(self, limit):
        direction = "forth" if self.random.random() < 0.75 else "back"
        marks = MARKS_FORTH if direction == "forth" else MARKS_BACK
        if self.random.random() < 0.5:
            trigger = self.random.choice(marks)
        else:
            # Half of them early, where the headers are; the return path is short.
            limit = limit if direction == "forth" else 400
            trigger = int(limit ** self.random.random()) if self.random.random() < 0.5 else self.random.randrange(limit)
        kind = self.random.choice(["cut", "cut", "end", "pause", "pause and cut", "damage", "lose", "signal", "signal"])
        name, action = kind, None
        if kind == "cut":
            def action(proxy, _direction, _data):
                proxy.cut()
                return b""
        elif kind == "end":
            def action(_proxy, _direction, _data):
                return None
        elif kind in ("pause", "pause and cut"):
            seconds = self.random.uniform(0.05, 2)
            name = f"{kind} ({seconds:.2f} s)"

            def action(proxy, _direction, data):
                time.sleep(seconds)
                if kind == "pause":
                    return data
                proxy.cut()
                return b""
        elif kind in ("damage", "lose"):
            length, mask = self.random.choice([1, 1, 4, 100]), self.random.randrange(1, 256)

            def action(_proxy, _direction, data):
                self.damaged = True
                changed = b"" if kind == "lose" else bytes(byte ^ mask for byte in data[:length])
                return changed + data[length:]
        else:
            name, act = self.signal_fault(self.random.choice(self.machines[:2]))

            def action(_proxy, _direction, data):
                act()
                return data
        return Fault(direction, trigger, name, action)

    def later(self, machine):
        """A signal after some time, whatever the stream does then."""
        name, act = self.signal_fault(machine)
        delay = self.random.uniform(0, 3)
        self.note(f"{name} after {delay:.2f} s")

        def run():
            time.sleep(delay)
            if machine.alive():
                act()
        threading.Thread(target=run, daemon=True).start()

    def connect(self, name, target, limit):
        """The address for the source: through a proxy with a fault, or none."""
        faults = [self.stream_fault(limit)] if self.random.random() < 0.85 else []
        for fault in faults:
            self.note(str(fault))
        self.proxies.append(Proxy(self.path(name), target, faults))
        return self.path(name)

    # Scenarios

    def begin(self):
        source = self.start("source")
        if not source.await_line(r"^\[guest\] beat", CONCLUSION):
            raise Violation("the guest does not start")
        destination = self.start("destination", "--incoming", "unix:" + self.path("in"))
        if not await_listener(self.path("in"), destination):
            raise Violation("the destination does not listen")
        return source, destination

    def precopy(self):
        source, destination = self.begin()
        source.tell(f"set max-bandwidth {self.random.choice([8, 16, 0])}")
        source.tell(f"migrate unix:{self.connect('proxy', self.path('in'), 16 * MEGABYTE)}")
        if self.random.random() < 0.2:
            self.later(self.random.choice([source, destination]))
        if self.random.random() < 0.15:
            self.note("cancel")
            time.sleep(self.random.uniform(0, 1.5))
            self.random.choice([source, destination]).tell("cancel")
        self.conclude(source, destination)

    def enter_postcopy(self, source, destination, faulty):
        source.tell("set postcopy-ram on")
        source.tell("set max-bandwidth 4")
        source.tell(f"set max-postcopy-bandwidth {self.random.choice([2, 4])}")
        address = self.connect("proxy", self.path("in"), 10 * MEGABYTE) if faulty else self.path("in")
        source.tell(f"migrate unix:{address}")
        source.await_line(r"^\[outgoing\] (active|failed)$", ANSWER)
        time.sleep(self.random.uniform(0, 0.5))
        source.tell("migrate-start-postcopy")

    def postcopy(self):
        source, destination = self.begin()
        if self.random.random() < 0.3:
            self.later(self.random.choice([source, destination]))
        self.enter_postcopy(source, destination, True)
        self.conclude(source, destination)

    def recovery(self):
        source, destination = self.begin()
        self.enter_postcopy(source, destination, False)
        if source.await_line(r"^\[outgoing\] (postcopy-active|completed|failed)$", ANSWER):
            time.sleep(self.random.uniform(0, 0.5))
            self.random.choice([source, destination]).tell("migrate-pause")
            source.await_line(rf"^\[outgoing\] ({PAUSED}|completed|failed)$", ANSWER)
        if self.random.random() < 0.3:
            self.note("stop and cont while it is paused")
            destination.tell("stop")
            destination.running()  # the monitor answers although the CPU may wait for a page
            destination.tell("cont")
        self.recover(source, destination, True)
        self.conclude(source, destination)

    def recover(self, source, destination, faulty):
        """One attempt. Whether it succeeds is for conclude() to see."""
        number = len(self.proxies) + len([note for note in self.notes if note == "recover"])
        self.note("recover")
        path = self.path(f"again{number}")
        destination.tell(f"migrate-recover unix:{path}")
        if not await_listener(path, destination):
            return
        address = self.connect(f"proxy{number}", path, MEGABYTE) if faulty else path
        source.tell(f"migrate-recover unix:{address}")

    def conclude(self, source, destination):
        """Waits until both ends are done, with recoveries on the way, and then judges."""
        until, attempts = time.monotonic() + CONCLUSION, 0
        while True:
            out, into = source.event("outgoing"), destination.event("incoming")
            alive = source.alive(), destination.alive()
            if not any(alive):
                break
            if all(alive) and out == PAUSED and into in (PAUSED, "completed"):
                # A destination that is completed answers the source, which then completes as well.
                if attempts == 5:
                    raise Violation("five recoveries over good connections failed")
                attempts += 1
                self.recover(source, destination, False)
                source.await_line("^$", 0.5)
                continue
            source_over = not alive[0] or out in OVER or out == PAUSED and not alive[1]
            # Before the first byte the destination waits for its source, and needs not end.
            into_over = not alive[1] or into in OVER or into in (PAUSED, "setup", "none") and (not alive[0] or out in OVER)
            if source_over and into_over:
                break
            if out == PAUSED and into in OVER or into == PAUSED and out in OVER:
                # One end aborted what the other end can still recover. That is reported, and the operator decides.
                self.note(f"source {out}, destination {into}")
                break
            if time.monotonic() > until:
                raise Violation(f"the migration does not end: source {out}, destination {into}")
            time.sleep(0.05)
        self.judge(source, destination, out, into)

    def judge(self, source, destination, out, into):
        machines = [machine for machine in (source, destination) if machine.alive()]
        running = [machine for machine in machines if machine.running()]
        if not running:
            # Only the owner may start the guest by hand.
            for machine in machines:
                machine.tell("cont")
                running += [machine] if machine.running() else []
        if len(running) > 1:
            raise Violation("both report that their guest runs")
        numbers = [number for machine in (source, destination) for number, _ in machine.beats()]
        if len(numbers) != len(set(numbers)):
            raise Violation("two guests ran: both have the same heartbeat")
        if not running and source.alive() and destination.alive() and {out, into} <= {"completed"}:
            raise Violation("the migration is completed, and the guest runs nowhere")
        if not running and source.alive() and destination.alive() and into in ("setup", "none"):
            raise Violation(f"the destination saw nothing ({into}), the source is {out}, and the guest runs nowhere")
        for machine in running:
            self.check_progress(machine, missing=PAUSED in (out, into) or not all(
                other.alive() for other in (source, destination)))
        for machine in (source, destination):
            if not self.damaged and any(errors for _, errors in machine.beats()):
                raise Violation(f"a torn guest ran in {machine.name}")
        self.note(f"source {out if source.alive() else 'dead'}, destination {into if destination.alive() else 'dead'}, "
                  f"guest in {running[0].name if running else 'none'}")

    def check_progress(self, machine, missing=False):
        """A guest that runs has heartbeats, unless it may wait for memory that the other end has."""
        start = machine.position()
        if not machine.await_line(r"^\[guest\] beat", ANSWER if not missing else 2, start) and machine.alive():
            if not missing and not self.damaged and machine.running():
                raise Violation(f"the guest in {machine.name} runs without progress")

    def snapshot(self):
        source = self.start("source")
        if not source.await_line(r"^\[guest\] beat", CONCLUSION):
            raise Violation("the guest does not start")
        state = self.path("state")
        fault = self.random.choice(["none", "none", "kill", "freeze"])
        self.note(f"save: {fault}")
        start = source.position()
        source.tell(f"savevm {state}")
        if fault != "none":
            time.sleep(self.random.uniform(0, 0.05))
            source.kill() if fault == "kill" else source.freeze(self.random.uniform(0.05, 1))
        whole = bool(source.await_line("^saved", ANSWER, start))
        if source.alive():
            if not whole:
                raise Violation("the snapshot is not saved")
            self.check_progress(source)
            source.quit()
        # A file with this name is whole, also if the process was killed before it could report that.
        if os.path.exists(state):
            self.load(state, True)

    def load(self, state, whole):
        size = os.path.getsize(state)
        damage = self.random.choice(["none", "cut", "damage"]) if size else "none"
        self.note(f"load: {damage}, whole: {whole}")
        with open(state, "r+b") as file:
            at = int(size ** self.random.random()) if size else 0
            if damage == "cut":
                file.truncate(at)
                whole = whole and at == size
            elif damage == "damage":
                self.damaged = True
                file.seek(min(at, size - 1))
                byte = file.read(1)[0]
                file.seek(min(at, size - 1))
                file.write(bytes([byte ^ self.random.randrange(1, 256)]))
        machine = self.start("loader", "-S")
        answer = machine.ask(f"loadvm {state}", rf"^loaded|{state}: |^minivmm: ")
        loaded = bool(answer) and answer.startswith("loaded")
        if not loaded and whole and not self.damaged:
            raise Violation(f"a whole snapshot does not load: {answer}")
        if loaded and not whole:
            raise Violation("half a snapshot was loaded")
        machine.tell("cont")
        running = machine.running()
        if loaded and not self.damaged:
            if not running:
                raise Violation("the guest of a good snapshot does not run")
            self.check_progress(machine)
            if any(errors for _, errors in machine.beats()):
                raise Violation("a torn guest ran")
        # A damaged header leaves the machine as it was, with the guest that it started with.
        start = machine.position()
        if not loaded and running and machine.await_line(r"^\[guest\] beat", 2, start) and \
                machine.beats()[-1][0] > 3:
            raise Violation("a guest runs that was not loaded whole")

    def run(self):
        try:
            getattr(self, self.scenario)()
            for machine in self.machines:
                if any("panicked" in line for line in machine.lines):
                    raise Violation(f"{machine.name} panicked")
                if not machine.killed and not machine.alive() and machine.process.returncode:
                    raise Violation(f"{machine.name} ended with status {machine.process.returncode}")
            for machine in self.machines:
                if machine.alive():
                    machine.quit()
        finally:
            for machine in self.machines:
                machine.end()
            for proxy in self.proxies:
                proxy.close()


class Campaign:
    def __init__(self, options):
        self.options, self.lock = options, threading.Lock()
        self.next, self.passed, self.failed = options.seed, 0, []
        self.until = time.monotonic() + options.seconds if options.seconds else None

    def take_seed(self):
        with self.lock:
            done = self.next - self.options.seed
            if self.until and time.monotonic() >= self.until or not self.until and done >= self.options.runs:
                return None
            self.next += 1
            return self.next - 1

    def work(self):
        while (seed := self.take_seed()) is not None:
            directory = pathlib.Path(tempfile.mkdtemp(prefix="savevm-faults-"))
            run = Run(self.options.program, seed, self.options.scenario, directory)
            try:
                run.run()
                failure = None
            except Violation as violation:
                failure = violation
            with self.lock:
                self.passed += failure is None
                if failure:
                    self.failed.append(seed)
                    self.report(run, failure)
                elif self.options.verbose:
                    print(f"seed {seed}: {run.scenario}: {'; '.join(run.notes)}", flush=True)
            if not (failure and self.options.keep):
                shutil.rmtree(directory, ignore_errors=True)

    def report(self, run, failure):
        print(f"FAILED: seed {run.seed}, {run.scenario}, {' '.join(run.options)}\n  {failure}\n  {'; '.join(run.notes)}")
        for machine in run.machines:
            print(f"  last lines of {machine.name}:")
            for line in machine.lines[-15:]:
                print(f"    {line}")
        print(f"  again: {sys.argv[0]} {run.program} --scenario {self.options.scenario or run.scenario} --seed {run.seed} "
              "--runs 1" if self.options.scenario else
              f"  again: {sys.argv[0]} {run.program} --seed {run.seed} --runs 1", flush=True)

    def run(self):
        workers = [threading.Thread(target=self.work) for _ in range(self.options.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(f"{self.passed} runs passed, {len(self.failed)} failed{': seeds ' + str(self.failed) if self.failed else ''}")
        return 1 if self.failed else 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program")
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--scenario", choices=SCENARIOS)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if options.scenario in ("postcopy", "recovery") and not may_use_userfaultfd():
        print("userfaultfd is not permitted: skipped")
        return 77
    print(f"seed {options.seed}", flush=True)
    return Campaign(options).run()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes a random case on which two programs differ as small as possible.

usage: shrink.py REFERENCE PROGRAM SEED CASE

A case is a list of draws. Leaving some out, or making them smaller, gives a
smaller case; a change is kept if the two programs still differ on it.
"""
import difflib
import subprocess
import sys


def run(program, *arguments, text=None):
    done = subprocess.run([program, "random", *arguments], input=text,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=30, check=False)
    return done.stdout.decode(errors="replace") + f"exit {done.returncode}\n"


class Shrinker:
    def __init__(self, reference, program, draws):
        self.reference = reference
        self.program = program
        self.draws = draws

    def traces(self, draws):
        text = "".join(f"{draw}\n" for draw in draws).encode()
        return [run(side, "replay", text=text)
                for side in (self.reference, self.program)]

    def keep(self, draws):
        """Takes over smaller draws on which the programs still differ."""
        if draws == self.draws:
            return False
        reference, program = self.traces(draws)
        # A case that crashes QEMU proves nothing.
        if reference == program or not reference.endswith("exit 0\n"):
            return False
        self.draws = draws
        return True

    def without_some(self):
        changed = False
        size = max(1, len(self.draws) // 2)
        while size:
            start = 0
            while start < len(self.draws):
                if self.keep(self.draws[:start] + self.draws[start + size:]):
                    changed = True
                else:
                    start += size
            size //= 2
        return changed

    def smaller(self):
        changed = False
        for i, draw in enumerate(self.draws):
            for less in (0, draw // 2, draw - 1):
                if i < len(self.draws) and 0 <= less < self.draws[i]:
                    changed |= self.keep(self.draws[:i] + [less] +
                                         self.draws[i + 1:])
        return changed

    def shrink(self):
        for _ in range(20):
            changed = self.without_some()
            changed |= self.smaller()
            if not changed:
                break


def main():
    reference, program, seed, case = sys.argv[1:]
    lines = run(reference, "choices", seed, case).splitlines()
    shrinker = Shrinker(reference, program, [int(x) for x in lines[:-1]])
    shrinker.shrink()
    print("draws:", *shrinker.draws)
    left, right = shrinker.traces(shrinker.draws)
    print(left)
    for line in difflib.unified_diff(left.splitlines(), right.splitlines(),
                                     "QEMU 7.2", "libsavevm", lineterm=""):
        print(line[:400])


main()

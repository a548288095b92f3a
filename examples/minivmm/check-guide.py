#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Checks that each piece of C in the guide stands, word for word, in the file of the example that it names.

A piece is a fenced block whose first line is ```c FILE. Lines of "..." alone part it: what is around them has to come in
this order.
"""
import pathlib
import re
import sys


def missing(block, text):
    """The first part of the block that does not stand in the text behind the one before it; None if all do."""
    at = 0
    for part in re.split(r'^ *\.\.\.\n', block, flags=re.MULTILINE):
        found = text.find(part, at)
        if found < 0:
            return part
        at = found + len(part)
    return None


def main(guide, sources):
    blocks = re.findall(r'^```c (\S+)\n(.*?)^```$', pathlib.Path(guide).read_text(), re.MULTILINE | re.DOTALL)
    failed = len(blocks) < 5
    for name, block in blocks:
        part = missing(block, (pathlib.Path(sources) / name).read_text())
        if part is not None:
            failed = True
            print(f'{guide}: this is not in {name}:\n{part}')
    print(f'{len(blocks)} pieces of C looked at')
    return failed


sys.exit(main(*sys.argv[1:3]))

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Follows the guide: writes its first file, applies its diffs in turn, and runs its commands after each.

In the guide, a block ```c FILE is a whole file, ```diff FILE changes it, and ```sh is run by bash, which has to succeed.
The hunks of a diff have no line numbers: what they take out, with the lines around it, must be in the file once.

  run-guide.py GUIDE INCLUDE_DIRECTORY LIBRARY_DIRECTORY
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

SECONDS = 60  # for one block of commands, which compile as well

PC_FILE = """Name: savevm
Description: the library of this build
Version: 0
Cflags: -I{include}
Libs: -L{library} -lsavevm -Wl,-rpath,{library}
"""


def apply(diff, text):
    """The text with all hunks of the diff done to it."""
    for hunk in re.split(r'^@@.*\n', diff, flags=re.MULTILINE)[1:]:
        # A context line that is empty may have lost its space.
        lines = [line if line else ' ' for line in hunk.splitlines()]
        old = ''.join(line[1:] + '\n' for line in lines if line[0] in ' -')
        new = ''.join(line[1:] + '\n' for line in lines if line[0] in ' +')
        if text.count(old) != 1:
            sys.exit(f'this is {text.count(old)} times in the file, expected once:\n{old}')
        text = text.replace(old, new)
    return text


def has_userfaultfd():
    allowed = pathlib.Path('/proc/sys/vm/unprivileged_userfaultfd')
    return os.access('/dev/userfaultfd', os.R_OK) or allowed.exists() and allowed.read_text().strip() == '1'


def has_tls(library):
    """Whether the library of this build has TLS: it then has the name of this file."""
    return b'ca-crl.pem' in pathlib.Path(library, 'libsavevm.so').read_bytes()


def run(step, commands, environment, library):
    if 'TLS_DIR' in commands and not has_tls(library):
        print('not run: the library is built without TLS')
        return
    if 'params.postcopy = true' in pathlib.Path('vmm.c').read_text() and not has_userfaultfd():
        print('not run: this user may not use userfaultfd')
        return
    print(''.join(f'$ {line}\n' for line in commands.splitlines()), end='', flush=True)
    # A group of its own, so that nothing that hangs is left behind.
    shell = subprocess.Popen(['bash', '-euo', 'pipefail', '-c', commands], env=environment, start_new_session=True)
    try:
        status = shell.wait(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        sys.exit(f'step "{step}" does not end within {SECONDS} s')
    if status != 0:
        sys.exit(f'step "{step}" failed with status {status}')


def main(guide, include, library):
    include, library = os.path.abspath(include), os.path.abspath(library)
    blocks = re.findall(r'^## (.*?)$|^```(c|diff|sh)(?: (\S+))?\n(.*?)^```$', pathlib.Path(guide).read_text(),
                        re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        pathlib.Path('savevm.pc').write_text(PC_FILE.format(include=include, library=library))
        environment = dict(os.environ, PKG_CONFIG_PATH=directory)
        for heading, kind, name, text in blocks:
            if heading:
                step = heading
            elif kind == 'c':
                pathlib.Path(name).write_text(text)
            elif kind == 'diff':
                file = pathlib.Path(name)
                file.write_text(apply(text, file.read_text()))
            else:
                run(step, text, environment, library)
    kinds = [kind for _, kind, _, _ in blocks]
    print(f'{kinds.count("diff")} changes, {kinds.count("sh")} times built and run')
    if kinds.count('diff') < 8 or kinds.count('sh') < 8:
        sys.exit('the guide has lost some of its steps')


main(*sys.argv[1:])

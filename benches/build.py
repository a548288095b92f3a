# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compiles the programs of the benchmarks."""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def build(name, library, work):
    """The program of NAME.c in the directory `work`, linked with the library in the directory `library`."""
    program = work / name
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-std=gnu11", f"-I{ROOT / 'include'}", "-o", program,
                    ROOT / f"benches/{name}.c", library / "libsavevm.a", "-lpthread", "-ldl", "-lm"], check=True)
    return program

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What TLS costs: RAM over a unix socket to another process by libsavevm and by an unmodified QEMU (GnuTLS), in turns, plain and
with TLS. Prints throughput, and CPU seconds per GiB of both ends together.

usage: tls.py LIBDIR [--mib MIB] [--runs N]      1024 MiB of random bytes, 3 runs

LIBDIR holds libsavevm.a, built for release with TLS. QEMU_SYSTEM names the emulator (qemu-system-x86_64). Its guest is stopped,
so that only the migration uses the CPU. Best and median of each count. Fails if a goal is missed.
"""
import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "ports/common/tests"))
sys.path.insert(0, str(ROOT / "benches"))
from qemu import Place, Qemu  # noqa: E402
from build import build  # noqa: E402

# At most this share of QEMU's CPU time, and at least this multiple of its throughput.
GOAL_CPU, GOAL_SPEED = 0.6, 1.5
TICKS = os.sysconf("SC_CLK_TCK")


def make_certificates(directory):
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    directory.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    ca, ca_key = directory / "ca-cert.pem", directory / "ca-key.pem"
    openssl("req", "-x509", *key, "-days", 9, "-subj", "/CN=CA", "-keyout", ca_key, "-out", ca)
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost\n")
    for side in ("server", "client"):
        request = directory / "request"
        openssl("req", *key, "-subj", f"/CN={side}", "-keyout", directory / f"{side}-key.pem", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 9,
                "-extfile", extensions, "-out", directory / f"{side}-cert.pem")


def ours(program, mib, certificates):
    """GB/s, and CPU seconds per GiB."""
    arguments = [str(certificates)] if certificates else []
    text = subprocess.run([program, str(mib), "1", *arguments], stdout=subprocess.PIPE, text=True).stdout
    speed, sender, receiver = map(float, re.search(r"migration (\S+) GB/s \(CPU (\S+) s, (\S+) s\)", text).groups())
    return speed, (sender + receiver) * 1024 / mib


def cpu(qemu):
    fields = pathlib.Path(f"/proc/{qemu.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def theirs(emulator, place, mib, content, certificates):
    def side(endpoint):
        return ["-object", f"tls-creds-x509,id=tls,dir={certificates},endpoint={endpoint}"] if certificates else []

    machine = ["-M", "none", "-S", "-m", f"{mib}M"]
    address = f"unix:{place / 'migration'}"
    full = ["-device", f"loader,file={content},addr=0,force-raw=on"]
    with Qemu(emulator, place, "target", *machine, *side("server"), "-incoming", "defer") as target, \
            Qemu(emulator, place, "source", *machine, *side("client"), *full) as source:
        for end in (target, source):
            if certificates:
                end.qmp("migrate-set-parameters", tls_creds="tls", tls_hostname="localhost")
        target.qmp("migrate-incoming", uri=address)
        source.qmp("migrate-set-parameters", max_bandwidth=1 << 40, downtime_limit=300)
        before = cpu(target) + cpu(source)
        source.qmp("migrate", uri=address)
        info = source.wait_status("completed")
        target.wait_status("completed")
        used = cpu(target) + cpu(source) - before
        if info["total-time"] == 0:
            info = source.qmp("query-migrate")
        return info["ram"]["transferred"] / 1e6 / info["total-time"], used * 1024 / mib


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    emulator = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    if not emulator:
        sys.exit("there is no qemu-system-x86_64")
    names = ("plain", "TLS", "QEMU, plain", "QEMU, TLS")
    print("| run | " + " | ".join(f"{name}, GB/s | CPU s/GiB" for name in names) + " |\n|" + "---|" * 9)
    results = {name: [] for name in names}
    with Place() as place:
        program = build("ram", arguments.library, place.path)
        certificates = place / "certificates"
        make_certificates(certificates)
        content = place / "content"
        with open(content, "wb") as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(1 << 20))
        for run in range(arguments.runs):
            for name, measure in (("plain", lambda: ours(program, arguments.mib, None)),
                                  ("TLS", lambda: ours(program, arguments.mib, certificates)),
                                  ("QEMU, plain", lambda: theirs(emulator, place, arguments.mib, content, None)),
                                  ("QEMU, TLS", lambda: theirs(emulator, place, arguments.mib, content, certificates))):
                subprocess.run([program, str(arguments.mib), "warm"], check=True)
                results[name].append(measure())
            row = " | ".join(f"{results[name][-1][0]:.2f} | {results[name][-1][1]:.2f}" for name in names)
            print(f"| {run + 1} | {row} |", flush=True)
    missed = False
    for what, most, least in ("Best", max, min), ("Median", statistics.median, statistics.median):
        speed = {name: most([speed for speed, _ in results[name]]) for name in names}
        used = {name: least([used for _, used in results[name]]) for name in names}
        times, share = speed["TLS"] / speed["QEMU, TLS"], used["TLS"] / used["QEMU, TLS"]
        missed |= times < GOAL_SPEED or share > GOAL_CPU
        print(f"\n{what}: TLS has {times:.1f} times the throughput of QEMU's (goal {GOAL_SPEED}) and {share:.2f} of its CPU time "
              f"(goal {GOAL_CPU}); {used['TLS'] - used['plain']:.2f} CPU seconds per GiB more than without TLS")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""TLS between unmodified QEMUs (GnuTLS) and the library, in both directions: precopy, postcopy and recovery, and peers that
are refused. Every page is compared with what the other end had.

usage: qemu-tls.py PROGRAM        QEMU: qemu-system-x86_64, or $QEMU_SYSTEM; further ones, separated by colons: $QEMU_OTHERS
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from certificates import issue_certificate, make_ca  # noqa: E402
from ends import Ours, Qemu, expect, from_qemu, listening, make_content, run_cases, to_qemu  # noqa: E402
from qmp import emulators  # noqa: E402

SKIPPED = 77


def issue(ca, directory, side, name, **options):
    issue_certificate(ca, directory, side, f"/C=DE/O=Test, Ltd/CN={name}", **options)


def standard(place, name, key="ec"):
    make_ca(f"{place}/{name}-ca", f"{name} CA")
    for side in ("server", "client"):
        issue(f"{place}/{name}-ca", f"{place}/{name}", side, side, key=key)
    return f"{place}/{name}"


def refused_by_qemu(qemu, program, directory, qemu_tls, our_tls, part, prepare=None, qemu_part=""):
    """QEMU is the destination and refuses our certificate, or has none of our side's kind."""
    first, content = f"{directory}/first", f"{directory}/content"
    make_content(content)
    destination = Qemu(qemu, directory, qemu_tls, "server", "-incoming", "defer",
                       *(["-object", f"authz-simple,id=who,identity={prepare}"] if prepare else []))
    if prepare:
        destination.qmp("migrate-set-parameters", **{"tls-authz": "who"})
    destination.qmp("migrate-incoming", uri=f"unix:{first}")
    listening(first)
    ours = Ours(program, "out", f"unix:{first}", content, f"{directory}/dump", *([our_tls] if our_tls else []))
    wrong = []
    try:
        ours.wait("status failed")
        ours.tell("wait")
        ours.wait("end")
        expect(wrong, f"ours said: {ours.found['end']}", part in ours.found["end"])
        said = destination.said()
        expect(wrong, f"QEMU said: {said}", qemu_part in said)
    finally:
        ours.close()
        destination.close()
    return wrong


def refuses_qemu(qemu, program, directory, qemu_tls, our_tls, part):
    """QEMU is the source, and we refuse it; then the right one comes."""
    first, content = f"{directory}/first", f"{directory}/content"
    make_content(content)
    source = Qemu(qemu, directory, qemu_tls, "client", "-device", f"loader,file={content},addr=0,force-raw=on")
    ours = Ours(program, "in", f"unix:{first}", content, f"{directory}/dump", *([our_tls] if our_tls else []))
    wrong = []
    try:
        listening(first)
        source.qmp("migrate", uri=f"unix:{first}")
        ours.wait("report 1 closed a connection")
        expect(wrong, f"ours said: {ours.found['report']}", part in ours.found["report"])
        expect(wrong, f"QEMU's migration is {source.qmp.status()}", source.qmp.finished() == "failed")
        expect(wrong, "QEMU's guest does not run", source.qmp("query-status")["status"] == "running")
    finally:
        ours.close()
        source.close()
    return wrong


def cases(place):
    tls, rsa, other = standard(place, "usual"), standard(place, "rsa", key="rsa"), standard(place, "other")
    renamed = f"{place}/renamed"
    issue(f"{place}/usual-ca", renamed, "server", "server", host="elsewhere")
    issue(f"{place}/usual-ca", renamed, "client", "client")
    for name, run in (("from QEMU", from_qemu), ("to QEMU", to_qemu)):
        yield f"{name}, precopy", run, {"precopy": True, "tls": tls}
        yield f"{name}, precopy with RSA", run, {"precopy": True, "tls": rsa}
        if os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
            yield f"{name}, postcopy", run, {"tls": tls}
            yield f"{name}, postcopy that is paused here", run, {"tls": tls, "recovery": "ours"}
        else:
            print("there is no /dev/userfaultfd: no postcopy")
    if os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        yield "from QEMU, postcopy that is paused there", from_qemu, {"tls": tls, "recovery": "QEMU's"}
    yield ("to QEMU with the CA of another", refused_by_qemu,
           {"qemu_tls": other, "our_tls": tls, "part": "no CA of"})
    yield ("to QEMU with another name", refused_by_qemu,
           {"qemu_tls": renamed, "our_tls": tls, "part": "not for the name 'localhost', but only for elsewhere:"})
    yield ("to QEMU that allows another name", refused_by_qemu,
           {"qemu_tls": tls, "our_tls": tls, "prepare": "CN=somebody", "part": "it may have refused this side's certificate",
            "qemu_part": "TLS x509 authz check for C=DE,O=Test\\, Ltd,CN=client is denied"})
    yield ("to QEMU without TLS", refused_by_qemu,
           {"qemu_tls": None, "our_tls": tls, "part": "set SaveVMParams.tls (in QEMU: tls-creds) on both sides"})
    yield "plain to QEMU with TLS", refused_by_qemu, {"qemu_tls": tls, "our_tls": None, "part": ""}
    yield ("from QEMU with the certificate of another CA", refuses_qemu,
           {"qemu_tls": other, "our_tls": tls, "part": "TLS: "})
    yield ("from QEMU without TLS", refuses_qemu,
           {"qemu_tls": None, "our_tls": tls, "part": "sends a plain stream, which is refused"})
    yield ("from QEMU with TLS to a plain end", refuses_qemu,
           {"qemu_tls": tls, "our_tls": None, "part": "which only the source uses: set SaveVMParams.tls on both sides"})


def main():
    qemus = emulators()
    if not qemus or not shutil.which("openssl"):
        print("SKIPPED: there is no qemu-system-x86_64, or no openssl")
        return SKIPPED
    if subprocess.run([sys.argv[1], "has-tls"], stdout=subprocess.DEVNULL).returncode:
        print("SKIPPED: the library has no TLS: meson configure -Dtls=enabled")
        return SKIPPED
    wrong = []
    with tempfile.TemporaryDirectory(prefix="savevm-tls-") as place:
        chosen = list(cases(place))
        for qemu, _, version in qemus:
            print(f"== {version}", flush=True)
            wrong += [f"{version}: {what}" for what in run_cases(qemu, sys.argv[1], chosen)]
    for what in wrong:
        print(what)
    print("every page is what the other end had" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Certificates for tests of TLS, by the program openssl."""
import os
import shutil
import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_ca(directory, name):
    os.makedirs(directory)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", f"/CN={name}", "-keyout", f"{directory}/ca-key.pem", "-out", f"{directory}/ca-cert.pem",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")


def issue_certificate(ca, directory, side, subject, host="localhost", key="ec"):
    """Signs a certificate for a side, with its key."""
    os.makedirs(directory, exist_ok=True)
    shutil.copy(f"{ca}/ca-cert.pem", directory)
    base = f"{directory}/{side}"
    extensions = f"{directory}/extensions"
    with open(extensions, "w") as file:
        file.write("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
                   f"extendedKeyUsage={side}Auth\nsubjectAltName=DNS:{host}\n")
    kind = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if key == "ec" else ["rsa:2048"]
    openssl("req", "-newkey", *kind, "-nodes", "-subj", subject, "-keyout", f"{base}-key.pem", "-out", f"{base}.csr")
    openssl("x509", "-req", "-in", f"{base}.csr", "-CA", f"{ca}/ca-cert.pem", "-CAkey", f"{ca}/ca-key.pem",
            "-CAcreateserial", "-days", "20", "-extfile", extensions, "-out", f"{base}-cert.pem")

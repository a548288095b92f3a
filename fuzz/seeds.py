#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the corpora of the fuzz targets: streams of an unmodified QEMU 7.2, and small streams made here.

usage: seeds.py [DIRECTORY]          the default is corpus/ beside this file

QEMU_SYSTEM names the emulator (qemu-system-x86_64). Without version 7.2, only the small streams are written.
"""
import gzip
import json
import os
import pathlib
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "c-tests/lib"))
from qmp import Qmp  # noqa: E402

PAGE = 4096
LINES = 15  # command lines of the target `command`
RAM_START = b"QEVM\0\0\0\3\7\0\0\0\4none\1\0\0\0\2\3ram\0\0\0\0\0\0\0\4"


class Qemu(Qmp):
    """A stopped emulator and its monitor."""

    def __init__(self, program, work, name, *arguments):
        path = os.path.join(work, name)
        self.process = subprocess.Popen([program, "-S", "-accel", "tcg", "-nodefaults", "-display", "none", "-qmp",
                                         f"unix:{path},server=on,wait=off", *arguments])
        super().__init__(path, self.process)

    def close(self):
        self.process.kill()
        self.process.wait()


class Recorder:
    """Forwards between source and destination, and records both directions."""

    def __init__(self, listen, to):
        self.forth, self.back = bytearray(), bytearray()
        self.to = to
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(listen)
        self.server.listen(1)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        source, _ = self.server.accept()
        destination = socket.socket(socket.AF_UNIX)
        destination.connect(self.to)
        threading.Thread(target=self.pump, args=(destination, source, self.back), daemon=True).start()
        self.pump(source, destination, self.forth)

    @staticmethod
    def pump(reader, writer, record):
        try:
            while data := reader.recv(65536):
                record.extend(data)
                writer.sendall(data)
            writer.shutdown(socket.SHUT_WR)
        except OSError:
            # A client that has everything it needs may leave first.
            pass


class Corpus:
    def __init__(self, top):
        self.top, self.count = pathlib.Path(top), 0

    def add(self, target, name, data):
        directory = self.top / target
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
        self.count += 1

    def stream(self, name, stream):
        """Adds a whole stream to every target that reads streams."""
        for target in ("load", "inspect", "incoming"):
            self.add(target, name, stream)
        for way in range(LINES - 1):
            # Twice the same: most fields of a diff are then compared to their end.
            self.add("command", f"{name}-{way}", bytes([way, 0x80, 0]) + stream + stream)
        self.add("command", f"{name}-gz", bytes([0, 0xff, 0xff]) + gzip.compress(stream, mtime=0) + b"x")


def memory_file(work):
    """Returns 1 MiB of pages of text, of one value and of random bytes."""
    rng, path = random.Random(7), os.path.join(work, "memory")
    pages = bytearray(256 * PAGE)
    pages[3 * PAGE:3 * PAGE + 26] = b"abcdefghijklmnopqrstuvwxyz"
    pages[4 * PAGE:5 * PAGE] = b"\x55" * PAGE
    pages[9 * PAGE:10 * PAGE] = rng.randbytes(PAGE)
    with open(path, "wb") as file:
        file.write(pages)
    return path


def backed(path):
    backend = f"memory-backend-file,id=ram,size=1M,mem-path={path},share=off,x-use-canonical-path-for-ramblock-id=off"
    return ["-object", backend, "-machine", "none,memory-backend=ram", "-m", "1M"]


def without_pages(stream):
    """Returns the stream with few pages, so that the fuzzer mutates mostly other bytes."""
    out, at, kept = bytearray(), 0, 0
    while at < len(stream):
        word = int.from_bytes(stream[at:at + 8], "big")
        flags = word & (PAGE - 1)
        # A page with its block's name, or of the block before.
        name = 0 if flags & 0x20 else 1 + stream[at + 8] if at + 8 < len(stream) else 0
        if flags in (0x08, 0x28) and word >> 40 == 0 and plausible(stream[at + 8:at + 8 + name], name):
            end = at + 8 + name + PAGE
            kept += 1
            if kept <= 2 or name:
                out += stream[at:end]
            at = end
        else:
            out.append(stream[at])
            at += 1
    return bytes(out)


def plausible(name, length):
    return length == 0 or (2 < len(name) == length and all(0x20 < byte < 0x7f for byte in name[1:]))


def of_qemu(emulator, work, corpus):
    memory = memory_file(work)
    machines = {"none": backed(memory),
                "isapc": ["-machine", "isapc", "-m", "1M"],
                "q35": ["-machine", "q35", "-m", "1M", "-device", "virtio-rng-pci"]}
    for name, arguments in machines.items():
        path = os.path.join(work, f"{name}.mig")
        qemu = Qemu(emulator, work, f"{name}.qmp", *arguments)
        try:
            assert qemu.migrate(f"exec:cat >{path}") == "completed", name
        finally:
            qemu.close()
        stream = pathlib.Path(path).read_bytes()
        if not name.startswith("none"):
            stream = without_pages(stream)
        corpus.stream(name, stream)
        if name == "none":
            assert stream.startswith(RAM_START), "the target `ram` expects another beginning"
            corpus.add("ram", name, stream[len(RAM_START):])
    postcopy(emulator, work, corpus, memory)


def postcopy(emulator, work, corpus, memory):
    """Adds both directions of a migration that ends in postcopy."""
    sockets = [os.path.join(work, name) for name in ("from", "to")]
    # userfaultfd wants memory that is no private mapping of a file.
    destination = Qemu(emulator, work, "b.qmp", "-machine", "none", "-m", "1M", "-incoming", "defer")
    source = Qemu(emulator, work, "a.qmp", *backed(memory))
    try:
        for qemu in (source, destination):
            qemu.capabilities("postcopy-ram")
        destination("migrate-incoming", uri=f"unix:{sockets[1]}")
        recorder = Recorder(*sockets)
        # Slow enough that most of memory is left when postcopy begins.
        source("migrate-set-parameters", **{"max-bandwidth": 1000})
        source("migrate", uri=f"unix:{sockets[0]}")
        while source.status() != "active":
            time.sleep(0.01)
        source("migrate-start-postcopy")
        assert source.finished() == "completed", "postcopy"
        corpus.stream("postcopy", bytes(recorder.forth))
        corpus.add("return_path", "postcopy", bytes(recorder.back))
    finally:
        source.close()
        destination.close()


def word(offset, flags):
    return struct.pack(">Q", offset | flags)


def chain(corpus):
    """Adds a parent with all pages of a block of 16 KiB, and what is behind the link in a child with some of them."""
    start, footer, end = RAM_START[RAM_START.index(b"\1\0\0\0\2"):], b"\x7e\0\0\0\2", word(0, 0x10)
    listed = word(4 * PAGE, 4) + b"\3ram" + struct.pack(">Q", 4 * PAGE) + end + footer

    def sections(records):
        device = b"\4\0\0\0\3\3dev" + bytes(4) + b"\0\0\0\1state\x7e\0\0\0\3"
        parts = b"\2\0\0\0\2" + records + end + footer + b"\3\0\0\0\2" + end + footer
        return start + listed + parts + device + b"\0"

    zeros = word(PAGE, 2) + b"\3ram\0" + word(2 * PAGE, 0x22) + b"\0" + word(3 * PAGE, 0x22) + b"\7"
    parent = RAM_START[:RAM_START.index(start)] + sections(word(0, 8) + b"\3ram" + b"page" * 1024 + zeros)
    child = sections(word(PAGE, 8) + b"\3ram" + b"more" * 1024 + word(3 * PAGE, 0x22) + b"\0")
    place = -(-len(parent) * 65536 // (len(parent) + len(child)))
    corpus.add("chain", "two", struct.pack(">H", place) + parent + child)


def multifd(corpus):
    """Adds captures of a further connection: a hello, packets with pages, and a SYNC."""
    magic = struct.pack(">II", 0x11223344, 1)

    def packet(flags, normal=(), zero=(), payload=b""):
        numbers = struct.pack(">4IQI", flags, 128, len(normal), len(payload), 0, len(zero))
        name = b"ram" if normal or zero else b""
        offsets = b"".join(page.to_bytes(8, "big") for page in (*normal, *zero))
        return magic + numbers + bytes(28) + name.ljust(256, b"\0") + offsets.ljust(8 * 128, b"\0") + payload

    content = b"page" * 1024 + bytes(PAGE)
    stream = zlib.compressobj(1)
    packed = [stream.compress(content) + stream.flush(zlib.Z_SYNC_FLUSH) for _ in range(2)]
    # A frame with a content size and one block that repeats a byte.
    frame = struct.pack("<IBI", 0xfd2fb528, 0xa0, 2 * PAGE) + (2 * PAGE << 3 | 3).to_bytes(3, "little") + b"\x55"
    for name, method, payloads in ("none", 0, [content] * 2), ("zlib", 2, packed), ("zstd", 4, [frame] * 2):
        packets = packet(method, [0, PAGE], [5 * PAGE], payloads[0]) + packet(method, [9 * PAGE, 3 * PAGE], [], payloads[1])
        corpus.add("multifd", name, magic + bytes(56) + packets + packet(1))


def page_index(corpus):
    """Adds an index of two blocks, without its magic number and hash."""
    run = struct.Struct(">QQQ").pack
    state = struct.pack(">IQQQQQ", PAGE, 0, 40000, 1, 2, 3) + struct.pack(">IQQ", 1, 100, 3 * (PAGE + 8))
    runs = run(0, 3, 108 | 1 << 63) + run(5, 2, 7)
    blocks = b"\6pc.ram" + struct.pack(">QQ", 9 * PAGE, 2) + runs + b"\3rom" + struct.pack(">QQ", 100, 0)
    corpus.add("page_index", "two", state + struct.pack(">I", 2) + blocks)


def tls(corpus):
    """Adds the first message of a client, an alert of a server, and plans for a connection."""
    sent = ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    corpus.add("tls", "client", b"\0" + sent.read())
    corpus.add("tls", "alert", b"\1\x15\3\3\0\2\2\x28")
    corpus.add("tls", "pieces", b"\2" + bytes(range(20)))
    corpus.add("tls", "changed", b"\2" + b"\xfd" * 6 + b"\xfe")


def made_here(corpus):
    rng = random.Random(1)
    chain(corpus)
    multifd(corpus)
    page_index(corpus)
    tls(corpus)

    listed = word(1 << 20, 4) + b"\3ram" + struct.pack(">Q", 1 << 20)
    pages = word(0, 8) + b"\3ram" + b"page" * 1024 + word(PAGE, 0x28) + bytes(PAGE)
    zeros = word(2 * PAGE, 2) + b"\3ram" + b"\0" + word(3 * PAGE, 0x22) + b"\7"
    difference = word(0, 0x60) + b"\1\0\6" + b"\4\4PAGE"
    corpus.add("ram", "made", listed + pages + zeros + difference + word(0, 0x10))

    def command(number, payload=b"", odd=0):
        return bytes([number, len(payload), odd]) + payload

    advise = command(3, struct.pack(">QQ", PAGE, PAGE))
    discard = command(6, b"\0\3ram\0" + struct.pack(">QQ", 0, 1 << 20))
    corpus.add("commands", "plain", command(1) + command(2, b"\0\0\0\1") + command(10) + command(8) + command(9, b"\3ram"))
    corpus.add("commands", "postcopy", advise + discard + command(7, command(4) + command(5)))
    corpus.add("commands", "nested", command(7, command(7, command(7, command(2, b"\0\0\0\2")))))

    def message(kind, payload=b""):
        return struct.pack(">HH", kind, len(payload)) + payload

    answers = message(2, b"\0\0\0\1") + message(3, struct.pack(">QI", PAGE, PAGE) + b"\3ram")
    answers += message(4, struct.pack(">QI", 0, PAGE)) + message(5, b"\3ram") + message(6, struct.pack(">I", 1))
    corpus.add("return_path", "made", answers + message(1, bytes(4)))
    corpus.add("return_path", "bitmap", struct.pack("<Q", 32) + b"\xff" * 32 + struct.pack(">Q", 0x0123456789abcdef))

    # The target `snapshot`: the length of the head, the head, and what is behind the places of the pages.
    start = RAM_START + listed
    mapped = b"\5\x1aconfiguration/capabilities\0\0\0\1\0\0\0\1\x0amapped-ram"
    mapped = RAM_START.replace(b"none", b"none" + mapped) + listed
    mapped += struct.pack(">IQQQ", 1, PAGE, len(mapped) + 28, 1 << 20) + bytes([0b1011, 0x80]) + bytes(30)
    ended = word(0, 0x10) + b"\x7e\0\0\0\2" + b"\3\0\0\0\2" + word(0, 0x10) + b"\x7e\0\0\0\2\0"
    corpus.add("snapshot", "mapped", struct.pack(">H", len(mapped)) + mapped + ended)
    records = pages + zeros + word(0, 0x28) + b"more" * 1024
    corpus.add("snapshot", "stream", struct.pack(">H", 0x8000 | len(start)) + start + records + ended)

    def name(text):
        return bytes([len(text)]) + text.encode()

    def device(text, digest):
        return name(text) + struct.pack(">4I", 0, 1, 1, 0xffffffff) + b"\0" + bytes(4) + b"\3" + struct.pack(">Q", digest)

    # The target `preflight`: where the first body ends, and two bodies.
    machine = b"\1\0\4none\x0c\1" + bytes(16) + b"\0\1\0\1x"
    block = b"\1\0\0\0\1" + name("ram") + struct.pack(">3QB", 1 << 20, PAGE, 0, 0)
    settings = b"\0\1" + name("postcopy") + struct.pack(">Q", 1)
    manifest = b"\1\0\1\0" + machine + settings + block + b"\0\0\0\2" + device("timer", 7) + device("nic", 0)
    field = '{"field": "a", "version_id": 0, "field_exists": false, "size": 4, "type": "uint32", "bytes": 4, "elements": 1}'
    head = '{"name": "d", "version_id": 1, "minimum_version_id": 1, "Fields": ['
    layout = head + field + '], "Subsections": [' + head + "]}]}"
    other = layout.replace('"bytes": 4', '"bytes": 2').replace('"a"', '"b"')
    corpus.add("preflight", "manifests", b"\x80\0" + manifest + manifest)
    corpus.add("preflight", "layouts", b"\x80\0" + (layout + other.ljust(len(layout))).encode())
    corpus.add("preflight", "verdict", b"\0\0\1\0\1\1\0\0\0\1\3" + name("timer") + bytes(4) + b"\0\1a\0\2no")
    corpus.add("preflight", "report", b"\0\0\3\0\0\0\0\0\1" + name("timer") + bytes(4) + struct.pack(">Q", 50))

    corpus.add("vmstate", "zeros", bytes(200))
    for number in range(24):
        choices = rng.randbytes(120)
        corpus.add("descriptions", f"choices-{number}", bytes([2, len(choices)]) + choices + bytes(2000))
    for number in range(4):
        corpus.add("file", f"script-{number}", rng.randbytes(400))
    trace = [{"at": 0, "event": "trace", "version": 1, "side": "source", "uri": "unix:x"}, {"at": 9, "event": "phase",
              "name": "setup"}, {"at": 20, "event": "round", "number": 1, "bytes": 9000, "bandwidth": 7}]
    lines = "".join(json.dumps(line) + "\n" for line in trace)
    corpus.add("command", "plot", bytes([LINES - 1, 0, 0]) + lines.encode())


def main():
    top = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus"
    corpus = Corpus(top)
    made_here(corpus)
    emulator = os.environ.get("QEMU_SYSTEM") or shutil.which("qemu-system-x86_64")
    version = subprocess.run([emulator, "--version"], capture_output=True, text=True).stdout if emulator else ""
    if " 7.2" in version.split("\n", 1)[0]:
        with tempfile.TemporaryDirectory() as work:
            of_qemu(emulator, work, corpus)
    else:
        print("no qemu-system-x86_64 of version 7.2: no streams of QEMU")
    print(f"{corpus.count} seeds in {top}")


if __name__ == "__main__":
    main()

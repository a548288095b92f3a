# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests: each counts up one byte in each of 1792 pieces of memory, prints the next letter of the alphabet, and
begins again. A guest that detects missing state prints "!"."""

# The addresses of the counted bytes.
COUNTED = range(0x20000, 0x90000, 0x100)

# A boot sector:
#   cli; ss:sp = 0:7c00; bl = 'a'
#   pass: for es in 2000h..9000h, for di in 0..10000h by 100h: inc byte [es:di]
#         out 3f8h, bl; next letter
X86 = bytes.fromhex(
    "fa31c08ed0bc007cb361"
    "ba00208ec231ff26fe0581c7000175f781c2001081fa009075e9"
    "baf80388d8eefec380fb7b75d9b361ebd5"
)

# A boot loader, at any address. The storage key of each page is its number's last four bits.
#   r6 = sccb; r5 = 'a'
#         for r2 in 20000h..90000h by 1000h: sske (r2 >> 8) & f0h, r2
#   pass: for r2 in 20000h..90000h by 100h: add 1 to byte (r2); iske r4, r2; if r4 differs: wrong
#         sccb.letter = r5
#   send: servc 760005h, sccb; next letter
#   wrong: sccb.letter = '!'; send
#   sccb: be16 15, 0 (4), be16 0; be16 7, 1ah (a console's text), 0, be16 0; letter
S390X = bytes.fromhex(
    "c0600000004ca7580061"
    "a52e0002a53e0009b9040042eb440008000cc04b000000f0b22b0042a72b1000b9210023a744fff2"
    "a52e0002e34020000090a74a000142402000b2290042b9040082eb880008000c1784c08b000000f0a7740019"
    "a72b0100b9210023a744ffe84250600e"
    "c07100760005b2200076a75a0001a75e007ba774ffd9a7580061a7f4ffd5"
    "9221600ea7f4ffef07070707"
    "000f00000000000000071a00000000"
)

# Firmware, entered at 100h. Its entries in the hash table of pages: number 200h * n holds n * 1000h + 1.
#   r14 = 'a'
#         for n in 0..64: H_ENTER exactly 200h * n, n * 1000h + 1, 20010h; if it fails: wrong
#   pass: for r2 in 20000h..90000h by 100h: add 1 to byte (r2)
#         n = r14 % 64; H_READ 200h * n; if it has not n * 1000h + 1: wrong
#         r15 = r14
#   send: H_PUT_TERM_CHAR 0, 1, r15; next letter in r14
#   wrong: r15 = '!'; send
PPC64 = bytes.fromhex(
    "39c000613a0000003a2000017a313e06"
    "386000087e248b787a054da47a0664e460c600013ce0000260e70010440000222c230000408200883a1000012c3000404082ffd0"
    "3c4000023c600009888200003884000198820000384201007c2218004082ffec"
    "71d0003f3860000c388000007a054da4440000227a1064e4621000017086f0017210f0017c26800040820030"
    "7dcf7378386000583880000038a0000179e6c1c644000022"
    "39ce00012c2e007b4082ff9439c000614bffff8c39e000214bffffd4"
)

FILES = {
    "x86.disk": X86.ljust(510, b"\0") + b"\x55\xaa",
    # A BIOS starts at the jump in its last 16 bytes.
    "x86.bios": (X86.ljust(0xfff0, b"\0") + bytes.fromhex("ea000000f0")).ljust(0x10000, b"\0"),
    "s390x.bios": S390X,
    "ppc64.bios": bytes(0x100) + PPC64,
}

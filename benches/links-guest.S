/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The firmware of a PC whose guest writes to memory at a constant rate, for links.py: 100 times in a second it writes once to
 * each of PAGES pages, one after the other from FROM to END. In between it halts.
 */
    .code16
_start:
    cli
    lgdtl %cs:gdt_place - _start
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $0xf0000 + (flat - _start)
    .code32
flat:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x8000, %esp
    /* The local APIC passes the interrupts of the PIC on. */
    movl $0x1ff, 0xfee000f0
    movl $0x700, 0xfee00350
    /* Interrupt 0x20. */
    movw $(tick - _start), 0x1100
    movw $8, 0x1102
    movw $0x8e00, 0x1104
    movw $0xf, 0x1106
    lidt idt_place - _start + 0xf0000
    /* The PIC, with the timer alone. */
    movb $0x11, %al
    outb %al, $0x20
    movb $0x20, %al
    outb %al, $0x21
    movb $4, %al
    outb %al, $0x21
    movb $1, %al
    outb %al, $0x21
    movb $0xfe, %al
    outb %al, $0x21
    /* The timer, 100 Hz. */
    movb $0x34, %al
    outb %al, $0x43
    movb $(11932 & 255), %al
    outb %al, $0x40
    movb $(11932 >> 8), %al
    outb %al, $0x40
    movl $FROM, %edi
    sti
1:  hlt
    movl $PAGES, %ecx
2:  incl (%edi)
    addl $4096, %edi
    cmpl $END, %edi
    jb 3f
    movl $FROM, %edi
3:  loop 2b
    jmp 1b
tick:
    pushl %eax
    movb $0x20, %al
    outb %al, $0x20
    popl %eax
    iret
    .balign 8
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_place:
    .word 23
    .long 0xf0000 + (gdt - _start)
idt_place:
    .word 0x10f
    .long 0x1000
    /* Where the processor begins. */
    .org 0xfff0
    .code16
    ljmp $0xf000, $0
    .org 0x10000

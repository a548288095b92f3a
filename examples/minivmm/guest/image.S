/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's image as data of the hypervisor. */
    .section .rodata
    .global guest_image, guest_image_end
guest_image:
    .incbin "guest.bin"
guest_image_end:
    .section .note.GNU-stack, "", %progbits

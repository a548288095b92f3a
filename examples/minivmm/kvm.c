/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A CPU on /dev/kvm in long mode, with an identity mapping of memory. The guest's program runs in ring 3 without a kernel, and
 * may use all ports (I/O privilege level 3). A KVM without hardware support also runs ring 3 at full speed.
 *
 * The program uses no floating point, interrupts or model-specific registers. So its whole state are the general and system
 * registers. A guest with an operating system has more state: see KVM_GET_XSAVE, _MSRS, _VCPU_EVENTS and _LAPIC.
 */
#include "minivmm.h"
#include "migration/vmstate.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

typedef struct KvmCpu {
    struct kvm_regs registers;
    struct kvm_sregs system;
} KvmCpu;

static KvmCpu cpu; /* valid only during a save or load, while the CPU is stopped */
static int kvm, vm, vcpu;
static struct kvm_run *run;

extern const uint8_t guest_image[], guest_image_end[];

/* Running. KVM completes a port access at the next KVM_RUN. So the loop ends only when KVM_RUN fails with EINTR after KICK. */

static void kvm_run_guest(Machine *m)
{
    int entered;
    while ((entered = ioctl(vcpu, KVM_RUN, 0)) == 0 && run->exit_reason == KVM_EXIT_IO) {
        uint32_t *value = (uint32_t *)((uint8_t *)run + run->io.data_offset); /* all ports have 32 bits */
        machine_port(m, run->io.port, run->io.direction == KVM_EXIT_IO_OUT, value);
    }
    if (entered == 0 || errno != EINTR) {
        fprintf(stderr, "minivmm: unexpected KVM exit (reason %u); the guest is stopped\n", run->exit_reason);
        machine_lock(m);
        machine_halt(m);
        machine_unlock(m);
    }
    run->immediate_exit = false;
}

/* The signal interrupts KVM_RUN. If it arrives before KVM_RUN, the flag makes KVM_RUN return at once. */
static void on_kick(int signal)
{
    run->immediate_exit = true;
}

/* Saving and loading the state. The CPU is stopped. */

static int kvm_pre_save(void *opaque)
{
    return ioctl(vcpu, KVM_GET_REGS, &cpu.registers) == 0 && ioctl(vcpu, KVM_GET_SREGS, &cpu.system) == 0 ? 0 : -errno;
}

/* After an error, the migration fails, and the guest continues on the source. */
static int kvm_post_load(void *opaque, int version_id)
{
    return ioctl(vcpu, KVM_SET_SREGS, &cpu.system) == 0 && ioctl(vcpu, KVM_SET_REGS, &cpu.registers) == 0 ? 0 : -errno;
}

/* The layout of the structs is a kernel ABI, and x86 has one byte order, so the structs are sent as bytes. */
static const VMStateDescription vmstate_cpu = {
    .name = "cpu-kvm",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = kvm_pre_save,
    .post_load = kvm_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER_UNSAFE(registers, KvmCpu, 1, sizeof(struct kvm_regs)),
        VMSTATE_BUFFER_UNSAFE(system, KvmCpu, 1, sizeof(struct kvm_sregs)),
        VMSTATE_END_OF_LIST()
    }
};

/* Memory and its dirty log. */

static int map_memory(Machine *m, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {
        .flags = flags, .memory_size = m->ram_size, .userspace_addr = (uintptr_t)m->ram,
    };
    return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0 ? 0 : -errno;
}

static int kvm_log_start(void *machine)
{
    return map_memory(machine, KVM_MEM_LOG_DIRTY_PAGES);
}

static void kvm_log_stop(void *machine)
{
    map_memory(machine, 0);
}

/* There is one block of memory, in one slot of KVM. */
static int kvm_log_sync(void *machine, const SaveVMRamBlock *block, uint64_t *bitmap, size_t words)
{
    struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
    return ioctl(vm, KVM_GET_DIRTY_LOG, &log) == 0 ? 0 : -errno;
}

static void kvm_log(SaveVMRamOps *ops)
{
    ops->log_start = kvm_log_start;
    ops->log_sync = kvm_log_sync;
    ops->log_stop = kvm_log_stop;
}

/* The state after power-on. */

static void write_page_tables(Machine *m)
{
    enum { OPEN = 7, LARGE = 0x80, GIB_TABLES = 4 }; /* OPEN: present, writable, accessible from ring 3 */
    uint64_t *table = (uint64_t *)(m->ram + GUEST_TABLES);
    table[0] = (GUEST_TABLES + PAGE_SIZE) | OPEN;
    for (uint64_t gib = 0; gib < GIB_TABLES; gib++) {
        table[512 + gib] = (GUEST_TABLES + (2 + gib) * PAGE_SIZE) | OPEN;
    }
    for (uint64_t at = 0; at < GIB_TABLES * 512; at++) {
        table[1024 + at] = at << 21 | OPEN | LARGE;
    }
}

static int reset(Machine *m)
{
    write_page_tables(m);
    memcpy(m->ram + GUEST_CODE, guest_image, (size_t)(guest_image_end - guest_image));
    kvm_pre_save(NULL);
    struct kvm_sregs *s = &cpu.system;
    s->cs = (struct kvm_segment) {
        .limit = UINT32_MAX, .selector = 11, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1,
    };
    s->ds = s->es = s->fs = s->gs = s->ss = (struct kvm_segment) {
        .limit = UINT32_MAX, .selector = 19, .type = 3, .present = 1, .dpl = 3, .s = 1, .db = 1, .g = 1,
    };
    s->cr0 = 0x80000031; /* paging, errors, extensions, protection */
    s->cr3 = GUEST_TABLES;
    s->cr4 = 0x20;   /* page address extension */
    s->efer = 0x500; /* long mode, enabled and active */
    cpu.registers = (struct kvm_regs) {
        .rip = GUEST_CODE,
        .rsp = GUEST_STACK - 8, /* as after a call */
        .rflags = 0x3002,       /* I/O privilege level 3 */
        .rdi = m->pages,
        .rsi = m->rate,
    };
    return kvm_post_load(NULL, 1);
}

static void kvm_reset(Machine *m)
{
    if (reset(m) < 0) {
        perror("minivmm: resetting the CPU");
    }
}

static bool kvm_open(Machine *m)
{
    bool good = (kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)) >= 0 && (vm = ioctl(kvm, KVM_CREATE_VM, 0)) >= 0 &&
                map_memory(m, 0) == 0 && (vcpu = ioctl(vm, KVM_CREATE_VCPU, 0)) >= 0;
    int size = good ? ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0) : 0;
    run = good ? mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0) : MAP_FAILED;
    if (run == MAP_FAILED || reset(m) < 0) {
        perror("minivmm: /dev/kvm (use --software to run without it)");
        return false;
    }
    sigaction(KICK, &(struct sigaction) { .sa_handler = on_kick }, NULL);
    return vmstate_register(NULL, 0, &vmstate_cpu, &cpu) == 0;
}

const Accel accel_kvm = { kvm_open, kvm_reset, kvm_run_guest, SAVEVM_RAM_LOG_HOST, kvm_log };

/* A hypervisor as small as can be: runs a program of a few bytes as a guest of this machine's KVM.
 *
 * What the guest writes to port 0xe9 is printed. Interface: Documentation/virt/kvm/api.rst in the
 * kernel. The exit status is 0 once the guest has halted.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define START 0x1000

static const unsigned char program[] = {
    0xbe, 0x0d, 0x10, /*       mov  si, text        */
    0xac,             /* next: lodsb                */
    0x84, 0xc0,       /*       test al, al          */
    0x74, 0x04,       /*       jz   end             */
    0xe6, 0xe9,       /*       out  0xe9, al        */
    0xeb, 0xf7,       /*       jmp  next            */
    0xf4,             /* end:  hlt                  */
    'L', '2', ' ', 'r', 'u', 'n', 's', '\n', 0,
};

static int failed(const char *what)
{
    perror(what);
    return 1;
}

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return failed("/dev/kvm");
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return failed("KVM_CREATE_VM");
    void *memory = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return failed("memory");
    memcpy(memory, program, sizeof program);
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = START,
        .memory_size = 0x1000,
        .userspace_addr = (unsigned long)memory,
    };
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return failed("KVM_SET_USER_MEMORY_REGION");
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        return failed("KVM_CREATE_VCPU");
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED)
        return failed("vcpu");
    struct kvm_sregs segments;
    if (ioctl(vcpu, KVM_GET_SREGS, &segments) < 0)
        return failed("KVM_GET_SREGS");
    segments.cs.base = segments.ds.base = 0;
    segments.cs.selector = segments.ds.selector = 0;
    struct kvm_regs registers = {.rip = START, .rflags = 2};
    if (ioctl(vcpu, KVM_SET_SREGS, &segments) < 0 || ioctl(vcpu, KVM_SET_REGS, &registers) < 0)
        return failed("KVM_SET_REGS");
    for (;;) {
        if (ioctl(vcpu, KVM_RUN, 0) < 0)
            return failed("KVM_RUN");
        if (run->exit_reason == KVM_EXIT_HLT)
            return 0;
        if (run->exit_reason != KVM_EXIT_IO) {
            fprintf(stderr, "the guest ended with %u\n", run->exit_reason);
            return 2;
        }
        putchar(*((char *)run + run->io.data_offset));
    }
}

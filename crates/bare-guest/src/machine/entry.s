# From the VMM's hand-over to level 3: see boot.rs.
# Entered by the 64-bit boot protocol: long mode, identity-mapped, interrupts off, rsi = zero page.

.section .text.start, "ax"
.globl _start
_start:
    lea rsp, [rip + level0_stack_top]
    lea rax, [rip + level4]
    mov cr3, rax
    # Without it there is no SSE, which compiled code uses: CR4.OSFXSR, CR4.OSXMMEXCPT.
    mov rax, cr4
    or eax, 0x600
    mov cr4, rax
    # Caches on, no emulation of the FPU: CR0.CD, CR0.NW, CR0.EM, CR0.TS off; CR0.MP on.
    mov rax, cr0
    and eax, 0x9ffffff3
    or eax, 2
    mov cr0, rax
    lgdt [rip + gdt_pointer]
    lidt [rip + idt_pointer]
    # The descriptor of the task state has its address in pieces. It is below 16 MiB.
    lea rax, [rip + task_state]
    mov word ptr [rip + task_descriptor + 2], ax
    shr eax, 16
    mov byte ptr [rip + task_descriptor + 4], al
    mov eax, 0x28
    ltr ax
    # The clock that KVM keeps, if it does: leaf 0x40000001, bit 3; then MSR_KVM_SYSTEM_TIME_NEW.
    mov eax, 0x40000001
    cpuid
    test al, 8
    jz 1f
    mov ecx, 0x4b564d01
    lea rax, [rip + kvm_clock + 1]
    xor edx, edx
    wrmsr
1:
    # To level 3, with interrupts off.
    mov rdi, rsi
    lea rax, [rip + level3_stack_top - 8]
    lea rdx, [rip + level3]
    push 0x1b
    push rax
    push 2
    push 0x23
    push rdx
    iretq

# The undefined instruction: a call of level 3's, or a fault.
.balign 16
.globl undefined_entry
undefined_entry:
    push rcx
    lea rcx, [rip + out_call]
    cmp qword ptr [rsp + 8], rcx
    je 1f
    lea rcx, [rip + wait_call]
    cmp qword ptr [rsp + 8], rcx
    je 2f
    pop rcx
    push 0
    push 6
    jmp pass_on
1:
    add qword ptr [rsp + 8], 2
    pop rcx
    out dx, al
    iretq
2:
    add qword ptr [rsp + 8], 2
    pop rcx
    sti
halt:
    hlt
    cli
    iretq

# An interrupt comes only while level 0 waits, and only ends that. If it comes just before the
# processor halts, halting is passed over: there may be no other.
.balign 16
.globl interrupt_entry
interrupt_entry:
    push rax
    lea rax, [rip + halt]
    cmp qword ptr [rsp + 8], rax
    jne 1f
    add qword ptr [rsp + 8], 1
1:
    pop rax
    iretq

# Faults: level 0 only passes them on, as an ordinary call at level 3.
# The vectors that bring an error code: 8, 10 to 14, 17, 21, 29, 30.
.balign 16
.globl fault_entries
fault_entries:
.irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .balign 16
    .if ((0x60227d00 >> \vector) & 1) == 0
    push 0
    .endif
    push \vector
    jmp pass_on
.endr
pass_on:
    pop rdi
    pop rsi
    pop rdx
    mov rcx, cr2
    lea rsp, [rip + level0_stack_top]
    lea rax, [rip + level3_stack_top - 8]
    lea r8, [rip + fault]
    push 0x1b
    push rax
    push 2
    push 0x23
    push r8
    iretq

# What level 3 asks of level 0: al to port dx; to wait for an interrupt. The undefined instruction is the call, for hosts whose
# KVM runs level 3 natively have neither its ports nor its software interrupts.
.globl level0_out
level0_out:
    mov edx, edi
    mov eax, esi
out_call:
    ud2
    ret

.globl level0_wait
level0_wait:
wait_call:
    ud2
    ret

# The first 4 GiB, each address at itself, for level 3 too: present, writable, user; 2 MiB pages.
.section .tables, "aw"
.balign 4096
level4:
    .quad level3_table + 7
    .fill 511, 8, 0
level3_table:
    .quad level2 + 7
    .quad level2 + 4096 + 7
    .quad level2 + 8192 + 7
    .quad level2 + 12288 + 7
    .fill 508, 8, 0
level2:
    .set address, 0
    .rept 2048
    .quad address + 0x87
    .set address, address + 0x200000
    .endr

.balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: code, level 0
    .quad 0x00cf93000000ffff    # 0x10: data, level 0
    .quad 0x00cff3000000ffff    # 0x18: data, level 3
    .quad 0x00affb000000ffff    # 0x20: code, level 3
task_descriptor:                # 0x28: 64-bit task state
    .quad 0x0000890000000067
    .quad 0
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt
.balign 8
idt_pointer:
    .word 4095
    .quad idt
.balign 16
task_state:
    .long 0
    .quad level0_stack_top
    .fill 90, 1, 0
    .word 104

.section .bss, "aw", @nobits
.balign 4096
.globl idt
idt:
    .skip 4096
.balign 64
.globl kvm_clock
kvm_clock:
    .skip 64
.balign 16
    .skip 4096
level0_stack_top:
.globl level3_stack_top
    .skip 131072
level3_stack_top:

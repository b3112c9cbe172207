# The functions that compiled code calls for blocks of memory. There is no C library.

.section .text.memory, "ax"
.globl memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret

.globl memmove
memmove:
    mov rax, rdi
    mov rcx, rdx
    mov r8, rdi
    sub r8, rsi
    cmp r8, rdx
    jb 1f
    rep movsb
    ret
1:  # The target begins within the source: backwards.
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret

.globl memset
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

.globl memcmp
.globl bcmp
memcmp:
bcmp:
    xor eax, eax
    mov rcx, rdx
    # An empty block is equal; repe leaves the flags as they are.
    cmp rcx, rcx
    repe cmpsb
    je 1f
    movzx eax, byte ptr [rdi - 1]
    movzx edx, byte ptr [rsi - 1]
    sub edx, eax
    mov eax, edx
1:  ret

# The standard library's alloc is compiled to unwind and refers to this. Nothing here unwinds.
.globl _Unwind_Resume
_Unwind_Resume:
    ud2

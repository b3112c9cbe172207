//! The part of classic BPF that seccomp filters are made of. Source: Linux, `include/uapi/linux/filter.h`,
//! `bpf_common.h` and `seccomp.h` (6.1).

pub(crate) const LOAD: u16 = 0x20;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
pub(crate) const JUMP_AT_LEAST: u16 = 0x35;
pub(crate) const RETURN: u16 = 0x06;
const AND: u16 = 0x54;

/// Offsets in `struct seccomp_data`.
pub(crate) const NUMBER: u32 = 0;
pub(crate) const ARCHITECTURE: u32 = 4;

/// `AUDIT_ARCH_X86_64` of `audit.h`.
pub(crate) const X86_64: u32 = 0xc000_003e;
/// `SECCOMP_RET_KILL_PROCESS`.
pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
/// `SECCOMP_RET_ERRNO`, to which the error's number is added.
pub(crate) const ERRNO: u32 = 0x0005_0000;
/// Most instructions of a filter (`BPF_MAXINSNS`).
pub(crate) const LONGEST: usize = 4096;

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

pub(crate) const fn step(code: u16, k: u32) -> Instruction {
    Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// What a filter answers to a system call of x86-64, if its number alone decides.
///
/// The same question that the kernel asks of a filter when it is loaded (`seccomp_is_const_allow`).
pub(crate) fn decide(program: &[Instruction], number: u32) -> Option<u32> {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let choice = |fits: bool| usize::from(if fits { jt } else { jf });
        match code {
            LOAD if k == NUMBER => accumulator = number,
            LOAD if k == ARCHITECTURE => accumulator = X86_64,
            LOAD => return None,
            RETURN => return Some(k),
            JUMP => at += usize::try_from(k).expect("a jump is short"),
            JUMP_EQUAL => at += choice(accumulator == k),
            JUMP_GREATER => at += choice(accumulator > k),
            JUMP_AT_LEAST => at += choice(accumulator >= k),
            AND => accumulator &= k,
            other => panic!("the compiler of filters uses the instruction {other:#x}"),
        }
    }
}

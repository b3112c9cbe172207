//! A filter that finds the system call's number by halves.
//!
//! `seccompiler` compares the number with each one in turn. That is slow where the kernel tries each number
//! when a filter is loaded, which for a program happens in each run; so only those whose arguments matter are
//! left to its code, and all others are found in ranges.
//!
//! ```text
//!   another architecture: end the process
//!   ranges of numbers, by halves: allow | error | end the process | see below
//!   seccompiler's filter of calls with arguments
//! ```

use crate::bpf::{
    ARCHITECTURE, ERRNO, Instruction, JUMP, JUMP_AT_LEAST, JUMP_EQUAL, KILL_PROCESS, LOAD, LONGEST,
    NUMBER, RETURN, X86_64, decide, step,
};
use crate::sources::Compiled;

/// The last system call that the names are known of (`mseal`, Linux 6.10).
const LAST: u32 = 462;
/// Numbers from here on are calls of the x32 ABI (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;
/// What a tracer, or a program that asks for nothing, gives as the number.
const NONE: u32 = u32::MAX;
const ENOSYS: u32 = 38;
/// The part of an answer that says what is done (`SECCOMP_RET_ACTION_FULL`).
const ACTION: u32 = 0xffff_0000;

/// What a filter answers to each number; nothing where the arguments decide.
pub(crate) struct Decisions(Vec<Option<u32>>);

impl Decisions {
    pub(crate) fn of(program: &[Instruction]) -> Decisions {
        Decisions((0..=LAST).map(|number| decide(program, number)).collect())
    }

    /// Of both, the stricter.
    fn and(&self, other: &Decisions) -> Result<Decisions, String> {
        let pairs = self.0.iter().zip(&other.0);
        let both = pairs.map(|(one, other)| match (one, other) {
            (_, Some(answer)) if answer & ACTION == ERRNO => Ok(Some(*answer)),
            (one, Some(_)) => Ok(*one),
            (_, None) => Err("what is absent is so whatever its arguments".to_owned()),
        });
        Ok(Decisions(both.collect::<Result<_, _>>()?))
    }

    /// Where a range begins, and what is answered in it.
    fn ranges(&self) -> Vec<(u32, Option<u32>)> {
        let known = (0..).zip(self.0.iter().copied());
        // What came to the kernel later is not there for a program: it has to do without.
        let beyond = [
            (LAST + 1, Some(ERRNO + ENOSYS)),
            (X32, Some(KILL_PROCESS)),
            (NONE, Some(ERRNO + ENOSYS)),
        ];
        let mut ranges: Vec<(u32, Option<u32>)> = known.chain(beyond).collect();
        ranges.dedup_by_key(|(_, answer)| *answer);
        ranges
    }
}

/// The filter that answers as the whole of `listed` does, but for what is absent.
pub(crate) fn join(listed: &Compiled, absent: &Decisions) -> Result<Vec<Instruction>, String> {
    let wanted = Decisions::of(&listed.whole).and(absent)?;
    let mut program = vec![
        step(LOAD, ARCHITECTURE),
        Instruction {
            jt: 1,
            ..step(JUMP_EQUAL, X86_64)
        },
        step(RETURN, KILL_PROCESS),
        step(LOAD, NUMBER),
    ];
    let mut open = Vec::new();
    halve(&wanted.ranges(), &mut program, &mut open)?;
    let end = program.len();
    for at in open {
        program[at].k = u32::try_from(end - at - 1).map_err(|error| error.to_string())?;
    }
    program.extend_from_slice(&listed.bounded);
    if program.len() > LONGEST {
        return Err(format!("{} instructions are too many", program.len()));
    }
    for (number, answer) in (0..).zip(&wanted.0) {
        if decide(&program, number) != *answer {
            return Err(format!("the search for the number {number} goes wrong"));
        }
    }
    Ok(program)
}

/// Appends the search among `ranges`; `open` are the jumps to what follows all of it.
fn halve(
    ranges: &[(u32, Option<u32>)],
    program: &mut Vec<Instruction>,
    open: &mut Vec<usize>,
) -> Result<(), String> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some((start, answer)) = high.first() else {
        return Err("there is nothing to search".into());
    };
    if low.is_empty() {
        match answer {
            Some(answer) => program.push(step(RETURN, *answer)),
            None => {
                open.push(program.len());
                program.push(step(JUMP, 0));
            }
        }
        return Ok(());
    }
    let at = program.len();
    program.push(step(JUMP_AT_LEAST, *start));
    halve(low, program, open)?;
    program[at].jt = u8::try_from(program.len() - at - 1)
        .map_err(|_| "a jump on a condition reaches 255 instructions only")?;
    halve(high, program, open)
}

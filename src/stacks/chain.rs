//! Callers without unwind data: the chain of frame pointers, checked, and the words between.
//!
//! Following `ebp` blindly loses every function that has no frame pointer: its caller is found
//! where *its caller's* caller should be. So before the chain is believed, the words between the
//! stack pointer and the frame pointer are searched for a return address whose call went to the
//! function that execution is in. A call that proves it beats one that only might.

use super::code::{Before, Code, Cpu, Relation};
use crate::space::Va;

/// Words searched for a return address, when no frame pointer says where to stop. Breakpad's
/// 160 words for a frame that is sure are often too few for a frame with a buffer.
const SEARCHED_WORDS: u64 = 512;
/// The same where the dump does not hold the code, so that a search finds what only looks like it.
const SEARCHED_BLINDLY: u64 = 160;
/// Registrations of exception handlers that are followed.
const MOST_HANDLERS: usize = 64;
/// No frame is longer: a frame pointer that leaps further is data.
const LONGEST_FRAME: u64 = 4 << 20;

/// The stack's bytes, as far as the dump holds them.
#[derive(Debug, Clone, Copy)]
pub(super) struct StackBytes<'a> {
    pub(super) start: Va,
    pub(super) bytes: &'a [u8],
}

impl StackBytes<'_> {
    /// The address behind the last byte.
    pub(super) fn end(&self) -> Va {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// The word at `va`.
    pub(super) fn word(&self, va: Va, size: u64) -> Option<u64> {
        let at = usize::try_from(va.checked_sub(self.start)?).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(usize::try_from(size).ok()?)?)?;
        match size {
            4 => Some(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            _ => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        }
    }

    fn contains(&self, va: Va, size: u64) -> bool {
        self.word(va, size).is_some()
    }
}

/// Registers that the search needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) ip: Va,
    pub(super) sp: Va,
    pub(super) fp: Option<Va>,
    /// The link register, which only Arm has.
    pub(super) lr: Option<Va>,
    /// Whether `ip` is where execution is, and no return address.
    pub(super) exact: bool,
}

/// The caller, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) ip: Va,
    pub(super) sp: Va,
    pub(super) fp: Option<Va>,
    /// Whether it was found by a search, and not by a frame pointer or by the code's own return.
    pub(super) searched: bool,
    /// Whether the call that left the return address was seen; without, a search may take what an
    /// earlier call left behind for the caller.
    pub(super) sure: bool,
}

/// What the search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Found(Found),
    /// The thread starts here.
    None,
    /// There should be one, and it was not found.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    found: Found,
    relation: Relation,
}

impl Code<'_> {
    /// The caller of the frame at `at`.
    pub(super) fn caller(&self, at: At, stack: StackBytes<'_>) -> Caller {
        if at.exact
            && self.cpu == Cpu::X86
            && let Some(found) = self.run_to_return(at, stack)
        {
            return Caller::Found(found);
        }
        if at.exact
            && self.cpu == Cpu::Arm64
            && let Some(found) = self.by_link_register(at)
        {
            return Caller::Found(found);
        }
        let inside = self.inside(at.ip, !at.exact);
        let chain = self.by_frame_pointer(at, inside, stack);
        if let Err(end) = chain {
            return end;
        }
        let chain = chain.ok().flatten();
        if let Some(it) = chain
            && self.cpu == Cpu::Arm64
        {
            return Caller::Found(it.found);
        }
        let mut from = at.sp;
        let mut frameless = false;
        let proven = matches!(chain, Some(Candidate { relation: Relation::Calls(_), .. }));
        if self.cpu == Cpu::X86
            && !proven
            && let Some(start) = self.function_start(inside)
            && self.has_frame_pointer(start, inside) == Some(false)
        {
            frameless = true;
            from = from.saturating_add(self.prolog_size(start, inside));
        }
        let searched = self.by_search(at, from, inside, chain.map(|it| it.found), stack);
        let best = match (chain, searched) {
            (Some(chain), Some(searched)) => {
                let better = match (chain.relation, searched.relation) {
                    (Relation::Calls(a), Relation::Calls(b)) => a < b,
                    (_, Relation::Calls(_)) => true,
                    (_, Relation::Unknown) => frameless,
                    _ => false,
                };
                Some(if better { searched } else { chain })
            }
            (chain, searched) => chain.or(searched),
        };
        best.map_or(Caller::Lost, |it| Caller::Found(it.found))
    }

    /// Runs what is left of a function that is about to return. System calls end like this, and
    /// most threads of a dump stand in one.
    fn run_to_return(&self, at: At, stack: StackBytes<'_>) -> Option<Found> {
        let (mut ip, mut sp, mut fp) = (at.ip, at.sp, at.fp);
        for _ in 0..8 {
            let bytes = self.memory.array::<6>(ip)?;
            let length = match bytes {
                // add esp, size
                [0x83, 0xc4, size, ..] if size < 0x80 => {
                    sp = sp.checked_add(size.into())?;
                    3
                }
                // mov esp, ebp
                [0x8b, 0xe5, ..] | [0x89, 0xec, ..] => {
                    sp = fp?;
                    2
                }
                // leave
                [0xc9, ..] => {
                    let frame = fp?;
                    fp = Some(stack.word(frame, 4)?);
                    sp = frame.checked_add(4)?;
                    1
                }
                // pop register
                [pop @ 0x58..=0x5f, ..] => {
                    let value = stack.word(sp, 4)?;
                    match pop {
                        0x5c => return None,
                        0x5d => fp = Some(value),
                        _ => {}
                    }
                    sp = sp.checked_add(4)?;
                    1
                }
                // ret, ret size
                [0xc3 | 0xc2, ..] => {
                    let mut ip = stack.word(sp, 4)?;
                    // What a system call of WOW64 pushed may still be there: Windows 7 leaves its
                    // own return address to be popped, others do not.
                    if !self.is_return_address(ip) {
                        return None;
                    }
                    if ip == at.ip {
                        sp = sp.checked_add(4)?;
                        ip = stack.word(sp, 4)?;
                    }
                    let sound = self.is_return_address(ip);
                    let sp = sp.checked_add(4)?;
                    return sound.then_some(Found { ip, sp, fp, searched: false, sure: true });
                }
                _ => return None,
            };
            ip = ip.checked_add(length)?;
        }
        None
    }

    /// A function that calls nobody leaves its return address in the link register. System calls
    /// do; elsewhere the register may hold what an earlier call left there.
    fn by_link_register(&self, at: At) -> Option<Found> {
        let lr = at.lr.filter(|&it| it != at.ip && self.is_return_address(it))?;
        let system_call = at
            .ip
            .checked_sub(4)
            .and_then(|it| self.memory.u32(it))
            .is_some_and(|it| it & 0xffe0_001f == 0xd400_0001);
        let here = self.names.function(at.ip);
        let there = self.names.function(lr.saturating_sub(4));
        let elsewhere = match (here, there) {
            (Some(here), Some(there)) => here.start != there.start && here.exact && there.exact,
            _ => false,
        };
        let stale = !system_call && !elsewhere;
        // The crate lets a stack pointer stay where it is for the innermost frame only.
        (!stale).then_some(Found { ip: lr, sp: at.sp, fp: at.fp, searched: false, sure: true })
    }

    /// The next link of the chain. An error when the chain ends here.
    fn by_frame_pointer(
        &self,
        at: At,
        inside: Va,
        stack: StackBytes<'_>,
    ) -> Result<Option<Candidate>, Caller> {
        let word = self.cpu.word();
        let link = at.fp.filter(|&it| at.sp <= it && it % word == 0);
        let link = link.filter(|it| it.saturating_sub(at.sp) <= LONGEST_FRAME);
        let read = |fp: Va| {
            Some((stack.word(fp, word)?, stack.word(fp.checked_add(word)?, word)?, fp + word * 2))
        };
        let Some((fp, ip, sp)) = link.and_then(read) else { return Ok(None) };
        let ip = if self.cpu == Cpu::Arm64 { strip_signature(ip) } else { ip };
        if ip == 0 {
            // The first function of a thread was called by nobody. A frame pointer of data may
            // point to a zero as well, but then the next link is not zero.
            return if fp == 0 { Err(Caller::None) } else { Ok(None) };
        }
        if !self.is_return_address(ip) {
            return Ok(None);
        }
        let goes_up = fp == 0 || sp.saturating_sub(word * 2) < fp && stack.contains(fp, word);
        let relation = self.relation(ip, inside);
        // Without proof, and with a link that leads nowhere, it is as good as any word.
        if !goes_up && !matches!(relation, Relation::Calls(_)) && self.before(ip) == Before::Unseen
        {
            return Ok(None);
        }
        let fp = goes_up.then_some(fp).filter(|&it| it != 0);
        Ok(Some(Candidate { found: Found { ip, sp, fp, searched: false, sure: true }, relation }))
    }

    /// The best return address between the stack pointer and where the chain found one.
    fn by_search(
        &self,
        at: At,
        from: Va,
        inside: Va,
        chain: Option<Found>,
        stack: StackBytes<'_>,
    ) -> Option<Candidate> {
        let word = self.cpu.word();
        let start = from.checked_next_multiple_of(word)?;
        let blind = self.memory.u8(inside).is_none();
        let words = if blind { SEARCHED_BLINDLY } else { SEARCHED_WORDS };
        let limit = start.saturating_add(words * word);
        // The chain's return address is two words below the stack pointer that it found.
        let end = chain.map_or(limit, |it| it.sp.saturating_sub(word).min(limit));
        let mut best: Option<Candidate> = None;
        let mut slot = start;
        while slot < end {
            let Some(ip) = stack.word(slot, word) else { break };
            if self.looks_like_return_address(ip) {
                let relation = self.relation(ip, inside);
                let better = match (relation, best.map(|it| it.relation)) {
                    // What has a frame pointer is found by it, unless there is none to follow.
                    (Relation::Calls(it), _)
                        if chain.is_some()
                            && it != inside
                            && self.has_frame_pointer(it, inside) == Some(true) =>
                    {
                        false
                    }
                    (Relation::Calls(new), Some(Relation::Calls(old))) => old < new,
                    (Relation::Calls(_), _) | (_, None) => true,
                    (Relation::Unknown, Some(Relation::CallsOther)) => true,
                    _ => false,
                };
                if better {
                    let fp = self.frame_pointer_behind(at, slot, stack);
                    let sp = slot.checked_add(word)?;
                    let sure = self.before(ip) != Before::Unseen;
                    best = Some(Candidate {
                        found: Found { ip, sp, fp, searched: true, sure },
                        relation,
                    });
                }
            }
            slot = slot.checked_add(word)?;
        }
        best
    }

    /// A caller further out, by the chain of exception handlers, when nothing else leads on. A
    /// function that handles exceptions keeps its registration at a known place below its frame
    /// pointer: `_EH3_EXCEPTION_REGISTRATION` and its successor 16 bytes, C++'s 12. What was called
    /// between is missing from the stack then.
    ///
    /// `{Next, Handler}`: `EXCEPTION_REGISTRATION_RECORD` in `winnt.h`.
    pub(super) fn by_handler(&self, at: At, handlers: Va, stack: StackBytes<'_>) -> Option<Found> {
        let mut record = handlers;
        for _ in 0..MOST_HANDLERS {
            let next = stack.word(record, 4)?;
            let handler = stack.word(record.checked_add(4)?, 4)?;
            if at.sp <= record && self.is_executable(handler) {
                for distance in [16, 12] {
                    let frame = record.checked_add(distance)?;
                    let fp = stack.word(frame, 4)?;
                    let ip = stack.word(frame.checked_add(4)?, 4)?;
                    let goes_up = frame < fp && stack.contains(fp, 4);
                    if goes_up && ip != at.ip && self.looks_like_return_address(ip) {
                        let sp = frame.checked_add(8)?;
                        return Some(Found { ip, sp, fp: Some(fp), searched: true, sure: false });
                    }
                }
            }
            // The chain goes up the stack, and -1 ends it.
            record = Some(next).filter(|&it| record < it)?;
        }
        None
    }

    /// The frame pointer of a caller that was found by its return address at `slot`: what the
    /// function saved just below, or what it left alone.
    fn frame_pointer_behind(&self, at: At, slot: Va, stack: StackBytes<'_>) -> Option<Va> {
        let word = self.cpu.word();
        let points_up = |it: &Va| {
            slot < *it && it.saturating_sub(slot) <= LONGEST_FRAME && stack.contains(*it, word)
        };
        let kept = at.fp.filter(points_up);
        let saved = slot
            .checked_sub(word)
            .filter(|&it| at.sp <= it)
            .and_then(|it| stack.word(it, word))
            .filter(points_up);
        // The frame pointer that is still in its register is surely somebody's; a word that
        // happens to point up the stack may be an argument.
        kept.or(saved)
    }
}

/// Pointer authentication keeps a signature in the bits that user addresses do not use.
pub(super) fn strip_signature(va: Va) -> Va {
    va & 0x0000_7fff_ffff_ffff
}

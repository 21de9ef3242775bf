//! Code in memory: where it can run, and which addresses stand behind a call.
//!
//! A word on a stack that points behind a `call` is almost surely a return address, and the call
//! says which function it went to. That is what tells a real caller from what an earlier call left
//! behind.

use std::collections::{HashMap, HashSet};

use super::dynamic::Dynamic;
use crate::process::{Image, PeHeader, Process};
use crate::space::{Memory, State, Va, VaRange};
use crate::symbols::Names;

/// A function longer than this is not believed.
const LONGEST_FUNCTION: u64 = 64 << 10;

/// How far a function's start is looked for by the padding in front of it.
const LONGEST_GUESSED: u64 = 4 << 10;

/// Images beyond this are mapped as images.
const LARGEST_UNLISTED: u64 = 256 << 20;
/// Regions of such an image below its code.
const MOST_SECTIONS: usize = 16;

/// Instruction set of the side that is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cpu {
    X86,
    X64,
    Arm64,
}

impl Cpu {
    /// Bytes of a word on the stack.
    pub(super) fn word(self) -> u64 {
        if self == Cpu::X86 { 4 } else { 8 }
    }

    /// How far a call instruction reaches back from the return address, so that looking there
    /// finds the caller and not what follows it.
    fn into_call(self) -> u64 {
        if self == Cpu::Arm64 { 4 } else { 1 }
    }
}

/// What stands before an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// A call, and where it goes, when that stands in the code.
    Call(Option<Va>),
    /// Something else.
    Other,
    /// The dump does not hold it.
    Unseen,
}

/// How a call relates to the function that it should have called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// It goes to this address, from where the function may well reach to where execution is.
    Calls(Va),
    /// It goes somewhere else.
    CallsOther,
    /// Where it goes does not stand in the code.
    Unknown,
}

/// Code of a process.
#[derive(Debug)]
pub(super) struct Code<'a> {
    pub(super) process: &'a Process,
    pub(super) names: &'a Names<'a>,
    pub(super) memory: &'a Memory,
    pub(super) cpu: Cpu,
    /// Unwind data that generated code has registered.
    pub(super) dynamic: Dynamic,
    /// Ids of the threads.
    pub(super) threads: HashSet<u32>,
    /// Handles by their value: indices in the process's list.
    pub(super) handles: HashMap<u64, usize>,
}

impl<'a> Code<'a> {
    pub(super) fn new(
        process: &'a Process,
        names: &'a Names<'a>,
        memory: &'a Memory,
        cpu: Cpu,
    ) -> Self {
        let dynamic = match cpu {
            Cpu::X64 => Dynamic::find(process, memory),
            _ => Dynamic::default(),
        };
        let threads = process.threads.iter().map(|it| it.id).collect();
        let handles = process.handles.iter().flat_map(|it| &it.handles).enumerate();
        let handles = handles.map(|(idx, it)| (it.value, idx)).collect();
        Self { process, names, memory, cpu, dynamic, threads, handles }
    }

    /// The image at `va`, when its code is of the kind that is walked.
    pub(super) fn image(&self, va: Va) -> Option<&'a Image> {
        let image = self.names.image(va)?;
        let fits = image.pe.is_none_or(|it| it.is_64 == (self.cpu != Cpu::X86));
        fits.then_some(image)
    }

    /// The header of an image that the system did not map as one, as .NET does with the
    /// assemblies inside of a single-file program: it maps or copies them section by section. No
    /// list has it.
    pub(super) fn unlisted_image(&self, va: Va) -> Option<PeHeader> {
        if self.names.image(va).is_some() {
            return None;
        }
        let below = VaRange::between(va.saturating_sub(LARGEST_UNLISTED), va.checked_add(1)?)?;
        let regions = self.process.regions.within(below).iter().rev();
        let regions = regions.filter(|it| it.state == State::Commit).take(MOST_SECTIONS);
        let pe =
            regions.map(|it| it.range.start()).find_map(|it| PeHeader::read(self.memory, it))?;
        let inside = va.saturating_sub(pe.base) < u64::from(pe.size_of_image);
        (inside && pe.is_64 == (self.cpu != Cpu::X86)).then_some(pe)
    }

    /// Whether code at `va` can run.
    pub(super) fn is_executable(&self, va: Va) -> bool {
        let region = self.process.regions.at(va).filter(|it| it.state == State::Commit);
        let known = region.filter(|it| it.protect.0 != 0);
        if self.names.image(va).is_some() {
            return self.image(va).is_some()
                && match known {
                    Some(it) => it.protect.is_executable(),
                    None => self.names.in_code_section(va).unwrap_or(true),
                };
        }
        known.is_some_and(|it| it.protect.is_executable())
    }

    /// Whether `va` may be a return address. What the dump does not hold is given the benefit of
    /// the doubt.
    pub(super) fn is_return_address(&self, va: Va) -> bool {
        let Some(call) = va.checked_sub(self.cpu.into_call()) else { return false };
        self.is_executable(call) && self.before(va) != Before::Other
    }

    /// As [`Self::is_return_address`], for words that could be anything: the call must be seen.
    /// In a dump without code, a word that points into a function is all there is.
    pub(super) fn looks_like_return_address(&self, va: Va) -> bool {
        let Some(call) = va.checked_sub(self.cpu.into_call()) else { return false };
        if !self.is_executable(call) {
            return false;
        }
        match self.before(va) {
            Before::Call(_) => true,
            Before::Other => false,
            Before::Unseen => {
                !self.names.has_symbols(call)
                    || self.names.function(call).is_some_and(|it| it.exact)
            }
        }
    }

    /// Whether a system call returns to `va`, in a function that has no frame: by the instructions
    /// around it, or by the function's name where the dump does not hold them. Not for ARM64, where
    /// a register has the return address.
    pub(super) fn is_behind_system_call(&self, va: Va) -> bool {
        /// Bytes of such a function.
        const LONGEST: u64 = 0x20;
        if self.cpu == Cpu::Arm64 {
            return false;
        }
        let call = va.checked_sub(2).and_then(|it| self.memory.array::<2>(it));
        if let (Some(call), Some(next)) = (call, self.memory.u8(va)) {
            let enters = match self.cpu {
                // call edx; int 2e; sysenter
                Cpu::X86 => [[0xff, 0xd2], [0xcd, 0x2e], [0x0f, 0x34]].contains(&call),
                // syscall; int 2e
                _ => [[0x0f, 0x05], [0xcd, 0x2e]].contains(&call),
            };
            // ret; ret n
            return enters && matches!(next, 0xc2 | 0xc3);
        }
        let function = self.names.function(va).filter(|it| it.exact);
        function.is_some_and(|it| {
            let is_call = ["Nt", "Zw"].iter().any(|prefix| it.name.starts_with(prefix));
            is_call && va.saturating_sub(it.start) < LONGEST
        })
    }

    /// What stands before `va`.
    pub(super) fn before(&self, va: Va) -> Before {
        match self.cpu {
            Cpu::Arm64 => self.before_arm64(va),
            Cpu::X86 | Cpu::X64 => self.before_intel(va),
        }
    }

    fn before_arm64(&self, va: Va) -> Before {
        let Some(at) = va.checked_sub(4).filter(|it| it % 4 == 0) else { return Before::Other };
        let Some(word) = self.memory.u32(at) else { return Before::Unseen };
        if word >> 26 == 0b10_0101 {
            // BL: 26 bits, signed, in words.
            let distance = i64::from((word << 6) as i32 >> 4);
            return Before::Call(at.checked_add_signed(distance));
        }
        // BLR, and its variants with pointer authentication.
        let indirect = word & 0xffff_fc1f == 0xd63f_0000 || word & 0xfeff_f800 == 0xd63f_0800;
        if indirect { Before::Call(None) } else { Before::Other }
    }

    fn before_intel(&self, va: Va) -> Before {
        let Some(bytes) = va.checked_sub(7).and_then(|it| self.memory.array::<7>(it)) else {
            return Before::Unseen;
        };
        // call rel32: E8 and a distance.
        if let [_, _, 0xe8, a, b, c, d] = bytes {
            let target = self.relative(va, i32::from_le_bytes([a, b, c, d]));
            let target =
                target.map(|it| self.through_thunks(it)).filter(|&it| self.is_executable(it));
            if target.is_some() {
                return Before::Call(target);
            }
        }
        // call [absolute] or call [rip + distance]: through an import, most of the time.
        if let [_, 0xff, 0x15, a, b, c, d] = bytes {
            let slot = match self.cpu {
                Cpu::X86 => Some(u32::from_le_bytes([a, b, c, d]).into()),
                _ => self.relative(va, i32::from_le_bytes([a, b, c, d])),
            };
            let target = slot.and_then(|it| self.memory.pointer(it));
            let target =
                target.map(|it| self.through_thunks(it)).filter(|&it| self.is_executable(it));
            return Before::Call(target);
        }
        // call through a register or memory: FF /2 with a length that its ModRM byte explains.
        let starts = [2_usize, 3, 4, 6, 7].into_iter();
        let fits = |length: usize| {
            let at = bytes.len().saturating_sub(length);
            bytes.get(at) == Some(&0xff)
                && bytes.get(at.saturating_add(1)).and_then(|&it| self.indirect_length(it))
                    == Some(length)
        };
        if starts.into_iter().any(fits) { Before::Call(None) } else { Before::Other }
    }

    /// Length of `FF /2` with this ModRM byte. With a SIB byte, base 5 without displacement is
    /// taken for the rare thing it is, and not believed.
    fn indirect_length(&self, modrm: u8) -> Option<usize> {
        let (mode, operation, register) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        if operation != 2 {
            return None;
        }
        Some(match (mode, register) {
            (3, _) => 2,
            (0, 4) => 3,
            (0, 5) => 6,
            (0, _) => 2,
            (1, 4) => 4,
            (1, _) => 3,
            (_, 4) => 7,
            (_, _) => 6,
        })
    }

    fn relative(&self, next: Va, distance: i32) -> Option<Va> {
        let target = next.checked_add_signed(distance.into());
        match self.cpu {
            // 32-bit code wraps.
            Cpu::X86 => Some(u64::from((next as u32).wrapping_add_signed(distance))),
            _ => target,
        }
    }

    /// Where jumps lead that stand in place of a function: incremental linking, hot patching,
    /// imports.
    fn through_thunks(&self, mut va: Va) -> Va {
        for _ in 0..4 {
            let Some(bytes) = self.memory.array::<6>(va) else { break };
            let next = match bytes {
                [0xe9, a, b, c, d, _] => {
                    let next = va.saturating_add(5);
                    self.relative(next, i32::from_le_bytes([a, b, c, d]))
                }
                [0xeb, a, ..] => self.relative(va.saturating_add(2), (a as i8).into()),
                [0xff, 0x25, a, b, c, d] => {
                    let slot = match self.cpu {
                        Cpu::X86 => Some(u32::from_le_bytes([a, b, c, d]).into()),
                        _ => self.relative(va.saturating_add(6), i32::from_le_bytes([a, b, c, d])),
                    };
                    slot.and_then(|it| self.memory.pointer(it))
                }
                _ => None,
            };
            match next.filter(|&it| self.is_executable(it)) {
                Some(next) => va = next,
                None => break,
            }
        }
        va
    }

    /// Whether the call before `return_address` may have gone to the function that `inside` is in.
    pub(super) fn relation(&self, return_address: Va, inside: Va) -> Relation {
        let Before::Call(Some(target)) = self.before(return_address) else {
            return Relation::Unknown;
        };
        let same_image = match (self.names.image(target), self.names.image(inside)) {
            (Some(a), Some(b)) => a.range == b.range,
            (None, None) => true,
            _ => false,
        };
        if !same_image || inside < target || LONGEST_FUNCTION < inside.saturating_sub(target) {
            return Relation::CallsOther;
        }
        // A function with a name that starts between the two is another function.
        let between = self.names.function(inside).is_some_and(|it| target < it.start);
        if between { Relation::CallsOther } else { Relation::Calls(target) }
    }

    /// Whether the function at `start` sets up a frame pointer before it gets to `end`; `None`
    /// when the dump does not hold it.
    pub(super) fn has_frame_pointer(&self, start: Va, end: Va) -> Option<bool> {
        let bytes = self.memory.slice_up_to(start, end.saturating_sub(start).min(24));
        if bytes.is_empty() {
            return None;
        }
        let frame = |it: &[u8]| matches!(it, [0x55, 0x8b, 0xec] | [0x55, 0x89, 0xe5]);
        let bare = bytes.strip_prefix(&[0x8b, 0xff]).unwrap_or(bytes);
        // push size; push table; call __SEH_prolog
        let seh = matches!(
            bare,
            [0x6a, _, 0x68, _, _, _, _, 0xe8, ..] | [0x68, _, _, _, _, 0x68, _, _, _, _, 0xe8, ..]
        );
        Some(seh || bytes.windows(3).any(frame))
    }

    /// Where the function begins that `inside` lies in, when a name tells, or the padding in front
    /// of it and the look of its first instruction. For 32-bit code only.
    pub(super) fn function_start(&self, inside: Va) -> Option<Va> {
        let named = self.names.function(inside);
        if let Some(it) = &named
            && it.exact
        {
            return Some(it.start);
        }
        let mut start = inside & !15;
        let lowest = inside.saturating_sub(LONGEST_GUESSED);
        let guessed = loop {
            if start < lowest {
                break None;
            }
            if self.begins_at(start) {
                break Some(start);
            }
            start = start.checked_sub(16)?;
        };
        let named = named.map(|it| it.start).filter(|&it| lowest <= it);
        named.max(guessed)
    }

    /// Whether a function begins at `va`, judged by what stands in front of it. Two bytes of
    /// padding do not occur inside functions, where compilers pad with longer instructions. Behind
    /// a return, the function may go on, so the first instruction has to look like one.
    fn begins_at(&self, va: Va) -> bool {
        let Some(before) = va.checked_sub(4).and_then(|it| self.memory.array::<4>(it)) else {
            return false;
        };
        match before {
            [_, _, 0xcc, 0xcc] | [_, _, 0x90, 0x90] => true,
            [_, _, 0xc3, 0x90] | [0xc2, _, 0, 0x90] => true,
            [_, _, _, 0xcc | 0xc3] | [_, 0xc2 | 0x76 | 0x26, _, 0] => self.looks_like_prolog(va),
            _ => false,
        }
    }

    fn looks_like_prolog(&self, va: Va) -> bool {
        matches!(
            self.memory.array::<4>(va),
            Some(
                [0x50..=0x57 | 0x6a | 0x68 | 0xb8, ..]
                    | [0x83 | 0x81, 0xec, ..]
                    | [0x8b, 0xff, ..]
                    | [0x8b, 0x44 | 0x4c | 0x54, 0x24, _]
                    | [0x8d, 0x4c, 0x24, 4]
            )
        )
    }

    /// Bytes that the function at `start` surely takes off the stack before it gets to `end`: what
    /// its prolog pushes and reserves.
    pub(super) fn prolog_size(&self, start: Va, end: Va) -> u64 {
        let (mut at, mut size) = (start, 0_u64);
        for _ in 0..12 {
            let Some(bytes) = self.memory.array::<6>(at).filter(|_| at < end) else { break };
            let (length, taken) = match bytes {
                // Registers that a function must keep. Other pushes may be arguments, which the
                // next call takes off again.
                [0x53 | 0x55..=0x57, ..] => (1, 4),
                [0x83, 0xec, bytes, ..] if bytes < 0x80 => (3, bytes.into()),
                [0x81, 0xec, a, b, c, d] => (6, u32::from_le_bytes([a, b, c, d]).into()),
                // mov eax, size; call _chkstk
                [0xb8, a, b, c, 0, 0xe8] => (10, u32::from_le_bytes([a, b, c, 0]).into()),
                [0x8b, 0xff, ..] | [0x33, 0xc0, ..] | [0x31, 0xc0, ..] => (2, 0),
                [0x8b, 0x44 | 0x4c | 0x54 | 0x5c | 0x74 | 0x7c, 0x24, ..] => (4, 0),
                _ => break,
            };
            if end < at.saturating_add(length) {
                break;
            }
            at = at.saturating_add(length);
            size = size.saturating_add(taken);
        }
        size
    }

    /// An address that surely lies in the function that a return address belongs to.
    pub(super) fn inside(&self, ip: Va, is_return: bool) -> Va {
        if is_return { ip.saturating_sub(self.cpu.into_call()) } else { ip }
    }
}

//! ARM64 frames by the image's own unwind data, packed or full.
//!
//! ```text
//!   entry   Begin u32, Data u32      sorted, data directory 3
//!   Data    low 2 bits: 0 the rest is the RVA of .xdata; 1 packed; 2 packed, a part without prolog
//!   packed  Flag:2 FunctionLength:11 (words) RegF:3 RegI:4 H:1 CR:2 FrameSize:9 (in 16 bytes)
//!   .xdata  FunctionLength:18 (words) Version:2 X:1 E:1 EpilogCount:5 CodeWords:5; when both are 0,
//!           another word EpilogCount:16 CodeWords:8; without E a word for each epilog:
//!           Start:18 (words) 4 unused Index:10; then the codes, each an instruction of the prolog,
//!           last instruction first
//! ```
//!
//! <https://learn.microsoft.com/cpp/build/arm64-exception-handling>. To walk on, three registers are
//! enough: the stack pointer, the frame pointer and the link register. Nothing else is restored.

use crate::process::PeHeader;
use crate::space::{Memory, Va};

/// `IMAGE_DIRECTORY_ENTRY_EXCEPTION`.
const EXCEPTION: u32 = 3;
/// Codes of one function: 255 words of four bytes.
const MOST_CODES: usize = 1020;
/// x29, the frame pointer, counted from x19.
const FP: u32 = 10;
/// x30, the link register.
const LR: u32 = 11;

/// Registers that walking needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arm64 {
    pub(super) pc: Va,
    pub(super) sp: Va,
    pub(super) fp: Option<Va>,
    pub(super) lr: Option<Va>,
}

/// The functions of one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arm64Entries<'a> {
    memory: &'a Memory,
    base: Va,
    table: Va,
    count: u64,
}

impl<'a> Arm64Entries<'a> {
    /// The unwind data of an image, when it has any and the dump holds it.
    pub(super) fn of_image(memory: &'a Memory, pe: &PeHeader) -> Option<Self> {
        let (rva, size) = pe.directory(memory, EXCEPTION)?;
        let table = pe.at(rva)?;
        memory.array::<8>(table)?;
        Some(Self { memory, base: pe.base, table, count: u64::from(size / 8) })
    }

    /// The caller's registers; `lr` is not known there. `exact` says that `pc` is where execution
    /// is, and no return address.
    pub(super) fn unwind(&self, at: &Arm64, exact: bool) -> Option<Arm64> {
        let rva = at.pc.checked_sub(self.base)?;
        let rva = u32::try_from(if exact { rva } else { rva.checked_sub(4)? }).ok()?;
        let Some((begin, data)) = self.lookup(rva)? else {
            // A function without an entry leaves everything where it was.
            return exact.then(|| returned(*at)).flatten();
        };
        let words = rva.checked_sub(begin)? / 4;
        if data & 3 == 0 {
            return self.by_codes(at, data, words, exact);
        }
        // A packed function has its epilog at the end, where the return is all that is left.
        let ret = 0xd65f_03c0;
        if exact && (words == 0 && data & 3 == 1 || self.memory.u32(at.pc) == Some(ret)) {
            return returned(*at);
        }
        self.packed(at, data, words, exact)
    }

    /// The entry that `rva` lies in; `Some(None)` when there is none.
    #[expect(
        clippy::option_option,
        reason = "the dump does not hold the table, or the table has none"
    )]
    fn lookup(&self, rva: u32) -> Option<Option<(u32, u32)>> {
        let entry = |idx: u64| {
            let va = self.table.checked_add(idx.checked_mul(8)?)?;
            Some((self.memory.u32(va)?, self.memory.u32(va.checked_add(4)?)?))
        };
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if entry(middle)?.0 <= rva { low = middle + 1 } else { high = middle }
        }
        let Some(idx) = low.checked_sub(1) else { return Some(None) };
        let (begin, data) = entry(idx)?;
        let length = match data & 3 {
            0 => (self.memory.u32(self.base.checked_add(data.into())?)? & 0x3_ffff) * 4,
            _ => (data >> 2 & 0x7ff) * 4,
        };
        Some((rva.checked_sub(begin)? < length).then_some((begin, data)))
    }

    /// What the prolog of packed data does is fixed: registers and the link register are saved
    /// below what the caller had, locals below these, with the frame pointer at their end.
    fn packed(&self, at: &Arm64, data: u32, words: u32, exact: bool) -> Option<Arm64> {
        let floats = u64::from(data >> 13 & 7);
        let integers = u64::from(data >> 16 & 15);
        let homes = u64::from(data >> 20 & 1);
        let chain = data >> 21 & 3;
        let frame = u64::from(data >> 23) * 16;
        let integer_bytes = (integers + u64::from(chain == 1)) * 8;
        let float_bytes = if floats == 0 { 0 } else { (floats + 1) * 8 };
        let saved = (integer_bytes + float_bytes + homes * 64).next_multiple_of(16);
        let locals = frame.checked_sub(saved)?;
        // In the middle of the prolog only full data would say what is done already.
        let steps = integer_bytes.div_ceil(16) + float_bytes.div_ceil(16) + homes * 4 + 4;
        if exact && data & 3 == 1 && u64::from(words) < steps {
            return None;
        }
        if 2 <= chain {
            let fp = at.fp?;
            let caller = self.pair(*at, fp)?;
            return returned(Arm64 { sp: fp.checked_add(frame)?, ..caller });
        }
        let sp = at.sp.checked_add(frame)?;
        let lr = match chain {
            1 => {
                let slot = at.sp.checked_add(locals)?.checked_add(integers * 8)?;
                Some(self.memory.u64(slot)?)
            }
            // Only a function that calls nobody leaves it in its register.
            _ => at.lr.filter(|_| exact),
        };
        returned(Arm64 { sp, lr, ..*at })
    }

    fn by_codes(&self, at: &Arm64, xdata: u32, words: u32, exact: bool) -> Option<Arm64> {
        let va = self.base.checked_add(xdata.into())?;
        let header = self.memory.u32(va)?;
        if header >> 18 & 3 != 0 {
            return None;
        }
        let (mut epilogs, mut code_words) = (header >> 22 & 31, header >> 27);
        let single = header >> 21 & 1 == 1;
        let mut next = va.checked_add(4)?;
        if epilogs == 0 && code_words == 0 {
            let more = self.memory.u32(next)?;
            (epilogs, code_words) = (more & 0xffff, more >> 16 & 0xff);
            next = next.checked_add(4)?;
        }
        let scopes = if single { 0 } else { u64::from(epilogs) };
        let codes_at = next.checked_add(scopes * 4)?;
        let codes = self.memory.slice(codes_at, u64::from(code_words) * 4)?;
        if !exact {
            return self.apply(at, codes, 0);
        }
        // The innermost frame may stand in an epilog, whose first instructions are done.
        let length = header & 0x3_ffff;
        let in_epilog = |start: u32, index: u32| {
            let codes = codes.get(usize::try_from(index).ok()?..)?;
            let done = words.checked_sub(start)?;
            (done < instructions(codes)).then_some((codes, done))
        };
        let mut epilog = None;
        if single {
            // At the end of the function; its codes and the return.
            let index = usize::try_from(epilogs).ok()?;
            let size = instructions(codes.get(index..)?);
            epilog = length.checked_sub(size).and_then(|it| in_epilog(it, epilogs));
        } else {
            for scope in 0..scopes {
                let scope = self.memory.u32(next.checked_add(scope * 4)?)?;
                epilog = epilog.or_else(|| in_epilog(scope & 0x3_ffff, scope >> 22));
            }
        }
        if let Some((codes, done)) = epilog {
            return self.apply(at, codes, done);
        }
        // Codes stand in the order of undoing: of a prolog that is half done, the last ones count.
        let prolog = instructions(codes).saturating_sub(1);
        self.apply(at, codes, prolog.saturating_sub(words))
    }

    /// Undoes what the codes stand for, without the first `skipped`.
    fn apply(&self, at: &Arm64, codes: &[u8], mut skipped: u32) -> Option<Arm64> {
        // Until it is loaded, the link register is what it was on entry.
        let mut state = *at;
        let mut rest = codes;
        for _ in 0..MOST_CODES {
            let &first = rest.first()?;
            let (code, behind) = rest.split_at_checked(length(first))?;
            rest = behind;
            if matches!(first, 0xe4) {
                return returned(state);
            }
            // end_c goes on with the codes of the part that this one continues.
            if first == 0xe5 {
                continue;
            }
            if let Some(left) = skipped.checked_sub(1) {
                skipped = left;
                continue;
            }
            state = self.undo(state, code)?;
        }
        None
    }

    fn undo(&self, mut it: Arm64, code: &[u8]) -> Option<Arm64> {
        let value = code.iter().fold(0_u32, |all, &byte| all << 8 | u32::from(byte));
        let slots = |bits: u32| u64::from(bits) * 8;
        let &first = code.first()?;
        let grow = |it: Arm64, bytes: u64| Some(Arm64 { sp: it.sp.checked_add(bytes)?, ..it });
        match first {
            // alloc_s, alloc_m, alloc_l
            0x00..=0x1f => grow(it, u64::from(value & 0x1f) * 16),
            0xc0..=0xc7 => grow(it, u64::from(value & 0x7ff) * 16),
            0xe0 => grow(it, u64::from(value & 0xff_ffff) * 16),
            // save_r19r20_x
            0x20..=0x3f => grow(it, slots(value & 0x1f)),
            // save_fplr, save_fplr_x
            0x40..=0x7f => self.pair(it, it.sp.checked_add(slots(value & 0x3f))?),
            0x80..=0xbf => grow(self.pair(it, it.sp)?, slots((value & 0x3f) + 1)),
            // save_regp, save_regp_x
            0xc8..=0xcb => self.registers(it, value >> 6 & 15, 2, slots(value & 0x3f)),
            0xcc..=0xcf => {
                let loaded = self.registers(it, value >> 6 & 15, 2, 0)?;
                grow(loaded, slots((value & 0x3f) + 1))
            }
            // save_reg, save_reg_x
            0xd0..=0xd3 => self.registers(it, value >> 6 & 15, 1, slots(value & 0x3f)),
            0xd4 | 0xd5 => {
                let loaded = self.registers(it, value >> 5 & 15, 1, 0)?;
                grow(loaded, slots((value & 0x1f) + 1))
            }
            // save_lrpair
            0xd6 | 0xd7 => {
                let slot = it.sp.checked_add(slots(value & 0x3f))?.checked_add(8)?;
                it.lr = Some(self.memory.u64(slot)?);
                Some(it)
            }
            // save_fregp, save_freg; save_fregp_x, save_freg_x
            0xd8 | 0xd9 | 0xdc | 0xdd => Some(it),
            0xda | 0xdb => grow(it, slots((value & 0x3f) + 1)),
            0xde => grow(it, slots((value & 0x1f) + 1)),
            // set_fp, add_fp
            0xe1 => Some(Arm64 { sp: it.fp?, ..it }),
            0xe2 => Some(Arm64 { sp: it.fp?.checked_sub(slots(value & 0xff))?, ..it }),
            // nop, save_next, pac_sign_lr
            0xe3 | 0xe6 | 0xfc => Some(it),
            // Frames of interrupts, vectors of unknown length, what is reserved.
            _ => None,
        }
    }

    /// Frame pointer and link register from a pair of slots.
    fn pair(&self, it: Arm64, slot: Va) -> Option<Arm64> {
        let (fp, lr) = (self.memory.u64(slot)?, self.memory.u64(slot.checked_add(8)?)?);
        Some(Arm64 { fp: Some(fp), lr: Some(lr), ..it })
    }

    /// Of `count` registers from x19 + `first` on, those that matter.
    fn registers(&self, mut it: Arm64, first: u32, count: u32, offset: u64) -> Option<Arm64> {
        for idx in 0..count {
            let slot = it.sp.checked_add(offset)?.checked_add(u64::from(idx) * 8)?;
            match first + idx {
                FP => it.fp = Some(self.memory.u64(slot)?),
                LR => it.lr = Some(self.memory.u64(slot)?),
                _ => {}
            }
        }
        Some(it)
    }
}

/// The caller, where the link register leads.
fn returned(it: Arm64) -> Option<Arm64> {
    Some(Arm64 { pc: super::chain::strip_signature(it.lr?), lr: None, ..it })
}

/// Bytes of a code.
fn length(first: u8) -> usize {
    match first {
        0xc0..=0xdf | 0xe2 => 2,
        0xe0 => 4,
        0xe7 => 3,
        _ => 1,
    }
}

/// Instructions that codes stand for, up to their end, which is the return.
fn instructions(codes: &[u8]) -> u32 {
    let (mut rest, mut count) = (codes, 0_u32);
    while let Some(&first) = rest.first() {
        if first != 0xe5 {
            count = count.saturating_add(1);
        }
        if first == 0xe4 {
            break;
        }
        rest = rest.get(length(first)..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dump::Source;
    use crate::notes::Notes;
    use crate::space::Captured;

    const BASE: Va = 0x1_4000_0000;
    const STACK: Va = 0x20_0000;

    /// An image of one page with one function at 0x100, 0x80 bytes long, and a stack page of words
    /// that are their own addresses.
    fn unwind(data: u32, xdata: &[u8], words: u64, exact: bool) -> Option<Arm64> {
        let mut bytes = vec![0; 0x1000];
        bytes[0x800..0x804].copy_from_slice(&0x100_u32.to_le_bytes());
        bytes[0x804..0x808].copy_from_slice(&data.to_le_bytes());
        bytes[0x400..0x400 + xdata.len()].copy_from_slice(xdata);
        bytes.extend((0..0x200).flat_map(|it: u64| (STACK + it * 8).to_le_bytes()));
        let ranges = [Captured::new(BASE, 0x1000, 0), Captured::new(STACK, 0x1000, 0x1000)];
        let ranges = ranges.into_iter().flatten().collect();
        let memory = Memory::new(Arc::new(Source::Owned(bytes)), ranges, 8, &mut Notes::default());
        let entries = Arm64Entries { memory: &memory, base: BASE, table: BASE + 0x800, count: 1 };
        let pc = BASE + 0x100 + words * 4;
        let at = Arm64 { pc, sp: STACK, fp: Some(STACK + 0x100), lr: Some(0x7777) };
        entries.unwind(&at, exact)
    }

    /// Offsets on the stack of the return address's slot and of the caller's stack pointer.
    #[track_caller]
    fn check(found: Option<Arm64>, slot: u64, sp: u64) {
        let found = found.unwrap();
        assert_eq!((found.pc - STACK, found.sp - STACK, found.lr), (slot, sp, None));
    }

    fn xdata(epilog: u32, codes: [u8; 8]) -> Vec<u8> {
        // 32 instructions, one epilog with the codes from `epilog` on, two words of codes.
        let header = 0x20 | 1 << 21 | epilog << 22 | 2 << 27;
        let mut bytes = u32::to_le_bytes(header).to_vec();
        bytes.extend(codes);
        bytes
    }

    /// stp fp, lr, [sp, -0x20]!; stp x19, x20, [sp, 0x10]; mov fp, sp; sub sp, sp, 0x40. The epilog:
    /// add sp, sp, 0x40; ldp x19, x20; ldp fp, lr, [sp], 0x20; ret.
    const CODES: [u8; 8] = [0x04, 0xe1, 0xc8, 0x02, 0x83, 0xe4, 0xe3, 0xe3];

    #[test]
    fn a_frame_is_undone_by_its_codes() {
        // By the frame pointer, wherever the stack pointer is.
        check(unwind(0x400, &xdata(0, CODES), 20, false), 0x108, 0x120);
        assert_eq!(unwind(0x400, &xdata(0, CODES), 20, false).unwrap().fp, Some(STACK + 0x100));
    }

    #[test]
    fn a_prolog_is_undone_as_far_as_it_came() {
        let at = |words| unwind(0x400, &xdata(0, CODES), words, true);
        assert_eq!(at(0).map(|it| (it.pc, it.sp)), Some((0x7777, STACK)));
        // Behind the first two instructions, the pair is where the stack pointer is.
        check(at(2), 8, 0x20);
        check(at(4), 0x108, 0x120);
    }

    #[test]
    fn an_epilog_is_run_to_its_end() {
        // alloc_s, save_regp, save_fplr_x, end: four instructions at the end.
        let codes = [0x04, 0xc8, 0x02, 0x83, 0xe4, 0xe3, 0xe3, 0xe3];
        let at = |words| unwind(0x400, &xdata(0, codes), words, true);
        check(at(28), 0x48, 0x60);
        check(at(29), 8, 0x20);
        assert_eq!(at(31).map(|it| (it.pc, it.sp)), Some((0x7777, STACK)));
    }

    #[test]
    fn packed_data_tells_the_frame() {
        let packed = |integers: u32, chain: u32, frame: u32| {
            1 | 0x20 << 2 | integers << 16 | chain << 21 | frame << 23
        };
        // Two registers, fp and lr, 0x60 bytes in all.
        check(unwind(packed(2, 3, 6), &[], 20, false), 0x108, 0x160);
        // Without a frame pointer: the link register behind three registers, locals of 0x10.
        check(unwind(packed(3, 1, 3), &[], 20, false), 0x10 + 0x18, 0x30);
        // A caller without a saved link register cannot be.
        assert_eq!(unwind(packed(2, 0, 1), &[], 20, false), None);
        let leaf = unwind(packed(2, 0, 1), &[], 20, true);
        assert_eq!(leaf.map(|it| (it.pc, it.sp)), Some((0x7777, STACK + 0x10)));
        let entered = unwind(packed(2, 3, 6), &[], 0, true);
        assert_eq!(entered.map(|it| (it.pc, it.sp)), Some((0x7777, STACK)));
        assert_eq!(unwind(packed(2, 3, 6), &[], 2, true), None);
    }

    #[test]
    fn what_is_damaged_or_not_there_ends_the_unwinding() {
        assert_eq!(unwind(0xf000, &[], 20, false), None);
        // Codes without an end, and a code that nobody knows.
        assert_eq!(unwind(0x400, &xdata(0, [0xe3; 8]), 20, false), None);
        assert_eq!(unwind(0x400, &xdata(0, [0xea; 8]), 20, false), None);
        // Behind the function: without an entry, the link register is what it was.
        assert_eq!(unwind(0x400, &xdata(0, CODES), 40, true).map(|it| it.pc), Some(0x7777));
        assert_eq!(unwind(0x400, &xdata(0, CODES), 40, false), None);
    }
}

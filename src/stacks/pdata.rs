//! x64 frames by the image's own unwind data, read from the image's pages in the dump.
//!
//! ```text
//!   RUNTIME_FUNCTION  Begin u32, End u32, UnwindData u32      sorted, data directory 3
//!   UNWIND_INFO       u8 Version:3 Flags:5, u8 SizeOfProlog, u8 CountOfCodes,
//!                     u8 FrameRegister:4 FrameOffset:4 (in 16 bytes),
//!                     UNWIND_CODE[CountOfCodes], padded to an even count,
//!                     then, with flag 4, the RUNTIME_FUNCTION that this one continues
//!   UNWIND_CODE       u8 CodeOffset, u8 Operation:4 Info:4
//! ```
//!
//! <https://learn.microsoft.com/cpp/build/exception-handling-x64>. Three things bite:
//!
//! * Bit 0 of `UnwindData` says that it is the address of another `RUNTIME_FUNCTION`, whose data
//!   counts. `ntdll` of Windows 7 has a quarter of its entries like that.
//! * Only the innermost frame can stand in an epilog. Looking for one in a caller takes the jump
//!   behind a call for a tail call.
//! * A function is looked up with the return address less one, which may be the last byte of a
//!   function that does not return, and its codes are applied with the return address itself.

use crate::process::PeHeader;
use crate::space::{Memory, Va};

/// `IMAGE_DIRECTORY_ENTRY_EXCEPTION`.
const EXCEPTION: u32 = 3;
/// `UNW_FLAG_CHAININFO`.
const CHAINED: u8 = 4;
/// Links of chained or indirect entries; Windows stops here as well.
const MOST_LINKS: usize = 32;
/// Instructions of an epilog: eight registers at most, the stack pointer and the return.
const LONGEST_EPILOG: usize = 16;

const RBP: usize = 5;
const RSP: usize = 4;

/// The general purpose registers, as far as they are known, in the processor's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) rip: Va,
    pub(super) general: [Option<u64>; 16],
}

impl Registers {
    /// Names in the processor's order.
    pub(super) const NAMES: [&'static str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];

    /// The stack pointer.
    pub(super) fn rsp(&self) -> Option<u64> {
        self.get(RSP)
    }

    /// The frame pointer, when it is one.
    pub(super) fn rbp(&self) -> Option<u64> {
        self.get(RBP)
    }

    fn get(&self, register: usize) -> Option<u64> {
        self.general.get(register).copied().flatten()
    }

    fn set(&mut self, register: usize, value: Option<u64>) {
        if let Some(slot) = self.general.get_mut(register) {
            *slot = value;
        }
    }

    /// What a function need not keep is not known in its caller.
    fn forget_volatile(&mut self) {
        for register in [0, 1, 2, 8, 9, 10, 11] {
            self.set(register, None);
        }
    }
}

/// Where functions and their unwind codes are: an image, or a heap of generated code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries<'a> {
    memory: &'a Memory,
    base: Va,
    table: Table<'a>,
    count: u64,
}

/// Where the entries are.
#[derive(Debug, Clone, Copy)]
enum Table<'a> {
    /// In the process.
    At(Va),
    /// In the dump itself: begin, end, data.
    Listed(&'a [[u32; 3]]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Function {
    begin: u32,
    end: u32,
    data: u32,
}

/// A frame that was unwound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unwound {
    /// The caller's registers.
    pub(super) caller: Registers,
    /// Whether the instruction pointer is where an interrupt came, and no return address.
    pub(super) interrupted: bool,
}

impl<'a> Entries<'a> {
    /// The unwind data of an image, when it has any and the dump holds it.
    pub(super) fn of_image(memory: &'a Memory, pe: &PeHeader) -> Option<Self> {
        let (rva, size) = pe.directory(memory, EXCEPTION)?;
        let table = pe.at(rva)?;
        let count = u64::from(size / 12);
        memory.array::<12>(table)?;
        Some(Self { memory, base: pe.base, table: Table::At(table), count })
    }

    /// One entry at `table`, relative to `base`.
    pub(super) fn at(memory: &'a Memory, base: Va, table: Va, count: u64) -> Self {
        Self { memory, base, table: Table::At(table), count }
    }

    /// Entries that the dump lists by themselves, sorted.
    pub(super) fn listed(memory: &'a Memory, base: Va, entries: &'a [[u32; 3]]) -> Self {
        Self { memory, base, table: Table::Listed(entries), count: entries.len() as u64 }
    }

    fn entry(&self, idx: u64) -> Option<Function> {
        match self.table {
            Table::At(table) => self.function(table.checked_add(idx.checked_mul(12)?)?),
            Table::Listed(entries) => {
                let &[begin, end, data] = entries.get(usize::try_from(idx).ok()?)?;
                Some(Function { begin, end, data })
            }
        }
    }

    fn function(&self, va: Va) -> Option<Function> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.memory.array::<12>(va)?;
        Some(Function {
            begin: u32::from_le_bytes([a, b, c, d]),
            end: u32::from_le_bytes([e, f, g, h]),
            data: u32::from_le_bytes([i, j, k, l]),
        })
    }

    /// The entry for `rva`; `Ok(None)` when there is none, an error when the dump does not hold
    /// what would tell.
    fn lookup(&self, rva: u32) -> Result<Option<Function>, Unseen> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let it = self.entry(middle).ok_or(Unseen)?;
            if rva < it.begin {
                high = middle;
            } else if it.end <= rva {
                low = middle + 1;
            } else {
                return Ok(Some(it));
            }
        }
        Ok(None)
    }

    /// Whether an entry that can be unwound with covers `va`.
    pub(super) fn covers(&self, va: Va) -> bool {
        let rva = va.checked_sub(self.base).and_then(|it| u32::try_from(it).ok());
        let function = rva.and_then(|it| self.lookup(it).ok().flatten());
        function.is_some_and(|it| self.info(it).is_some())
    }

    /// Unwinds one frame. `exact` says that `rip` is where execution is, and no return address.
    pub(super) fn unwind(&self, registers: &Registers, exact: bool) -> Option<Unwound> {
        let offset = registers.rip.checked_sub(self.base)?;
        let rva = u32::try_from(if exact { offset } else { offset.checked_sub(1)? }).ok()?;
        let mut caller = *registers;
        caller.forget_volatile();
        let Some(function) = self.lookup(rva).ok()? else {
            // A function without an entry touches neither the stack pointer nor saved registers.
            return self.return_to(caller).map(|caller| Unwound { caller, interrupted: false });
        };
        self.unwind_function(function, registers, exact, caller)
    }

    fn unwind_function(
        &self,
        function: Function,
        registers: &Registers,
        exact: bool,
        mut caller: Registers,
    ) -> Option<Unwound> {
        let start = self.base.checked_add(function.begin.into())?;
        let executed = registers.rip.checked_sub(start)?;
        let mut info = self.info(function)?;
        if exact && u64::from(info.prolog_size) <= executed {
            let function_end = self.base.checked_add(function.end.into())?;
            if let Some(caller) = self.epilog(registers, start, function_end) {
                return Some(Unwound { caller, interrupted: false });
            }
        }
        let mut in_prolog = executed < u64::from(info.prolog_size);
        let mut executed = executed;
        for _ in 0..MOST_LINKS {
            let frame = self.establisher(&info, &caller, in_prolog, executed)?;
            if let Some(unwound) = self.apply(&info, &mut caller, frame, in_prolog, executed)? {
                return Some(unwound);
            }
            if info.flags & CHAINED == 0 {
                return self.return_to(caller).map(|caller| Unwound { caller, interrupted: false });
            }
            // What this part continues has run its prolog to the end.
            let link = info.codes.checked_add(u64::from(info.count).next_multiple_of(2) * 2)?;
            info = self.info(self.function(link)?)?;
            (in_prolog, executed) = (false, u64::MAX);
        }
        None
    }

    /// `UNWIND_INFO` of a function, behind as many indirections as there are.
    fn info(&self, mut function: Function) -> Option<Info> {
        for _ in 0..MOST_LINKS {
            if function.data & 1 == 0 {
                let va = self.base.checked_add(function.data.into())?;
                let [version_flags, prolog_size, count, frame] = self.memory.array::<4>(va)?;
                let version = version_flags & 7;
                return matches!(version, 1 | 2).then_some(Info {
                    version,
                    flags: version_flags >> 3,
                    prolog_size,
                    count,
                    frame_register: (frame & 15).into(),
                    frame_offset: u64::from(frame >> 4) * 16,
                    codes: va.checked_add(4)?,
                });
            }
            function = self.function(self.base.checked_add((function.data & !1).into())?)?;
        }
        None
    }

    fn code(&self, info: &Info, idx: u64) -> Option<Code> {
        if u64::from(info.count) <= idx {
            return None;
        }
        let [offset, operation] = self.memory.array::<2>(info.codes.checked_add(idx * 2)?)?;
        Some(Code { offset, operation: operation & 15, info: operation >> 4 })
    }

    /// A number in the slots behind a code.
    fn word(&self, info: &Info, idx: u64, slots: u64) -> Option<u64> {
        if u64::from(info.count) < idx.checked_add(slots)? {
            return None;
        }
        let at = info.codes.checked_add(idx * 2)?;
        if slots == 1 {
            self.memory.u16(at).map(u64::from)
        } else {
            self.memory.u32(at).map(u64::from)
        }
    }

    /// What saved registers are relative to: the stack pointer as the prolog left it, which a
    /// frame register remembers.
    fn establisher(
        &self,
        info: &Info,
        registers: &Registers,
        in_prolog: bool,
        executed: u64,
    ) -> Option<u64> {
        let by_register = || registers.get(info.frame_register)?.checked_sub(info.frame_offset);
        if info.frame_register == 0 {
            return registers.rsp();
        }
        if !in_prolog {
            return by_register();
        }
        let mut idx = 0;
        while let Some(code) = self.code(info, idx) {
            if code.operation == 3 {
                return if u64::from(code.offset) <= executed {
                    by_register()
                } else {
                    registers.rsp()
                };
            }
            idx += code.slots(info.version)?;
        }
        registers.rsp()
    }

    /// Undoes the part of the prolog that was executed. An interrupt's frame ends the unwinding.
    #[expect(clippy::option_option, reason = "nothing to unwind with, or nothing special")]
    fn apply(
        &self,
        info: &Info,
        caller: &mut Registers,
        frame: u64,
        in_prolog: bool,
        executed: u64,
    ) -> Option<Option<Unwound>> {
        let mut idx = 0;
        while u64::from(info.count) > idx {
            let code = self.code(info, idx)?;
            let slots = code.slots(info.version)?;
            let next = idx + slots;
            if in_prolog && executed < u64::from(code.offset) {
                idx = next;
                continue;
            }
            let rsp = caller.rsp()?;
            match (code.operation, info.version) {
                (0, _) => {
                    caller.set(code.info.into(), self.memory.u64(rsp));
                    caller.set(RSP, rsp.checked_add(8));
                }
                (1, _) => {
                    let size = if code.info == 0 {
                        self.word(info, idx + 1, 1)? * 8
                    } else {
                        self.word(info, idx + 1, 2)?
                    };
                    caller.set(RSP, rsp.checked_add(size));
                }
                (2, _) => caller.set(RSP, rsp.checked_add(u64::from(code.info) * 8 + 8)),
                (3, _) => {
                    let value = caller.get(info.frame_register)?.checked_sub(info.frame_offset);
                    caller.set(RSP, value);
                }
                (4, _) => {
                    let at = frame.checked_add(self.word(info, idx + 1, 1)? * 8)?;
                    caller.set(code.info.into(), self.memory.u64(at));
                }
                (5, _) => {
                    let at = frame.checked_add(self.word(info, idx + 1, 2)?)?;
                    caller.set(code.info.into(), self.memory.u64(at));
                }
                (10, _) => {
                    let at = rsp.checked_add(u64::from(code.info & 1) * 8)?;
                    caller.rip = self.memory.u64(at)?;
                    caller.set(RSP, Some(self.memory.u64(at.checked_add(24)?)?));
                    return Some(Some(Unwound { caller: *caller, interrupted: true }));
                }
                // Vector registers, and the epilogs that version 2 lists.
                _ => {}
            }
            idx = next;
        }
        Some(None)
    }

    /// The caller's registers when `rip` stands in an epilog: what is left of it is executed.
    fn epilog(&self, registers: &Registers, start: Va, end: Va) -> Option<Registers> {
        let mut state = *registers;
        let mut at = registers.rip;
        for step in 0..LONGEST_EPILOG {
            let bytes: [u8; 8] = self.memory.array(at).or_else(|| self.last_bytes(at))?;
            let (length, prefix, rest) = match bytes {
                [rex @ 0x40..=0x4f, rest @ ..] => (1, rex, rest),
                [a, b, c, d, e, f, g, _] => (0, 0, [a, b, c, d, e, f, g]),
            };
            let high = usize::from(prefix & 1) * 8;
            let rsp = state.rsp()?;
            let size = match rest {
                // pop register
                [pop @ 0x58..=0x5f, ..] => {
                    state.set(usize::from(pop & 7) + high, Some(self.memory.u64(rsp)?));
                    state.set(RSP, rsp.checked_add(8));
                    1
                }
                // add rsp, size: only first.
                [0x83, 0xc4, size, ..] if step == 0 && size < 0x80 => {
                    state.set(RSP, rsp.checked_add(size.into()));
                    3
                }
                [0x81, 0xc4, a, b, c, d, _] if step == 0 => {
                    let size = u32::from_le_bytes([a, b, c, d]);
                    state.set(RSP, rsp.checked_add(size.into()));
                    6
                }
                // lea rsp, [register + distance]: only first, only for frame registers.
                [0x8d, modrm, distance, ..] if step == 0 && modrm & 0xf8 == 0x60 => {
                    let base = state.get(usize::from(modrm & 7) + high)?;
                    state.set(RSP, base.checked_add_signed((distance as i8).into()));
                    3
                }
                [0x8d, modrm, a, b, c, d, _] if step == 0 && modrm & 0xf8 == 0xa0 => {
                    let base = state.get(usize::from(modrm & 7) + high)?;
                    let distance = i32::from_le_bytes([a, b, c, d]);
                    state.set(RSP, base.checked_add_signed(distance.into()));
                    6
                }
                [0xc3 | 0xc2, ..] | [0xf3 | 0xf2, 0xc3, ..] => {
                    state.forget_volatile();
                    return self.return_to(state);
                }
                // A jump out of the function is a call that this function does not return from.
                [0xeb, distance, ..] if 0 < step => {
                    let next = at.checked_add(length + 2)?;
                    let target = next.checked_add_signed((distance as i8).into())?;
                    return self.tail_call(state, target, start, end);
                }
                [0xe9, a, b, c, d, ..] if 0 < step => {
                    let next = at.checked_add(length + 5)?;
                    let distance = i32::from_le_bytes([a, b, c, d]);
                    let target = next.checked_add_signed(distance.into())?;
                    return self.tail_call(state, target, start, end);
                }
                [0xff, 0x25, ..] if 0 < step => {
                    state.forget_volatile();
                    return self.return_to(state);
                }
                _ => return None,
            };
            at = at.checked_add(length + size)?;
        }
        None
    }

    fn tail_call(&self, mut state: Registers, target: Va, start: Va, end: Va) -> Option<Registers> {
        if start <= target && target < end {
            return None;
        }
        state.forget_volatile();
        self.return_to(state)
    }

    /// The bytes in front of the end of what the dump holds.
    fn last_bytes(&self, va: Va) -> Option<[u8; 8]> {
        let bytes = self.memory.slice_up_to(va, 8);
        let mut padded = [0xcc; 8];
        for (to, from) in padded.iter_mut().zip(bytes) {
            *to = *from;
        }
        (!bytes.is_empty()).then_some(padded)
    }

    fn return_to(&self, mut registers: Registers) -> Option<Registers> {
        let rsp = registers.rsp()?;
        registers.rip = self.memory.u64(rsp)?;
        registers.set(RSP, Some(rsp.checked_add(8)?));
        Some(registers)
    }
}

/// The dump does not hold it.
#[derive(Debug)]
struct Unseen;

#[derive(Debug, Clone, Copy)]
struct Info {
    version: u8,
    flags: u8,
    prolog_size: u8,
    count: u8,
    frame_register: usize,
    frame_offset: u64,
    codes: Va,
}

#[derive(Debug, Clone, Copy)]
struct Code {
    offset: u8,
    operation: u8,
    info: u8,
}

impl Code {
    /// How many slots the code takes, itself included.
    fn slots(self, version: u8) -> Option<u64> {
        Some(match (self.operation, version) {
            (0 | 2 | 3 | 10, _) => 1,
            (1, _) => match self.info {
                0 => 2,
                1 => 3,
                _ => return None,
            },
            (4 | 8, _) => 2,
            (5 | 9, _) => 3,
            // Version 1 had other vector saves here, version 2 lists epilogs.
            (6, 1) => 2,
            (6, _) => 1,
            (7, _) => 3,
            _ => return None,
        })
    }
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

    /// An image of one page at `BASE` with a function table at 0x800, and a stack page of words
    /// that are their own addresses.
    struct Image {
        bytes: Vec<u8>,
        functions: u64,
    }

    impl Image {
        fn new() -> Self {
            let mut bytes = vec![0xcc; 0x1000];
            bytes.extend((0..0x200).flat_map(|it| (STACK + it * 8).to_le_bytes()));
            Self { bytes, functions: 0 }
        }

        fn put(mut self, at: usize, bytes: &[u8]) -> Self {
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            self
        }

        fn function(mut self, begin: u32, end: u32, data: u32) -> Self {
            let entry: Vec<u8> =
                [begin, end, data].iter().flat_map(|it| it.to_le_bytes()).collect();
            let at = 0x800 + self.functions as usize * 12;
            self.functions += 1;
            self.put(at, &entry)
        }

        fn unwind(self, rip: u64, exact: bool) -> Option<Unwound> {
            let ranges = [Captured::new(BASE, 0x1000, 0), Captured::new(STACK, 0x1000, 0x1000)];
            let ranges = ranges.into_iter().flatten().collect();
            let source = Arc::new(Source::Owned(self.bytes));
            let memory = Memory::new(source, ranges, 8, &mut Notes::default());
            let entries = Entries::at(&memory, BASE, BASE + 0x800, self.functions);
            let mut registers = Registers { rip: BASE + rip, general: [Some(7); 16] };
            registers.set(RSP, Some(STACK));
            registers.set(RBP, Some(STACK + 0x100));
            entries.unwind(&registers, exact)
        }
    }

    /// Where the return address was found, below the caller's stack pointer.
    #[track_caller]
    fn check(image: Image, rip: u64, exact: bool, expected: Option<u64>) {
        let unwound = image.unwind(rip, exact);
        let found = unwound.map(|it| it.caller.rip - STACK);
        assert_eq!(found, expected);
        if let Some(it) = unwound.filter(|it| !it.interrupted) {
            assert_eq!(it.caller.rsp(), Some(it.caller.rip + 8));
            assert_eq!(it.caller.general[0], None, "rax is not kept");
        }
    }

    /// push rbx (at 1), sub rsp, 0x20 (at 5)
    fn simple() -> Image {
        Image::new().function(0x100, 0x180, 0x400).put(0x400, &[1, 5, 2, 0, 5, 0x32, 1, 0x30])
    }

    #[test]
    fn a_function_without_an_entry_left_the_stack_alone() {
        check(Image::new(), 0x700, true, Some(0));
    }

    #[test]
    fn a_prolog_is_undone_as_far_as_it_came() {
        check(simple(), 0x100, true, Some(0));
        check(simple(), 0x101, true, Some(8));
        check(simple(), 0x105, true, Some(0x28));
        check(simple(), 0x150, false, Some(0x28));
    }

    #[test]
    fn a_call_as_the_last_instruction_returns_behind_the_function() {
        check(simple(), 0x180, false, Some(0x28));
        check(simple(), 0x180, true, Some(0));
    }

    #[test]
    fn saved_registers_come_back() {
        let unwound = simple().unwind(0x150, false).unwrap();
        assert_eq!(unwound.caller.general[3], Some(STACK + 0x20));
        assert_eq!(unwound.caller.general[6], Some(7), "rsi was not touched");
    }

    #[test]
    fn an_epilog_is_looked_for_in_the_innermost_frame_only() {
        // pop rbx; ret
        let epilog = || simple().put(0x150, &[0x5b, 0xc3]);
        check(epilog(), 0x150, true, Some(8));
        check(epilog(), 0x150, false, Some(0x28));
        // add rsp, 0x20; pop rbx; jmp into the same function is no epilog.
        let jump = || simple().put(0x150, &[0x48, 0x83, 0xc4, 0x20, 0x5b, 0xeb, 0x10]);
        check(jump(), 0x150, true, Some(0x28));
    }

    #[test]
    fn a_frame_register_remembers_the_stack_pointer() {
        // lea rbp, [rsp + 0x20] (at 6), sub rsp, 0x30 (at 2): rbp is STACK + 0x100.
        let image = Image::new()
            .function(0x100, 0x180, 0x400)
            .put(0x400, &[1, 6, 2, 0x25, 6, 0x03, 2, 0x52]);
        check(image, 0x150, false, Some(0x100 - 0x20 + 0x30));
    }

    #[test]
    fn an_entry_may_point_to_another_and_continue_a_third() {
        // 0x100 points to the entry at 0x500, whose data at 0x400 continues the one at 0x420.
        let image = Image::new()
            .function(0x100, 0x180, 0x501)
            .put(0x500, &[0, 1, 0, 0, 0x80, 1, 0, 0, 0, 4, 0, 0])
            .put(0x400, &[0x21, 0, 1, 0, 0, 0x02, 0, 0])
            .put(0x408, &[0, 2, 0, 0, 0x80, 2, 0, 0, 0x20, 4, 0, 0])
            .put(0x420, &[1, 1, 1, 0, 1, 0x50]);
        check(image, 0x150, false, Some(0x10));
    }

    #[test]
    fn links_that_go_in_circles_end() {
        let indirect = Image::new().function(0x100, 0x180, 0x801);
        check(indirect, 0x150, false, None);
        let chained = Image::new()
            .function(0x100, 0x180, 0x400)
            .put(0x400, &[0x21, 0, 0, 0])
            .put(0x404, &[0, 1, 0, 0, 0x80, 1, 0, 0, 0, 4, 0, 0]);
        check(chained, 0x150, false, None);
    }

    #[test]
    fn an_interrupt_s_frame_tells_where_it_came() {
        let image = Image::new().function(0x100, 0x180, 0x400).put(0x400, &[1, 0, 1, 0, 0, 0x0a]);
        let unwound = image.unwind(0x110, true).unwrap();
        assert!(unwound.interrupted);
        assert_eq!((unwound.caller.rip, unwound.caller.rsp()), (STACK, Some(STACK + 24)));
    }

    #[test]
    fn epilogs_that_version_2_lists_are_skipped() {
        let image = Image::new()
            .function(0x100, 0x180, 0x400)
            .put(0x400, &[2, 1, 3, 0, 2, 0x16, 0, 0x06, 1, 0x50]);
        check(image, 0x150, false, Some(8));
    }
}

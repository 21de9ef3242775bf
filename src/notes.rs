//! What could not be seen, counted by kind.
//!
//! A note means that we saw less than we hoped. It appears in every report under "Not visible",
//! so *nothing there* and *could not look* stay different sentences.

use std::collections::BTreeMap;
use std::fmt;

use crate::table::DumpText;
use crate::words::term;

macro_rules! notes {
    ($($variant:ident $id:literal $text:literal $remedy:literal)*) => {
        /// A way in which the dump shows less than it might.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Note {
            $(#[doc = $text] $variant,)*
        }

        impl Note {
            /// Every kind of note, in the order in which reports show them.
            pub const ALL: &[Note] = &[$(Note::$variant,)*];

            /// The kebab-case id, as in JSON.
            pub fn id(self) -> &'static str {
                match self { $(Note::$variant => $id,)* }
            }

            /// The sentence that a report shows.
            pub fn text(self) -> &'static str {
                term(match self { $(Note::$variant => $text,)* })
            }

            /// What would make it visible, or nothing when nothing would.
            pub fn remedy(self) -> Option<&'static str> {
                let remedy = match self { $(Note::$variant => $remedy,)* };
                (!remedy.is_empty()).then(|| term(remedy))
            }
        }
    };
}

notes! {
    DumpTruncated "dump-truncated" "the file ends before the bytes that its tables promise" "compare \
                                                                                             the \
                                                                                             file's \
                                                                                             size \
                                                                                             with \
                                                                                             the \
                                                                                             original; \
                                                                                             the \
                                                                                             disk \
                                                                                             may \
                                                                                             have \
                                                                                             been \
                                                                                             full"
    ArchiveIncomplete "archive-incomplete" "the archive ends early or is damaged; only its first \
                                            part was unpacked" "compare \
                                                                                                                     the \
                                                                                                                     archive's \
                                                                                                                     size \
                                                                                                                     with \
                                                                                                                     the \
                                                                                                                     original, \
                                                                                                                     and \
                                                                                                                     copy \
                                                                                                                     it \
                                                                                                                     again"
    StreamUnreadable "stream-unreadable" "a stream is damaged and was not read" ""
    StreamPartlyRead "stream-partly-read" "a stream is damaged and only its good entries were read" ""
    DirectoryUnreadable "directory-unreadable" "a directory entry points outside the file" ""
    DuplicateStream "duplicate-stream" "a stream stands in the directory twice; the first was read" ""
    RangesOverlap "ranges-overlap" "captured memory ranges overlap; the first in the file wins" ""
    RangesUnsorted "ranges-unsorted" "captured memory ranges are out of order and were sorted" ""
    RangeAbsurd "range-absurd" "a memory range is empty, wraps or lies outside the address space" ""
    RegionsOverlap "regions-overlap" "entries of the memory map overlap; the first wins" ""
    RegionGaps "region-gaps" "the memory map has gaps; what lies there is unknown and counted as \
                              free" ""
    NoMemoryMap "no-memory-map" "no MemoryInfoList: the address space cannot be tiled" "procdump \
                                                                                        -ma <pid>, \
                                                                                        or \
                                                                                        MiniDumpWriteDump \
                                                                                        with \
                                                                                        MiniDumpWithFullMemoryInfo"
    MapFromRanges "map-from-ranges" "without a MemoryInfoList the map was built from captured \
                                     ranges, modules and stacks" "procdump \
                                                                                                                           -ma \
                                                                                                                           <pid>"
    NoMemory "no-memory" "the dump holds no memory of the process" "procdump -ma <pid>"
    MemoryPartlyCaptured "memory-partly-captured" "regions of private memory are not, or not \
                                                   wholly, in the dump" "procdump \
                                                                                                                   -ma \
                                                                                                                   <pid>"
    WowDumpOf32Bit "wow64-dump" "a 64-bit tool wrote this dump of a 32-bit process; the 32-bit \
                                 side was reconstructed" "procdump \
                                                                                                                        -ma \
                                                                                                                        <pid> \
                                                                                                                        writes \
                                                                                                                        a \
                                                                                                                        32-bit \
                                                                                                                        dump \
                                                                                                                        by \
                                                                                                                        itself; \
                                                                                                                        Task \
                                                                                                                        Manager: \
                                                                                                                        use \
                                                                                                                        C:\\Windows\\SysWOW64\\taskmgr.exe"
    PebUnreadable "peb-unreadable" "the process environment block is not in the dump: heap list, \
                                    command line and loader lists are unknown" "procdump \
                                                                                                                                             -ma \
                                                                                                                                             <pid>"
    TebUnreadable "teb-unreadable" "a thread's environment block is not in the dump: its stack's \
                                    reservation is unknown" "procdump \
                                                                                                                          -ma \
                                                                                                                          <pid>"
    ExeHeaderUnreadable "exe-header-unreadable" "the program's PE header is not in the dump, so \
                                                 LARGE_ADDRESS_AWARE is unknown" "procdump \
                                                                                                                                 -ma \
                                                                                                                                 <pid>"
    CeilingGuessed "ceiling-guessed" "the address-space ceiling was inferred from the memory map" ""
    LoaderListBroken "loader-list-broken" "a loader list loops or leaves captured memory" ""
    ModuleListMismatch "module-list-mismatch" "an image in memory is missing from the module list" ""
    ModuleNotLoaded "module-not-in-memory" "a listed module has no image header in memory" ""
    StackUnreadable "stack-unreadable" "a thread's stack memory is not in the dump" "procdump -ma \
                                                                                     <pid>"
    ContextUnreadable "context-unreadable" "a thread's registers could not be read" ""
    FramesCut "frames-cut" "a stack is longer than the frames that are kept" ""
    SymbolsMissing "symbols-missing" "a module on a stack has no matching symbol file; exports \
                                      name what they can" "put \
                                                                                                                    NAME.sym \
                                                                                                                    under \
                                                                                                                    symbols/NAME.pdb/ID/, \
                                                                                                                    or \
                                                                                                                    name \
                                                                                                                    a \
                                                                                                                    store \
                                                                                                                    with \
                                                                                                                    --symbols"
    SymbolsUnreadable "symbols-unreadable" "a symbol file cannot be used: damaged, too large, or \
                                            of another build" ""
    SymbolsMismatched "symbols-mismatched" "symbols of another build are used, as \
                                            --allow-mismatched asks: names may be wrong" ""
    SymbolServerDown "symbol-server-down" "a symbol server does not answer; without it, names of \
                                           these modules are missing" "try \
                                                                                                                             again, \
                                                                                                                             or \
                                                                                                                             carry \
                                                                                                                             the \
                                                                                                                             files \
                                                                                                                             over: \
                                                                                                                             `oomscope \
                                                                                                                             symbols \
                                                                                                                             DUMP \
                                                                                                                             list \
                                                                                                                             --missing`"
    HeapUnreadable "heap-unreadable" "a heap, or the PEB's list of them, is not in the dump" "procdump \
                                                                                              -ma \
                                                                                              <pid>"
    HeapUnknown "heap-unknown" "a heap has no structure that is known; it is shown by region only" ""
    HeapCountersDisagree "heap-counters-disagree" "a heap's own counters differ from the sum of \
                                                   its segments" ""
    HeapListBroken "heap-list-broken" "a heap's segment or block list loops or leaves captured \
                                       memory" ""
    HeapSegmentUnread "heap-segment-unread" "a heap segment's header is not in the dump" "procdump \
                                                                                          -ma <pid>"
    HeapBlocksNotWalked "heap-blocks-not-walked" "heap blocks were not listed" "procdump -ma <pid>"
    HeapPartlyWalked "heap-partly-walked" "some of a heap's blocks could not be read" "procdump \
                                                                                       -ma <pid>"
    HeapCorrupt "heap-corrupt" "block headers of a heap are damaged; the walk went on behind the \
                                damage" ""
    ManagedHeapNotWalked "managed-heap-not-walked" "managed objects were not listed; the managed \
                                                    heap is shown by region" ""
    ManagedHeapDamaged "managed-heap-damaged" "bytes of the managed heap in which no objects could \
                                               be told; counts leave them out" ""
    ManagedHeapPartlyCaptured "managed-heap-partly-captured" "bytes of the managed heap that are \
                                                              not in the dump; counts leave them \
                                                              out" "procdump \
                                                                                                                                          -ma \
                                                                                                                                          <pid>"
    ManagedTypesUnnamed "managed-types-unnamed" "managed types whose metadata is not in the dump, \
                                                 or in no image; they are shown by address" ""
    ManagedObjectsCut "managed-objects-cut" "more exceptions, timers, threads or handles than are \
                                             looked at one by one" ""
    ManagedStringsNotCompared "managed-strings-not-compared" "more different strings than are \
                                                              compared; duplicates among the rest \
                                                              are not counted" ""
    ManagedHeapNotFound "managed-heap-not-found" "a .NET runtime is loaded, but its heap was not \
                                                  found in the dump" "procdump \
                                                                                                                     -ma \
                                                                                                                     <pid>"
    MappedFilesUnnamed "mapped-files-unnamed" "a minidump does not name the files behind mapped \
                                               memory; mapped-file and shareable are told apart by \
                                               content, as a guess" "VMMap \
                                                                                                                                                                          on \
                                                                                                                                                                          the \
                                                                                                                                                                          live \
                                                                                                                                                                          process"
    NoCommitCounters "no-commit-counters" "no SystemMemoryInfo stream: the commit limit is unknown" "procdump \
                                                                                                     -ma \
                                                                                                     <pid> \
                                                                                                     on \
                                                                                                     Windows \
                                                                                                     8 \
                                                                                                     or \
                                                                                                     later"
    NoHandles "no-handles" "no handle stream" "procdump -ma <pid>"
    NoThreadTimes "no-thread-times" "no ThreadInfoList: CPU times are unknown" "procdump -ma <pid>"
    ClaimConflict "claim-conflict" "two owners claim the same bytes; the stronger evidence was \
                                    taken" ""
    AllocationRecordUnreadable "allocation-record-unreadable" "blocks whose recorded call stack is \
                                                               not in the dump, or is none" "procdump \
                                                                                                                                 -ma \
                                                                                                                                 <pid>"
    TooManyAllocationStacks "too-many-allocation-stacks" "more recorded call stacks than are told \
                                                          apart; the rest is counted without a \
                                                          stack" ""
    InternalError "internal-error" "a pass stopped by an internal error; the others stand" "please \
                                                                                            report \
                                                                                            it \
                                                                                            with \
                                                                                            this \
                                                                                            dump's \
                                                                                            `report \
                                                                                            --format \
                                                                                            json`"
}

/// Where a note was first met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A position in the dump file.
    Offset(u64),
    /// An address in the target process.
    Va(u64),
    /// A thing that has a name: a stream, a module, a pass.
    Named(DumpText),
    /// Nowhere in particular.
    Nowhere,
}

impl From<&str> for Place {
    fn from(name: &str) -> Self {
        Place::Named(DumpText::from(name))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Offset(offset) => write!(f, "offset {offset:#x}"),
            Place::Va(va) => write!(f, "{va:#010x}"),
            Place::Named(text) => f.write_str(&text.for_terminal()),
            Place::Nowhere => Ok(()),
        }
    }
}

/// How often a kind of note was made, and where first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How often.
    pub count: u64,
    /// Where first.
    pub first: Place,
}

/// All notes of one analysis.
///
/// Counting instead of listing keeps a dump with a million bad entries from producing a million
/// notes.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    kinds: BTreeMap<Note, Counted>,
}

impl Notes {
    /// Counts one more of `note`; the first `place` is kept.
    pub fn add(&mut self, note: Note, place: impl Into<Place>) {
        self.add_many(note, 1, place);
    }

    /// Counts `count` more of `note`.
    pub fn add_many(&mut self, note: Note, count: u64, place: impl Into<Place>) {
        if count == 0 {
            return;
        }
        let it =
            self.kinds.entry(note).or_insert_with(|| Counted { count: 0, first: place.into() });
        it.count = it.count.saturating_add(count);
    }

    /// Takes over the notes of a pass that kept its own.
    pub fn merge(&mut self, other: Notes) {
        for (note, counted) in other.kinds {
            self.add_many(note, counted.count, counted.first);
        }
    }

    /// How often `note` was made.
    pub fn count(&self, note: Note) -> u64 {
        self.kinds.get(&note).map_or(0, |it| it.count)
    }

    /// The kinds that were met, in report order.
    pub fn iter(&self) -> impl Iterator<Item = (Note, &Counted)> {
        self.kinds.iter().map(|(&note, counted)| (note, counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_bad_entries_make_one_note_with_the_first_place() {
        let mut notes = Notes::default();
        for it in 0..1_000_000 {
            notes.add(Note::RangeAbsurd, Place::Offset(it + 7));
        }
        assert_eq!(notes.iter().count(), 1);
        let (_, counted) = notes.iter().next().unwrap();
        assert_eq!((counted.count, &counted.first), (1_000_000, &Place::Offset(7)));
    }

    #[test]
    fn ids_are_unique_and_kebab_case() {
        let mut ids: Vec<_> = Note::ALL.iter().map(|it| it.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Note::ALL.len());
        assert!(ids.iter().all(|id| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')));
    }
}

//! Where the members of an NT heap stand, one table per generation.
//!
//! ```text
//! ntdll!_HEAP_SEGMENT (Vista to Windows 11)   x86    x64
//!   SegmentSignature u32 = FFEEFFEE           0x08   0x10
//!   SegmentListEntry LIST_ENTRY               0x10   0x18
//!   Heap                                      0x18   0x28
//!   NumberOfPages u32                         0x20   0x38
//!   FirstEntry                                0x24   0x40
//!   LastValidEntry, the end of all entries    0x28   0x48
//!   NumberOfUnCommittedPages u32              0x2c   0x50
//!   UCRSegmentList LIST_ENTRY                 0x38   0x60
//!
//! ntdll!_HEAP, behind its first segment       x86                    x64
//!                                             7    8    1607 1809    7    8    1607 1809
//!   Flags u32                                 40   40   40   40      70   70   70   70
//!   EncodeFlagMask u32                        4c   4c   4c   4c      7c   7c   7c   7c
//!   Encoding _HEAP_ENTRY                      50   50   50   50      80   80   80   80
//!   Signature u32 = EEFFEEFF                  64   60   60   60      a0   98   98   98
//!   TotalFreeSize, in units                   78   74   74   74      c8   c0   c0   c0
//!   VirtualAllocdBlocks LIST_ENTRY            a0   9c   9c   9c      118  110  110  110
//!   SegmentList LIST_ENTRY                    a8   a4   a4   a4      128  120  120  120
//!   FreeLists LIST_ENTRY                      c4   c0   c0   c0      158  150  150  150
//!   FrontEndHeap, the _LFH_HEAP               d4   d0   d4   e4      178  170  178  198
//!   FrontEndHeapType u8, 2 is the LFH         da   d6   da   ea      182  17a  182  1a2
//!   Counters _HEAP_COUNTERS                   dc   1e0  1e4  1f4     188  210  218  238
//!
//! ntdll!_HEAP_COUNTERS                        x86    x64
//!   TotalMemoryReserved                       0x00   0x00
//!   TotalMemoryCommitted                      0x04   0x08
//!   TotalMemoryLargeUCR                       0x08   0x10
//!   TotalSizeInVirtualBlocks                  0x0c   0x18
//!   TotalSegments u32                         0x10   0x20
//!   TotalUCRs u32                             0x14   0x24
//!   LockCollisions u32                        0x24   0x34
//!
//! ntdll!_LFH_HEAP (since Windows 8)           x86    x64
//!   Heap                                      0x0c   0x18
//!
//! ntdll!_HEAP_VIRTUAL_ALLOC_ENTRY             x86    x64
//!   Entry LIST_ENTRY                          0x00   0x00
//!   CommitSize                                0x10   0x20
//!   ReserveSize                               0x14   0x28
//!   BusyBlock _HEAP_ENTRY                     0x18   0x30
//!
//! ntdll!_HEAP_UCR_DESCRIPTOR                  x86    x64
//!   SegmentEntry LIST_ENTRY                   0x08   0x10
//!   Address                                   0x10   0x20
//!   Size                                      0x14   0x28
//!
//! ntdll!_HEAP_ENTRY (size)                    0x08   0x10
//!   Size u16, in units                        0x00   0x08
//!   Flags u8: 1 busy, 8 made for the LFH      0x02   0x0a
//!   SmallTagIndex u8, a checksum              0x03   0x0b
//!   PreviousSize u16, in units                0x04   0x0c
//!   UnusedBytes u8                            0x07   0x0f
//! ntdll!_HEAP_EXTENDED_ENTRY (size)           0x08   0x10
//!   UnusedBytesLength u16                     0x04   0x0c
//!   EntryOffset u8, ExtendedBlockSignature 5  0x06   0x0e
//!
//! ntdll!_HEAP_USERDATA_HEADER                 x86           x64
//!                                             7      8      7      8
//!   SubSegment                                0x00   0x00   0x00   0x00
//!   Signature = F0E0D0C0                      0x0c   0x0c   0x18   0x14
//!   EncodedOffsets u32                               0x10          0x18
//!   BusyBitmap.Buffer                                0x18          0x28
//!   BitmapData                                       0x1c          0x30
//!   first block                               0x10   coded  0x20   coded
//! ntdll!_HEAP_SUBSEGMENT
//!   UserBlocks                                0x04   0x04   0x08   0x08
//!   BlockSize u16, in units                   0x10   0x14   0x18   0x24
//!   BlockCount u16                            0x14   0x18   0x1c   0x28
//! ```
//!
//! The columns are from public PDBs of `ntdll`: 7 is Vista and Windows 7, 8 is Windows 8 to 10.0.10586,
//! 1607 is 10.0.14393 to 17134, 1809 is 10.0.17763 to 26100. We never ask which Windows it is: the
//! place of `Signature` tells 7 from the others, and [`super::counters`] tells the others apart.

/// `_HEAP_SEGMENT.SegmentSignature`.
pub(in crate::owners) const SEGMENT_SIGNATURE: u32 = 0xffee_ffee;

/// `_HEAP_USERDATA_HEADER.Signature`.
pub(super) const USER_BLOCKS_SIGNATURE: u32 = 0xf0e0_d0c0;

/// `EncodeFlagMask`: headers are XORed with `Encoding`.
pub(super) const ENCODED: u32 = 0x10_0000;

/// `_HEAP.Signature`.
pub(super) const HEAP_SIGNATURE: u32 = 0xeeff_eeff;

/// One generation of `_HEAP`. All offsets are from the heap's address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) signature: u64,
    pub(super) total_free_size: u64,
    pub(super) virtual_blocks: u64,
    pub(super) segment_list: u64,
    pub(super) free_lists: u64,
    pub(super) front_end: u64,
    pub(super) front_end_type: u64,
    pub(super) counters: u64,
    pub(super) lfh: &'static Lfh,
}

/// What all generations have in common, by pointer size.
#[derive(Debug)]
pub(super) struct Common {
    /// Bytes of a `_HEAP_ENTRY`, in which blocks are measured.
    pub(super) granularity: u64,
    pub(super) flags: u64,
    pub(super) encode_mask: u64,
    /// Where the eight bytes stand that headers are XORed with.
    pub(super) encoding: u64,
    /// Where those eight bytes stand in a `_HEAP_ENTRY`.
    pub(super) entry: u64,
    pub(super) segment: Segment,
    pub(super) counters: Counters,
    pub(super) virtual_block: VirtualBlock,
    pub(super) uncommitted: Uncommitted,
    /// `_LFH_HEAP.Heap`, where the front end has a reservation of its own.
    pub(super) front_end_owner: u64,
    /// Known generations, the oldest first.
    pub(super) generations: &'static [Layout],
}

/// `_HEAP_SEGMENT`.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) signature: u64,
    pub(super) list_entry: u64,
    pub(super) heap: u64,
    pub(super) pages: u64,
    pub(super) first_entry: u64,
    pub(super) last_valid_entry: u64,
    pub(super) uncommitted_pages: u64,
    pub(super) uncommitted_list: u64,
}

/// `_HEAP_COUNTERS`.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) reserved: u64,
    pub(super) committed: u64,
    pub(super) large_uncommitted: u64,
    pub(super) virtual_bytes: u64,
    pub(super) segments: u64,
    pub(super) uncommitted_ranges: u64,
    pub(super) lock_collisions: u64,
}

/// `_HEAP_VIRTUAL_ALLOC_ENTRY`.
#[derive(Debug)]
pub(super) struct VirtualBlock {
    pub(super) commit_size: u64,
    pub(super) reserve_size: u64,
    pub(super) busy_block: u64,
}

/// `_HEAP_UCR_DESCRIPTOR`.
#[derive(Debug)]
pub(super) struct Uncommitted {
    pub(super) segment_entry: u64,
    pub(super) address: u64,
    pub(super) size: u64,
}

/// `_HEAP_USERDATA_HEADER` and `_HEAP_SUBSEGMENT`: a block of the heap that is cut into slots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lfh {
    pub(super) signature: u64,
    pub(super) first_block: FirstBlock,
    pub(super) user_blocks: u64,
    pub(super) block_size: u64,
    pub(super) block_count: u64,
}

/// Where the first slot stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstBlock {
    /// Always here.
    At(u64),
    /// Where `EncodedOffsets` says. A bit of the bitmap is set for each busy slot.
    Encoded { offsets: u64, bitmap: u64, bitmap_data: u64 },
}

/// The tables for pointers of `pointer_size` bytes.
pub(super) fn common(pointer_size: u64) -> &'static Common {
    if pointer_size == 4 { &X86 } else { &X64 }
}

/// Where the segment's signature stands, which is also where a segment heap has its own.
pub(in crate::owners) fn signature_offset(pointer_size: u64) -> u64 {
    common(pointer_size).segment.signature
}

static X86: Common = Common {
    granularity: 8,
    flags: 0x40,
    encode_mask: 0x4c,
    encoding: 0x50,
    entry: 0x00,
    segment: Segment {
        signature: 0x08,
        list_entry: 0x10,
        heap: 0x18,
        pages: 0x20,
        first_entry: 0x24,
        last_valid_entry: 0x28,
        uncommitted_pages: 0x2c,
        uncommitted_list: 0x38,
    },
    counters: Counters {
        reserved: 0x00,
        committed: 0x04,
        large_uncommitted: 0x08,
        virtual_bytes: 0x0c,
        segments: 0x10,
        uncommitted_ranges: 0x14,
        lock_collisions: 0x24,
    },
    virtual_block: VirtualBlock { commit_size: 0x10, reserve_size: 0x14, busy_block: 0x18 },
    uncommitted: Uncommitted { segment_entry: 0x08, address: 0x10, size: 0x14 },
    front_end_owner: 0x0c,
    generations: &[
        Layout {
            signature: 0x64,
            total_free_size: 0x78,
            virtual_blocks: 0xa0,
            segment_list: 0xa8,
            free_lists: 0xc4,
            front_end: 0xd4,
            front_end_type: 0xda,
            counters: 0xdc,
            lfh: &X86_LFH_7,
        },
        Layout { front_end: 0xd0, front_end_type: 0xd6, counters: 0x1e0, ..X86_SINCE_8 },
        Layout { front_end: 0xd4, front_end_type: 0xda, counters: 0x1e4, ..X86_SINCE_8 },
        Layout { front_end: 0xe4, front_end_type: 0xea, counters: 0x1f4, ..X86_SINCE_8 },
    ],
};

const X86_SINCE_8: Layout = Layout {
    signature: 0x60,
    total_free_size: 0x74,
    virtual_blocks: 0x9c,
    segment_list: 0xa4,
    free_lists: 0xc0,
    front_end: 0,
    front_end_type: 0,
    counters: 0,
    lfh: &X86_LFH_8,
};

static X64: Common = Common {
    granularity: 0x10,
    flags: 0x70,
    encode_mask: 0x7c,
    encoding: 0x88,
    entry: 0x08,
    segment: Segment {
        signature: 0x10,
        list_entry: 0x18,
        heap: 0x28,
        pages: 0x38,
        first_entry: 0x40,
        last_valid_entry: 0x48,
        uncommitted_pages: 0x50,
        uncommitted_list: 0x60,
    },
    counters: Counters {
        reserved: 0x00,
        committed: 0x08,
        large_uncommitted: 0x10,
        virtual_bytes: 0x18,
        segments: 0x20,
        uncommitted_ranges: 0x24,
        lock_collisions: 0x34,
    },
    virtual_block: VirtualBlock { commit_size: 0x20, reserve_size: 0x28, busy_block: 0x30 },
    uncommitted: Uncommitted { segment_entry: 0x10, address: 0x20, size: 0x28 },
    front_end_owner: 0x18,
    generations: &[
        Layout {
            signature: 0xa0,
            total_free_size: 0xc8,
            virtual_blocks: 0x118,
            segment_list: 0x128,
            free_lists: 0x158,
            front_end: 0x178,
            front_end_type: 0x182,
            counters: 0x188,
            lfh: &X64_LFH_7,
        },
        Layout { front_end: 0x170, front_end_type: 0x17a, counters: 0x210, ..X64_SINCE_8 },
        Layout { front_end: 0x178, front_end_type: 0x182, counters: 0x218, ..X64_SINCE_8 },
        Layout { front_end: 0x198, front_end_type: 0x1a2, counters: 0x238, ..X64_SINCE_8 },
    ],
};

const X64_SINCE_8: Layout = Layout {
    signature: 0x98,
    total_free_size: 0xc0,
    virtual_blocks: 0x110,
    segment_list: 0x120,
    free_lists: 0x150,
    front_end: 0,
    front_end_type: 0,
    counters: 0,
    lfh: &X64_LFH_8,
};

static X86_LFH_7: Lfh = Lfh {
    signature: 0x0c,
    first_block: FirstBlock::At(0x10),
    user_blocks: 0x04,
    block_size: 0x10,
    block_count: 0x14,
};

static X86_LFH_8: Lfh = Lfh {
    signature: 0x0c,
    first_block: FirstBlock::Encoded { offsets: 0x10, bitmap: 0x18, bitmap_data: 0x1c },
    user_blocks: 0x04,
    block_size: 0x14,
    block_count: 0x18,
};

static X64_LFH_7: Lfh = Lfh {
    signature: 0x18,
    first_block: FirstBlock::At(0x20),
    user_blocks: 0x08,
    block_size: 0x18,
    block_count: 0x1c,
};

static X64_LFH_8: Lfh = Lfh {
    signature: 0x14,
    first_block: FirstBlock::Encoded { offsets: 0x18, bitmap: 0x28, bitmap_data: 0x30 },
    user_blocks: 0x08,
    block_size: 0x24,
    block_count: 0x28,
};

//! Every maximum in the program, in one place.
//!
//! A dump can claim anything. These are the numbers at which we stop believing it.

/// Bounds for work that the dump's own counts and pointers would drive.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Streams read from the directory; real dumps have about twenty.
    pub streams: usize,
    /// Entries taken from one stream (modules, threads, handles, regions). A 4 GiB process of
    /// single pages has a million regions.
    pub entries: usize,
    /// Bytes of one string in the dump or in the target. `UNICODE_STRING` ends at 64 KiB.
    pub string_bytes: usize,
    /// Links followed in one list of the target process.
    pub list_steps: usize,
    /// Heaps taken from a PEB; a process with thousands is not unheard of.
    pub heaps: usize,
    /// Frames kept for one thread. A stack overflow has tens of thousands, all alike.
    pub frames: usize,
    /// Bytes of stack memory given to the unwinder for one thread.
    pub stack_bytes: u64,
    /// Exported names read from one image.
    pub exports: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 4096,
            entries: 4_000_000,
            string_bytes: 0x1_0000,
            list_steps: 200_000,
            heaps: 65_536,
            frames: 1024,
            stack_bytes: 8 << 20,
            exports: 65_536,
        }
    }
}

//! Images: a PE header, a debug directory and an export directory in the target's memory.

use super::{COMMIT, IMAGE, PAGE, RegionSpec, Side, SynthDump};

/// An image to be loaded.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) pdb: Option<(String, [u8; 16], u32)>,
    pub(crate) version: [u16; 4],
    pub(crate) exports: Vec<(String, u32)>,
    pub(crate) managed: bool,
    pub(crate) listed: bool,
    pub(crate) codeview: bool,
    pub(crate) is_64: Option<bool>,
    pub(crate) data: Vec<(u32, Vec<u8>)>,
    pub(crate) data_section: Option<(u32, u32)>,
    pub(crate) resources: (u32, u32),
    pub(crate) time_date_stamp: u32,
}

impl ImageSpec {
    /// An image of 1 MiB without exports.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            size: 0x10_0000,
            pdb: None,
            version: [0; 4],
            exports: Vec::new(),
            managed: false,
            listed: true,
            codeview: true,
            is_64: None,
            data: Vec::new(),
            data_section: None,
            resources: (0, 0),
            time_date_stamp: 0x5f00_0000,
        }
    }

    /// `SizeOfImage`.
    pub fn size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    /// PDB name and identity.
    pub fn pdb(mut self, name: &str, guid: [u8; 16], age: u32) -> Self {
        self.pdb = Some((name.to_owned(), guid, age));
        self
    }

    /// File version.
    pub fn version(mut self, a: u16, b: u16, c: u16, d: u16) -> Self {
        self.version = [a, b, c, d];
        self
    }

    /// Exported functions: name and RVA.
    pub fn exports(mut self, exports: &[(&str, u32)]) -> Self {
        self.exports.extend(exports.iter().map(|&(name, rva)| (name.to_owned(), rva)));
        self
    }

    /// Gives it a COR20 header directory.
    pub fn managed(mut self) -> Self {
        self.managed = true;
        self
    }

    /// Leaves it out of the module list; it stays in memory and in the loader's list.
    pub fn unlisted(mut self) -> Self {
        self.listed = false;
        self
    }

    /// Leaves its PDB identity out of the module list; memory still has it.
    pub fn without_codeview(mut self) -> Self {
        self.codeview = false;
        self
    }

    /// Makes it PE32+ or PE32, against the process's own kind.
    pub fn is_64(mut self, yes: bool) -> Self {
        self.is_64 = Some(yes);
        self
    }

    /// A writable section: its RVA and size.
    pub fn data_section(mut self, rva: u32, size: u32) -> Self {
        self.data_section = Some((rva, size));
        self
    }

    /// One resource of type RCDATA, with its directories from an RVA on.
    pub fn resource(mut self, rva: u32, name: &str, bytes: &[u8]) -> Self {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut tree: Vec<u8> = Vec::new();
        let mut directory = |named: u16, number: u32, to: u32| {
            tree.extend([0; 12]);
            tree.extend([named.to_le_bytes(), (1 - named).to_le_bytes()].concat());
            tree.extend([number.to_le_bytes(), to.to_le_bytes()].concat());
        };
        // Three directories with one entry each, the data's entry, its name, the data.
        let text = 3 * 0x18 + 0x10;
        let data = (text + 2 + name.len() as u32).next_multiple_of(4);
        directory(0, 10, 0x8000_0000 | 0x18);
        directory(1, 0x8000_0000 | text, 0x8000_0000 | 0x30);
        directory(0, 0x409, 0x48);
        for it in [rva + data, bytes.len() as u32, 0, 0] {
            tree.extend(it.to_le_bytes());
        }
        tree.extend((name.len() as u16 / 2).to_le_bytes());
        tree.extend(name);
        tree.resize(data as usize, 0);
        tree.extend(bytes);
        self.resources = (rva, tree.len() as u32);
        self.data(rva, &tree)
    }

    /// Bytes at an RVA.
    pub fn data(mut self, rva: u32, bytes: &[u8]) -> Self {
        self.data.push((rva, bytes.to_vec()));
        self
    }
}

/// Strings and tables at the end of the image, and where each begins.
struct Tail {
    bytes: Vec<u8>,
    rva: u32,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) -> u32 {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
        let rva = self.rva + self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        rva
    }
}

impl SynthDump {
    pub(super) fn lay_out_images(&mut self) {
        for (base, image) in self.images.clone() {
            let protect = |base: u64, at: u64, size: u64, protect: u32| RegionSpec {
                allocation_base: base,
                base: at,
                size,
                state: COMMIT,
                protect,
                allocation_protect: 0x80,
                kind: IMAGE,
            };
            self.regions.push(protect(base, base, PAGE, 2));
            self.regions.push(protect(base, base + PAGE, image.size - PAGE, 0x20));
            self.write_image(base, &image);
        }
    }

    fn write_image(&mut self, base: u64, image: &ImageSpec) {
        let is_64 = image.is_64.unwrap_or(self.side == Side::X64);
        let is_program = image.name == self.name;
        let names: usize = image.exports.iter().map(|(name, _)| name.len() + 16).sum();
        let tail_size = (names as u64 + 512).next_multiple_of(PAGE);
        let mut tail = Tail { bytes: Vec::new(), rva: (image.size - tail_size) as u32 };
        let exports = write_exports(&mut tail, image);
        let debug = write_debug(&mut tail, image);
        assert!(tail.bytes.len() as u64 <= tail_size, "the tail of {} is too long", image.name);

        let mut header = vec![0_u8; 0x200];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x80_u32.to_le_bytes());
        let nt = 0x80;
        put(nt, b"PE\0\0");
        put(nt + 4, &(if is_64 { 0x8664_u16 } else { 0x14c }).to_le_bytes());
        put(nt + 6, &(1_u16 + u16::from(image.data_section.is_some())).to_le_bytes());
        put(nt + 8, &image.time_date_stamp.to_le_bytes());
        let optional_size: u16 = if is_64 { 0xf0 } else { 0xe0 };
        put(nt + 0x14, &optional_size.to_le_bytes());
        let aware = is_program && self.large_address_aware;
        put(nt + 0x16, &(0x2_u16 | if aware { 0x20 } else { 0 }).to_le_bytes());
        put(nt + 0x18, &(if is_64 { 0x20b_u16 } else { 0x10b }).to_le_bytes());
        put(nt + 0x50, &(image.size as u32).to_le_bytes());
        let directories = nt + if is_64 { 0x88 } else { 0x78 };
        put(directories - 4, &16_u32.to_le_bytes());
        for (index, (rva, size)) in [
            (0, exports),
            (2, image.resources),
            (6, debug),
            (14, if image.managed { (0x1000, 72) } else { (0, 0) }),
        ] {
            put(directories + index * 8, &rva.to_le_bytes());
            put(directories + index * 8 + 4, &size.to_le_bytes());
        }
        let section = nt + 0x18 + usize::from(optional_size);
        put(section, b".text\0\0\0");
        put(section + 8, &(image.size as u32 - 0x1000).to_le_bytes());
        put(section + 12, &0x1000_u32.to_le_bytes());
        put(section + 36, &0x6000_0020_u32.to_le_bytes());
        if let Some((rva, size)) = image.data_section {
            put(section + 40, b".data\0\0\0");
            put(section + 48, &size.to_le_bytes());
            put(section + 52, &rva.to_le_bytes());
            put(section + 76, &0xc000_0040_u32.to_le_bytes());
        }
        self.put(base, &header);
        let (at, bytes) = (base + u64::from(tail.rva), tail.bytes);
        self.put(at, &bytes);
        for (rva, bytes) in &image.data {
            self.put(base + u64::from(*rva), bytes);
        }
    }
}

fn write_exports(tail: &mut Tail, image: &ImageSpec) -> (u32, u32) {
    if image.exports.is_empty() {
        return (0, 0);
    }
    // The name table of a real image is sorted, so that it can be searched.
    let mut exports = image.exports.clone();
    exports.sort();
    let mut words = |values: Vec<u32>| {
        tail.push(&values.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>())
    };
    let functions = words(exports.iter().map(|(_, rva)| *rva).collect());
    let ordinals: Vec<u8> = (0..exports.len() as u16).flat_map(u16::to_le_bytes).collect();
    let ordinals = tail.push(&ordinals);
    let names: Vec<u32> =
        exports.iter().map(|(name, _)| tail.push(format!("{name}\0").as_bytes())).collect();
    let mut words = |values: Vec<u32>| {
        tail.push(&values.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>())
    };
    let names = words(names);
    let count = exports.len() as u32;
    let directory = words(vec![0, 0, 0, 0, 1, count, count, functions, names, ordinals]);
    (directory, 40)
}

fn write_debug(tail: &mut Tail, image: &ImageSpec) -> (u32, u32) {
    let Some((name, guid, age)) = &image.pdb else { return (0, 0) };
    let record = rsds(name, guid, *age);
    let size = record.len() as u32;
    let rva = tail.push(&record);
    let entry = [0, image.time_date_stamp, 0, 2, size, rva, 0];
    let entry: Vec<u8> = entry.iter().flat_map(|it| it.to_le_bytes()).collect();
    (tail.push(&entry), 28)
}

/// An RSDS record.
pub(crate) fn rsds(name: &str, guid: &[u8; 16], age: u32) -> Vec<u8> {
    let mut record = b"RSDS".to_vec();
    record.extend_from_slice(guid);
    record.extend_from_slice(&age.to_le_bytes());
    record.extend_from_slice(name.as_bytes());
    record.push(0);
    record
}

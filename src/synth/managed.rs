//! A managed heap: runtime, collector's variables, types with their metadata, and objects.
//!
//! Layouts are those of `facts` about each generation of the runtime, written down here a second
//! time so that reader and writer cannot agree by mistake.

use std::collections::BTreeMap;

use super::{
    COMMIT, ImageSpec, MAPPED, PRIVATE, READWRITE, RESERVE, RegionSpec, SynthDump, ThreadSpec,
};

const RUNTIME: u64 = 0x6000_0000;
const DATA: u32 = 0x1000;
const LOADER: u64 = 0x0600_0000;
const CLASSES: u64 = LOADER + 0x8_0000;
const FIELDS: u64 = LOADER + 0xc_0000;
const MODULE: u64 = LOADER + 0x10_0000;
const ASSEMBLY: u64 = 0x0700_0000;
const BOOKS: u64 = 0x0800_0000;
const HANDLES: u64 = 0x0900_0000;
const HEAP: u64 = 0x1000_0000;
const COPY_HEADERS: u64 = 0x0f_0000_0000;
const COPIES: u64 = 0x10_0000_0000;
/// Reserved for one generation, or for one segment.
const RESERVED: u64 = 0x0200_0000;
const GENERATION: u64 = 0x100;

/// A generation of the runtime, by the layouts that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// .NET Framework 4: `clr.dll`, segments that only their headers speak for.
    Framework,
    /// .NET Core 2.1.
    Core21,
    /// .NET Core 3.1.
    Core31,
    /// .NET 5 and 6: a count of generations.
    Net6,
    /// .NET 7: regions on 64 bits.
    Net7,
    /// .NET 8.
    Net8,
    /// .NET 9: rows of types in three bytes, the image's base in the module.
    Net9,
    /// .NET 10.
    Net10,
}

impl Flavor {
    /// All of them.
    pub const ALL: [Flavor; 8] = [
        Flavor::Framework,
        Flavor::Core21,
        Flavor::Core31,
        Flavor::Net6,
        Flavor::Net7,
        Flavor::Net8,
        Flavor::Net9,
        Flavor::Net10,
    ];

    fn has_regions(self, wide: bool) -> bool {
        wide && matches!(self, Flavor::Net7 | Flavor::Net8 | Flavor::Net9 | Flavor::Net10)
    }

    fn has_wide_rows(self) -> bool {
        matches!(self, Flavor::Net9 | Flavor::Net10)
    }

    fn counts_generations(self) -> bool {
        !matches!(self, Flavor::Framework | Flavor::Core21 | Flavor::Core31)
    }

    fn file_version(self) -> (u16, u16, u16, u16) {
        match self {
            Flavor::Framework => (4, 8, 4515, 0),
            Flavor::Core21 => (4, 6, 30411, 1),
            Flavor::Core31 => (4, 700, 22, 11601),
            Flavor::Net6 => (6, 0, 1122, 52304),
            Flavor::Net7 => (7, 0, 723, 27404),
            Flavor::Net8 => (8, 0, 524, 21615),
            Flavor::Net9 => (9, 0, 124, 61010),
            Flavor::Net10 => (10, 0, 25, 52411),
        }
    }
}

/// What kind of objects a type has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    String,
    Vector(usize, u16),
    Array(usize, u16, u32),
    Generic(usize),
    Interface,
    Free,
}

#[derive(Debug, Clone)]
struct Type {
    name: &'static str,
    shape: Shape,
    /// Bytes of fields.
    fields: u64,
    parent: Option<usize>,
    finalizer: bool,
    /// Offsets of references, from the start of the object.
    references: Vec<u64>,
    /// Names of fields and their offsets.
    named: Vec<(&'static str, u64)>,
    /// Names of static fields that refer to objects, and where each field is.
    statics: Vec<(&'static str, u64)>,
    /// Type arguments.
    arguments: Vec<usize>,
}

/// A type that was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeId(usize);

/// A managed heap that is put together object by object.
#[derive(Debug, Clone)]
pub struct ManagedSpec {
    flavor: Flavor,
    wide: bool,
    types: Vec<Type>,
    /// Bytes of each generation: 0, 1, 2, large, pinned.
    bytes: [Vec<u8>; 5],
    /// The next object of each generation is put behind these.
    counts: BTreeMap<(usize, usize), u64>,
    /// Objects that are dead and wait for the finalizer.
    ready: Vec<u64>,
    /// GC handles: their kinds' numbers, how many, and their object.
    handles: Vec<(u8, u64, u64)>,
    /// Further regions with the same bytes as generation 2.
    copies: u64,
    /// Whether the collector's variables are left out.
    no_variables: bool,
    /// Whether the variables are found by the list of all variables alone.
    listed: bool,
    /// A type in a module of its own, and whether that is one.
    dynamic: Option<(usize, bool)>,
    /// Whether there are methods, and what was compiled of them.
    methods: bool,
    /// Where static fields begin.
    static_base: Option<u64>,
}

impl ManagedSpec {
    /// A heap of this generation, of a 64-bit process or of a 32-bit one.
    pub fn new(flavor: Flavor, wide: bool) -> Self {
        let mut it = Self {
            flavor,
            wide,
            types: Vec::new(),
            bytes: Default::default(),
            counts: BTreeMap::new(),
            ready: Vec::new(),
            handles: Vec::new(),
            copies: 0,
            no_variables: false,
            listed: false,
            dynamic: None,
            methods: false,
            static_base: None,
        };
        // Free, Object and String come first and keep these numbers.
        it.declare("Free", Shape::Free, 0, None);
        it.declare("System.Object", Shape::Plain, 0, None);
        it.declare("System.String", Shape::String, 0, Some(1));
        it
    }

    /// The type of gaps.
    pub const FREE: TypeId = TypeId(0);
    /// `System.Object`.
    pub const OBJECT: TypeId = TypeId(1);
    /// `System.String`.
    pub const STRING: TypeId = TypeId(2);

    fn declare(
        &mut self,
        name: &'static str,
        shape: Shape,
        fields: u64,
        parent: Option<usize>,
    ) -> TypeId {
        let (references, named, arguments) = (Vec::new(), Vec::new(), Vec::new());
        let statics = Vec::new();
        let finalizer = false;
        self.types.push(Type {
            name,
            shape,
            fields,
            parent,
            finalizer,
            references,
            named,
            statics,
            arguments,
        });
        TypeId(self.types.len() - 1)
    }

    /// A class `Namespace.Name` (or `Namespace.Outer+Inner`) with this many pointers of fields.
    pub fn class(&mut self, name: &'static str, words: u64, parent: TypeId) -> TypeId {
        let size = words * self.size();
        self.declare(name, Shape::Plain, size, Some(parent.0))
    }

    /// Names a field of a class, given as the number of its word. It is a reference.
    pub fn reference(&mut self, of: TypeId, name: &'static str, word: u64) {
        let offset = (1 + word) * self.size();
        self.types[of.0].references.push(offset);
        self.types[of.0].named.push((name, offset));
    }

    /// Names a field that is a number.
    pub fn number(&mut self, of: TypeId, name: &'static str, word: u64) {
        let offset = (1 + word) * self.size();
        self.types[of.0].named.push((name, offset));
    }

    /// Makes the objects of a class finalizable.
    pub fn finalizer(&mut self, of: TypeId) {
        self.types[of.0].finalizer = true;
    }

    /// `name`, a generic class, with these arguments.
    pub fn generic(&mut self, name: &'static str, arguments: &[TypeId]) -> TypeId {
        let size = self.size();
        let it = self.declare(name, Shape::Generic(arguments.len()), size, Some(1));
        self.types[it.0].arguments = arguments.iter().map(|it| it.0).collect();
        it
    }

    /// Arrays of a type, with elements of so many bytes. Elements that are as large as a pointer
    /// are references where `element` is a class.
    pub fn vector(&mut self, element: TypeId, bytes: u16) -> TypeId {
        self.declare("", Shape::Vector(element.0, bytes), 0, Some(1))
    }

    /// Arrays with so many dimensions.
    pub fn array(&mut self, element: TypeId, bytes: u16, rank: u32) -> TypeId {
        self.declare("", Shape::Array(element.0, bytes, rank), 8 * u64::from(rank), Some(1))
    }

    fn size(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    fn base_size(&self, of: usize) -> u64 {
        let (size, it) = (self.size(), &self.types[of]);
        match it.shape {
            // To .NET Core 2.1 the terminator is counted twice, with what aligns it.
            Shape::String if matches!(self.flavor, Flavor::Framework | Flavor::Core21) => {
                3 * size + if self.wide { 2 } else { 6 }
            }
            Shape::String => 2 * size + 4 + 2,
            Shape::Interface => 0,
            Shape::Free | Shape::Vector(..) => 3 * size,
            Shape::Array(..) => 3 * size + it.fields,
            Shape::Plain | Shape::Generic(_) => (2 * size + it.fields).max(3 * size),
        }
    }

    fn element(&self, of: usize) -> u16 {
        match self.types[of].shape {
            Shape::String => 2,
            Shape::Free => 1,
            Shape::Vector(_, bytes) | Shape::Array(_, bytes, _) => bytes,
            Shape::Plain | Shape::Generic(_) | Shape::Interface => 0,
        }
    }

    /// The address of a type's method table.
    pub fn table(&self, of: TypeId) -> u64 {
        LOADER + 0x1000 + of.0 as u64 * 0x180 + 0x80
    }

    /// Where the objects of a generation begin.
    fn start(&self, generation: usize) -> u64 {
        // Segments begin with their headers, regions nearly with their objects.
        let gap = if self.flavor.has_regions(self.wide) { 0x28 } else { 0x1000 };
        HEAP + generation as u64 * RESERVED + gap
    }

    /// Puts an object with this many elements at the end of a generation (0 to 2, 3 for large and
    /// 4 for pinned ones), and says where it is.
    pub fn add(&mut self, generation: usize, of: TypeId, length: u32) -> u64 {
        let size = self.size();
        let alignment = if 3 <= generation { 8 } else { size };
        let exact = self.base_size(of.0) + u64::from(self.element(of.0)) * u64::from(length);
        let table = self.table(of);
        let has_length = self.element(of.0) != 0;
        let start = self.start(generation);
        let bytes = &mut self.bytes[generation];
        let at = bytes.len();
        bytes.extend(&table.to_le_bytes()[..size as usize]);
        if has_length {
            bytes.extend(length.to_le_bytes());
        }
        bytes.resize(at + exact.next_multiple_of(alignment) as usize, 0);
        *self.counts.entry((generation, of.0)).or_default() += 1;
        start + at as u64
    }

    /// Leaves zeros behind the last object of a generation, as a thread does that has taken room
    /// and not filled it.
    pub fn gap(&mut self, generation: usize, bytes: usize) {
        let end = self.bytes[generation].len() + bytes;
        self.bytes[generation].resize(end, 0);
    }

    /// Puts bytes behind the last object of a generation that are none of anybody's any more.
    pub fn stale(&mut self, generation: usize, bytes: usize) {
        let end = self.bytes[generation].len() + bytes;
        self.bytes[generation].resize(end, 0x5b);
    }

    /// Puts a type into a module that was made at run time. Without `is_module` there is something
    /// else where the module should be.
    pub fn dynamic(&mut self, of: TypeId, is_module: bool) {
        self.dynamic = Some((of.0, is_module));
    }

    /// An interface, for arguments of types.
    pub fn interface(&mut self, name: &'static str) -> TypeId {
        self.declare(name, Shape::Interface, 0, None)
    }

    /// Overwrites bytes in the heap, from an address on.
    pub fn put(&mut self, va: u64, with: &[u8]) {
        for generation in 0..5 {
            let start = self.start(generation);
            let end = start + self.bytes[generation].len() as u64;
            if (start..end).contains(&va) {
                let at = (va - start) as usize;
                self.bytes[generation][at..at + with.len()].copy_from_slice(with);
            }
        }
    }

    /// Sets the reference in a word of an object's fields.
    pub fn set(&mut self, object: u64, word: u64, to: u64) {
        let size = self.size();
        let bytes = to.to_le_bytes();
        self.put(object + (1 + word) * size, &bytes[..size as usize]);
    }

    /// A string in a generation.
    pub fn string(&mut self, generation: usize, text: &str) -> u64 {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let it = self.add(generation, Self::STRING, units.len() as u32 / 2);
        self.put(it + self.size() + 4, &units);
        it
    }

    /// Dead objects that wait for the finalizer.
    pub fn ready(&mut self, objects: &[u64]) {
        self.ready = objects.to_vec();
    }

    /// Leaves the collector's variables out, as in a dump without the pages of its image.
    pub fn without_variables(&mut self) {
        self.no_variables = true;
    }

    /// Gives `System.Object` a method with code at [`Self::CODE`], one with a stub at
    /// [`Self::STUBS`], and pointers to [`Self::NOT_CODE`] and [`Self::NO_TYPES`], where allocations
    /// are that look alike from afar.
    pub fn methods(&mut self) {
        self.methods = true;
    }

    /// Where compiled methods are.
    pub const CODE: u64 = 0x0680_0000;
    /// Where stubs are.
    pub const STUBS: u64 = 0x0681_0000;
    /// Where methods are that are not compiled to there.
    pub const METHODS: u64 = 0x0682_0000;
    /// Where code is that is not the runtime's.
    pub const NOT_CODE: u64 = 0x0683_0000;
    /// Where data is that is not the runtime's.
    pub const NO_TYPES: u64 = 0x0684_0000;

    /// Gives a type static fields that refer to objects. They are elements of `array`, an array of
    /// references, from `first` on.
    pub fn statics(&mut self, of: TypeId, array: u64, first: u64, fields: &[(&'static str, u64)]) {
        let size = self.size();
        let elements = array + 2 * size;
        self.static_base.get_or_insert(elements);
        for (idx, &(name, object)) in (first..).zip(fields) {
            self.set(array, 1 + idx, object);
            self.types[of.0].statics.push((name, elements + idx * size));
        }
    }

    /// The word without which the statics of a type cannot be believed: the one that leads back.
    pub fn statics_lead_back(&self, of: TypeId) -> u64 {
        match self.flavor.has_wide_rows() {
            true => self.auxiliary(of.0) - self.size(),
            false => MODULE + 0xa00 + 2 * self.size(),
        }
    }

    /// Where the auxiliary data of a type is.
    fn auxiliary(&self, idx: usize) -> u64 {
        LOADER + 0x14_0000 + idx as u64 * 0x40 + 3 * self.size()
    }

    /// Where the offsets of a type's statics count from.
    fn static_base(&self, idx: usize) -> u64 {
        let own = self.types[idx].statics.first().map(|it| it.1);
        let shared = self.static_base;
        if self.flavor.has_wide_rows() { own } else { shared }.unwrap_or(0)
    }

    /// Leaves it to the list of all variables, `g_dacTable`, to say where the collector's are: no
    /// section of the image is one that they are looked for in.
    pub fn listed_alone(&mut self) {
        self.listed = true;
    }

    /// Puts what generation 2 holds into so many further regions, byte for byte. Only a 64-bit
    /// process has room for them, and references lead to the first.
    pub fn copies(&mut self, copies: u64) {
        self.copies = copies;
    }

    /// So many GC handles to an object: 0 weak, 1 long weak, 2 strong, 3 pinned, 6 dependent.
    pub fn handles(&mut self, kind: u8, count: u64, object: u64) {
        self.handles.push((kind, count, object));
    }

    /// How many objects of a type there are.
    pub fn count(&self, of: TypeId) -> u64 {
        self.counts.iter().filter(|it| it.0.1 == of.0).map(|it| it.1).sum()
    }

    /// Bytes of all generations.
    pub fn total(&self) -> u64 {
        self.bytes.iter().map(|it| it.len() as u64).sum()
    }

    /// The process that has this heap.
    pub fn process(&self) -> SynthDump {
        let stack = ThreadSpec::new(1).stack(0x0300_0000, 0x030f_0000, 0x0310_0000);
        let dump = if self.wide { SynthDump::x64() } else { SynthDump::x86() };
        let (name, regions) = match self.flavor {
            Flavor::Framework => ("clr.dll", false),
            _ => ("coreclr.dll", self.flavor.has_regions(self.wide)),
        };
        let mut dump = dump
            .image(0x0040_0000, ImageSpec::new("app.exe"))
            .thread(stack.frames(&[0x0040_1234]))
            .system_commit(1_000_000, 4_000_000, 1_100_000)
            .commit(LOADER, 0x20_0000)
            .commit(ASSEMBLY, 0x1_0000)
            .commit(BOOKS, 0x1_0000);
        dump = self.write_types(dump);
        dump = dump.write(ASSEMBLY, &self.assembly());
        dump = self.write_heap(dump, regions);
        if self.methods {
            dump = self.write_methods(dump);
        }
        dump = self.write_queue(dump);
        dump = self.write_handles(dump);
        let mut data = vec![0_u8; 0x4000];
        if !self.no_variables {
            self.write_variables(&mut data, regions);
        }
        let (a, b, c, d) = self.flavor.file_version();
        let mut image = ImageSpec::new(name).size(0x1_0000).version(a, b, c, d);
        if self.flavor == Flavor::Framework && !self.no_variables {
            // Among others: the generations, the end of the youngest objects, the handle tables.
            let rvas = [0x2100, 0x2020, 0x1000, 0x2000, 0x2010, 0x2030, 0x2200].map(|it| DATA + it);
            let mut table = [rvas.len() as u32, 0, 0, 0, 0, 0].to_vec();
            table.extend(rvas);
            let table: Vec<u8> = table.into_iter().flat_map(u32::to_le_bytes).collect();
            image = image.resource(0x8000, "EXTERNALDATAACCESSRESOURCE", &table);
        }
        if self.listed {
            // A variable that leads to the table of the collector's.
            let at = 0x3f00;
            let base = RUNTIME + u64::from(DATA);
            let word = self.word(base);
            data[at..at + word.len()].copy_from_slice(&word);
            let list = self.words(&[base + 0x2000, base + at as u64, base + 0x2200]);
            let image = image.exports(&[("g_dacTable", 0x8000)]).data(0x8000, &list);
            return dump.image(RUNTIME, image.data(DATA, &data));
        }
        dump.image(RUNTIME, image.data_section(DATA, 0x4000).data(DATA, &data))
    }

    fn word(&self, value: u64) -> Vec<u8> {
        value.to_le_bytes()[..self.size() as usize].to_vec()
    }

    /// A pointer at an address: .NET Core 2.1 keeps many as the distance from there.
    fn near(&self, at: u64, to: u64) -> u64 {
        if self.flavor == Flavor::Core21 && to != 0 { to.wrapping_sub(at) } else { to }
    }

    fn words(&self, values: &[u64]) -> Vec<u8> {
        values.iter().flat_map(|&it| self.word(it)).collect()
    }

    fn write_types(&self, mut dump: SynthDump) -> SynthDump {
        let size = self.size();
        for (idx, it) in self.types.iter().enumerate() {
            let table = self.table(TypeId(idx));
            let class = CLASSES + idx as u64 * 0x80;
            let fields = FIELDS + idx as u64 * 0x200;
            let row = idx as u32 + 2;
            let element = u32::from(self.element(idx));
            let pointers = match it.shape {
                Shape::Vector(of, bytes) => {
                    u64::from(bytes) == size && matches!(self.types[of].shape, Shape::Plain)
                }
                _ => !it.references.is_empty(),
            };
            let mut flags = match it.shape {
                Shape::Vector(..) => 0x800a_0000 | element,
                Shape::Array(..) => 0x8008_0000 | element,
                Shape::String | Shape::Free => 0x8000_0000 | element,
                Shape::Generic(_) => 0x10,
                Shape::Interface => 0x000c_0000,
                Shape::Plain => 0,
            };
            flags |= if pointers { 0x0100_0000 } else { 0 };
            flags |= if it.finalizer { 0x0010_0000 } else { 0 };
            let token = if self.flavor.has_wide_rows() { row << 8 | 1 } else { row << 16 | 0x88 };
            let mut bytes = flags.to_le_bytes().to_vec();
            bytes.extend((self.base_size(idx) as u32).to_le_bytes());
            if it.shape == Shape::Free {
                dump = dump.write(table, &bytes);
                continue;
            }
            bytes.extend(token.to_le_bytes());
            bytes.extend(4_u32.to_le_bytes());
            // Since .NET 9 interfaces have a parent here that metadata does not give them.
            let stands_in = it.shape == Shape::Interface && self.flavor.has_wide_rows();
            let parent = it.parent.or(stands_in.then_some(Self::OBJECT.0));
            let parent = parent.map_or(0, |it| self.table(TypeId(it)));
            let instance = match it.shape {
                Shape::Vector(of, _) | Shape::Array(of, ..) => self.table(TypeId(of)),
                Shape::Generic(_) => table + 0x50,
                _ => 0,
            };
            let auxiliary = if it.statics.is_empty() { 0 } else { self.auxiliary(idx) };
            let module = match self.dynamic {
                Some((of, _)) if of == idx => MODULE + 0x2000,
                _ => MODULE,
            };
            let module = self.near(table + 0x10 + size, module);
            bytes.extend(self.words(&[parent, module, auxiliary, class, instance, 0]));
            if self.flavor.has_wide_rows() && auxiliary != 0 {
                let info = self.words(&[self.static_base(idx), 0, table]);
                dump = dump.write(auxiliary - 3 * size, &info);
            }
            dump = dump.write(table, &bytes);
            if let Shape::Generic(count) = it.shape {
                let arguments: Vec<u64> =
                    it.arguments.iter().map(|&it| self.table(TypeId(it))).collect();
                let counts = [1_u16.to_le_bytes(), (count as u16).to_le_bytes()].concat();
                dump = dump
                    .write(table + 0x4c, &counts)
                    .write(table + 0x50, &self.word(table + 0x60))
                    .write(table + 0x60, &self.words(&arguments));
            }
            dump = self.write_series(dump, idx, table, pointers);
            let own = self.near(class + 2 * size, table);
            let list = self.near(class + 3 * size, fields);
            dump = dump.write(class, &self.words(&[0, 0, own, list]));
            let first = self.first_field(idx);
            for (number, (_, offset)) in it.named.iter().enumerate() {
                let at = fields + number as u64 * (size + 8);
                let mut bytes = self.word(self.near(at, table));
                bytes.extend((first + number as u32).to_le_bytes());
                bytes.extend(((*offset - size) as u32 | 0x4000_0000).to_le_bytes());
                dump = dump.write(at, &bytes);
            }
            let named = it.named.len() as u32;
            for (number, (_, at)) in (named..).zip(&it.statics) {
                let place = fields + u64::from(number) * (size + 8);
                let mut bytes = self.word(self.near(place, table));
                bytes.extend(((first + number) | 0x0100_0000).to_le_bytes());
                bytes.extend(((at - self.static_base(idx)) as u32 | 0x12 << 27).to_le_bytes());
                dump = dump.write(place, &bytes);
            }
        }
        let (name, file) = (MODULE + 0x800, MODULE + 0x400);
        let mut module = vec![0_u64; 32];
        match self.flavor {
            Flavor::Framework | Flavor::Core21 | Flavor::Core31 => {
                (module[1], module[2]) = (name, file);
            }
            Flavor::Net9 | Flavor::Net10 => (module[21], module[24]) = (name, ASSEMBLY),
            _ => (module[21], module[22]) = (name, file),
        }
        if let Some(base) = self.static_base
            && !self.flavor.has_wide_rows()
        {
            let (local, assembly) = (MODULE + 0x900, MODULE + 0xa00);
            module[28] = local;
            dump = dump
                .write(local, &self.words(&[assembly, 0, 0, 0, base]))
                .write(assembly, &self.words(&[0, 0, MODULE]));
        }
        if let Some((_, is_module)) = self.dynamic {
            let own = if is_module { RUNTIME + 0x2000 } else { MODULE + 0x3000 };
            dump = dump.capture(MODULE + 0x2000, 0x1000).write(MODULE + 0x2000, &self.word(own));
        }
        // File, image, layout, image.
        dump.write(MODULE, &self.words(&module))
            .write(name, b"Lab\0")
            .write(file, &self.words(&[0, file + 0x80]))
            .write(file + 0x80, &self.words(&[0, 0, 0, 0, file + 0x180]))
            .write(file + 0x180, &self.words(&[0, ASSEMBLY, 0x1_0000]))
    }

    /// Methods in an allocation of their own, their code and stubs, and what looks like them.
    fn write_methods(&self, mut dump: SynthDump) -> SynthDump {
        let size = self.size();
        // From .NET 7 on, what runs is mapped and cannot be written.
        let maps =
            matches!(self.flavor, Flavor::Net7 | Flavor::Net8 | Flavor::Net9 | Flavor::Net10);
        let kind = if maps { MAPPED } else { PRIVATE };
        let (executable, writable) = (if maps { 0x20 } else { 0x40 }, READWRITE);
        for (base, protect) in [
            (Self::CODE, executable),
            (Self::STUBS, executable),
            (Self::METHODS, writable),
            (Self::NOT_CODE, executable),
            (Self::NO_TYPES, writable),
        ] {
            let region = RegionSpec {
                allocation_base: base,
                base,
                size: 0x1_0000,
                state: COMMIT,
                protect,
                allocation_protect: protect,
                kind,
            };
            dump = dump.region(region).capture(base, 0x2000);
        }
        // A chunk with two methods.
        let chunk = Self::METHODS + 0x100;
        let table = self.table(Self::OBJECT);
        let first = chunk + if self.wide { 0x18 } else { 0x0c };
        let second = first + 2 * size;
        let code = Self::CODE + 0x100;
        let header = Self::METHODS + 0x800;
        // To .NET Core 3.1, the header of 32-bit code is in front of it, its method last.
        let is_inline = !self.wide && !self.flavor.counts_generations();
        let in_front = if is_inline { first } else { header };
        let stub = Self::STUBS + 0x40;
        let slots = self.table(Self::OBJECT) + 0xb0;
        let decoys = [Self::NOT_CODE + 0x100, Self::NO_TYPES + 0x100];
        dump.write(chunk, &self.words(&[self.near(chunk, table), 0]))
            .write(chunk + 2 * size, &[4, 1, 0, 0])
            .write(first, &[1, 0, 0, 0])
            .write(first + size, &self.word(code))
            .write(second, &[2, 0, 2, 0])
            .write(header, &self.words(&[0, 0, 0, first]))
            .write(code - size, &self.word(in_front))
            .write(stub, &self.stub(second))
            .write(slots, &self.words(&[code, stub, decoys[0], decoys[1]]))
            .write(decoys[0], &self.stub(Self::NO_TYPES + 0x200))
            .write(decoys[1], &self.words(&[Self::NO_TYPES, 1, Self::NO_TYPES + 0x80]))
    }

    /// `mov r10, MethodDesc` or `mov eax, MethodDesc`, as stubs to .NET 6 begin.
    fn stub(&self, desc: u64) -> Vec<u8> {
        let opcode: &[u8] = if self.wide { &[0x49, 0xba] } else { &[0xb8] };
        [opcode, &self.word(desc)].concat()
    }

    /// What stands in front of a method table.
    fn write_series(&self, dump: SynthDump, of: usize, table: u64, pointers: bool) -> SynthDump {
        if !pointers {
            return dump;
        }
        let (size, it) = (self.size(), &self.types[of]);
        let base = self.base_size(of);
        // A run is as long as it is, less the whole object.
        let runs: Vec<(u64, i64)> = match it.shape {
            Shape::Vector(..) => vec![(2 * size, -(3 * size as i64))],
            _ => it.references.iter().map(|&at| (at, size as i64 - base as i64)).collect(),
        };
        let mut words = Vec::new();
        for (offset, less) in runs.iter().rev() {
            words.extend([*less as u64, *offset]);
        }
        words.push(runs.len() as u64);
        let bytes = self.words(&words);
        dump.write(table - bytes.len() as u64, &bytes)
    }

    /// The row of a type's first field.
    fn first_field(&self, of: usize) -> u32 {
        1 + self.types[..of]
            .iter()
            .map(|it| (it.named.len() + it.statics.len()) as u32)
            .sum::<u32>()
    }

    /// An assembly with the types' metadata, as it lies in its file.
    fn assembly(&self) -> Vec<u8> {
        let metadata = self.metadata();
        let mut bytes = vec![0_u8; 0x400];
        let mut put = |at: usize, with: &[u8]| bytes[at..at + with.len()].copy_from_slice(with);
        put(0, b"MZ");
        put(0x3c, &0x80_u32.to_le_bytes());
        put(0x80, b"PE\0\0");
        put(0x84, &if self.wide { 0x8664_u16 } else { 0x14c }.to_le_bytes());
        put(0x86, &1_u16.to_le_bytes());
        let optional = if self.wide { 0xf0_u16 } else { 0xe0 };
        put(0x94, &optional.to_le_bytes());
        put(0x98, &if self.wide { 0x20b_u16 } else { 0x10b }.to_le_bytes());
        put(0x80 + 0x50, &0x1_0000_u32.to_le_bytes());
        let directories = 0x80 + if self.wide { 0x88 } else { 0x78 };
        put(directories - 4, &16_u32.to_le_bytes());
        put(directories + 14 * 8, &0x2000_u32.to_le_bytes());
        put(directories + 14 * 8 + 4, &0x48_u32.to_le_bytes());
        let section = 0x98 + usize::from(optional);
        put(section, b".text");
        put(section + 8, &0x8000_u32.to_le_bytes());
        put(section + 12, &0x2000_u32.to_le_bytes());
        put(section + 16, &0x8000_u32.to_le_bytes());
        put(section + 20, &0x400_u32.to_le_bytes());
        let mut header = 0x48_u32.to_le_bytes().to_vec();
        header.extend([2, 0, 5, 0]);
        header.extend(0x2048_u32.to_le_bytes());
        header.extend((metadata.len() as u32).to_le_bytes());
        header.resize(0x48, 0);
        bytes.extend(header);
        bytes.extend(metadata);
        bytes
    }

    fn metadata(&self) -> Vec<u8> {
        let mut strings = vec![0_u8];
        let mut text = |it: &str| {
            if it.is_empty() {
                return 0_u16;
            }
            let at = strings.len() as u16;
            strings.extend(it.as_bytes());
            strings.push(0);
            at
        };
        let mut types: Vec<u8> = Vec::new();
        let (mut fields, mut nested, mut parameters) = (Vec::new(), Vec::new(), Vec::new());
        let mut type_row = |name: u16, space: u16, parent: u16, first: u32| {
            types.extend(0x0010_0001_u32.to_le_bytes());
            for it in [name, space, parent, first as u16, 1] {
                types.extend(it.to_le_bytes());
            }
        };
        type_row(text("<Module>"), 0, 0, 1);
        for (idx, it) in self.types.iter().enumerate() {
            let row = idx as u16 + 2;
            let (outer, inner) = it.name.split_once('+').unwrap_or(("", it.name));
            let (space, name) = inner.rsplit_once('.').unwrap_or(("", inner));
            let parent = it.parent.map_or(0, |it| (it as u16 + 2) << 2);
            type_row(text(name), text(space), parent, self.first_field(idx));
            for (name, _) in it.named.iter().chain(&it.statics) {
                fields.extend(1_u16.to_le_bytes());
                fields.extend(text(name).to_le_bytes());
                fields.extend(0_u16.to_le_bytes());
            }
            if !outer.is_empty() {
                let outer = self.types.iter().position(|it| it.name == outer).unwrap() as u16 + 2;
                nested.extend([row.to_le_bytes(), outer.to_le_bytes()].concat());
            }
            if let Shape::Generic(count) = it.shape {
                for number in 0..count as u16 {
                    for it in [number, 0, row << 1, 0] {
                        parameters.extend(it.to_le_bytes());
                    }
                }
            }
        }
        let mut assembly = 0_u32.to_le_bytes().to_vec();
        assembly.extend([1_u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assembly.extend(text("Lab").to_le_bytes());
        assembly.extend(0_u16.to_le_bytes());
        let tables = [
            (0x02, types.len() / 14, types),
            (0x04, fields.len() / 6, fields),
            (0x20, 1, assembly),
            (0x29, nested.len() / 4, nested),
            (0x2a, parameters.len() / 8, parameters),
        ];
        let tables: Vec<_> = tables.into_iter().filter(|it| it.1 != 0).collect();
        let present = tables.iter().fold(0_u64, |all, it| all | 1 << it.0);
        let mut rows = vec![0, 0, 0, 0, 2, 0, 0, 1];
        rows.extend(present.to_le_bytes());
        rows.extend(present.to_le_bytes());
        tables.iter().for_each(|it| rows.extend((it.1 as u32).to_le_bytes()));
        tables.iter().for_each(|it| rows.extend(&it.2));
        rows.resize(rows.len().next_multiple_of(4), 0);
        strings.resize(strings.len().next_multiple_of(4), 0);
        let mut bytes = b"BSJB\x01\0\x01\0\0\0\0\0\x0c\0\0\0v4.0.30319\0\0\0\0\x02\0".to_vec();
        let at = bytes.len() as u32 + 8 + 4 + 8 + 12;
        for (name, start, size) in [
            (&b"#~\0\0"[..], at, rows.len()),
            (&b"#Strings\0\0\0\0"[..], at + rows.len() as u32, strings.len()),
        ] {
            bytes.extend(start.to_le_bytes());
            bytes.extend((size as u32).to_le_bytes());
            bytes.extend(name);
        }
        bytes.extend(rows);
        bytes.extend(strings);
        bytes
    }

    /// Segments or regions, their headers and their bytes.
    fn write_heap(&self, mut dump: SynthDump, regions: bool) -> SynthDump {
        for generation in 0..5 {
            let bytes = &self.bytes[generation];
            if self.skips(generation) {
                continue;
            }
            let base = HEAP + generation as u64 * RESERVED;
            let mem = self.start(generation);
            let used = mem - base + bytes.len() as u64;
            let committed = used.next_multiple_of(0x1000).max(0x2000);
            let region = |from: u64, size: u64, state: u32| RegionSpec {
                allocation_base: base,
                base: from,
                size,
                state,
                protect: if state == COMMIT { READWRITE } else { 0 },
                allocation_protect: READWRITE,
                kind: PRIVATE,
            };
            dump = dump.region(region(base, committed, COMMIT)).region(region(
                base + committed,
                RESERVED - committed,
                RESERVE,
            ));
            let flags = [0, 0, 0, 8, 0x200][generation];
            let end = mem + bytes.len() as u64;
            let next = if generation == 2 && self.copies != 0 { COPY_HEADERS } else { 0 };
            let fields =
                [end, base + committed, base + RESERVED, base + committed, mem, flags, next];
            dump = dump
                .write(self.header(generation, regions), &self.words(&fields))
                .write(mem, bytes);
        }
        self.write_copies(dump)
    }

    fn write_copies(&self, mut dump: SynthDump) -> SynthDump {
        let bytes = &self.bytes[2];
        let committed = (0x28 + bytes.len() as u64).next_multiple_of(0x1000);
        if self.copies != 0 {
            dump = dump.commit(COPY_HEADERS, (0x80 * self.copies).next_multiple_of(0x1000));
        }
        for copy in 0..self.copies {
            let (base, header) = (COPIES + copy * RESERVED, COPY_HEADERS + copy * 0x80);
            let (mem, next) = (base + 0x28, if copy + 1 < self.copies { header + 0x80 } else { 0 });
            let end = mem + bytes.len() as u64;
            let fields = [end, base + committed, base + RESERVED, base + committed, mem, 0, next];
            dump =
                dump.commit(base, committed).write(header, &self.words(&fields)).write(mem, bytes);
        }
        dump
    }

    /// `CFinalize`: ends of the parts of an array, then the array.
    fn write_queue(&self, dump: SynthDump) -> SynthDump {
        let (queue, array) = (BOOKS + 0x1000, BOOKS + 0x2000);
        let end = array + self.ready.len() as u64 * self.size();
        let parts = if self.flavor.counts_generations() { 7 } else { 6 };
        let mut words = vec![array; parts];
        words[parts - 1] = end;
        words.extend([array, end]);
        dump.write(queue, &self.words(&words)).write(array, &self.words(&self.ready))
    }

    /// The map of handle tables, one table, and its segments.
    fn write_handles(&self, mut dump: SynthDump) -> SynthDump {
        let size = self.size();
        let map = BOOKS + 0x800;
        let blocks = 0xf000 / size / 64;
        let table = map + 0x100;
        dump = dump
            .write(map + 0x40, &self.word(map + 0x60))
            .write(map + 0x60, &self.word(map + 0x80))
            .write(map + 0x80, &self.word(table));
        let mut all: Vec<(u8, Vec<u64>)> = Vec::new();
        for &(kind, count, object) in &self.handles {
            let handles = vec![object; count as usize];
            all.extend(handles.chunks(64).map(|it| (kind, it.to_vec())));
        }
        let segments: Vec<_> = all.chunks(blocks as usize).collect();
        for (number, segment) in segments.iter().enumerate() {
            let at = HANDLES + number as u64 * 0x1_0000;
            let mut bytes = vec![0xff_u8; 0x1_0000];
            bytes[..(5 * blocks) as usize].fill(0);
            bytes[0x1000..].fill(0);
            for (block, (kind, handles)) in segment.iter().enumerate() {
                let mask = (5 * blocks) as usize + 8 * block;
                let free = if handles.len() == 64 { 0 } else { !0_u64 << handles.len() };
                bytes[mask..mask + 8].copy_from_slice(&free.to_le_bytes());
                bytes[(13 * blocks) as usize + block] = *kind;
                let from = 0x1000 + block * 64 * size as usize;
                let words = self.words(handles);
                bytes[from..from + words.len()].copy_from_slice(&words);
            }
            let back = if self.wide { 0x7d0 } else { 0xf4c };
            let next = if number + 1 < segments.len() { at + 0x1_0000 } else { 0 };
            let step = size as usize;
            bytes[back - step..back].copy_from_slice(&self.word(next));
            bytes[back..back + step].copy_from_slice(&self.word(table));
            dump = dump.commit(at, 0x1_0000).write(at, &bytes);
        }
        if segments.is_empty() { dump } else { dump.write(table + 8 * size, &self.word(HANDLES)) }
    }

    /// Generations that this runtime has no segment for.
    fn skips(&self, generation: usize) -> bool {
        generation == 4 && !self.flavor.counts_generations()
    }

    fn header(&self, generation: usize, regions: bool) -> u64 {
        match regions {
            true => BOOKS + 0x100 + generation as u64 * 0x100,
            false => HEAP + generation as u64 * RESERVED,
        }
    }

    /// `GcDacVars`, the variables that it leads to, and the generation table.
    fn write_variables(&self, data: &mut [u8], regions: bool) {
        let size = self.size();
        let base = RUNTIME + u64::from(DATA);
        let mut put = |at: u64, value: u64| {
            let bytes = self.word(value);
            data[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        };
        let counted = self.flavor.counts_generations();
        // .NET Framework has the variables, and no table of them.
        if self.flavor != Flavor::Framework {
            put(0, 0x0402);
            put(size, GENERATION);
            if counted {
                put(2 * size, 5);
            }
            let first = if counted { 3 } else { 2 };
            // All have somewhere to point to; the two that count are set behind.
            for slot in [0, 1, 2, 5, 6, 11, 13, 16, 17, 18, 21, 22, 23] {
                put((first + slot) * size, base + 0x2100 + slot * 0x20);
            }
            put((first + 3) * size, base + 0x1000);
            put((first + 4) * size, base + 0x2000);
            put((first + 12) * size, base + 0x2010);
            put((first + 15) * size, base + 0x2020);
            // The map of handle tables is a variable itself.
            put((first + 26) * size, base + 0x2030);
        }
        put(0x2020, BOOKS + 0x1000);
        put(0x2030, BOOKS + 0x840);
        put(0x2030 + 2 * size, 1);
        put(0x2000, 2);
        // The end of the youngest objects.
        put(0x2010, self.start(0) + self.bytes[0].len() as u64);
        let start_segment = if self.wide { 0x38 } else { 0x28 };
        for generation in 0..5 {
            if self.skips(generation) {
                continue;
            }
            let at = 0x1000 + generation as u64 * GENERATION + start_segment;
            put(at, self.header(generation, regions));
            put(at + size, self.start(generation));
        }
    }
}

//! ECMA-335 metadata: what an assembly calls its types, fields and methods.
//!
//! ```text
//!   0x00  u32 "BSJB", u16 major, u16 minor, u32 reserved, u32 length of the version text
//!   then  version text, u16 flags, u16 streams; a stream: u32 offset, u32 size, name, padded to 4
//!   "#~"  u32 reserved, u8 major, u8 minor, u8 heap sizes, u8 1, u64 tables present, u64 sorted,
//!         u32 rows[one for each table that is present], then the rows, table behind table
//! ```
//!
//! How wide a column is depends on how many rows the tables have that it leads to, so all tables
//! are measured to read any. Layout: ECMA-335 6th edition, partition II, §24.2.

use std::collections::HashMap;
use std::ops::Range;

/// Tables that the standard knows.
const TABLES: usize = 0x2d;
/// Rows of one table; a token has 24 bits for them.
const ROWS: u32 = 0x00ff_ffff;
/// Streams of one assembly; there are five.
const STREAMS: u16 = 16;

const TYPE_DEF: usize = 0x02;
const FIELD: usize = 0x04;
const METHOD_DEF: usize = 0x06;
const ASSEMBLY: usize = 0x20;
const NESTED_CLASS: usize = 0x29;
const GENERIC_PARAM: usize = 0x2a;

/// What is in a column.
#[derive(Debug, Clone, Copy)]
enum Column {
    /// Bytes of a number.
    Number(u32),
    /// An offset into `#Strings`.
    Text,
    /// An index into `#GUID`.
    Guid,
    /// An offset into `#Blob`.
    Blob,
    /// A row of this table.
    Row(usize),
    /// A row of one of these tables, which of them in the low bits.
    Coded(u32, &'static [usize]),
}

use Column::{Blob, Coded, Guid, Number, Row, Text};

const TYPE_DEF_OR_REF: Column = Coded(2, &[0x02, 0x01, 0x1b]);
const HAS_CONSTANT: Column = Coded(2, &[0x04, 0x08, 0x17]);
const HAS_ATTRIBUTE: Column = Coded(
    5,
    &[
        0x06, 0x04, 0x01, 0x02, 0x08, 0x09, 0x0a, 0x00, 0x0e, 0x17, 0x14, 0x11, 0x1a, 0x1b, 0x20,
        0x23, 0x26, 0x27, 0x28, 0x2a, 0x2c, 0x2b,
    ],
);
const HAS_MARSHAL: Column = Coded(1, &[0x04, 0x08]);
const HAS_SECURITY: Column = Coded(2, &[0x02, 0x06, 0x20]);
const MEMBER_PARENT: Column = Coded(3, &[0x02, 0x01, 0x1a, 0x06, 0x1b]);
const HAS_SEMANTICS: Column = Coded(1, &[0x14, 0x17]);
const METHOD_DEF_OR_REF: Column = Coded(1, &[0x06, 0x0a]);
const MEMBER_FORWARDED: Column = Coded(1, &[0x04, 0x06]);
const IMPLEMENTATION: Column = Coded(2, &[0x26, 0x23, 0x27]);
const ATTRIBUTE_TYPE: Column = Coded(3, &[0x06, 0x0a]);
const RESOLUTION_SCOPE: Column = Coded(2, &[0x00, 0x1a, 0x23, 0x01]);
const TYPE_OR_METHOD: Column = Coded(1, &[0x02, 0x06]);

/// The columns of each table, in the order of their numbers.
const SCHEMA: [&[Column]; TABLES] = [
    &[Number(2), Text, Guid, Guid, Guid], // Module
    &[RESOLUTION_SCOPE, Text, Text],      // TypeRef
    &[Number(4), Text, Text, TYPE_DEF_OR_REF, Row(0x04), Row(0x06)], // TypeDef
    &[Row(0x04)],                         // FieldPtr
    &[Number(2), Text, Blob],             // Field
    &[Row(0x06)],                         // MethodPtr
    &[Number(4), Number(2), Number(2), Text, Blob, Row(0x08)], // MethodDef
    &[Row(0x08)],                         // ParamPtr
    &[Number(2), Number(2), Text],        // Param
    &[Row(0x02), TYPE_DEF_OR_REF],        // InterfaceImpl
    &[MEMBER_PARENT, Text, Blob],         // MemberRef
    &[Number(2), HAS_CONSTANT, Blob],     // Constant
    &[HAS_ATTRIBUTE, ATTRIBUTE_TYPE, Blob], // CustomAttribute
    &[HAS_MARSHAL, Blob],                 // FieldMarshal
    &[Number(2), HAS_SECURITY, Blob],     // DeclSecurity
    &[Number(2), Number(4), Row(0x02)],   // ClassLayout
    &[Number(4), Row(0x04)],              // FieldLayout
    &[Blob],                              // StandAloneSig
    &[Row(0x02), Row(0x14)],              // EventMap
    &[Row(0x14)],                         // EventPtr
    &[Number(2), Text, TYPE_DEF_OR_REF],  // Event
    &[Row(0x02), Row(0x17)],              // PropertyMap
    &[Row(0x17)],                         // PropertyPtr
    &[Number(2), Text, Blob],             // Property
    &[Number(2), Row(0x06), HAS_SEMANTICS], // MethodSemantics
    &[Row(0x02), METHOD_DEF_OR_REF, METHOD_DEF_OR_REF], // MethodImpl
    &[Text],                              // ModuleRef
    &[Blob],                              // TypeSpec
    &[Number(2), MEMBER_FORWARDED, Text, Row(0x1a)], // ImplMap
    &[Number(4), Row(0x04)],              // FieldRVA
    &[Number(4), Number(4)],              // EncLog
    &[Number(4)],                         // EncMap
    &[Number(4), Number(4), Number(4), Number(4), Blob, Text, Text], // Assembly
    &[Number(4)],                         // AssemblyProcessor
    &[Number(4), Number(4), Number(4)],   // AssemblyOS
    &[Number(4), Number(4), Number(4), Blob, Text, Text, Blob], // AssemblyRef
    &[Number(4), Row(0x23)],              // AssemblyRefProcessor
    &[Number(4), Number(4), Number(4), Row(0x23)], // AssemblyRefOS
    &[Number(4), Text, Blob],             // File
    &[Number(4), Number(4), Text, Text, IMPLEMENTATION], // ExportedType
    &[Number(4), Number(4), Text, IMPLEMENTATION], // ManifestResource
    &[Row(0x02), Row(0x02)],              // NestedClass
    &[Number(2), Number(2), TYPE_OR_METHOD, Text], // GenericParam
    &[METHOD_DEF_OR_REF, Blob],           // MethodSpec
    &[Row(0x2a), TYPE_DEF_OR_REF],        // GenericParamConstraint
];

/// Where a parent is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// In this row of the same assembly.
    Here(u32),
    /// In another assembly, or as an instance of a generic type.
    Elsewhere,
}

/// A table that was measured.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    rows: u32,
    row_size: usize,
    start: usize,
}

/// The metadata of one assembly, borrowed from the dump.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    rows: &'a [u8],
    strings: &'a [u8],
    tables: [Measured; TABLES],
    heap_sizes: u8,
    /// The type that a nested type is in.
    enclosing: HashMap<u32, u32>,
    /// Type parameters of generic types.
    parameters: HashMap<u32, u32>,
}

impl<'a> Metadata<'a> {
    /// Reads metadata that begins with `BSJB`.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (mut rows, mut strings) = (None, None);
        for (name, stream) in streams(bytes)? {
            match name {
                b"#~" | b"#-" => rows = Some(stream),
                b"#Strings" => strings = Some(stream),
                _ => {}
            }
        }
        let (rows, strings) = (rows?, strings?);
        let heap_sizes = *rows.get(6)?;
        let present = u64::from_le_bytes(rows.get(8..16)?.try_into().ok()?);
        let mut tables = [Measured::default(); TABLES];
        let mut at = 24;
        for number in 0..64_usize {
            if present & 1 << number == 0 {
                continue;
            }
            let count = u32_at(rows, at)?;
            at += 4;
            // Portable PDBs have more tables, and behind those that are wanted here.
            if let Some(table) = tables.get_mut(number) {
                table.rows = Some(count).filter(|&it| it <= ROWS)?;
            }
        }
        // Bit 6: four more bytes.
        if heap_sizes & 0x40 != 0 {
            at += 4;
        }
        let mut it = Self {
            rows,
            strings,
            tables,
            heap_sizes,
            enclosing: HashMap::new(),
            parameters: HashMap::new(),
        };
        for number in 0..TABLES {
            let row_size = SCHEMA.get(number)?.iter().map(|&column| it.width(column)).sum();
            let table = it.tables.get_mut(number)?;
            (table.row_size, table.start) = (row_size, at);
            at = at.checked_add(row_size.checked_mul(usize::try_from(table.rows).ok()?)?)?;
        }
        for row in 1..=it.present(NESTED_CLASS) {
            let cell = |column: usize| it.cell(NESTED_CLASS, row, column);
            if let (Some(inner), Some(outer)) = (cell(0), cell(1)) {
                it.enclosing.insert(inner, outer);
            }
        }
        for row in 1..=it.present(GENERIC_PARAM) {
            // The low bit says that it belongs to a method.
            if let Some(owner) = it.cell(GENERIC_PARAM, row, 2).filter(|it| it & 1 == 0) {
                let count = it.parameters.entry(owner >> 1).or_default();
                *count = count.saturating_add(1);
            }
        }
        Some(it)
    }

    /// The assembly's own name.
    pub(super) fn assembly(&self) -> Option<&'a str> {
        self.text(self.cell(ASSEMBLY, 1, 5)?)
    }

    /// How many types it defines.
    pub(super) fn types(&self) -> u32 {
        self.present(TYPE_DEF)
    }

    /// The name of a type, its namespace and the types around it: `A.B+C`.
    pub(super) fn type_name(&self, row: u32) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = row;
        // Nobody nests deeper; a table that goes in circles does.
        for _ in 0..16 {
            let name = self.text(self.cell(TYPE_DEF, at, 1)?)?;
            let space = self.text(self.cell(TYPE_DEF, at, 2)?)?;
            parts.push(if space.is_empty() { name.to_owned() } else { format!("{space}.{name}") });
            match self.enclosing.get(&at) {
                Some(&outer) => at = outer,
                None => {
                    parts.reverse();
                    return Some(parts.join("+"));
                }
            }
        }
        None
    }

    /// What a type derives from; inner `None` for types that derive from nothing.
    pub(super) fn parent(&self, row: u32) -> Option<Option<Parent>> {
        let coded = self.cell(TYPE_DEF, row, 3)?;
        Some(match (coded & 3, coded >> 2) {
            (_, 0) => None,
            (0, row) => Some(Parent::Here(row)),
            _ => Some(Parent::Elsewhere),
        })
    }

    /// How many type parameters a type has, those of the types around it among them.
    pub(super) fn parameters(&self, row: u32) -> u32 {
        self.parameters.get(&row).copied().unwrap_or(0)
    }

    /// Rows of the fields of a type.
    pub(super) fn fields_of(&self, row: u32) -> Range<u32> {
        self.members(row, 4, FIELD)
    }

    /// Rows of the methods of a type.
    pub(super) fn methods_of(&self, row: u32) -> Range<u32> {
        self.members(row, 5, METHOD_DEF)
    }

    /// The name of a field.
    pub(super) fn field_name(&self, row: u32) -> Option<&'a str> {
        self.text(self.cell(FIELD, row, 1)?)
    }

    /// The name of a method.
    pub(super) fn method_name(&self, row: u32) -> Option<&'a str> {
        self.text(self.cell(METHOD_DEF, row, 3)?)
    }

    fn members(&self, row: u32, column: usize, table: usize) -> Range<u32> {
        let end = self.present(table).saturating_add(1);
        let first = |row: u32| self.cell(TYPE_DEF, row, column);
        let from = first(row).unwrap_or(end).clamp(1, end);
        let to = row.checked_add(1).and_then(first).unwrap_or(end).clamp(from, end);
        from..to
    }

    /// Rows of a table that are there.
    fn present(&self, table: usize) -> u32 {
        let Some(it) = self.tables.get(table) else { return 0 };
        let left = self.rows.len().saturating_sub(it.start);
        let fit = left.checked_div(it.row_size).unwrap_or(0);
        it.rows.min(u32::try_from(fit).unwrap_or(u32::MAX))
    }

    fn cell(&self, table: usize, row: u32, column: usize) -> Option<u32> {
        let it = self.tables.get(table)?;
        let columns = SCHEMA.get(table)?;
        if row == 0 || it.rows < row {
            return None;
        }
        let before: usize = columns.get(..column)?.iter().map(|&it| self.width(it)).sum();
        let row = usize::try_from(row - 1).ok()?;
        let at = it.start.checked_add(row.checked_mul(it.row_size)?)?.checked_add(before)?;
        match self.width(*columns.get(column)?) {
            2 => Some(u16::from_le_bytes(self.rows.get(at..at + 2)?.try_into().ok()?).into()),
            _ => u32_at(self.rows, at),
        }
    }

    fn width(&self, column: Column) -> usize {
        let rows = |table: usize| self.tables.get(table).map_or(0, |it| it.rows);
        let wide = |is: bool| if is { 4 } else { 2 };
        match column {
            Number(size) => size as usize,
            Text => wide(self.heap_sizes & 1 != 0),
            Guid => wide(self.heap_sizes & 2 != 0),
            Blob => wide(self.heap_sizes & 4 != 0),
            Row(table) => wide(0xffff < rows(table)),
            Coded(bits, tables) => {
                let most = tables.iter().map(|&it| rows(it)).max().unwrap_or(0);
                wide(1 << (16 - bits) <= most)
            }
        }
    }

    fn text(&self, offset: u32) -> Option<&'a str> {
        let rest = self.strings.get(usize::try_from(offset).ok()?..)?;
        // The standard allows 1,023 bytes.
        let end = rest.iter().take(1024).position(|&it| it == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }
}

/// The streams: their names and bytes. What lies outside is left out.
fn streams(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.get(..4)? != b"BSJB" {
        return None;
    }
    let version = usize::try_from(u32_at(bytes, 12)?).ok().filter(|&it| it <= 256)?;
    let mut at = 16 + version + 2;
    let count = u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).min(STREAMS);
    at += 2;
    let mut streams = Vec::new();
    for _ in 0..count {
        let start = usize::try_from(u32_at(bytes, at)?).ok()?;
        let size = usize::try_from(u32_at(bytes, at + 4)?).ok()?;
        let name = bytes.get(at + 8..)?;
        let length = name.iter().take(32).position(|&it| it == 0)?;
        let stream = bytes.get(start..).unwrap_or_default();
        let stream = stream.get(..size.min(stream.len())).unwrap_or_default();
        streams.push((name.get(..length)?, stream));
        at += 8 + (length + 4) / 4 * 4;
    }
    Some(streams)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

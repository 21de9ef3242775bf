//! Images: what the module list, the loader's own lists and the headers in memory say together.

use std::collections::BTreeMap;

use super::pe::PeHeader;
use super::peb::Peb;
use crate::dump::streams::{ListedModule, PdbId};
use crate::notes::{Note, Notes, Place};
use crate::space::{Memory, RegionType, Regions, Va, VaRange};
use crate::table::DumpText;

/// An image in the process.
#[derive(Debug, Clone)]
pub struct Image {
    /// Where it is.
    pub range: VaRange,
    /// File name; empty for an image that no list names.
    pub name: DumpText,
    /// Full path, when a list has it.
    pub path: DumpText,
    /// Whether the dump's module list has it.
    pub listed: bool,
    /// Whether a loader list of the process has it.
    pub in_loader_list: bool,
    /// Its header, when the dump holds it.
    pub pe: Option<PeHeader>,
    /// PDB identity, from the list or from memory.
    pub pdb: Option<PdbId>,
    /// `TimeDateStamp`, which with `SizeOfImage` finds the file in a symbol store.
    pub time_date_stamp: u32,
    /// File version.
    pub version: Option<[u16; 4]>,
}

impl Image {
    /// The name without its extension, as debuggers print it in `module!function`.
    pub fn stem(&self) -> DumpText {
        let name = self.name.raw();
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        stem.into()
    }

    /// Whether the file name is `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.raw().eq_ignore_ascii_case(name)
    }
}

/// The images, in address order.
#[derive(Debug, Clone, Default)]
pub struct Images {
    all: Vec<Image>,
}

impl Images {
    /// Joins the three sources.
    pub fn collect(
        modules: &[ListedModule],
        pebs: &[&Peb],
        memory: &Memory,
        regions: &Regions,
        notes: &mut Notes,
    ) -> Self {
        let mut all: BTreeMap<Va, Image> = BTreeMap::new();
        for it in modules {
            let Some(range) = VaRange::new(it.base, it.size) else { continue };
            all.entry(it.base).or_insert_with(|| Image {
                range,
                name: it.path.leaf(),
                path: it.path.clone(),
                listed: true,
                in_loader_list: false,
                pe: None,
                pdb: it.pdb.clone(),
                time_date_stamp: it.time_date_stamp,
                version: it.version.filter(|it| *it != [0; 4]),
            });
        }
        for it in pebs.iter().flat_map(|peb| &peb.loaded) {
            let image = all.entry(it.range.start()).or_insert_with(|| unlisted(it.range));
            image.in_loader_list = true;
            if image.path.is_empty() {
                image.name = it.path.leaf();
                image.path = it.path.clone();
            }
        }
        // What is mapped as an image and begins with a header is one, whoever forgot to list it.
        for allocation in regions.allocations().filter(|it| it.kind() == RegionType::Image) {
            let base = allocation.range.start();
            let covered =
                all.range(..=base).next_back().is_some_and(|(_, it)| it.range.contains(base));
            if !covered && PeHeader::read(memory, base).is_some() {
                all.insert(base, unlisted(allocation.range));
            }
        }
        let mut missing_headers = 0_u64;
        let mut first_missing = None;
        for (base, image) in &mut all {
            image.pe = PeHeader::read(memory, *base);
            let Some(pe) = image.pe else {
                missing_headers = missing_headers.saturating_add(1);
                first_missing.get_or_insert_with(|| image.name.clone());
                continue;
            };
            if image.pdb.is_none() {
                image.pdb = pe.pdb(memory);
            }
            if image.version.is_none() {
                image.version = pe.file_version(memory);
            }
            if !image.listed {
                image.time_date_stamp = pe.time_date_stamp;
                if !modules.is_empty() {
                    notes.add(Note::ModuleListMismatch, Place::Va(*base));
                }
            }
        }
        // A dump without memory has no header at all, which is not worth a note per module.
        if missing_headers < all.len() as u64
            && let Some(first) = first_missing
        {
            notes.add_many(Note::ModuleNotLoaded, missing_headers, Place::Named(first));
        }
        Self { all: all.into_values().collect() }
    }

    /// The images, in address order.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.all.iter()
    }

    /// The image that `va` lies in.
    pub fn at(&self, va: Va) -> Option<&Image> {
        let idx = self.all.partition_point(|it| it.range.start() <= va);
        self.all.get(idx.checked_sub(1)?).filter(|it| it.range.contains(va))
    }

    /// The image with this file name, in any case.
    pub fn named(&self, name: &str) -> Option<&Image> {
        self.all.iter().find(|it| it.is(name))
    }
}

fn unlisted(range: VaRange) -> Image {
    Image {
        range,
        name: DumpText::default(),
        path: DumpText::default(),
        listed: false,
        in_loader_list: false,
        pe: None,
        pdb: None,
        time_date_stamp: 0,
        version: None,
    }
}

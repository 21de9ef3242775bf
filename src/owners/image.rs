//! Images: programs and DLLs that the loader mapped.

use super::{Account, Claim, Owner, Strength, Usage};
use crate::notes::Notes;
use crate::process::Process;
use crate::space::RegionType;
use crate::table::DumpText;

/// Claims every allocation of type `MEM_IMAGE`, and names it where a list does.
pub(super) struct Image;

impl Owner for Image {
    fn id(&self) -> &'static str {
        "image"
    }

    fn account(&self, process: &Process, _notes: &mut Notes) -> Account {
        let images = process.regions.allocations().filter(|it| it.kind() == RegionType::Image);
        let claims = images.map(|it| {
            let image = process.images.at(it.range.start());
            let name = image.map(|it| it.name.clone()).filter(|it| !it.is_empty());
            let evidence = match image {
                Some(it) if it.listed => "MEM_IMAGE, module list",
                Some(it) if it.in_loader_list => "MEM_IMAGE, loader list",
                _ => "MEM_IMAGE",
            };
            Claim {
                range: it.range,
                usage: Usage::Image,
                strength: Strength::Pointer,
                what: name.unwrap_or(DumpText::from("image without a name")),
                evidence,
            }
        });
        Account { claims: claims.collect(), ..Account::default() }
    }
}

//! Files that `symstore /compress` keeps: a cabinet with one file, named `app.pd_`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tempfile::NamedTempFile;

use super::own;

/// Expands the file in a cabinet into `folder`, where it has no name yet.
///
/// # Errors
///
/// When it is no cabinet, when its only file is larger than `limit`, or when it is damaged.
pub(super) fn expand(cabinet: &Path, folder: &Path, limit: u64) -> io::Result<NamedTempFile> {
    // The reader is somebody else's and the bytes are anybody's.
    let expanded = crate::guarded(|| -> io::Result<NamedTempFile> {
        let mut cabinet = cab::Cabinet::new(File::open(cabinet)?)?;
        let files = cabinet.folder_entries().flat_map(|it| it.file_entries());
        // Names in it are not used: the place of the cabinet says what it is.
        let name = files.map(|it| it.name().to_owned()).next();
        let name = name.ok_or_else(|| io::Error::other("an empty cabinet"))?;
        let mut to = own::unfinished(folder)?;
        let mut file = cabinet.read_file(&name)?.take(limit.saturating_add(1));
        let size = io::copy(&mut file, &mut to)?;
        if limit < size {
            return Err(io::Error::other(format!("larger than {} MiB", limit >> 20)));
        }
        Ok(to)
    });
    expanded.unwrap_or_else(|| Err(io::Error::other("a damaged cabinet")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_cabinet_is_expanded_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = cab::CabinetBuilder::new();
        builder.add_folder(cab::CompressionType::MsZip).add_file("../../evil.pdb");
        let path = folder.path().join("a.pd_");
        let mut writer = builder.build(File::create(&path).unwrap()).unwrap();
        while let Some(mut file) = writer.next_file().unwrap() {
            file.write_all(&[7; 100_000]).unwrap();
        }
        writer.finish().unwrap();
        let whole = expand(&path, folder.path(), 100_000).unwrap();
        assert_eq!(std::fs::read(whole.path()).unwrap(), [7; 100_000]);
        assert!(expand(&path, folder.path(), 99_999).is_err());
        let bytes = std::fs::read(&path).unwrap();
        for size in (0..bytes.len()).step_by(7) {
            std::fs::write(&path, &bytes[..size]).unwrap();
            assert!(expand(&path, folder.path(), 100_000).is_err(), "{size}");
        }
    }
}

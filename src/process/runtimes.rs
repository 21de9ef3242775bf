//! Managed runtimes in the process, and their versions as their users say them.
//!
//! ```text
//!   module                                        runtime
//!   clr.dll, mscorwks.dll                         .NET Framework 4.x, 2.0 to 3.5
//!   coreclr.dll                                   .NET Core, .NET 5 and later
//!   image that exports DotNetRuntimeInfo or       the same, inside a single-file program
//!     DotNetRuntimeContractDescriptor
//!   image that exports DotNetRuntimeDebugHeader   NativeAOT
//!     and neither of the two
//!   mono-2.0-sgen.dll and its kin                 Mono
//!   clrgc.dll, clrgcexp.dll                       a garbage collector of its own, next to coreclr
//! ```
//!
//! File versions are not what people say: `coreclr.dll` 4.700.22.11601 is .NET Core 3.1.23, and
//! 8.0.3026.36720 is .NET 8.0.30. The folder and the runtime's own text say it plainly, so they
//! are asked first; the number is worked out only where nothing else is in the dump.
//!
//! Export names: dotnet/runtime `src/coreclr/dlls/mscoree/exports.js` and
//! `src/coreclr/debug/runtimeinfo/runtimeinfo.h`.

use super::images::{Image, Images};
use super::pe::PeHeader;
use crate::dump::utf16;
use crate::limits::Limits;
use crate::space::{Memory, Va, VaRange};

/// Bytes of one image that are searched for the version text; runtimes have 4 to 20 MB.
const SEARCHED: usize = 64 << 20;

/// Framework assemblies whose version resource is looked at.
const SIBLINGS: usize = 64;

/// A kind of runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeKind {
    /// .NET Framework: `clr.dll` or `mscorwks.dll`.
    Framework,
    /// .NET Core and .NET 5+: `coreclr.dll`, or inside a single-file program.
    Core,
    /// NativeAOT.
    NativeAot,
    /// Mono.
    Mono,
}

impl RuntimeKind {
    /// The word in JSON.
    pub fn id(self) -> &'static str {
        match self {
            RuntimeKind::Framework => "netfx",
            RuntimeKind::Core => "coreclr",
            RuntimeKind::NativeAot => "native-aot",
            RuntimeKind::Mono => "mono",
        }
    }
}

/// A runtime in the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Which.
    pub kind: RuntimeKind,
    /// Product version, such as `8.0.30`, when it can be told.
    pub version: Option<String>,
    /// Load address of the image that it lives in.
    pub image_base: Va,
    /// Whether it lives in the program instead of a DLL of its own.
    pub single_file: bool,
    /// Load address of `clrgc.dll` or `clrgcexp.dll`, when the collector is not the runtime's own.
    pub standalone_gc: Option<Va>,
}

/// Finds the runtimes among the images.
pub(super) fn detect(images: &Images, memory: &Memory, limits: &Limits) -> Vec<Runtime> {
    let gc = ["clrgc.dll", "clrgcexp.dll"].iter().find_map(|it| images.named(it));
    let gc = gc.map(|it| it.range.start());
    let mut runtimes = Vec::new();
    for image in images.iter() {
        let Some((kind, single_file)) = kind(image, memory, limits) else { continue };
        let version = match kind {
            RuntimeKind::Core => core_version(image, single_file, images, memory),
            // The version of a NativeAOT program is the program's own, not the runtime's.
            RuntimeKind::NativeAot => None,
            RuntimeKind::Framework | RuntimeKind::Mono => image.version.map(dotted),
        };
        runtimes.push(Runtime {
            kind,
            version,
            image_base: image.range.start(),
            single_file,
            standalone_gc: gc.filter(|_| kind == RuntimeKind::Core),
        });
    }
    runtimes
}

/// The kind of runtime in an image, and whether the image is something else besides.
fn kind(image: &Image, memory: &Memory, limits: &Limits) -> Option<(RuntimeKind, bool)> {
    let named = [
        ("coreclr.dll", RuntimeKind::Core),
        ("clr.dll", RuntimeKind::Framework),
        ("mscorwks.dll", RuntimeKind::Framework),
        ("mono-2.0-sgen.dll", RuntimeKind::Mono),
        ("mono-2.0-bdwgc.dll", RuntimeKind::Mono),
        ("mono-2.0-boehm.dll", RuntimeKind::Mono),
    ];
    if let Some(&(_, kind)) = named.iter().find(|(name, _)| image.is(name)) {
        return Some((kind, false));
    }
    let exports = Exports::read(image.pe?, memory, limits)?;
    let core = ["DotNetRuntimeInfo", "DotNetRuntimeContractDescriptor"];
    if core.iter().any(|it| exports.has(it)) {
        return Some((RuntimeKind::Core, true));
    }
    exports.has("DotNetRuntimeDebugHeader").then_some((RuntimeKind::NativeAot, true))
}

/// The names in an image's export directory, looked up one by one.
///
/// The linker sorts the names, so a lookup reads about a dozen of thousands. Layout: see
/// [`PeHeader::exports`].
struct Exports<'a> {
    pe: PeHeader,
    memory: &'a Memory,
    names: Va,
    count: u32,
}

impl<'a> Exports<'a> {
    fn read(pe: PeHeader, memory: &'a Memory, limits: &Limits) -> Option<Self> {
        let (rva, _) = pe.directory(memory, 0)?;
        let table = pe.at(rva)?;
        let count = memory.u32(table.checked_add(0x18)?)?.min(limits.exports as u32);
        let names = pe.at(memory.u32(table.checked_add(0x20)?)?)?;
        Some(Self { pe, memory, names, count })
    }

    fn name(&self, idx: u32) -> Option<&'a [u8]> {
        let entry = self.names.checked_add(u64::from(idx) * 4)?;
        let name = self.pe.at(self.memory.u32(entry)?)?;
        self.memory.slice_up_to(name, 256).split(|&it| it == 0).next()
    }

    fn has(&self, name: &str) -> bool {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).map(|it| it.cmp(name.as_bytes())) {
                Some(std::cmp::Ordering::Equal) => return true,
                Some(std::cmp::Ordering::Less) => low = middle + 1,
                Some(std::cmp::Ordering::Greater) => high = middle,
                None => return false,
            }
        }
        false
    }
}

/// The version of a .NET Core or .NET 5+ runtime: the best evidence first.
fn core_version(
    image: &Image,
    single_file: bool,
    images: &Images,
    memory: &Memory,
) -> Option<String> {
    // ...\shared\Microsoft.NETCore.App\3.1.23\coreclr.dll
    if let Some(version) = shared_framework(image.path.raw()) {
        return Some(version);
    }
    let texts = commit_texts(image.range, memory);
    if let Some(version) = texts.iter().find(|it| is_product_version(it)) {
        return Some(version.clone());
    }
    if let Some(version) = texts.iter().find_map(|it| by_number(parts(it)?)) {
        return Some(version);
    }
    // A program's own version resource says nothing about the runtime inside it.
    let file_version = image.version.filter(|_| !single_file);
    if let Some(version) = file_version.and_then(by_number) {
        return Some(version);
    }
    let sibling = images.iter().find_map(|it| shared_framework(it.path.raw()));
    let sibling = sibling.or_else(|| framework_assembly(images, memory));
    sibling.or_else(|| file_version.map(dotted))
}

/// The folder behind `Microsoft.NETCore.App` in a path, when it is a version.
fn shared_framework(path: &str) -> Option<String> {
    let mut folders = path.split(['\\', '/']);
    folders.find(|it| it.eq_ignore_ascii_case("Microsoft.NETCore.App"))?;
    folders.next().filter(|it| is_product_version(it)).map(str::to_owned)
}

/// Every version in front of ` @Commit: ` in an image, which is how the runtime's sources spell
/// both their product version (`8.0.30 @Commit: …`, .NET 5 and later) and their file version
/// (`8,0,3026,36720 @Commit: …`).
fn commit_texts(range: VaRange, memory: &Memory) -> Vec<String> {
    let mark = utf16_bytes(" @Commit: ");
    let mut texts = Vec::new();
    let mut left = SEARCHED;
    for (_, bytes) in memory.pieces(range) {
        let (bytes, _) = bytes.split_at(bytes.len().min(left));
        left -= bytes.len();
        for at in memchr::memmem::find_iter(bytes, &mark).take(16) {
            let before = bytes.get(at.saturating_sub(64)..at).unwrap_or_default();
            let version = |it: &[u8]| matches!(it, &[c, 0] if is_version_byte(c));
            let count = before.rchunks_exact(2).take_while(|it| version(it)).count();
            let text = utf16(before.get(before.len() - count * 2..).unwrap_or_default());
            texts.push(text);
        }
    }
    texts
}

fn is_version_byte(it: u8) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, b'.' | b',' | b'-')
}

/// The version of the framework's own assemblies: `3.1.23+641ee87b…` in their version resources.
/// Only the product version of `System.*` is that of the framework.
fn framework_assembly(images: &Images, memory: &Memory) -> Option<String> {
    let system = images.iter().filter(|it| it.name.raw().starts_with("System.")).take(SIBLINGS);
    let key = utf16_bytes("ProductVersion\0");
    system.into_iter().find_map(|image| {
        let pe = image.pe?;
        let (rva, size) = pe.directory(memory, 2)?;
        let bytes = memory.slice_up_to(pe.at(rva)?, size.min(1 << 20).into());
        let at = memchr::memmem::find(bytes, &key)?;
        let rest = bytes.get(at + key.len()..)?;
        // Values are aligned to four bytes, so a zero may stand in front.
        let rest = rest.strip_prefix(&[0, 0]).unwrap_or(rest);
        let text = utf16(rest.get(..128).unwrap_or(rest));
        let (version, _commit) = text.split_once('+')?;
        is_product_version(version).then(|| version.to_owned())
    })
}

fn utf16_bytes(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// `3.1.23`, `9.0.0-rc.1.24431.7`: three numbers, perhaps with a label.
fn is_product_version(text: &str) -> bool {
    let (numbers, _label) = text.split_once('-').unwrap_or((text, ""));
    let numbers: Vec<&str> = numbers.split('.').collect();
    let number =
        |it: &&str| !it.is_empty() && it.len() <= 4 && it.bytes().all(|it| it.is_ascii_digit());
    numbers.len() == 3 && numbers.iter().all(number)
}

/// The four numbers of a file version.
fn parts(text: &str) -> Option<[u16; 4]> {
    let numbers: Vec<u16> = text.split([',', '.']).map_while(|it| it.parse::<u16>().ok()).collect();
    numbers.try_into().ok()
}

/// The product version behind the file version of .NET 5 and later, whose third number is the
/// patch times one hundred plus the build's revision: 6.0.422.16404 is 6.0.4.
fn by_number([major, minor, build, _]: [u16; 4]) -> Option<String> {
    // .NET Core before 5 counted days instead.
    (5..100).contains(&major).then(|| format!("{major}.{minor}.{}", build / 100))
}

fn dotted([a, b, c, d]: [u16; 4]) -> String {
    format!("{a}.{b}.{c}.{d}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_number(file_version: &str, expected: Option<&str>) {
        assert_eq!(parts(file_version).and_then(by_number).as_deref(), expected);
    }

    #[test]
    fn file_versions_of_dotnet_5_and_later_hold_the_patch() {
        check_number("6.0.422.16404", Some("6.0.4"));
        check_number("8,0,3026,36720", Some("8.0.30"));
        check_number("10,0,1326,50504", Some("10.0.13"));
        check_number("5.0.20.51904", Some("5.0.0"));
        check_number("4.700.22.11601", None);
        check_number("8.0", None);
    }

    #[test]
    fn the_folder_of_the_shared_framework_names_the_version() {
        let path = r"C:\Program Files\dotnet\shared\Microsoft.NETCore.App\3.1.23\coreclr.dll";
        assert_eq!(shared_framework(path).as_deref(), Some("3.1.23"));
        assert_eq!(shared_framework(r"C:\App\coreclr.dll"), None);
        assert_eq!(shared_framework(r"C:\Microsoft.NETCore.App\coreclr.dll"), None);
        let preview = "/x/Microsoft.NETCore.App/9.0.0-rc.1.24431.7/coreclr.dll";
        assert_eq!(shared_framework(preview).as_deref(), Some("9.0.0-rc.1.24431.7"));
    }

    #[test]
    fn words_are_no_versions() {
        assert!(is_product_version("8.0.30"));
        assert!(!is_product_version("8.0"));
        assert!(!is_product_version("8.0.30.1"));
        assert!(!is_product_version("..."));
        assert!(!is_product_version("99999999.0.0"));
    }
}

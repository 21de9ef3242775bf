//! Managed runtimes in the process, and their versions.

use super::images::Images;
use crate::limits::Limits;
use crate::space::{Memory, Va};

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
}

/// Finds the runtimes among the images.
pub(super) fn detect(images: &Images, _memory: &Memory, _limits: &Limits) -> Vec<Runtime> {
    let named = [
        ("coreclr.dll", RuntimeKind::Core),
        ("clr.dll", RuntimeKind::Framework),
        ("mscorwks.dll", RuntimeKind::Framework),
        ("mono-2.0-sgen.dll", RuntimeKind::Mono),
    ];
    let found = named.iter().filter_map(|&(name, kind)| Some((images.named(name)?, kind)));
    let runtimes = found.map(|(image, kind)| Runtime {
        kind,
        version: image.version.map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}")),
        image_base: image.range.start(),
        single_file: false,
    });
    runtimes.collect()
}

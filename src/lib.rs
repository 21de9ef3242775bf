//! Reads a Windows process dump and says which limit the process hit, who holds the memory, and
//! what to do next.

#[cfg(feature = "synth")]
pub mod synth;

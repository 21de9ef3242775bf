//! From streams to the address space: which regions there are, and what their bytes are.

mod address;
mod memory;
mod region;

pub use address::{Va, VaRange};
pub use memory::{Captured, Memory};
pub use region::{
    ALLOCATION_GRANULARITY, Allocation, PAGE, Protect, Region, RegionType, Regions, State,
};

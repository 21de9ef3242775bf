//! One binary for all integration tests.

// Tests may stop where the program may not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, unreachable_pub)]

mod allocs;
mod archives;
mod blocks;
mod bucket;
mod cli;
mod compare;
mod dumps;
mod findings;
mod golden;
mod heaps;
mod hostile;
mod html;
mod known_causes;
mod managed;
mod managed_synth;
mod map;
mod nt_synth;
mod objects;
mod one_way;
mod page_synth;
mod pdb;
mod peer;
mod queue;
mod readme;
mod registered;
mod samples;
mod segment_blocks;
mod segment_synth;
mod stacks;
mod symbol_server;
mod threads;
mod translated;
mod triage;
mod verdicts;

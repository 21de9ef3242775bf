//! Reads a Windows process dump and says which limit the process hit, who holds the memory, and
//! what to do next.

use std::process::ExitCode;

fn main() -> ExitCode {
    oomscope::cli::run(std::env::args_os())
}

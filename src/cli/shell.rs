//! What a shell and `man` want to know about the command line, made from its definition.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;

/// The program's name on the command line.
const NAME: &str = "oomscope";

/// Writes a script that completes commands and options.
pub(super) fn completions(shell: Shell, out: &mut dyn io::Write) -> io::Result<()> {
    // The generator panics where it cannot write, so it writes where it always can.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    out.write_all(&script)
}

/// Writes a page for the program and one for each command into a folder.
pub(super) fn man(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}

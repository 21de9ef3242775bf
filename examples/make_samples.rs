//! Writes the dumps in `samples/` and their symbol files in `symbols/` again, byte for byte.
//!
//! `cargo run --features synth --example make_samples`

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for sample in oomscope::synth::samples::all() {
        std::fs::write(root.join("samples").join(sample.file), &sample.bytes)?;
        for (path, text) in sample.symbols {
            let path = root.join("symbols").join(path);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(path, text)?;
        }
    }
    Ok(())
}

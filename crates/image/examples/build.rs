//! `cargo run -p image --example build -- tiny disk.raw cache`: builds one image, outside of any cloud.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recipe, output, cache] = arguments.as_slice() else {
        anyhow::bail!("usage: build RECIPE OUTPUT CACHE_DIRECTORY");
    };
    let built =
        image::build(recipe.parse()?, Path::new(output), Path::new(cache), &image::TerminalProgress::new())?;
    println!("{built:?}");
    Ok(())
}

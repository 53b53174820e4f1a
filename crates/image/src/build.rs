//! One build: look in the cache, else make the disk there, then give a copy.
//!
//! The cache directory holds, per recipe, finished disks named after what they were made from, a log, a lock, and
//! while a build runs its scratch directory. The lock makes a scratch directory found under it a dead build's.

use crate::command::Log;
use crate::extents;
use crate::interrupt::{self, Interrupts};
use crate::layout::GIB;
use crate::progress::Progress;
use crate::recipe::{BuiltImage, Recipe};
use crate::{debian, tiny};
use anyhow::{Context, Result, ensure};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// How every disk is made: a change here makes new disks, as one of the packages' lists does.
const METHOD: [&str; 6] = [
    include_str!("apt.rs"),
    include_str!("bios.rs"),
    include_str!("disk.rs"),
    include_str!("grub.rs"),
    include_str!("layout.rs"),
    include_str!("tree.rs"),
];

/// Whether a disk made before may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Use it if it was made from the same ingredients.
    Reuse,
    /// Make a new one, with the newest packages.
    Fresh,
}

/// Makes a bootable disk at `output`, from Debian's packages or from the cache. Needs root.
pub fn build(recipe: Recipe, output: &Path, cache_dir: &Path, progress: &dyn Progress) -> Result<BuiltImage> {
    build_with(recipe, output, cache_dir, Cache::Reuse, progress)
}

/// As [`build`], with a choice about the cache.
pub fn build_with(
    recipe: Recipe,
    output: &Path,
    cache_dir: &Path,
    cache: Cache,
    progress: &dyn Progress,
) -> Result<BuiltImage> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "building an image needs root: Debian's packages install themselves as root"
    );
    fs::create_dir_all(cache_dir).with_context(|| format!("cannot create {}", cache_dir.display()))?;
    let _interrupts = Interrupts::note();
    let _lock = lock(&cache_dir.join(format!("{recipe}.lock")))?;
    let made = cached(recipe, cache_dir, cache, progress).and_then(|disk| {
        progress.step("copying the disk");
        extents::copy(&disk, output, progress)?;
        interrupt::check()
    });
    progress.finish();
    if made.is_err() {
        let _ = fs::remove_file(output);
    }
    made.with_context(|| format!("the image {recipe} could not be built"))?;
    Ok(BuiltImage {
        path: output.to_owned(),
        size_gib: recipe.size_gib(),
        virtual_bytes: u64::from(recipe.size_gib()) * GIB,
        architecture: "x86_64",
        boot_mode: "uefi-preferred",
        description: recipe.description().to_owned(),
    })
}

/// The disk in the cache, made now if it isn't there.
fn cached(recipe: Recipe, cache_dir: &Path, cache: Cache, progress: &dyn Progress) -> Result<PathBuf> {
    let disk = cache_dir.join(format!("{recipe}-{}.raw", key(recipe)));
    if cache == Cache::Reuse && disk.exists() {
        return Ok(disk);
    }
    let work = Scratch::create(cache_dir.join(format!("{recipe}.work")))?;
    let log = Log::create(cache_dir.join(format!("{recipe}.log")))?;
    let made = work.0.join("disk");
    let step = |what: &str| progress.step(what);
    match recipe {
        Recipe::Tiny => tiny::build(&log, &work.0, &made, recipe.size_gib(), &step)?,
        Recipe::Debian12 => debian::build(&log, &work.0, &made, recipe.size_gib(), &step)?,
    }
    interrupt::check()?;
    forget_older(recipe, cache_dir)?;
    fs::rename(&made, &disk).with_context(|| format!("cannot keep {}", disk.display()))?;
    Ok(disk)
}

/// Names what a disk is made from.
fn key(recipe: Recipe) -> String {
    let ingredients = match recipe {
        Recipe::Tiny => tiny::ingredients(),
        Recipe::Debian12 => debian::ingredients(),
    };
    let mut hash = Sha256::new();
    for ingredient in METHOD.into_iter().chain(ingredients) {
        hash.update(ingredient.len().to_le_bytes());
        hash.update(ingredient);
    }
    hex::encode(&hash.finalize()[..8])
}

/// A cache keeps one disk of each recipe.
fn forget_older(recipe: Recipe, cache_dir: &Path) -> Result<()> {
    let is_disk = |name: &str| {
        let key =
            name.strip_prefix(recipe.name()).and_then(|name| name.strip_prefix('-')?.strip_suffix(".raw"));
        key.is_some_and(|key| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    for entry in fs::read_dir(cache_dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_disk) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Held until dropped, by the process even if it is killed.
fn lock(path: &Path) -> Result<File> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// A directory that goes away with the build.
struct Scratch(PathBuf);

impl Scratch {
    fn create(path: PathBuf) -> Result<Scratch> {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_have_keys_of_their_own() {
        assert_ne!(key(Recipe::Tiny), key(Recipe::Debian12));
        assert_eq!(key(Recipe::Tiny), key(Recipe::Tiny));
    }

    #[test]
    fn only_older_disks_of_the_same_recipe_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let names =
            ["tiny-0123456789abcdef.raw", "tiny-mine.raw", "debian-12-0123456789abcdef.raw", "tiny.log"];
        for name in names {
            fs::write(directory.path().join(name), "").unwrap();
        }
        forget_older(Recipe::Tiny, directory.path()).unwrap();
        let left = names.map(|name| directory.path().join(name).exists());
        assert_eq!(left, [false, true, true, true]);
    }

    #[test]
    fn scratch_is_removed_and_a_dead_builds_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("work");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("left"), "").unwrap();
        let scratch = Scratch::create(path.clone()).unwrap();
        assert!(path.exists() && !path.join("left").exists());
        drop(scratch);
        assert!(!path.exists());
    }
}

//! A snapshot as a raw disk, through the EBS direct API: only blocks that hold something.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html>

use crate::layout::GIB;
use crate::progress::Progress;
use crate::upload::BLOCK_BYTES;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The two calls of the EBS direct API that read a snapshot.
pub trait Download {
    /// ListSnapshotBlocks: the page that a token of another names, or the first one.
    fn list(&self, snapshot: &str, page: Option<&str>) -> Result<Page>;
    /// GetSnapshotBlock: one whole block.
    fn get(&self, snapshot: &str, block: &Block) -> Result<Vec<u8>>;
}

pub struct Page {
    pub size_gib: u32,
    pub blocks: Vec<Block>,
    pub next: Option<String>,
}

pub struct Block {
    pub index: u32,
    pub token: String,
}

/// Writes what the snapshot holds as a sparse raw disk, whole or not at all.
pub fn download(snapshot: &str, path: &Path, from: &dyn Download, progress: &dyn Progress) -> Result<()> {
    let file = File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
    progress.step("reading the snapshot");
    let written = write(snapshot, &file, from, progress);
    progress.finish();
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.with_context(|| format!("{snapshot} could not be read"))
}

fn write(snapshot: &str, file: &File, from: &dyn Download, progress: &dyn Progress) -> Result<()> {
    let mut next: Option<String> = None;
    loop {
        let page = from.list(snapshot, next.as_deref())?;
        let size = u64::from(page.size_gib) * GIB;
        file.set_len(size)?;
        for block in &page.blocks {
            let at = u64::from(block.index) * BLOCK_BYTES as u64;
            let data = from.get(snapshot, block)?;
            ensure!(
                data.len() == BLOCK_BYTES && at + BLOCK_BYTES as u64 <= size,
                "block {} is not one of a disk of {} GiB",
                block.index,
                page.size_gib
            );
            file.write_all_at(&data, at).context("cannot write the disk")?;
            progress.bytes(at + BLOCK_BYTES as u64, size);
        }
        next = page.next;
        if next.is_none() {
            return file.sync_all().context("cannot write the disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    /// Blocks 0 and 3, a page each.
    struct Snapshot {
        length: usize,
    }

    impl Download for Snapshot {
        fn list(&self, snapshot: &str, page: Option<&str>) -> Result<Page> {
            assert_eq!(snapshot, "snap-1");
            let (index, next) = if page.is_none() { (0, Some("more".to_owned())) } else { (3, None) };
            let blocks = vec![Block { index, token: format!("t{index}") }];
            Ok(Page { size_gib: 1, blocks, next })
        }

        fn get(&self, _: &str, block: &Block) -> Result<Vec<u8>> {
            assert_eq!(block.token, format!("t{}", block.index));
            Ok(vec![block.index as u8 + 1; self.length])
        }
    }

    #[test]
    fn a_snapshot_becomes_a_sparse_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        download("snap-1", &path, &Snapshot { length: BLOCK_BYTES }, &Silent).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), GIB);
        for (at, expected) in [(0, 1), (BLOCK_BYTES, 0), (3 * BLOCK_BYTES, 4), (4 * BLOCK_BYTES, 0)] {
            let mut byte = [9];
            file.read_exact_at(&mut byte, at as u64).unwrap();
            assert_eq!(byte[0], expected, "{at}");
        }
        let again = download("snap-1", &path, &Snapshot { length: BLOCK_BYTES }, &Silent);
        assert!(again.is_err() && path.exists(), "what is there stays");
    }

    #[test]
    fn what_is_no_block_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        download("snap-1", &path, &Snapshot { length: 7 }, &Silent).unwrap_err();
        assert!(!path.exists());
    }
}

//! A disk into a snapshot, through the EBS direct API: only blocks that hold something, several at a time.
//! <https://docs.aws.amazon.com/ebs/latest/userguide/ebs-accessing-snapshot.html>

use crate::extents;
use crate::layout::GIB;
use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

/// A snapshot's block, by the API's definition.
pub const BLOCK_BYTES: usize = 512 << 10;
/// One block each; more would only wait for the same disk.
const THREADS: usize = 4;

/// The three calls of the EBS direct API that write a snapshot.
pub trait Upload: Sync {
    /// StartSnapshot: gives the new snapshot's id.
    fn start(&self, size_gib: u32, description: &str) -> Result<String>;
    /// PutSnapshotBlock: `data` is one whole block.
    fn put(&self, snapshot: &str, index: u32, data: &[u8]) -> Result<()>;
    /// CompleteSnapshot.
    fn complete(&self, snapshot: &str, changed_blocks: u32) -> Result<()>;
}

/// Writes the raw disk at `path` into a new snapshot, and gives its id.
pub fn upload(path: &Path, description: &str, to: &dyn Upload, progress: &dyn Progress) -> Result<String> {
    progress.step("uploading the disk");
    let snapshot = start_and_fill(path, description, to, progress);
    progress.finish();
    snapshot.with_context(|| format!("{} could not be uploaded", path.display()))
}

fn start_and_fill(
    path: &Path,
    description: &str,
    to: &dyn Upload,
    progress: &dyn Progress,
) -> Result<String> {
    let file = File::open(path).context("cannot read it")?;
    let length = file.metadata()?.len();
    ensure!(length > 0, "it is empty");
    let size_gib = u32::try_from(length.div_ceil(GIB)).context("it is too large")?;
    let blocks = blocks_with_data(&file)?;
    let snapshot = to.start(size_gib, description)?;
    let written = Blocks::new(&file, blocks).put_all(&snapshot, to, progress)?;
    to.complete(&snapshot, written)?;
    Ok(snapshot)
}

/// The indexes of blocks that may hold something, in order.
fn blocks_with_data(file: &File) -> Result<Vec<u32>> {
    let mut blocks = BTreeSet::new();
    for range in extents::data(file)? {
        let (first, last) = (range.start / BLOCK_BYTES as u64, (range.end - 1) / BLOCK_BYTES as u64);
        blocks.extend(first..=last);
    }
    blocks.into_iter().map(|index| u32::try_from(index).context("it is too large")).collect()
}

/// Blocks on their way, shared by the threads.
struct Blocks<'f> {
    file: &'f File,
    total: usize,
    state: Mutex<State>,
}

struct State {
    left: std::vec::IntoIter<u32>,
    done: usize,
    written: u32,
    failure: Option<anyhow::Error>,
}

impl<'f> Blocks<'f> {
    fn new(file: &'f File, blocks: Vec<u32>) -> Self {
        let total = blocks.len();
        let state = State { left: blocks.into_iter(), done: 0, written: 0, failure: None };
        Blocks { file, total, state: Mutex::new(state) }
    }

    /// Gives how many blocks were written.
    fn put_all(self, snapshot: &str, to: &dyn Upload, progress: &dyn Progress) -> Result<u32> {
        std::thread::scope(|scope| {
            for _ in 0..THREADS.min(self.total) {
                scope.spawn(|| self.put_some(snapshot, to, progress));
            }
        });
        let state = self.state.into_inner().map_err(|_| anyhow!("an upload thread ended early"))?;
        match state.failure {
            Some(failure) => Err(failure),
            None => Ok(state.written),
        }
    }

    fn put_some(&self, snapshot: &str, to: &dyn Upload, progress: &dyn Progress) {
        let mut block = vec![0; BLOCK_BYTES];
        while let Some(index) = self.next() {
            let put = self.put_one(index, &mut block, snapshot, to);
            let Ok(mut state) = self.state.lock() else { return };
            match put {
                Ok(written) => {
                    state.written += u32::from(written);
                    state.done += 1;
                    progress.bytes((state.done * BLOCK_BYTES) as u64, (self.total * BLOCK_BYTES) as u64);
                }
                Err(error) => {
                    state.failure.get_or_insert(error);
                }
            }
        }
    }

    /// The next block to write; none after a failure.
    fn next(&self) -> Option<u32> {
        let mut state = self.state.lock().ok()?;
        if state.failure.is_some() { None } else { state.left.next() }
    }

    /// Whether the block held something, and so was written.
    fn put_one(&self, index: u32, block: &mut [u8], snapshot: &str, to: &dyn Upload) -> Result<bool> {
        read_block(self.file, index, block)?;
        if is_zero(block) {
            return Ok(false);
        }
        to.put(snapshot, index, block).with_context(|| format!("block {index} was not taken")).map(|()| true)
    }
}

/// The last block of a disk may be cut off; what is missing is zeros.
fn read_block(file: &File, index: u32, block: &mut [u8]) -> Result<()> {
    let start = u64::from(index) * BLOCK_BYTES as u64;
    let mut filled = 0;
    while filled < block.len() {
        match file.read_at(&mut block[filled..], start + filled as u64).context("cannot read it")? {
            0 => break,
            read => filled += read,
        }
    }
    block[filled..].fill(0);
    Ok(())
}

fn is_zero(block: &[u8]) -> bool {
    // By words, which the compiler turns into wide comparisons.
    let (words, rest) = block.as_chunks::<16>();
    rest.iter().all(|byte| *byte == 0) && words.iter().all(|word| u128::from_ne_bytes(*word) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Snapshot {
        blocks: Mutex<BTreeMap<u32, Vec<u8>>>,
        completed: Mutex<Option<u32>>,
        refuse: Option<u32>,
    }

    impl Upload for Snapshot {
        fn start(&self, size_gib: u32, description: &str) -> Result<String> {
            assert_eq!((size_gib, description), (1, "a disk"));
            Ok("snap-1".into())
        }

        fn put(&self, snapshot: &str, index: u32, data: &[u8]) -> Result<()> {
            assert_eq!((snapshot, data.len()), ("snap-1", BLOCK_BYTES));
            ensure!(self.refuse != Some(index), "the disk is full");
            assert!(
                self.blocks.lock().unwrap().insert(index, data.to_vec()).is_none(),
                "block {index} twice"
            );
            Ok(())
        }

        fn complete(&self, _snapshot: &str, changed_blocks: u32) -> Result<()> {
            *self.completed.lock().unwrap() = Some(changed_blocks);
            Ok(())
        }
    }

    /// Data in blocks 1, 4 and the cut-off 20; zeros that take room on disk in block 9.
    fn disk() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let block = BLOCK_BYTES as u64;
        file.as_file().set_len(20 * block + 100).unwrap();
        file.as_file().write_all_at(b"one", block + 7).unwrap();
        file.as_file().write_all_at(b"four", 5 * block - 4).unwrap();
        file.as_file().write_all_at(&[0; 4096], 9 * block).unwrap();
        file.as_file().write_all_at(b"end", 20 * block + 97).unwrap();
        file
    }

    #[test]
    fn only_blocks_that_hold_something_are_written_once() {
        let (file, snapshot) = (disk(), Snapshot::default());
        assert_eq!(upload(file.path(), "a disk", &snapshot, &Silent).unwrap(), "snap-1");
        let blocks = snapshot.blocks.into_inner().unwrap();
        assert_eq!(blocks.keys().copied().collect::<Vec<_>>(), [1, 4, 20]);
        assert_eq!(&blocks[&1][7..10], b"one");
        assert_eq!(&blocks[&4][BLOCK_BYTES - 4..], b"four");
        assert_eq!(&blocks[&20][97..101], b"end\0");
        assert_eq!(*snapshot.completed.lock().unwrap(), Some(3));
    }

    #[test]
    fn a_refused_block_ends_the_upload_without_completing_it() {
        let snapshot = Snapshot { refuse: Some(4), ..Snapshot::default() };
        let message = format!("{:#}", upload(disk().path(), "a disk", &snapshot, &Silent).unwrap_err());
        assert!(message.ends_with("block 4 was not taken: the disk is full"), "{message}");
        assert_eq!(*snapshot.completed.lock().unwrap(), None);
    }

    #[test]
    fn a_disk_of_zeros_is_a_snapshot_without_blocks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let snapshot = Snapshot::default();
        upload(file.path(), "a disk", &snapshot, &Silent).unwrap();
        assert_eq!(*snapshot.completed.lock().unwrap(), Some(0));
    }
}

//! Which parts of a sparse file hold data (lseek(2), SEEK_DATA), so that holes are neither read nor written.

use crate::interrupt;
use crate::progress::Progress;
use anyhow::{Context, Result};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::Range;
use std::path::Path;

/// Copied between two looks at the progress and at Ctrl-C.
const PORTION_BYTES: u64 = 8 << 20;

/// The ranges of `file` that may hold something other than zeros, in order.
pub(crate) fn data(file: &File) -> Result<Vec<Range<u64>>> {
    let length = file.metadata()?.len();
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // A file system that keeps no holes: all is data.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error).context("cannot find the file's data"),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::INVAL) => length,
            Err(error) => return Err(error).context("cannot find the file's holes"),
        };
        ranges.push(start..end.min(length));
        at = end.max(start + 1);
    }
    Ok(ranges)
}

/// Copies a file, holes staying holes.
pub(crate) fn copy(from: &Path, to: &Path, progress: &dyn Progress) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut target = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    target.set_len(source.metadata()?.len())?;
    let ranges = data(&source)?;
    let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let mut done = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            interrupt::check()?;
            let portion = PORTION_BYTES.min(range.end - at);
            source.seek(std::io::SeekFrom::Start(at))?;
            target.seek(std::io::SeekFrom::Start(at))?;
            std::io::copy(&mut (&mut source).take(portion), &mut target)
                .with_context(|| format!("cannot write {}", to.display()))?;
            at += portion;
            done += portion;
            progress.bytes(done, total);
        }
    }
    target.flush().with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::os::unix::fs::{FileExt, MetadataExt};

    const MIB: u64 = 1 << 20;

    fn sparse(directory: &Path) -> (std::path::PathBuf, File) {
        let path = directory.join("sparse");
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        file.write_all_at(&[1; 4096], 8 * MIB).unwrap();
        file.write_all_at(&[2; 4096], 40 * MIB).unwrap();
        (path, file)
    }

    #[test]
    fn only_what_was_written_is_data() {
        let directory = tempfile::tempdir().unwrap();
        let (_, file) = sparse(directory.path());
        let ranges = data(&file).unwrap();
        assert!(
            ranges.iter().any(|range| range.contains(&(8 * MIB)))
                && ranges.iter().any(|range| range.contains(&(40 * MIB)))
        );
        assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() < MIB, "{ranges:?}");
    }

    #[test]
    fn an_empty_file_and_a_hole_have_no_data() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("hole")).unwrap();
        assert_eq!(data(&file).unwrap(), []);
        file.set_len(MIB).unwrap();
        assert_eq!(data(&file).unwrap(), []);
    }

    #[test]
    fn a_copy_is_the_same_and_as_sparse() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = sparse(directory.path());
        let copied = directory.path().join("copy");
        copy(&path, &copied, &Silent).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&copied).unwrap());
        file.sync_all().unwrap();
        let copied = File::open(&copied).unwrap();
        copied.sync_all().unwrap();
        assert!(copied.metadata().unwrap().blocks() * 512 < MIB);
    }
}

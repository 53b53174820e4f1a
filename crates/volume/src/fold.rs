//! Chains stay short: of a volume with many layers some are merged into one.
//!
//! ```text
//!   [ 9 ][ 8 ][ 7 ][ 6 ][ 5 ][ 4 ][ … ]   ─▶   [ 9 ][ 8 to 4 in one ][ … ]
//! ```
//!
//! Only layers that nobody writes to are read, so that a machine goes on meanwhile, on the files that it has open, until
//! it is told of the short chain or starts again. Snapshots keep the layers that they have. What is merged is chosen so
//! that little is written many times: layers beside each other, of much the same size.

use crate::catalogue::Disks;
use crate::layer::{Format, Layer, LayerName, check};
use crate::qcow2::{self, Overlay};
use crate::volumes::whole;
use crate::{Result, failed};
use model::Kind;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

/// Overlays between the uppermost and the lowest that a volume may have before some are merged.
const OVERLAYS_MAX: usize = 16;
/// As many are merged at least.
const MERGED_MIN: usize = 8;

impl Disks {
    /// Shortens the volume's chain, if it is long, and returns which layers it had then. May take long; others may use
    /// the volume meanwhile.
    pub fn fold(&self, volume_id: &str) -> Result<Option<Vec<Layer>>> {
        check(Kind::Volume, volume_id)?;
        let mut work = self.work_on(&[&format!("{volume_id}/fold")]);
        let head = {
            let _work = self.work_on(&[volume_id]);
            // Until a freeze is finished a machine may write to what lies below the uppermost.
            if !self.freezes_of(&[volume_id]).is_empty() {
                return Ok(None);
            }
            work.pin(volume_id)?
        };
        let layers = head.layers();
        // The lowest may not be whole yet, or be read from us.
        let between = layers.split_last().into_iter().flat_map(|(_, upper)| upper).skip(1);
        let overlays = between.take_while(|layer| layer.format == Format::Qcow2);
        let sizes = overlays.map(|layer| {
            let path = self.layer_path(layer);
            // stat(2) counts in units of 512 bytes, whatever the file system's blocks.
            path.metadata().map(|metadata| metadata.blocks() * 512).map_err(failed("can't see", &path))
        });
        let Some(run) = merged(&sizes.collect::<Result<Vec<u64>>>()?) else { return Ok(None) };
        // Behind the uppermost.
        let run = run.start + 1..run.end + 1;
        let name = self.next_layer(volume_id, Format::Qcow2);
        let path = self.layer_path(&name);
        let key = self.key_of(&head)?;
        let key = key.as_deref();
        whole(&path, || {
            let open = |layer| {
                let path = self.layer_path(layer);
                Overlay::open(&path, key).map_err(failed("can't open", &path))
            };
            let mut overlays = layers[run.clone()].iter().map(open).collect::<Result<Vec<_>>>()?;
            qcow2::create(&path, overlays[0].size, key)?;
            qcow2::merge(&mut overlays, &path, key).map_err(failed("can't write", &path))
        })?;
        let replaced = {
            let _work = self.work_on(&[volume_id]);
            self.replace(volume_id, &layers[run.clone()], &name)
        };
        match replaced {
            Ok(true) => Ok(Some(self.layers(&layers))),
            // Something else came between; another time.
            Ok(false) => crate::durable::remove(&path).map(|_| None),
            Err(error) => Err(error),
        }
    }

    /// Puts one layer in the place of others that are still beside each other in the volume's chain.
    fn replace(&self, volume_id: &str, run: &[LayerName], name: &LayerName) -> Result<bool> {
        // What is begun names layers as they are.
        let Ok(head) = self.head(volume_id) else { return Ok(false) };
        let mut layers = head.layers();
        let found = layers.windows(run.len()).position(|window| window == run);
        let Some(at) = found.filter(|_| self.freezes_of(&[volume_id]).is_empty()) else { return Ok(false) };
        layers.splice(at..at + run.len(), [name.clone()]);
        self.put_head(volume_id, head.of(&layers))?;
        Ok(true)
    }
}

/// Which of these overlays, told by their sizes and the uppermost first, are to be merged.
fn merged(sizes: &[u64]) -> Option<Range<usize>> {
    if sizes.len() <= OVERLAYS_MAX {
        return None;
    }
    let mut end = MERGED_MIN;
    let mut sum: u64 = sizes[..end].iter().sum();
    while end < sizes.len() && sizes[end] <= sum.saturating_mul(2) {
        sum += sizes[end];
        end += 1;
    }
    Some(0..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_stay_short_and_little_is_written_often() {
        let mut sizes: Vec<u64> = Vec::new();
        let mut written = 0;
        for _ in 0..10_000 {
            sizes.insert(0, 1);
            if let Some(run) = merged(&sizes) {
                let sum: u64 = sizes[run.clone()].iter().sum();
                written += sum;
                sizes.splice(run, [sum]);
            }
            assert!(sizes.len() <= OVERLAYS_MAX);
        }
        assert_eq!(sizes.iter().sum::<u64>(), 10_000);
        assert!(written < 10 * 10_000, "{written}");
    }
}

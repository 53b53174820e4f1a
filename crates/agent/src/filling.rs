//! Volumes are used before all is there that they are made of: what a machine reads of them comes first, the rest
//! meanwhile, at a bounded rate.
//!
//! ```text
//!   machine ─▶ layer that is served ─▶ `Disks::read_layer`
//!   fill ─▶ some of what a layer lacks ─▶ … ─▶ it is whole ─▶ its machines open its file themselves
//! ```

use crate::freeze::FreezeError;
use crate::tasks::Backoff;
use crate::volumes::Volumes;
use async_trait::async_trait;
use host::machine::{DiskFormat, DiskLayer, LayerContent, LayerSource};
use model::{Id, Kind};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;
/// Of all layers of a host together, in a second, beside what machines read, where nobody asks for more: the least that
/// EBS lets one ask for (EBS User Guide, "Initialize Amazon EBS volumes").
const MIBPS: u32 = 100;
const BYTES_AT_ONCE: u64 = 8 * MIB;
/// After a restart it may take so long until it is known which volumes a machine has.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// What one call of `Disks::fill` has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many bytes have come.
    Some(u64),
    /// A layer is whole, which these volumes have.
    Whole { layer: PathBuf, volumes: Vec<Id> },
}

/// A layer that a machine reads from us.
pub struct ServedLayer {
    pub content: Arc<dyn LayerContent>,
    /// It has become whole since the machine was told of it.
    pub is_whole: bool,
    pub path: PathBuf,
}

impl Volumes {
    /// Until the agent ends.
    pub(crate) async fn fill(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        loop {
            let fill = self.disks.fill(BYTES_AT_ONCE).await;
            match fill {
                Ok(Fill::Some(bytes)) => {
                    backoff = Backoff::new();
                    let rate = u64::from(self.initialization_mibps().unwrap_or(MIBPS)) * MIB;
                    tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
                }
                Ok(Fill::Whole { layer, volumes }) => {
                    tracing::info!(layer = %layer.display(), "layer is whole");
                    for volume_id in volumes {
                        self.open_whole(&volume_id, &layer).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "layers not filled");
                    backoff.wait().await;
                }
            }
        }
    }

    /// The machine that has the volume opens the layer's file itself from now on. One that can't goes on reading it from
    /// us.
    async fn open_whole(&self, volume_id: &Id, layer: &Path) {
        let served = |layers: &[DiskLayer]| {
            let before = layers.iter().map(|one| match one.path == layer {
                true => DiskLayer { format: DiskFormat::Served, ..one.clone() },
                false => one.clone(),
            });
            before.collect()
        };
        match self.rebase(volume_id, served).await {
            // The volume may be gone by now.
            Ok(()) | Err(FreezeError::Disk(_)) => {}
            Err(error) => {
                tracing::warn!(%volume_id, error = &error as &dyn std::error::Error, "layer still served");
            }
        }
    }

    /// The volumes whose layers the machine has, as soon as that is known.
    async fn volumes_of(&self, instance_id: &Id) -> Option<BTreeSet<Id>> {
        if Id::is_of(Kind::Volume, instance_id) {
            return Some(BTreeSet::from([instance_id.clone()]));
        }
        let known = async {
            loop {
                match self.used_by(instance_id) {
                    Some(None) => tokio::time::sleep(LOOK).await,
                    known => return known.flatten(),
                }
            }
        };
        tokio::time::timeout(KNOWN_WITHIN, known).await.ok().flatten()
    }
}

/// Has the layers for machines, as long as there are volumes.
pub(crate) struct ServedLayers(pub(crate) Weak<Volumes>);

#[async_trait]
impl LayerSource for ServedLayers {
    async fn open(&self, instance_id: &Id, layer: &str) -> Option<Arc<dyn LayerContent>> {
        let volumes = self.0.upgrade()?;
        let volume_ids = volumes.volumes_of(instance_id).await?;
        let served = match volumes.disks.read_layer(&volume_ids, layer).await {
            Ok(served) => served?,
            Err(error) => {
                tracing::warn!(%instance_id, layer, error = &error as &dyn std::error::Error, "layer not served");
                return None;
            }
        };
        if served.is_whole {
            let (path, telling) = (served.path, volumes.clone());
            volumes.tasks.spawn(async move {
                for volume_id in volume_ids {
                    telling.open_whole(&volume_id, &path).await;
                }
            });
        }
        Some(served.content)
    }
}

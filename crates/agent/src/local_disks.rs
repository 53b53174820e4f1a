//! The disks and snapshots of a real host: files (`volume`).

use crate::backend::{Backend, Tidied};
use crate::filling::{Fill, LOOK, ServedLayer};
use crate::freeze::Freeze;
use crate::volumes::{DiskError, DiskFile, Disks};
use agent_api::{ChangedBlock, HostError, NewSnapshot, SnapshotStore, Unfilled};
use async_trait::async_trait;
use host::machine::{DiskFormat, DiskLayer, LayerContent};
use model::{Id, Kind, SecretKey};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use volume::{LayerReader, VolumeDisk, VolumeError};

#[derive(Clone)]
pub struct LocalDisks(pub Arc<volume::Disks>);

impl LocalDisks {
    /// Runs what waits for the disk off the threads that serve.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&volume::Disks) -> volume::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let disks = self.0.clone();
        match tokio::task::spawn_blocking(move || work(&disks)).await {
            Ok(done) => done.map_err(Failure::Volume),
            Err(error) => Err(Failure::Ended(error.to_string())),
        }
    }
}

enum Failure {
    Volume(VolumeError),
    /// The thread that did it is gone.
    Ended(String),
}

impl From<Failure> for DiskError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Volume(VolumeError::Io { what, path, source }) => {
                DiskError::Io { what: format!("{what} {}", path.display()), source }
            }
            Failure::Volume(other) => DiskError::Failed(other.to_string()),
            Failure::Ended(message) => DiskError::Failed(message),
        }
    }
}

impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Volume(VolumeError::NotFound(what)) => HostError::NotFound(what),
            Failure::Volume(other) => HostError::Failed(with_causes(&other)),
            Failure::Ended(message) => HostError::Failed(message),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn freeze(freeze: volume::Freeze) -> Freeze {
    let id = |kind, text: &str| Id::parse(kind, text).ok();
    let volume =
        |frozen: volume::Frozen| Some((id(Kind::Volume, &frozen.volume_id)?, disk_file(frozen.disk)));
    Freeze {
        key: freeze.key,
        instance_id: freeze.instance_id.and_then(|text| id(Kind::Instance, &text)),
        volumes: freeze.volumes.into_iter().filter_map(volume).collect(),
    }
}

fn disk_file(disk: VolumeDisk) -> DiskFile {
    DiskFile { layers: disk_layers(disk.layers), key: disk.key }
}

fn disk_layers(layers: Vec<volume::Layer>) -> Vec<DiskLayer> {
    let layer = |layer: volume::Layer| DiskLayer {
        path: layer.path,
        format: match (layer.filling, layer.format) {
            (Some(_), _) => DiskFormat::Served,
            (None, volume::Format::Raw) => DiskFormat::Raw,
            (None, volume::Format::Qcow2) => DiskFormat::Qcow2,
        },
    };
    layers.into_iter().map(layer).collect()
}

struct Content(LayerReader);

impl LayerContent for Content {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, into).map_err(|error| match error {
            // A store that does not answer now may later: its guest waits.
            VolumeError::Store { .. } => io::Error::new(io::ErrorKind::WouldBlock, error),
            error => io::Error::other(error),
        })
    }
}

#[async_trait]
impl Disks for LocalDisks {
    async fn list(&self) -> Result<Vec<Id>, DiskError> {
        let names = self.with(|disks| Ok(disks.volumes())).await?;
        Ok(names.iter().filter_map(|name| Id::parse(Kind::Volume, name).ok()).collect())
    }

    async fn ensure(&self, volume: &agent_api::Volume) -> Result<(), DiskError> {
        let volume = volume.clone();
        let ensure = move |disks: &volume::Disks| {
            if volume.made && disks.disk(&volume.volume_id).is_err_and(|error| error.is_not_found()) {
                return Ok(Err(DiskError::Lost(volume.volume_id)));
            }
            if let Some(key) = &volume.snapshot_key {
                disks.tell(key);
            }
            let (id, snapshot_id) = (&volume.volume_id, volume.snapshot_id.as_deref());
            disks.ensure(id, volume.size_gib, snapshot_id, volume.key.as_ref()).map(|_| Ok(()))
        };
        self.with(ensure).await?
    }

    async fn open(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        let volume_id = volume_id.clone();
        Ok(disk_file(self.with(move |disks| disks.fit(&volume_id)).await?))
    }

    async fn layers(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        let volume_id = volume_id.clone();
        Ok(disk_file(self.with(move |disks| disks.disk(&volume_id)).await?))
    }

    async fn begin_freeze(
        &self,
        snapshots: &[NewSnapshot],
        instance_id: Option<&Id>,
    ) -> Result<Option<Freeze>, DiskError> {
        let (snapshots, instance_id) = (snapshots.to_vec(), instance_id.cloned());
        let begin = move |disks: &volume::Disks| {
            let pairs = snapshots.iter().map(|new| (&*new.snapshot_id, &*new.volume_id));
            disks.begin_freeze(&pairs.collect::<Vec<_>>(), instance_id.as_deref())
        };
        Ok(self.with(begin).await?.map(freeze))
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, DiskError> {
        Ok(self.with(|disks| disks.freezes()).await?.into_iter().map(freeze).collect())
    }

    async fn finish_freeze(&self, key: &str) -> Result<(), DiskError> {
        let key = key.to_owned();
        Ok(self.with(move |disks| disks.finish_freeze(&key)).await?)
    }

    async fn fold(&self, volume_id: &Id) -> Result<Option<Vec<DiskLayer>>, DiskError> {
        let volume_id = volume_id.clone();
        Ok(self.with(move |disks| disks.fold(&volume_id)).await?.map(disk_layers))
    }

    async fn fill(&self, bytes: u64) -> Result<Fill, DiskError> {
        loop {
            match self.with(move |disks| disks.fill(bytes)).await? {
                volume::Fill::Some(bytes) => return Ok(Fill::Some(bytes)),
                volume::Fill::Nothing => self.0.lacking().await,
                volume::Fill::Whole { layer, volumes } => {
                    let volumes = volumes.iter().filter_map(|name| Id::parse(Kind::Volume, name).ok());
                    return Ok(Fill::Whole { layer, volumes: volumes.collect() });
                }
            }
        }
    }

    async fn unfilled(&self) -> Result<BTreeMap<Id, Unfilled>, DiskError> {
        let unfilled = self.with(|disks| Ok(disks.unfilled())).await?;
        let told = unfilled.into_iter().filter_map(|(name, bytes_left, bytes)| {
            Some((Id::parse(Kind::Volume, &name).ok()?, Unfilled { bytes_left, bytes }))
        });
        Ok(told.collect())
    }

    async fn read_layer(
        &self,
        volume_ids: &BTreeSet<Id>,
        layer: &str,
    ) -> Result<Option<ServedLayer>, DiskError> {
        let (volume_ids, layer) = (volume_ids.clone(), layer.to_owned());
        let read = move |disks: &volume::Disks| {
            let volume_ids: Vec<&str> = volume_ids.iter().map(Id::as_str).collect();
            disks.read_layer(&volume_ids, &layer)
        };
        let reader = loop {
            match self.with(read.clone()).await {
                // Nobody has told its key since the start: the machine waits.
                Err(Failure::Volume(VolumeError::Locked(_))) => tokio::time::sleep(LOOK).await,
                read => break read?,
            }
        };
        let served = |reader: LayerReader| ServedLayer {
            is_whole: reader.is_whole(),
            path: reader.path().to_owned(),
            content: Arc::new(Content(reader)),
        };
        Ok(reader.map(served))
    }

    async fn undo_freeze(&self, key: &str) -> Result<(), DiskError> {
        let key = key.to_owned();
        Ok(self.with(move |disks| disks.undo_freeze(&key)).await?)
    }

    async fn delete(&self, volume_id: &Id) -> Result<(), DiskError> {
        let volume_id = volume_id.clone();
        Ok(self.with(move |disks| disks.delete(&volume_id)).await?)
    }
}

#[async_trait]
impl SnapshotStore for LocalDisks {
    async fn tell(&self, key: &SecretKey) {
        self.0.tell(key);
    }

    async fn begin(
        &self,
        snapshot_id: &str,
        size_gib: u32,
        key: Option<&SecretKey>,
    ) -> Result<(), HostError> {
        let (id, key) = (snapshot_id.to_owned(), key.cloned());
        Ok(self.with(move |disks| disks.begin(&id, size_gib, key.as_ref())).await?)
    }

    async fn put_block(&self, snapshot_id: &str, index: u32, data: &[u8]) -> Result<(), HostError> {
        let (id, data) = (snapshot_id.to_owned(), data.to_vec());
        Ok(self.with(move |disks| disks.put_block(&id, index, &data)).await?)
    }

    async fn complete(&self, snapshot_id: &str) -> Result<(), HostError> {
        let id = snapshot_id.to_owned();
        Ok(self.with(move |disks| disks.complete(&id)).await?)
    }

    async fn get_block(&self, snapshot_id: &str, index: u32) -> Result<Option<Vec<u8>>, HostError> {
        let id = snapshot_id.to_owned();
        Ok(self.with(move |disks| disks.get_block(&id, index)).await?)
    }

    async fn list_blocks(&self, snapshot_id: &str, start: u32, limit: usize) -> Result<Vec<u32>, HostError> {
        let id = snapshot_id.to_owned();
        Ok(self.with(move |disks| disks.list_blocks(&id, start, limit)).await?)
    }

    async fn store(&self, snapshot_id: &str) -> Result<u8, HostError> {
        let id = snapshot_id.to_owned();
        Ok(self.with(move |disks| disks.store(&id)).await?)
    }

    async fn list_changed_blocks(
        &self,
        first: &str,
        second: &str,
        start: u32,
        limit: usize,
    ) -> Result<Vec<ChangedBlock>, HostError> {
        let (first, second) = (first.to_owned(), second.to_owned());
        let changed =
            self.with(move |disks| disks.list_changed_blocks(&first, &second, start, limit)).await?;
        let block = |block: volume::ChangedBlock| ChangedBlock {
            index: block.index,
            in_first: block.in_first,
            in_second: block.in_second,
        };
        Ok(changed.into_iter().map(block).collect())
    }

    async fn copy(&self, from: &str, to: &str, key: Option<&SecretKey>) -> Result<(), HostError> {
        let (from, to, key) = (from.to_owned(), to.to_owned(), key.cloned());
        Ok(self.with(move |disks| disks.copy_snapshot(&from, &to, key.as_ref())).await?)
    }

    async fn keep_near(&self, snapshot_id: &str, keep: bool) -> Result<u8, HostError> {
        let id = snapshot_id.to_owned();
        Ok(self.with(move |disks| disks.keep_near(&id, keep)).await?)
    }

    async fn delete(&self, snapshot_id: &str) -> Result<(), HostError> {
        let id = snapshot_id.to_owned();
        Ok(self.with(move |disks| disks.delete_snapshot(&id)).await?)
    }
}

#[async_trait]
impl Backend for LocalDisks {
    async fn tidy(&self, keep_free: u8) -> Result<Tidied, DiskError> {
        // Each whether or not the other could.
        let tidy = move |disks: &volume::Disks| {
            let made = disks.make_room(keep_free);
            let collected = disks.collect();
            made.and(collected)
        };
        let collected = self.with(tidy).await?;
        Ok(Tidied { blocks: collected.blocks, bytes: collected.bytes })
    }
}

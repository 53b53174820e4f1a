//! The block store: what snapshots hold, in a folder or an S3 bucket. Which there are the records say, on this host.
//!
//! ```text
//!   data/4f/4fc2…       a block of 512 KiB by the name that its content gives it, packed
//!   manifests/snap-…    which blocks a snapshot consists of
//! ```
//!
//! What is encrypted is named and packed with its data key, which is not kept here.
//!
//! Nothing is changed once it is there. A manifest comes after its blocks, which are durable then, and a block goes once
//! no manifest has named it for long (`collect`). What is read is checked against its name: what is damaged is told
//! and never given out.

mod block;
mod collect;
mod folder;
mod manifest;

pub(crate) use block::Name;
pub use collect::Collected;
pub use manifest::ChangedBlock;
pub(crate) use manifest::Manifest;

use crate::encryption::DataKey;
use crate::{Result, VolumeError, durable};
use folder::{Stage, Staged};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use tokio::runtime::{Builder, Runtime};

/// Blocks that are packed and sent at the same time: what a far store takes to answer is not waited for one by one.
const IN_FLIGHT_MAX: usize = 8;
/// Manifests that are kept in memory: those of the snapshots that are read or compared now.
const MANIFESTS_MAX: usize = 4;

const S3: &str = "s3://";

pub struct BlockStore {
    objects: Arc<dyn ObjectStore>,
    /// Where it is one.
    folder: Option<PathBuf>,
    /// So many blocks were put into it.
    staged: AtomicU64,
    /// None while it is dropped.
    runtime: Option<Runtime>,
    /// Shared by who puts blocks that no manifest names yet.
    collecting: RwLock<()>,
    /// The last used last.
    manifests: Mutex<Vec<(String, Arc<Manifest>)>>,
}

impl BlockStore {
    /// In a folder, which is made.
    pub fn folder(path: &Path) -> Result<BlockStore> {
        durable::create_directory(path)?;
        let objects = LocalFileSystem::new_with_prefix(path).map_err(failed("can't use the folder"))?;
        BlockStore::new(Arc::new(objects.with_fsync(true)), Some(path.to_owned()))
    }

    /// In a bucket and below a prefix, by `s3://bucket/prefix`. What else is needed the environment tells, as it tells
    /// AWS's own programs: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`.
    pub fn bucket(url: &str) -> Result<BlockStore> {
        let invalid =
            || VolumeError::Invalid(format!("{url:?} is no block store: a folder, or s3://BUCKET/PREFIX"));
        let (bucket, prefix) = url
            .strip_prefix(S3)
            .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            .ok_or_else(invalid)?;
        if bucket.is_empty() {
            return Err(invalid());
        }
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        // Who names an endpoint without TLS means it.
        let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let objects = if is_plain { builder.with_allow_http(true) } else { builder }.build();
        let objects = objects.map_err(failed("can't use the bucket"))?;
        let prefix = Key::parse(prefix).map_err(|error| failed("can't use the prefix")(error.into()))?;
        BlockStore::new(Arc::new(PrefixStore::new(objects, prefix)), None)
    }

    pub(crate) fn new(objects: Arc<dyn ObjectStore>, folder: Option<PathBuf>) -> Result<BlockStore> {
        let built =
            Builder::new_multi_thread().worker_threads(1).thread_name("block-store").enable_all().build();
        let runtime = built.map_err(crate::failed("can't start", Path::new("the block store")))?;
        Ok(BlockStore {
            objects,
            folder,
            staged: AtomicU64::new(0),
            runtime: Some(runtime),
            collecting: RwLock::default(),
            manifests: Mutex::default(),
        })
    }

    /// Nothing is collected until the answer is dropped.
    pub(crate) fn keep(&self) -> RwLockReadGuard<'_, ()> {
        self.collecting.read()
    }

    /// Puts blocks as they come, several at a time; all are durable on return. `None` stands for nothing held.
    pub(crate) fn put_blocks(
        &self,
        blocks: impl Iterator<Item = Result<(u32, Option<Vec<u8>>)>>,
        key: Option<Arc<DataKey>>,
    ) -> Result<Vec<(u32, Option<Name>)>> {
        let stage = self.folder.as_deref().map(Stage::open).transpose()?;
        let (sender, done) = mpsc::channel();
        let mut in_flight = 0;
        let (mut names, mut staged) = (Vec::new(), Vec::new());
        let finish = |names: &mut Vec<(u32, Option<Name>)>, staged: &mut Vec<Staged>| -> Result<()> {
            let (at, put): (usize, Result<_>) = done.recv().map_err(|_| closed())?;
            let (name, file) = put?;
            names[at].1 = Some(name);
            staged.extend(file);
            Ok(())
        };
        for block in blocks {
            let (index, data) = block?;
            let at = names.len();
            names.push((index, None));
            let Some(data) = data else { continue };
            if in_flight == IN_FLIGHT_MAX {
                finish(&mut names, &mut staged)?;
                in_flight -= 1;
            }
            durable::step(Path::new("the block store"))?;
            let (put, sender) = (self.put_block(data, key.clone()), sender.clone());
            in_flight += 1;
            // Who waits may have met another's error.
            self.runtime()?.spawn(async move { drop(sender.send((at, put.await))) });
        }
        for _ in 0..in_flight {
            finish(&mut names, &mut staged)?;
        }
        if let Some(stage) = stage {
            stage.publish(&staged)?;
        }
        Ok(names)
    }

    /// Packs and puts one; into a folder, all but its name.
    fn put_block(
        &self,
        data: Vec<u8>,
        encryption: Option<Arc<DataKey>>,
    ) -> impl Future<Output = Result<(Name, Option<Staged>)>> + Send + 'static {
        let (objects, folder) = (self.objects.clone(), self.folder.clone());
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        async move {
            let packed = move || {
                let name = Name::of(&data, encryption.as_deref());
                let packed = block::pack(name, data, encryption.as_deref());
                match &folder {
                    Some(folder) => folder::stage(folder, &block_key(name), number, &packed)
                        .map(|staged| (name, Some(staged), None)),
                    None => Ok((name, None, Some(packed))),
                }
            };
            let (name, staged, packed) =
                tokio::task::spawn_blocking(packed).await.map_err(|_| closed())??;
            if let Some(packed) = packed {
                let put = objects.put(&block_key(name), packed.into()).await;
                put.map_err(failed("can't put a block"))?;
            }
            Ok((name, staged))
        }
    }

    pub(crate) fn get_block(
        &self,
        snapshot_id: &str,
        index: u32,
        name: Name,
        key: Option<&DataKey>,
    ) -> Result<Vec<u8>> {
        let damaged = || VolumeError::Damaged(format!("The block {index} of {snapshot_id}"));
        let packed = self.get(block_key(name), "can't get a block")?.ok_or_else(damaged)?;
        block::unpack(name, &packed, key).ok_or_else(damaged)
    }

    /// The blocks that it names are there.
    pub(crate) fn put_manifest(&self, snapshot_id: &str, manifest: Arc<Manifest>) -> Result<()> {
        durable::step(Path::new("the block store"))?;
        let (objects, key, bytes) = (self.objects.clone(), manifest_key(snapshot_id), manifest.encode());
        self.run(async move { objects.put(&key, bytes.into()).await })?
            .map_err(failed("can't put a manifest"))?;
        self.remember(snapshot_id, manifest);
        Ok(())
    }

    /// Puts what one snapshot has for another as well; of a large one that is much less than putting it.
    pub(crate) fn copy_manifest(&self, from: &str, to: &str, manifest: Arc<Manifest>) -> Result<()> {
        durable::step(Path::new("the block store"))?;
        let (objects, from, key) = (self.objects.clone(), manifest_key(from), manifest_key(to));
        match self.run(async move { objects.copy(&from, &key).await })? {
            Ok(()) => {
                self.remember(to, manifest);
                Ok(())
            }
            // It has gone meanwhile.
            Err(Error::NotFound { .. }) => self.put_manifest(to, manifest),
            Err(error) => Err(failed("can't copy a manifest")(error)),
        }
    }

    /// None where there is none.
    pub(crate) fn manifest(&self, snapshot_id: &str) -> Result<Option<Arc<Manifest>>> {
        let had = self.manifests.lock().iter().find(|(id, _)| id == snapshot_id).cloned();
        let manifest = match had {
            Some((_, manifest)) => manifest,
            None => match self.read_manifest(snapshot_id)? {
                Some(manifest) => Arc::new(manifest),
                None => return Ok(None),
            },
        };
        self.remember(snapshot_id, manifest.clone());
        Ok(Some(manifest))
    }

    /// What is asked for next is read.
    pub(crate) fn forget_manifest(&self, snapshot_id: &str) {
        self.manifests.lock().retain(|(id, _)| id != snapshot_id);
    }

    fn read_manifest(&self, snapshot_id: &str) -> Result<Option<Manifest>> {
        let Some(bytes) = self.get(manifest_key(snapshot_id), "can't get a manifest")? else {
            return Ok(None);
        };
        let damaged = || VolumeError::Damaged(format!("The list of blocks of {snapshot_id}"));
        Manifest::decode(&bytes).map(Some).ok_or_else(damaged)
    }

    /// No error where there is none.
    pub(crate) fn remove_manifest(&self, snapshot_id: &str) -> Result<()> {
        durable::step(Path::new("the block store"))?;
        self.forget_manifest(snapshot_id);
        self.remove(manifest_key(snapshot_id))
    }

    fn remember(&self, snapshot_id: &str, manifest: Arc<Manifest>) {
        let mut manifests = self.manifests.lock();
        manifests.retain(|(id, _)| id != snapshot_id);
        if manifests.len() == MANIFESTS_MAX {
            manifests.remove(0);
        }
        manifests.push((snapshot_id.to_owned(), manifest));
    }

    fn get(&self, key: Key, what: &'static str) -> Result<Option<Vec<u8>>> {
        let objects = self.objects.clone();
        let got = self.run(async move { objects.get(&key).await?.bytes().await })?;
        match got {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(what)(error)),
        }
    }

    fn remove(&self, key: Key) -> Result<()> {
        let objects = self.objects.clone();
        match self.run(async move { objects.delete(&key).await })? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("can't remove an object")(error)),
        }
    }

    /// Waits for the store, wherever the caller runs.
    fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let (sender, done) = mpsc::channel();
        self.runtime()?.spawn(async move { sender.send(work.await) });
        done.recv().map_err(|_| closed())
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().ok_or_else(closed)
    }
}

impl Drop for BlockStore {
    fn drop(&mut self) {
        // One that waits for its tasks must not be dropped where others must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn block_key(name: Name) -> Key {
    let name = name.to_string();
    Key::from_iter(["data", &name[..2], &name])
}

fn manifest_key(snapshot_id: &str) -> Key {
    Key::from_iter(["manifests", snapshot_id])
}

fn failed(what: &'static str) -> impl FnOnce(Error) -> VolumeError {
    move |source| VolumeError::Store { what, source: Box::new(source) }
}

fn closed() -> VolumeError {
    failed("can't go on")(Error::Generic { store: "block store", source: "it is closed".into() })
}

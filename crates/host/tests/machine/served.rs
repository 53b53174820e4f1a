//! Layers that machines read from us, until they can open them as files.

use crate::disks::{Monitor, layer, over};
use crate::guest::{self, Then};
use crate::host::{Host, disk};
use async_trait::async_trait;
use host::machine::{DiskFormat, DiskLayer, DiskSpec, Hypervisor, LayerContent, LayerSource};
use model::{Id, Kind, SystemRandom};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const SIZE: usize = 64 << 20;

/// One layer, which one instance has.
#[derive(Default)]
struct Source {
    owner: Mutex<Option<Id>>,
    name: String,
    content: Arc<Content>,
}

#[derive(Default)]
struct Content {
    data: Vec<u8>,
    reads: AtomicUsize,
    /// The next read finds nothing yet.
    is_late: AtomicBool,
}

impl LayerContent for Content {
    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.is_late.swap(false, Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.reads.fetch_add(1, Relaxed);
        into.copy_from_slice(&self.data[offset as usize..][..into.len()]);
        Ok(())
    }
}

#[async_trait]
impl LayerSource for Source {
    async fn open(&self, instance_id: &Id, layer: &str) -> Option<Arc<dyn LayerContent>> {
        let is_owner = self.owner.lock().unwrap().as_ref() == Some(instance_id);
        (is_owner && layer == self.name).then(|| self.content.clone() as Arc<dyn LayerContent>)
    }
}

/// A disk over the layer.
fn disk_over(dir: &Path, served: &DiskLayer) -> DiskSpec {
    let volume_id = Id::new(Kind::Volume, &SystemRandom);
    let mut disk = disk(volume_id.clone(), "".into());
    disk.layers = vec![layer(dir, &format!("{volume_id}.0.qcow2"), None), served.clone()];
    disk
}

/// A guest boots from such a layer, and has another disk over it; we go and come back while it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_reads_a_layer_from_us_until_it_is_whole() {
    let Some(mut host) = Host::new() else { return };
    let mut data = guest::disk("hello", Then::Halt);
    data.resize(SIZE, 0);
    for number in 1..32u8 {
        data[usize::from(number) << 20..][..1 << 20].fill(number);
    }
    let name = "snap-0123456789abcdef0.1";
    let path = host.dir.path().join(format!("{name}.raw"));
    let served = DiskLayer { path: path.clone(), format: DiskFormat::Served };
    let content = Arc::new(Content { data, ..Content::default() });
    let source = Arc::new(Source { name: name.into(), content: content.clone(), ..Source::default() });
    host.serve(source.clone());
    let mut spec = host.spec("", Then::Halt);
    spec.disks = vec![disk_over(host.dir.path(), &served)];
    *source.owner.lock().unwrap() = Some(spec.instance_id.clone());
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    host.said(&spec, "hello", 1).await;
    let mut other = disk_over(host.dir.path(), &served);
    host.driver().attach_disk(&spec.instance_id, other.clone()).await.unwrap();
    let mut monitor = Monitor::of(&host, &spec);
    monitor.io(&other, "read -P 3 3m 1m");
    monitor.io(&other, "read -P 0 40m 1m");
    content.is_late.store(true, Relaxed);
    monitor.io(&other, "read -P 4 4m 4k");
    monitor.io(&other, "write -P 9 5m 4k");
    drop(monitor);

    let reading = (Monitor::of(&host, &spec), other.clone());
    let (begun, is_begun) = std::sync::mpsc::channel();
    let mut reader = None;
    let meanwhile = || {
        reader = Some(std::thread::spawn(move || {
            let (mut monitor, other) = reading;
            begun.send(()).unwrap();
            monitor.io(&other, "read -P 6 6m 1m");
        }));
        is_begun.recv().unwrap();
    };
    host.restart_after(meanwhile).await;
    tokio::task::spawn_blocking(move || reader.unwrap().join().unwrap()).await.unwrap();

    let before = other.layers.clone();
    // One more comes in between.
    other = over(&host, &other);
    host.driver().freeze_disks(&spec.instance_id, vec![other.clone()]).await.unwrap();
    std::fs::write(&path, &content.data).unwrap();
    for _ in 0..2 {
        other.layers[2].format = DiskFormat::Raw;
        host.driver().rebase_disk(&spec.instance_id, other.clone(), before.clone()).await.unwrap();
    }
    let reads = content.reads.load(Relaxed);
    let mut monitor = Monitor::of(&host, &spec);
    monitor.io(&other, "read -P 7 7m 1m");
    monitor.io(&other, "read -P 9 5m 4k");
    monitor.io(&other, "write -P 8 7m 4k");
    assert_eq!(content.reads.load(Relaxed), reads, "it reads the file");
    drop(monitor);
    // What was below before is opened anew once more, under the names that are free again.
    let before = other.layers.clone();
    host.driver().rebase_disk(&spec.instance_id, other.clone(), before).await.unwrap();
    Monitor::of(&host, &spec).io(&other, "read -P 9 5m 4k");
    assert!(host.driver().detach_disk(&spec.instance_id, other, true).await.unwrap());
    host.driver().end(&spec.instance_id).await.unwrap();

    // Another machine does not get it.
    let mut stranger = host.spec("", Then::Halt);
    stranger.disks = vec![disk_over(host.dir.path(), &served)];
    let refused = host.driver().start(stranger, vec![]).await.unwrap_err().to_string();
    assert!(refused.contains("could not be started"), "{refused}");
}

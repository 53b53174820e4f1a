//! What control does: desires, asks again for what had no answer, and remembers. And who kills.

use crate::daemon::{Answer, Call, DIR, Said};
use crate::examples;
use crate::guest::{FLUSHES, Guest};
use crate::ledger::{Content, Disk, Ledger};
use agent_api::{
    Desired, InstanceObservation, NewSnapshot, Observation, ObservedInstance, PlugState, Volume, VolumeState,
};
use model::{Id, Kind, Random, SecretKey, SeededRandom};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, UNIX_EPOCH};

/// Disks beside the root disk, and snapshots, that there are at a time.
const DISKS_MAX: usize = 3;
const SNAPSHOTS_MAX: usize = 12;
/// Where the daemon's log is.
const COMPLAINTS: &str = "complaints";
const SIZE_GIB_MAX: u32 = 3;
/// How long the time is in which a kill falls.
const KILLED_WITHIN: Duration = Duration::from_millis(120);
/// Something hangs that takes longer: a second for each time that a dead machine is asked, on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// The daemon has been killed.
#[derive(Debug)]
struct Killed;

struct Daemon {
    process: Child,
    calls: ChildStdin,
    said: Receiver<Said>,
    instance: Option<ObservedInstance>,
    volumes: BTreeMap<Id, VolumeState>,
}

#[derive(Clone)]
struct Snapshot {
    /// What a volume that is made of it must have.
    size_gib: u32,
    /// The disk had so much for certain.
    looked_at_gib: u32,
    content: Content,
    is_stored: bool,
    key: Option<SecretKey>,
}

/// What had no answer.
#[derive(Clone)]
enum Begun {
    Snapshots(Vec<NewSnapshot>),
    Copy { from: String, to: String, key: Option<SecretKey> },
    Delete(String),
}

pub struct Cloud {
    dir: tempfile::TempDir,
    chance: SeededRandom,
    desired: Desired,
    /// With these what it keeps is encrypted, if it is.
    keys: Vec<SecretKey>,
    daemon: Option<Daemon>,
    ledger: Mutex<Ledger>,
    /// Disks that the guest may have, or shall get.
    asked_for: Vec<(Id, Disk)>,
    snapshots: BTreeMap<String, Snapshot>,
    begun: Option<Begun>,
    /// What was done, so many times.
    done: BTreeMap<&'static str, u32>,
}

impl Cloud {
    pub fn new(seed: u64) -> Cloud {
        // On a disk: the directory for temporary files may be in memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut desired = Desired::default();
        let mut instance = examples::instance(1);
        instance.interfaces.clear();
        instance.machine.memory_mib = 64;
        instance.machine.vcpus = 1;
        instance.machine.threads_per_core = 1;
        instance.disks[0].limits = None;
        // Of two clouds beside each other one is encrypted.
        let keys = if seed.is_multiple_of(2) { &[7, 8][..] } else { &[] };
        let keys: Vec<SecretKey> = keys.iter().map(|byte| [*byte; SecretKey::BYTES].into()).collect();
        let key = keys.first().cloned();
        let volume = Volume { size_gib: 1, snapshot_id: None, key, ..examples::volume(1) };
        let disks = [(volume.volume_id.clone(), Disk::new(1, &Content::new()))].into();
        desired.volumes.insert(volume.volume_id.clone(), volume);
        desired.instances.insert(instance.instance_id.clone(), instance);
        Cloud {
            dir,
            chance: SeededRandom::new(seed),
            desired,
            keys,
            daemon: None,
            ledger: Mutex::new(Ledger::new(disks)),
            asked_for: Vec::new(),
            snapshots: BTreeMap::new(),
            begun: None,
            done: BTreeMap::new(),
        }
    }

    fn below(&self, bound: usize) -> usize {
        (self.chance.u64() % bound as u64) as usize
    }

    fn some_key(&self) -> Option<SecretKey> {
        self.keys.get(self.below(2)).cloned()
    }

    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// Works, kills in the middle of it, and sees that nothing is lost.
    pub fn round(&mut self) {
        let mut guest = self.bring_up();
        // The daemon most often: it is there again at once, and does more that can be cut in two.
        let (kills_machine, kills_sharing, kills_daemon) = match self.below(9) {
            0 => (true, true, false),
            1 => (true, true, true),
            // The guest goes on, and can tell whether anything is gone.
            2 => (false, true, false),
            _ => (false, false, true),
        };
        let delay = KILLED_WITHIN.mul_f64(self.below(1000) as f64 / 1000.0);
        let processes = self.processes();
        let of = |is_sharing| processes.iter().filter(move |process| process.is_sharing == is_sharing);
        let sharing = of(true).map(|process| process.pid).filter(|_| kills_sharing);
        let machine = of(false).map(|process| process.pid).filter(|_| kills_machine);
        let daemon = self.daemon.iter().map(|daemon| daemon.process.id() as i32).filter(|_| kills_daemon);
        let victims: Vec<i32> = daemon.chain(machine).chain(sharing).collect();
        let seed = self.chance.u64();
        let ledger = std::mem::take(&mut self.ledger);
        let stop = AtomicBool::new(false);
        // Held apart while both use it.
        let shared = &ledger;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| guest.work(shared, seed, &stop));
            scope.spawn(|| {
                std::thread::sleep(delay);
                if kills_machine {
                    shared.lock().unwrap().killed();
                }
                if kills_sharing {
                    shared.lock().unwrap().cut();
                }
                victims.iter().for_each(|process| kill(*process));
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                if self.operate(shared).is_err() {
                    break;
                }
            }
            if kills_daemon && !kills_machine {
                // The guest may wait for what a daemon alone can share again.
                self.start_daemon();
                self.desire().unwrap();
            }
            let written = writer.join().unwrap();
            assert!(written.is_ok() || kills_machine, "{written:?}");
        });
        self.ledger = ledger;
        let ledger = self.ledger.get_mut().unwrap();
        ledger.rests();
        ledger.disks.extend(self.asked_for.drain(..));
        if kills_machine {
            // A kernel under load takes its time.
            while self.runs_machine() {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.note("kills of QEMU");
        }
        if kills_sharing && !kills_machine {
            self.note("kills of what shares volumes");
        }
        if kills_daemon {
            self.note("kills of the daemon");
            if kills_machine {
                self.daemon = None;
            }
        }
    }

    fn start_daemon(&mut self) {
        // The one that was there is gone first.
        self.daemon = None;
        self.daemon = Some(Daemon::start(&self.dir.path().canonicalize().unwrap()));
    }

    /// Whatever was killed is there again, and all that was begun is done; all disks hold what they must.
    fn bring_up(&mut self) -> Guest {
        if self.daemon.is_none() {
            self.start_daemon();
        }
        // What shares volumes may be there again by itself.
        let is_started = !self.runs_machine();
        if is_started {
            self.leave_out_a_disk();
            self.desired.instances.values_mut().for_each(|instance| instance.boot += 1);
        }
        self.desire().unwrap();
        let ledger = std::mem::take(&mut self.ledger);
        if self.below(2) == 0 {
            // While the machine starts.
            let desired = self.desired.clone();
            self.daemon().wait_for_volumes(&desired);
            self.finish_begun(&ledger, false);
        }
        let desired = self.desired.clone();
        self.daemon().wait_for_all(&desired);
        self.desired.volumes.values_mut().for_each(|volume| volume.made = true);
        self.finish_begun(&ledger, true);
        let mut guest = self.guest();
        let disks = ledger.lock().unwrap().disks.clone();
        for (volume_id, disk) in disks {
            let is_shared = self.is_shared(&volume_id);
            let mut ledger = ledger.lock().unwrap();
            if is_started || self.below(8) == 0 {
                let content = guest.look(&volume_id, &disk).unwrap();
                ledger.found(
                    &volume_id,
                    &content.unwrap_or_else(|wrong| {
                        panic!("A write is lost, shared {is_shared}: {wrong}\n{}", self.said())
                    }),
                );
            }
            // What was begun is done.
            let size_gib = self.desired.volumes[&volume_id].size_gib;
            ledger.disks.get_mut(&volume_id).unwrap().grow(size_gib);
        }
        self.ledger = ledger;
        guest
    }

    /// What went wrong in QEMU: its monitor does not tell.
    fn said(&self) -> String {
        let mut logs = Vec::new();
        files(&self.dir.path().join("data/machines"), &mut logs);
        let logs = logs.iter().filter(|path| path.ends_with("qemu.log"));
        logs.map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().unwrap()
    }

    fn desire(&mut self) -> Result<(), Killed> {
        let desired = Box::new(self.desired.clone());
        self.daemon().call(&Call::Desire(desired)).map(drop)
    }

    fn guest(&self) -> Guest {
        let instance_id = self.desired.instances.keys().next().unwrap();
        Guest::connect(&self.dir.path().join(format!("data/machines/{instance_id}/qmp-spare.sock"))).unwrap()
    }

    /// What a killed daemon gave no answer to is asked for again, or no longer wanted.
    fn finish_begun(&mut self, ledger: &Mutex<Ledger>, for_certain: bool) {
        let Some(begun) = self.begun.clone() else { return };
        if let Begun::Snapshots(snapshots) = &begun
            && self.below(4) == 0
        {
            ledger.lock().unwrap().drop_window();
            for new in snapshots {
                assert!(matches!(
                    self.daemon().call(&Call::Delete(new.snapshot_id.to_string())).unwrap(),
                    Answer::Done
                ));
                let look = Call::Look { snapshot_id: new.snapshot_id.to_string(), size_gib: 1 };
                assert!(matches!(self.daemon().call(&look).unwrap(), Answer::Failed(_)), "it is deleted");
            }
            self.begun = None;
            return;
        }
        match self.carry_out(ledger, &begun).unwrap() {
            Answer::Failed(why) if for_certain => panic!("not done a second time: {why}"),
            _ => {}
        }
    }

    /// One of the things that control does. Its answer may be that it can't now.
    fn operate(&mut self, ledger: &Mutex<Ledger>) -> Result<(), Killed> {
        if let Some(begun) = self.begun.clone() {
            return self.carry_out(ledger, &begun).map(drop);
        }
        let chosen = self.snapshots.keys().nth(self.below(SNAPSHOTS_MAX)).cloned();
        match (self.below(16), chosen) {
            (0..5, _) if self.snapshots.len() < SNAPSHOTS_MAX => self.snapshot(ledger),
            (5..9, Some(id)) => self.store(&id),
            (9, Some(id)) => {
                let to = Id::new(Kind::Snapshot, &self.chance).to_string();
                self.begin(ledger, Begun::Copy { from: id, to, key: self.some_key() })
            }
            (10 | 11, Some(id)) => self.begin(ledger, Begun::Delete(id)),
            (12, _) => {
                self.age();
                self.call("collections", &Call::Collect)
            }
            (13, _) => self.grow(ledger),
            (14, Some(id)) => self.attach(ledger, &id),
            (_, Some(id)) => self.compare(&id),
            (_, None) => Ok(()),
        }
    }

    fn store(&mut self, snapshot_id: &str) -> Result<(), Killed> {
        if !self.snapshots[snapshot_id].is_stored {
            let while_collecting = self.below(2) == 0;
            self.tell(snapshot_id)?;
            let store = Call::Store { snapshot_id: snapshot_id.to_owned(), while_collecting };
            self.age();
            self.call("snapshots stored", &store)?;
            self.snapshots.get_mut(snapshot_id).unwrap().is_stored = true;
        }
        Ok(())
    }

    /// The daemon may have been killed since it last heard of the key.
    fn tell(&mut self, snapshot_id: &str) -> Result<(), Killed> {
        let key = self.snapshots.get(snapshot_id).and_then(|snapshot| snapshot.key.clone());
        key.map_or(Ok(()), |key| self.daemon().call(&Call::Tell(key)).map(drop))
    }

    fn call(&mut self, what: &'static str, call: &Call) -> Result<(), Killed> {
        match self.daemon().call(call)? {
            Answer::Failed(why) => panic!("{what}: {why}"),
            _ => self.note(what),
        }
        Ok(())
    }

    fn begin(&mut self, ledger: &Mutex<Ledger>, begun: Begun) -> Result<(), Killed> {
        self.begun = Some(begun.clone());
        self.carry_out(ledger, &begun).map(drop)
    }

    /// Of one disk, or of all at one moment.
    fn snapshot(&mut self, ledger: &Mutex<Ledger>) -> Result<(), Killed> {
        let mut volume_ids: Vec<Id> = ledger.lock().unwrap().disks.keys().cloned().collect();
        if self.below(2) == 0 {
            volume_ids = vec![volume_ids[self.below(volume_ids.len())].clone()];
        }
        let new = |volume_id| NewSnapshot { snapshot_id: Id::new(Kind::Snapshot, &self.chance), volume_id };
        let snapshots: Vec<NewSnapshot> = volume_ids.iter().cloned().map(new).collect();
        ledger.lock().unwrap().open_window(&volume_ids);
        self.begin(ledger, Begun::Snapshots(snapshots))
    }

    fn carry_out(&mut self, ledger: &Mutex<Ledger>, begun: &Begun) -> Result<Answer, Killed> {
        let call = match begun.clone() {
            Begun::Snapshots(snapshots) => Call::Snapshot(snapshots),
            Begun::Copy { from, to, key } => {
                self.tell(&from)?;
                Call::Copy { from, to, key }
            }
            Begun::Delete(id) => Call::Delete(id),
        };
        let answer = self.daemon().call(&call)?;
        if matches!(answer, Answer::Failed(_)) {
            return Ok(answer);
        }
        match begun {
            Begun::Snapshots(snapshots) => {
                let mut held = BTreeMap::new();
                for new in snapshots {
                    let size_gib = ledger.lock().unwrap().disks[&new.volume_id].size_gib;
                    held.insert(new.volume_id.clone(), self.look(&new.snapshot_id, size_gib)?);
                }
                let judged = ledger.lock().unwrap().close_window(&held, &self.owned(held.keys()));
                judged.unwrap_or_else(|wrong| panic!("A snapshot is wrong: {wrong}"));
                for new in snapshots {
                    let snapshot = Snapshot {
                        size_gib: self.desired.volumes[&new.volume_id].size_gib,
                        looked_at_gib: ledger.lock().unwrap().disks[&new.volume_id].size_gib,
                        content: held[&new.volume_id].clone(),
                        is_stored: false,
                        key: self.desired.volumes[&new.volume_id].key.clone(),
                    };
                    self.snapshots.insert(new.snapshot_id.to_string(), snapshot);
                }
                self.note("snapshots of one moment");
            }
            Begun::Copy { from, to, key } => {
                let source = self.snapshots[from].clone();
                let is_stored = source.is_stored && source.key == *key;
                self.snapshots.insert(to.clone(), Snapshot { key: key.clone(), is_stored, ..source });
                self.note("copies");
            }
            Begun::Delete(id) => {
                self.snapshots.remove(id);
                self.note("snapshots deleted");
            }
        }
        self.begun = None;
        Ok(answer)
    }

    /// The volumes by who has their layers open: their instance, or each its own machine.
    fn owned<'a>(&self, volume_ids: impl Iterator<Item = &'a Id>) -> Vec<BTreeSet<Id>> {
        let (shared, others): (BTreeSet<Id>, BTreeSet<Id>) =
            volume_ids.cloned().partition(|volume_id| self.is_shared(volume_id));
        shared.into_iter().map(|volume_id| BTreeSet::from([volume_id])).chain([others]).collect()
    }

    fn is_shared(&self, volume_id: &Id) -> bool {
        self.desired.volumes.get(volume_id).is_some_and(|volume| volume.multi_attach.is_some())
    }

    fn look(&mut self, snapshot_id: &str, size_gib: u32) -> Result<Content, Killed> {
        self.tell(snapshot_id)?;
        let look = Call::Look { snapshot_id: snapshot_id.to_owned(), size_gib };
        match self.daemon().call(&look)? {
            Answer::Content(content) => Ok(content),
            other => panic!("{snapshot_id} is not whole: {other:?}"),
        }
    }

    fn compare(&mut self, snapshot_id: &str) -> Result<(), Killed> {
        let content = self.look(snapshot_id, self.snapshots[snapshot_id].looked_at_gib)?;
        assert_eq!(content, self.snapshots[snapshot_id].content, "{snapshot_id} has changed");
        self.note("snapshots compared");
        Ok(())
    }

    /// What is in the block store is old from one moment to the next, so that it goes with the next collection.
    fn age(&self) {
        let mut stored = Vec::new();
        files(&self.dir.path().join("data/blocks"), &mut stored);
        for path in stored.into_iter().filter(|_| self.below(2) == 0) {
            // It may be gone by now.
            let _ = fs::File::open(path).and_then(|file| file.set_modified(UNIX_EPOCH));
        }
    }

    fn grow(&mut self, ledger: &Mutex<Ledger>) -> Result<(), Killed> {
        let (count, chosen) = (self.desired.volumes.len(), self.chance.u64() as usize);
        let volume = self.desired.volumes.values_mut().nth(chosen % count).unwrap();
        if volume.size_gib == SIZE_GIB_MAX {
            return Ok(());
        }
        volume.size_gib += 1;
        volume.generation += 1;
        let volume = volume.clone();
        self.desire()?;
        let state = VolumeState::Ready { size_gib: volume.size_gib };
        self.daemon().wait("grown", |daemon| daemon.volumes.get(&volume.volume_id) == Some(&state))?;
        ledger.lock().unwrap().disks.get_mut(&volume.volume_id).unwrap().grow(volume.size_gib);
        self.note("disks grown");
        Ok(())
    }

    /// A volume that is made of a snapshot, while the machine runs.
    fn attach(&mut self, ledger: &Mutex<Ledger>, snapshot_id: &str) -> Result<(), Killed> {
        let key = self.some_key();
        let instance = self.desired.instances.values_mut().next().unwrap();
        if instance.disks.len() > DISKS_MAX {
            return Ok(());
        }
        let volume_id = Id::new(Kind::Volume, &self.chance);
        let is_shared = self.chance.u64().is_multiple_of(2);
        let snapshot = &self.snapshots[snapshot_id];
        let volume = Volume {
            volume_id: volume_id.clone(),
            size_gib: snapshot.size_gib,
            snapshot_id: Id::parse(Kind::Snapshot, snapshot_id).ok(),
            key,
            snapshot_key: snapshot.key.clone(),
            multi_attach: is_shared.then(|| examples::disk_limits(100_000)),
            ..examples::volume(1)
        };
        let disk = agent_api::Disk { volume_id: volume_id.clone(), root: false, ..instance.disks[0].clone() };
        instance.generation += 1;
        instance.disks.push(disk);
        self.desired.volumes.insert(volume_id.clone(), volume);
        let disk = Disk::new(snapshot.size_gib, &snapshot.content);
        // What it holds is looked at after the kill: nobody writes to it before it is there.
        // Where the machine is killed it has it at its next start.
        let is_over = |daemon: &Daemon| daemon.has(&volume_id) || !daemon.runs_machine();
        let attached = self.desire().and_then(|()| self.daemon().wait("attached", is_over));
        match attached {
            Ok(()) => drop(ledger.lock().unwrap().disks.insert(volume_id, disk)),
            // The guest may not have it yet.
            Err(Killed) => self.asked_for.push((volume_id, disk)),
        }
        self.note(if is_shared { "shared volumes of snapshots" } else { "volumes of snapshots" });
        let mut filling = Vec::new();
        files(&self.dir.path().join("data/filling"), &mut filling);
        if !filling.is_empty() {
            self.note("layers read before they were whole");
        }
        attached
    }

    /// One that the machine had goes with its volume.
    fn leave_out_a_disk(&mut self) {
        let chosen = self.below(2 * DISKS_MAX);
        let instance = self.desired.instances.values_mut().next().unwrap();
        if matches!(self.begun, Some(Begun::Snapshots(_))) || !(1..instance.disks.len()).contains(&chosen) {
            return;
        }
        instance.generation += 1;
        let disk = instance.disks.remove(chosen);
        self.desired.volumes.remove(&disk.volume_id);
        self.ledger.lock().unwrap().disks.remove(&disk.volume_id);
        self.note("volumes deleted");
    }

    /// All goes; nothing may be left.
    pub fn finish(mut self) {
        drop(self.bring_up());
        for snapshot_id in self.snapshots.keys().cloned().collect::<Vec<_>>() {
            self.store(&snapshot_id).unwrap();
            self.compare(&snapshot_id).unwrap();
        }
        self.check_layers();
        for snapshot_id in self.snapshots.keys().cloned().collect::<Vec<_>>() {
            self.call("snapshots deleted", &Call::Delete(snapshot_id)).unwrap();
        }
        let instance_id = self.desired.instances.keys().next().cloned().unwrap();
        let volume_ids: Vec<Id> = self.desired.volumes.keys().cloned().collect();
        self.desired = Desired::default();
        self.desire().unwrap();
        let is_gone = |daemon: &Daemon| {
            let instance = daemon.instance.as_ref().map(|instance| &instance.state);
            let volume = |id| daemon.volumes.get(id) == Some(&VolumeState::Removed);
            instance == Some(&InstanceObservation::Removed) && volume_ids.iter().all(volume)
        };
        self.daemon().wait(&format!("{instance_id} is gone"), is_gone).unwrap();
        for _ in 0..20 {
            self.age();
            self.call("collections", &Call::Collect).unwrap();
        }
        let mut left = Vec::new();
        for part in ["filling", "layers", "volumes", "snapshots", "blocks/data", "blocks/manifests"] {
            files(&self.dir.path().join("data").join(part), &mut left);
        }
        assert!(left.is_empty(), "left over: {left:?}");
        eprintln!("{:?}, {} flushes", self.done, FLUSHES.load(Ordering::Relaxed));
        for what in ["kills of QEMU", "kills of the daemon", "snapshots of one moment"] {
            assert!(self.done.contains_key(what), "no {what}");
        }
    }

    /// A layer may count clusters that a killed QEMU no longer needed; nothing else may be wrong with it.
    fn check_layers(&self) {
        for layer in fs::read_dir(self.dir.path().join("data/layers")).unwrap() {
            let path = layer.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "qcow2") {
                let keys = self.keys.iter().map(Some).chain(self.keys.is_empty().then_some(None));
                let checked: Vec<_> = keys.map(|key| check_layer(&path, key)).collect();
                assert!(checked.iter().any(Result::is_ok), "{}: {checked:?}", path.display());
            }
        }
    }

    /// Those of QEMU, which have their working directory below the machines'.
    fn processes(&self) -> Vec<Process> {
        let Ok(machines) = self.dir.path().join("data/machines").canonicalize() else { return Vec::new() };
        let numbered = fs::read_dir("/proc").unwrap().flatten();
        let numbered = numbered.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let process = |pid: i32| {
            let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            let machine = directory.strip_prefix(&machines).ok()?.to_str()?;
            Some(Process { pid, is_sharing: machine.starts_with(Kind::Volume.prefix()) })
        };
        numbered.filter_map(process).collect()
    }

    fn runs_machine(&self) -> bool {
        self.processes().iter().any(|process| !process.is_sharing)
    }
}

/// One of QEMU.
struct Process {
    pid: i32,
    /// Whether it is the machine of a volume that is shared.
    is_sharing: bool,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.daemon = None;
        if std::thread::panicking() {
            let complaints = fs::read_to_string(self.dir.path().join(COMPLAINTS)).unwrap_or_default();
            let lines: Vec<&str> = complaints.lines().collect();
            eprintln!("the daemon's last words:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        self.processes().iter().for_each(|process| kill(process.pid));
    }
}

/// An error where anything is wrong, the key too.
fn check_layer(path: &Path, key: Option<&SecretKey>) -> Result<(), String> {
    let mut image = format!("driver=qcow2,file.filename={}", path.display());
    let mut check = Command::new("qemu-img");
    check.args(["check", "-U"]);
    if let Some(key) = key {
        let passphrase = volume::disk_key(key).passphrase();
        check.arg("--object").arg(format!("secret,id=disk,data={passphrase}"));
        image.push_str(",encrypt.format=luks,encrypt.key-secret=disk");
    }
    let checked = check.arg("--image-opts").arg(image).output().unwrap();
    match checked.status.code() {
        Some(0 | 3) => Ok(()),
        _ => Err(format!("{checked:?}")),
    }
}

fn kill(process: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(process) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn files(path: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => files(&entry.path(), into),
            false => into.push(entry.path()),
        }
    }
}

impl Daemon {
    fn start(dir: &Path) -> Daemon {
        let complaints = fs::OpenOptions::new().create(true).append(true).open(dir.join(COMPLAINTS)).unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "daemon", "--ignored", "--nocapture"])
            .env(DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .unwrap();
        let (calls, lines) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let (sender, said) = channel();
        std::thread::spawn(move || {
            // The test harness has its own to say.
            for said in lines.lines().map_while(Result::ok).filter(|line| line.starts_with('{')) {
                // Half a line comes from one that is killed.
                let Ok(said) = serde_json::from_str(&said) else { return };
                let _ = sender.send(said);
            }
        });
        Daemon { process, calls, said, instance: None, volumes: BTreeMap::new() }
    }

    fn call(&mut self, call: &Call) -> Result<Answer, Killed> {
        let line = format!("{}\n", serde_json::to_string(call).unwrap());
        self.calls.write_all(line.as_bytes()).map_err(|_| Killed)?;
        loop {
            if let Some(answer) = self.hear(&format!("{call:?}"))? {
                return Ok(answer);
            }
        }
    }

    /// Takes in what it says next.
    fn hear(&mut self, waiting_for: &str) -> Result<Option<Answer>, Killed> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.said.recv_timeout(PATIENCE) {
            Ok(Said::Answer(answer)) => return Ok(Some(answer)),
            Ok(Said::Seen(Observation::Instance(instance))) => self.instance = Some(instance),
            Ok(Said::Seen(Observation::Volume { volume_id, state })) => {
                self.volumes.insert(volume_id, state);
            }
            Err(Disconnected) => return Err(Killed),
            Err(Timeout) => panic!("no end of {waiting_for}: {:?} {:?}", self.instance, self.volumes),
        }
        Ok(None)
    }

    fn wait(&mut self, what: &str, is_so: impl Fn(&Daemon) -> bool) -> Result<(), Killed> {
        while !is_so(self) {
            self.hear(what)?;
        }
        Ok(())
    }

    fn runs_machine(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.state == InstanceObservation::Running)
    }

    fn has(&self, volume_id: &Id) -> bool {
        let devices = self.instance.iter().flat_map(|instance| &instance.devices);
        let mut attached = devices.filter(|device| device.state == PlugState::Attached);
        attached.any(|device| device.device_id == *volume_id)
    }

    fn wait_for_volumes(&mut self, desired: &Desired) {
        let is_ready = |daemon: &Daemon, volume: &Volume| {
            let state = VolumeState::Ready { size_gib: volume.size_gib };
            daemon.volumes.get(&volume.volume_id) == Some(&state)
        };
        let ready = |daemon: &Daemon| desired.volumes.values().all(|volume| is_ready(daemon, volume));
        self.wait("volumes", ready).unwrap();
    }

    fn wait_for_all(&mut self, desired: &Desired) {
        self.wait_for_volumes(desired);
        let instance = desired.instances.values().next().unwrap();
        let disks: BTreeSet<&Id> = instance.disks.iter().map(|disk| &disk.volume_id).collect();
        let runs = |daemon: &Daemon| {
            daemon.instance.as_ref().is_some_and(|observed| {
                observed.boot == instance.boot && observed.state == InstanceObservation::Running
            }) && disks.iter().all(|volume_id| daemon.has(volume_id))
        };
        self.wait("machine", runs).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

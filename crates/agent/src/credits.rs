//! CPU credits of the burstable instances that run here: what they use is looked at once a second, and one that has
//! nothing left is held to its baseline.
//!
//! A balance is kept in a file of its own (`credits/i-…` below the agent's directory), with what its machine had used by
//! then: what it uses while we are away is counted when we are back. What the rules are is in `balance`.

mod balance;

use agent_api::Instance;
use balance::{Balance, Saved, Terms, resumed};
use futures::future::join_all;
use host::machine::Hypervisor;
use model::{Environment, Id};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const LOOK: Duration = Duration::from_secs(1);
/// A machine that is being started or ended is held by whoever does it; the others must not wait for it.
const HOLD_TIME_MAX: Duration = Duration::from_millis(500);
/// What a host that loses power may forget.
const SAVED_EACH: Duration = Duration::from_secs(60);

pub(crate) struct Credits {
    dir: PathBuf,
    hypervisor: Arc<dyn Hypervisor>,
    environment: Environment,
    running: Mutex<HashMap<Id, Running>>,
    wake: Notify,
}

#[derive(Clone)]
struct Running {
    terms: Terms,
    boot: u64,
    balance: Balance,
    /// When we last looked, and what it had used by then.
    looked: (Instant, Duration),
    saved: Instant,
    /// What it is held to; None where that is not known.
    held: Option<Option<u32>>,
}

impl Credits {
    pub(crate) fn new(
        state_dir: &Path,
        hypervisor: Arc<dyn Hypervisor>,
        environment: Environment,
    ) -> Arc<Credits> {
        Arc::new(Credits {
            dir: state_dir.join("credits"),
            hypervisor,
            environment,
            running: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// The instance runs, by these terms from now on.
    pub(crate) fn runs(&self, instance: &Instance, boot: u64) {
        let id = &instance.instance_id;
        let Some(credits) = instance.machine.credits else {
            self.running.lock().remove(id);
            return;
        };
        let terms = Terms { credits, vcpus: instance.machine.vcpus };
        let mut running = self.running.lock();
        if let Some(had) = running.get_mut(id).filter(|had| had.boot == boot) {
            had.terms = terms;
            return;
        }
        let Some(used) = self.hypervisor.cpu_time(id) else { return };
        if let Some(had) = running.remove(id) {
            self.save(id, &had, false);
        }
        let now = Instant::now();
        let balance = resumed(self.saved(id), &terms, boot, used, self.environment.clock.now());
        let entry = Running { terms, boot, balance, looked: (now, used), saved: now, held: None };
        self.save(id, &entry, false);
        running.insert(id.clone(), entry);
        self.wake.notify_one();
    }

    /// The instance does not run: stopped, or ended by itself.
    pub(crate) fn rests(&self, instance_id: &Id) {
        if let Some(had) = self.running.lock().remove(instance_id) {
            self.save(instance_id, &had, true);
        } else if let Some(saved) = self.saved(instance_id).filter(|saved| !saved.stopped) {
            // It ended while we were away.
            let at = self.environment.clock.now();
            self.write(instance_id, &Saved { stopped: true, at, ..saved });
        }
    }

    pub(crate) fn forget(&self, instance_id: &Id) {
        self.running.lock().remove(instance_id);
        match std::fs::remove_file(self.file(instance_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => warn(instance_id, &error),
            _ => {}
        }
    }

    /// Forgets all instances but those named.
    pub(crate) fn sweep<'a>(&self, keep: impl Iterator<Item = &'a Id>) {
        let keep: HashSet<&str> = keep.map(Id::as_str).collect();
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_none_or(|name| !keep.contains(name)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Looks after all that run. Never ends by itself.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.running.lock().is_empty() {
                self.wake.notified().await;
            }
            tick.tick().await;
            let all: Vec<Id> = self.running.lock().keys().cloned().collect();
            join_all(all.iter().map(|instance_id| self.look_at(instance_id))).await;
        }
    }

    async fn look_at(&self, instance_id: &Id) {
        // None while it ends.
        let Some(used) = self.hypervisor.cpu_time(instance_id) else { return };
        let share = {
            let mut running = self.running.lock();
            let Some(entry) = running.get_mut(instance_id) else { return };
            let (at, before) = entry.looked;
            let now = Instant::now();
            // Less than before: it is another process already, and `runs` is about to tell.
            let Some(since) = used.checked_sub(before) else { return };
            entry.balance = entry.balance.after(&entry.terms, now - at, since);
            entry.looked = (now, used);
            if now - entry.saved >= SAVED_EACH {
                entry.saved = now;
                self.save(instance_id, entry, false);
            }
            let share = entry.balance.share_milli(&entry.terms, LOOK);
            if entry.held == Some(share) {
                return;
            }
            entry.held = Some(share);
            share
        };
        let limited = timeout(HOLD_TIME_MAX, self.hypervisor.limit_cpu(instance_id, share)).await;
        // Where the host can't, its doctor says so; nothing is to be done again.
        if !matches!(limited, Ok(Ok(_))) {
            if let Ok(Err(error)) = &limited {
                warn(instance_id, error);
            }
            if let Some(entry) = self.running.lock().get_mut(instance_id) {
                entry.held = None;
            }
        }
    }

    fn file(&self, instance_id: &Id) -> PathBuf {
        self.dir.join(instance_id.as_str())
    }

    fn save(&self, instance_id: &Id, entry: &Running, stopped: bool) {
        let at = self.environment.clock.now();
        let used = entry.looked.1.as_secs_f64();
        self.write(instance_id, &Saved { balance: entry.balance, at, boot: entry.boot, used, stopped });
    }

    fn write(&self, instance_id: &Id, saved: &Saved) {
        let write = || {
            std::fs::create_dir_all(&self.dir)?;
            let new = self.dir.join(format!("{instance_id}.new"));
            std::fs::write(&new, serde_json::to_vec(saved)?)?;
            std::fs::rename(new, self.file(instance_id))
        };
        if let Err(error) = write() {
            warn(instance_id, &error);
        }
    }

    /// None where nothing is known, or nothing that can be understood: a balance is worth no more fuss.
    fn saved(&self, instance_id: &Id) -> Option<Saved> {
        serde_json::from_slice(&std::fs::read(self.file(instance_id)).ok()?).ok()
    }
}

fn warn(instance_id: &Id, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(%instance_id, error, "CPU credits not kept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use agent_api::CpuCredits;
    use host::machine::{FakeHypervisor, Firmware, MachineSpec};

    /// A t3.nano.
    fn instance(unlimited: bool) -> Instance {
        let mut instance = examples::instance(1);
        instance.machine.credits =
            Some(CpuCredits { per_hour: 6.0, at_launch: 0.0, unlimited, kept_when_stopped: true });
        instance
    }

    async fn start(machines: &FakeHypervisor, boot: u64) {
        let spec = MachineSpec {
            instance_id: instance(false).instance_id,
            boot,
            instance_type: "t3.nano".into(),
            firmware: Firmware::Bios,
            uefi_variables: vec![],
            tpm: false,
            vcpus: 2,
            threads_per_core: 2,
            memory_mib: 512,
            disks: vec![],
            scratch: vec![],
            nics: vec![],
            nics_max: 1,
        };
        machines.start(spec, vec![]).await.unwrap();
    }

    struct Room {
        machines: FakeHypervisor,
        environment: Environment,
        clock: Arc<model::ManualClock>,
        dir: tempfile::TempDir,
        credits: Arc<Credits>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Room {
        async fn new() -> Room {
            let machines = FakeHypervisor::new();
            start(&machines, 1).await;
            let (environment, clock) = Environment::seeded(1, "2026-03-01T00:00:00Z".parse().unwrap());
            let dir = tempfile::tempdir().unwrap();
            let credits = Credits::new(dir.path(), Arc::new(machines.clone()), environment.clone());
            let task = tokio::spawn(credits.clone().run());
            Room { machines, environment, clock, dir, credits, task }
        }

        fn restart(&mut self) {
            self.task.abort();
            let machines = Arc::new(self.machines.clone());
            self.credits = Credits::new(self.dir.path(), machines, self.environment.clone());
            self.task = tokio::spawn(self.credits.clone().run());
        }

        /// Passes, the guest using so much of each second.
        async fn pass(&self, seconds: u32, each: Duration) {
            for _ in 0..seconds {
                self.machines.spend(&instance(false).instance_id, each);
                self.clock.advance(LOOK);
                tokio::time::sleep(LOOK).await;
            }
        }

        fn limit(&self) -> Option<u32> {
            self.machines.cpu_limit(&instance(false).instance_id)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_without_credits_is_held_until_it_has_some() {
        let room = Room::new().await;
        room.credits.runs(&instance(false), 1);
        room.pass(3, Duration::from_millis(100)).await;
        assert!(room.limit().is_some_and(|limit| (100..150).contains(&limit)), "{:?}", room.limit());
        room.pass(60, Duration::ZERO).await;
        assert_eq!(room.limit(), None);
        room.pass(10, Duration::from_secs(2)).await;
        assert_eq!(room.limit(), Some(100));
        room.credits.runs(&instance(true), 1);
        room.pass(2, Duration::from_secs(2)).await;
        assert_eq!(room.limit(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_balance_outlives_our_restart_and_a_stop() {
        let mut room = Room::new().await;
        room.credits.runs(&instance(false), 1);
        room.pass(600, Duration::ZERO).await;
        // A minute's worth saved: as it was, and what it has earned meanwhile.
        room.restart();
        room.pass(600, Duration::ZERO).await;
        room.credits.runs(&instance(false), 1);
        let id = instance(false).instance_id;
        let earned = |room: &Room| room.credits.running.lock()[&id].balance.earned;
        assert!((earned(&room) - 2.0).abs() < 0.02, "{}", earned(&room));

        room.machines.end(&id).await.unwrap();
        room.credits.rests(&id);
        room.clock.advance(Duration::from_secs(3600));
        start(&room.machines, 2).await;
        room.credits.runs(&instance(false), 2);
        assert!((earned(&room) - 2.0).abs() < 0.02, "{}", earned(&room));
        room.credits.rests(&id);
        room.clock.advance(Duration::from_hours(8 * 24));
        room.credits.runs(&instance(false), 2);
        assert_eq!(earned(&room), 0.0);
        room.credits.forget(&id);
        assert_eq!(std::fs::read_dir(room.dir.path().join("credits")).unwrap().count(), 0);
    }
}

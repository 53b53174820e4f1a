//! A running machine, watched until it ends.
//!
//! ```text
//!   running ──▶ guest powered off (SHUTDOWN, QEMU stays) ──▶ console saved ▶ recorded ▶ quit ▶ told
//!      │ └────▶ process gone ───────────────────────────────▶ recorded ▶ told
//!      └──────▶ `end` ▶ console saved ▶ recorded ▶ quit, or killed where it does not
//! ```
//!
//! One that says nothing, since it waits for a disk, is reached once it does; so long who wants something of it waits.
//!
//! Invariant: who ends a machine holds `Machine::changing`, so that it ends once: asked for, or told.

use super::cgroup::{Group, Groups};
use super::console::Console;
use super::layer_server::{self, Source};
use super::process::Process;
use super::qmp::{CALL_TIME_MAX, Event, Qmp, QmpError};
use super::record::{MONITOR, MONITOR_SPARE, MachineDirectory};
use super::{EndCause, Ended, MachineError, MachineSpec, Status, io_failed, shared, throttle};
use model::Id;
use parking_lot::Mutex;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often the console is saved and a stalled guest is looked after.
const ROUND: Duration = Duration::from_secs(5);
/// A monitor that does not greet within this time is busy with another client, or its process is stuck.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
/// What QEMU may take to flush its disks and go when it is told to.
const QUIT_TIME_MAX: Duration = Duration::from_secs(10);
/// What the kernel may take to clear a killed process away: its last writes may wait for a slow disk.
const KILL_TIME_MAX: Duration = Duration::from_secs(60);
/// Saving the console is worth no longer wait at a machine's end.
const SAVE_TIME_MAX: Duration = Duration::from_secs(5);

/// Who is told of machines that end by themselves.
pub(super) type Ends = Arc<Mutex<Option<UnboundedSender<Ended>>>>;

/// What is known of one machine, running or not.
pub(super) struct Machine {
    pub(super) instance_id: Id,
    pub(super) directory: MachineDirectory,
    pub(super) console: tokio::sync::Mutex<Console>,
    /// Held by whoever starts or ends it.
    pub(super) changing: tokio::sync::Mutex<()>,
    groups: Arc<Groups>,
    /// None where it does not run, or runs without.
    group: Mutex<Option<Group>>,
    running: Mutex<Option<Arc<Running>>>,
    watcher: Mutex<Option<AbortHandle>>,
    layers: Source,
    /// Answers what it reads of layers that are served.
    server: Mutex<Option<AbortHandle>>,
    /// Set under `changing` once nothing is kept of it: who waited to start it must begin anew.
    pub(super) forgotten: AtomicBool,
}

pub(super) struct Running {
    pub(super) boot: u64,
    pub(super) process: Process,
    /// None while it can't be reached.
    monitor: watch::Sender<Option<Arc<Qmp>>>,
}

impl Running {
    pub(super) fn new(boot: u64, process: Process, monitor: Option<Qmp>) -> Arc<Running> {
        Arc::new(Running { boot, process, monitor: watch::Sender::new(monitor.map(Arc::new)) })
    }

    pub(super) fn monitor(&self) -> Option<Arc<Qmp>> {
        self.monitor.borrow().clone()
    }

    /// As soon as it can be reached; None where it ends before.
    async fn reached(&self) -> Option<Arc<Qmp>> {
        let mut monitor = self.monitor.subscribe();
        tokio::select! {
            reached = monitor.wait_for(Option::is_some) => reached.ok()?.clone(),
            _ = self.process.exited() => None,
        }
    }
}

impl Machine {
    pub(super) fn new(
        instance_id: Id,
        directory: MachineDirectory,
        groups: Arc<Groups>,
        layers: Source,
    ) -> Arc<Machine> {
        let console = tokio::sync::Mutex::new(Console::new(&directory));
        Arc::new(Machine {
            instance_id,
            directory,
            console,
            changing: Default::default(),
            groups,
            group: Mutex::default(),
            running: Mutex::default(),
            watcher: Mutex::default(),
            layers,
            server: Mutex::default(),
            forgotten: AtomicBool::new(false),
        })
    }

    pub(super) fn running(&self) -> Option<Arc<Running>> {
        self.running.lock().clone()
    }

    /// Makes the control group that its process shall be in. Where that fails it runs without.
    pub(super) fn make_group(&self, spec: &MachineSpec) -> Option<Group> {
        let made = self.groups.make(spec).map_err(|error| self.warn(&error, "runs without a control group"));
        let group = made.ok();
        self.set_group(group.clone());
        group
    }

    pub(super) fn group(&self) -> Option<Group> {
        self.group.lock().clone()
    }

    pub(super) fn set_group(&self, group: Option<Group>) {
        *self.group.lock() = group;
    }

    /// What only its process needed goes. To be called once that is gone.
    pub(super) async fn clear(&self) {
        self.stop_server(None);
        let Some(group) = self.group.lock().take() else { return };
        let groups = self.groups.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || groups.remove(&group)).await {
            self.warn(&error, "control group not removed");
        }
    }

    /// Connects to one of the monitors.
    pub(super) async fn connect(&self) -> Result<Qmp, QmpError> {
        match self.connect_to(MONITOR).await {
            Err(QmpError::TimedOut(_)) => self.connect_to(MONITOR_SPARE).await,
            other => other,
        }
    }

    async fn connect_to(&self, name: &str) -> Result<Qmp, QmpError> {
        let (_directory, path) = self.directory.short_path(name)?;
        Qmp::connect(&path, GREETING_TIME_MAX).await
    }

    /// The last steps of its start: its guest runs, or others can have the disk that it is there for.
    pub(super) async fn set_off(&self, qmp: &Qmp, spec: &MachineSpec) -> Result<(), MachineError> {
        if let Some(disk) = spec.disks.first().filter(|_| spec.is_sharing()) {
            return Ok(shared::share(qmp, disk, &self.directory).await?);
        }
        throttle::limit_all(qmp, &spec.disks).await;
        self.go_on(qmp).await
    }

    async fn go_on(&self, qmp: &Qmp) -> Result<(), MachineError> {
        qmp.execute("cont", json!({})).await.map(drop).map_err(|error| self.unreachable(error))
    }

    /// Connects to it, says how it was found, and does what it waits for.
    pub(super) async fn reach(&self) -> Result<(Qmp, Status), MachineError> {
        let unreachable = |error| self.unreachable(error);
        let qmp = self.connect().await.map_err(unreachable)?;
        let status = status(&qmp).await.map_err(unreachable)?;
        match status {
            Status::Prelaunch => {
                if let Some(record) = self.directory.read_record()? {
                    self.set_off(&qmp, &record.spec).await?;
                }
            }
            // By its disks.
            Status::Stalled => self.go_on(&qmp).await?,
            _ => {}
        }
        Ok((qmp, status))
    }

    /// The monitor of the running machine. One that can't be reached is waited for as one that does not answer.
    pub(super) async fn monitor(&self) -> Result<Arc<Qmp>, MachineError> {
        let running = self.running().ok_or_else(|| MachineError::NotFound(self.instance_id.clone()))?;
        let reached = timeout(CALL_TIME_MAX, running.reached()).await;
        reached.ok().flatten().ok_or_else(|| self.unreachable(QmpError::Closed))
    }

    pub(super) fn unreachable(&self, error: QmpError) -> MachineError {
        io_failed(format!("{} does not answer", self.instance_id))(io::Error::other(error))
    }

    /// Makes its directory, and answers from now on what it reads there.
    pub(super) fn serve_layers(&self) -> Result<(), MachineError> {
        self.directory.create().map_err(io_failed("can't make the machine's directory"))?;
        let listener = layer_server::listen(&self.instance_id, &self.directory);
        let listener = listener.map_err(io_failed("can't make the machine's socket for layers"))?;
        let server =
            tokio::spawn(layer_server::serve(self.instance_id.clone(), listener, self.layers.clone()));
        self.stop_server(Some(server.abort_handle()));
        Ok(())
    }

    fn stop_server(&self, next: Option<AbortHandle>) {
        if let Some(server) = std::mem::replace(&mut *self.server.lock(), next) {
            server.abort();
        }
    }

    /// From now on the machine runs, and whoever listens is told when it ends.
    pub(super) fn set_running(self: &Arc<Self>, running: Arc<Running>, ends: Ends) {
        *self.running.lock() = Some(running.clone());
        let watcher = tokio::spawn(watch(self.clone(), running, ends));
        *self.watcher.lock() = Some(watcher.abort_handle());
    }

    /// The machine goes on; its monitors are free for another.
    pub(super) fn leave(&self) {
        if let Some(watcher) = self.watcher.lock().take() {
            watcher.abort();
        }
        self.stop_server(None);
    }

    /// Moves what the guest has printed into the console's file.
    pub(super) async fn save_console(&self, qmp: &Qmp) {
        if shared::is_sharing(&self.instance_id) {
            return;
        }
        let mut console = self.console.lock().await;
        if let Err(error) = console.save(qmp).await {
            self.warn(&error, "console not saved");
        }
    }

    /// Records how the machine ended and makes sure that its process is gone. To be called by who is changing it.
    pub(super) async fn finish(&self, running: &Running, cause: &EndCause) -> Result<(), MachineError> {
        let monitor = running.monitor();
        if let Some(qmp) = &monitor {
            // A guest that still prints must not outrun us.
            let _ = timeout(SAVE_TIME_MAX, self.save_console(qmp)).await;
        }
        self.record_end(running.boot, cause);
        end_process(&running.process, monitor.as_deref()).await?;
        *self.running.lock() = None;
        self.clear().await;
        Ok(())
    }

    /// The first cause stands. That it can't be written is no reason to keep a machine alive.
    pub(super) fn record_end(&self, boot: u64, cause: &EndCause) {
        let written = self.directory.read_record().and_then(|record| match record {
            Some(mut record) if record.spec.boot == boot && record.ended.is_none() => {
                record.ended = Some(cause.clone());
                self.directory.write_record(&record)
            }
            _ => Ok(()),
        });
        if let Err(error) = written {
            self.warn(&error, "end not recorded");
        }
    }

    /// That the process is gone, with what is known of why.
    pub(super) fn lost(&self) -> EndCause {
        EndCause::Lost(match self.directory.last_complaint() {
            Some(complaint) => format!("The machine's process ended: {complaint}"),
            None => "The machine's process ended".to_owned(),
        })
    }

    pub(super) fn warn(&self, error: &(dyn std::error::Error + 'static), what: &str) {
        tracing::warn!(instance_id = %self.instance_id, error, "{what}");
    }
}

pub(super) async fn status(qmp: &Qmp) -> Result<Status, QmpError> {
    let answer = qmp.execute("query-status", json!({})).await?;
    Ok(match answer["status"].as_str() {
        Some("prelaunch") => Status::Prelaunch,
        Some("shutdown") => Status::PoweredOff,
        Some("io-error") => Status::Stalled,
        Some("paused") => Status::Paused,
        Some("internal-error" | "watchdog") => Status::Halted,
        _ => Status::Runs,
    })
}

/// Returns when the process is gone, by its own will or by force.
pub(super) async fn end_process(process: &Process, monitor: Option<&Qmp>) -> Result<(), MachineError> {
    let failed = "a machine's process can't be ended";
    if let Some(qmp) = monitor {
        let quit = async {
            // Gone before it could answer is as good as an answer.
            let _ = qmp.execute("quit", json!({})).await;
            process.exited().await
        };
        if let Ok(exited) = timeout(QUIT_TIME_MAX, quit).await {
            return exited.map_err(io_failed(failed));
        }
    }
    process.kill().map_err(io_failed(failed))?;
    match timeout(KILL_TIME_MAX, process.exited()).await {
        Ok(exited) => exited.map_err(io_failed(failed)),
        Err(_) => Err(io_failed(failed)(io::ErrorKind::TimedOut.into())),
    }
}

async fn watch(machine: Arc<Machine>, running: Arc<Running>, ends: Ends) {
    let cause = until_end(&machine, &running).await;
    let _changing = machine.changing.lock().await;
    if !machine.running().is_some_and(|current| Arc::ptr_eq(&current, &running)) {
        // Ended as asked meanwhile.
        return;
    }
    tracing::info!(instance_id = %machine.instance_id, boot = running.boot, ?cause, "machine ended");
    if let Err(error) = machine.finish(&running, &cause).await {
        machine.warn(&error, "machine not ended");
    }
    let ended = Ended { instance_id: machine.instance_id.clone(), boot: running.boot, cause };
    if let Some(ends) = &*ends.lock() {
        // Nobody listens any more: who comes next finds it on record.
        let _ = ends.send(ended);
    }
}

async fn until_end(machine: &Machine, running: &Running) -> EndCause {
    let mut round = interval(ROUND);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut may_stall = false;
    loop {
        let monitor = running.monitor();
        tokio::select! {
            exited = running.process.exited() => {
                if let Err(error) = exited {
                    machine.warn(&error, "process not watched");
                }
                return machine.lost();
            }
            event = next_event(monitor.as_deref()) => match event {
                Some(event) if is_power_off(&event) => return EndCause::Guest,
                Some(event) => {
                    may_stall |= event.name == "BLOCK_IO_ERROR";
                    tracing::info!(instance_id = %machine.instance_id, event = event.name, data = %event.data, "guest");
                    if let Some(qmp) = &monitor {
                        machine.save_console(qmp).await;
                    }
                }
                None => {
                    running.monitor.send_replace(None);
                }
            },
            _ = round.tick() => match monitor {
                Some(qmp) => look_after(machine, &qmp, &mut may_stall).await,
                None => if reconnect(machine, running).await == Some(Status::PoweredOff) {
                    return EndCause::Guest;
                }
            },
        }
    }
}

async fn next_event(monitor: Option<&Qmp>) -> Option<Event> {
    match monitor {
        Some(qmp) => qmp.next_event().await,
        None => std::future::pending().await,
    }
}

fn is_power_off(event: &Event) -> bool {
    event.name == "SHUTDOWN" && event.data["guest"].as_bool() == Some(true)
}

/// `may_stall`: a disk has failed since, of which the guest hears or which has stopped it.
async fn look_after(machine: &Machine, qmp: &Qmp, may_stall: &mut bool) {
    machine.save_console(qmp).await;
    if let Err(error) = machine.directory.bound_log() {
        machine.warn(&error, "QEMU's log not bounded");
    }
    if std::mem::take(may_stall)
        && let Err(error) = resume_stalled(qmp).await
    {
        *may_stall = true;
        machine.warn(&error, "guest not resumed");
    }
}

/// The host's disk may have room again. The write that failed is done again; if in vain, we are told again.
async fn resume_stalled(qmp: &Qmp) -> Result<(), QmpError> {
    if status(qmp).await? == Status::Stalled {
        qmp.execute("cont", json!({})).await?;
    }
    Ok(())
}

async fn reconnect(machine: &Machine, running: &Running) -> Option<Status> {
    match machine.reach().await {
        Ok((qmp, status)) => {
            running.monitor.send_replace(Some(Arc::new(qmp)));
            Some(status)
        }
        Err(error) => {
            machine.warn(&error, "monitor not reached");
            None
        }
    }
}

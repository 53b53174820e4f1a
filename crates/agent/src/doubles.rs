//! Drivers without a machine for the tests of this crate. They write down, in one log, what was done in which
//! order, fail and hang on request, and keep what they made over a restart of the agent, as the real ones do.

use crate::freeze::Freeze;
use crate::volumes::{DiskError, DiskFile, Disks};
use agent_api::{NewSnapshot, Volume};
use async_trait::async_trait;
use datapath::Plan;
use host::machine::*;
use host::net::*;
use model::{Id, UefiVariable};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Default)]
pub(crate) struct Doubles {
    pub log: Mutex<Vec<String>>,
    pub machines: Mutex<BTreeMap<Id, Found>>,
    pub specs: Mutex<Vec<MachineSpec>>,
    pub volumes: Mutex<BTreeSet<Id>>,
    /// How many layers volumes have, where it is not one.
    layers: Mutex<BTreeMap<Id, usize>>,
    pub freezes: Mutex<BTreeMap<String, Freeze>>,
    pub snapshots: Mutex<BTreeSet<String>>,
    /// What the next freezes by a machine fail with.
    pub freeze_failures: Mutex<VecDeque<MachineError>>,
    /// Machines that refuse to freeze.
    pub freeze_refusals_of: Mutex<BTreeSet<Id>>,
    /// Disks and interfaces that guests hold on to.
    pub clung_to: Mutex<BTreeSet<Id>>,
    pub plan: Mutex<Option<Plan>>,
    /// Of each interface's tap, as it was opened last.
    pub queues: Mutex<BTreeMap<Id, usize>>,
    /// What guests have spent, and what they are held to.
    pub cpu_time: Mutex<BTreeMap<Id, Duration>>,
    pub cpu_limits: Mutex<BTreeMap<Id, Option<u32>>>,
    /// What the next calls of each kind fail with.
    pub start_failures: Mutex<VecDeque<MachineError>>,
    pub apply_failures: Mutex<VecDeque<NetError>>,
    /// Notified where somebody disturbs the network.
    pub disturbance: Notify,
    pub disk_failures: Mutex<VecDeque<DiskError>>,
    /// Guests that do nothing when the power button is pressed.
    pub deaf: Mutex<BTreeSet<Id>>,
    /// The call, counted down, that never returns: before its effect, or after it where the flag is set.
    pub hang: Mutex<Option<(usize, bool)>>,
    /// Guests that do not answer on their network, and what machines say that they do other than run.
    pub silent: Mutex<BTreeSet<Id>>,
    /// When guests were asked.
    pub asked: Mutex<Vec<tokio::time::Instant>>,
    pub statuses: Mutex<BTreeMap<Id, Status>>,
    ends: Mutex<Option<UnboundedSender<Ended>>>,
    pub metadata_address: Mutex<Option<SocketAddr>>,
    pub dns_address: Mutex<Option<SocketAddr>>,
}

impl Doubles {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Doubles::default())
    }

    /// What was done since the last time.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    async fn call<T>(&self, what: String, effect: impl FnOnce() -> T) -> T {
        let hang = {
            let mut hang = self.hang.lock();
            match &mut *hang {
                Some((0, after)) => Some(*after),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if hang == Some(false) {
            return std::future::pending().await;
        }
        self.log.lock().push(what);
        let result = effect();
        if hang == Some(true) {
            return std::future::pending().await;
        }
        result
    }

    /// The guest powers itself off, or its process is gone.
    pub(crate) fn end_by_itself(&self, instance_id: &Id, cause: EndCause) {
        let mut machines = self.machines.lock();
        let found = machines.get_mut(instance_id).unwrap();
        found.state = FoundState::Ended(cause.clone());
        let ended = Ended { instance_id: instance_id.clone(), boot: found.boot, cause };
        if let Some(ends) = &*self.ends.lock() {
            let _ = ends.send(ended);
        }
    }

    pub(crate) fn tell_end(&self, ended: Ended) {
        self.ends.lock().as_ref().unwrap().send(ended).unwrap();
    }

    pub(crate) fn running(&self) -> Vec<(Id, u64)> {
        let machines = self.machines.lock();
        let running = machines.values().filter(|found| found.state == FoundState::Running);
        running.map(|found| (found.instance_id.clone(), found.boot)).collect()
    }
}

#[async_trait]
impl Hypervisor for Doubles {
    async fn start(&self, spec: MachineSpec, taps: Vec<Tap>) -> Result<(), MachineError> {
        assert_eq!(taps.len(), spec.nics.len());
        let (instance_id, boot) = (spec.instance_id.clone(), spec.boot);
        self.call(format!("start {instance_id} {boot}"), move || {
            if let Some(error) = self.start_failures.lock().pop_front() {
                return Err(error);
            }
            for disk in &spec.disks {
                assert!(
                    self.volumes.lock().contains(&disk.volume_id),
                    "{} is started without a disk",
                    instance_id
                );
            }
            self.specs.lock().push(spec);
            let found = Found { instance_id: instance_id.clone(), boot, state: FoundState::Running };
            let had = self.machines.lock().insert(instance_id, found);
            assert!(had.is_none_or(|had| had.state != FoundState::Running || had.boot == boot));
            Ok(())
        })
        .await
    }

    fn shared_layer(&self, volume_id: &Id) -> DiskLayer {
        DiskLayer { path: format!("/shared/{volume_id}").into(), format: DiskFormat::Shared }
    }

    fn serve_layers(&self, _source: Arc<dyn LayerSource>) {}

    async fn adopt(&self) -> Result<Vec<Found>, MachineError> {
        Ok(self.machines.lock().values().cloned().collect())
    }

    async fn press_power_button(&self, instance_id: &Id) -> Result<(), MachineError> {
        self.call(format!("press {instance_id}"), || {
            if !self.deaf.lock().contains(instance_id) {
                self.end_by_itself(instance_id, EndCause::Guest);
            }
            Ok(())
        })
        .await
    }

    async fn end(&self, instance_id: &Id) -> Result<(), MachineError> {
        self.call(format!("end {instance_id}"), || {
            if let Some(found) = self.machines.lock().get_mut(instance_id)
                && found.state == FoundState::Running
            {
                found.state = FoundState::Ended(EndCause::Lost("ended".into()));
            }
            Ok(())
        })
        .await
    }

    async fn limit_disk(
        &self,
        instance_id: &Id,
        volume_id: &Id,
        limits: Option<DiskLimits>,
    ) -> Result<(), MachineError> {
        let rate = limits.map_or(0, |limits| limits.operations.per_second);
        self.call(format!("limit {volume_id} of {instance_id} to {rate}"), || Ok(())).await
    }

    async fn attached(&self, instance_id: &Id) -> Result<BTreeSet<Id>, MachineError> {
        let is_running = self.running().iter().any(|(id, _)| id == instance_id);
        let specs = self.specs.lock();
        let spec = specs.iter().rfind(|spec| spec.instance_id == *instance_id).filter(|_| is_running);
        let spec = spec.ok_or_else(|| MachineError::NotFound(instance_id.clone()))?;
        Ok(spec.devices())
    }

    async fn attach_nic(&self, instance_id: &Id, nic: NicSpec, _tap: Tap) -> Result<(), MachineError> {
        self.call(format!("attach {} to {instance_id}", nic.interface_id), || {
            let mut specs = self.specs.lock();
            specs.iter_mut().rfind(|spec| spec.instance_id == *instance_id).unwrap().nics.push(nic);
            Ok(())
        })
        .await
    }

    async fn detach_nic(
        &self,
        instance_id: &Id,
        interface_id: &Id,
        force: bool,
    ) -> Result<bool, MachineError> {
        self.call(format!("detach {interface_id} from {instance_id}"), || {
            if !force && self.clung_to.lock().contains(interface_id) {
                return Ok(false);
            }
            let mut specs = self.specs.lock();
            let spec = specs.iter_mut().rfind(|spec| spec.instance_id == *instance_id).unwrap();
            spec.nics.retain(|had| had.interface_id != *interface_id);
            Ok(true)
        })
        .await
    }

    async fn attach_disk(&self, instance_id: &Id, disk: DiskSpec) -> Result<(), MachineError> {
        self.call(format!("attach {} to {instance_id}", disk.volume_id), || {
            assert!(self.volumes.lock().contains(&disk.volume_id));
            let mut specs = self.specs.lock();
            specs.iter_mut().rfind(|spec| spec.instance_id == *instance_id).unwrap().disks.push(disk);
            Ok(())
        })
        .await
    }

    async fn detach_disk(&self, instance_id: &Id, disk: DiskSpec, force: bool) -> Result<bool, MachineError> {
        self.call(format!("detach {} from {instance_id}", disk.volume_id), || {
            if !force && self.clung_to.lock().contains(&disk.volume_id) {
                return Ok(false);
            }
            let mut specs = self.specs.lock();
            let spec = specs.iter_mut().rfind(|spec| spec.instance_id == *instance_id).unwrap();
            spec.disks.retain(|had| had.volume_id != disk.volume_id);
            Ok(true)
        })
        .await
    }

    async fn freeze_disks(&self, instance_id: &Id, disks: Vec<DiskSpec>) -> Result<(), MachineError> {
        self.call(format!("freeze {} disks of {instance_id}", disks.len()), || {
            if self.freeze_refusals_of.lock().contains(instance_id) {
                return Err(MachineError::Failed("No".into()));
            }
            self.freeze_failures.lock().pop_front().map_or(Ok(()), Err)
        })
        .await
    }

    async fn pause(&self, instance_id: &Id) -> Result<(), MachineError> {
        self.call(format!("pause {instance_id}"), || {
            self.statuses.lock().insert(instance_id.clone(), Status::Paused);
            Ok(())
        })
        .await
    }

    async fn resume(&self, instance_id: &Id) -> Result<(), MachineError> {
        if self.status(instance_id).await? != Status::Paused {
            return Ok(());
        }
        self.call(format!("resume {instance_id}"), || {
            self.statuses.lock().remove(instance_id);
            Ok(())
        })
        .await
    }

    async fn rebase_disk(
        &self,
        instance_id: &Id,
        disk: DiskSpec,
        before: Vec<DiskLayer>,
    ) -> Result<(), MachineError> {
        let (volume_id, count) = (disk.volume_id, disk.layers.len());
        let what = format!("rebase {volume_id} of {instance_id} from {} to {count} layers", before.len());
        self.call(what, || Ok(())).await
    }

    async fn resize_disk(&self, instance_id: &Id, volume_id: &Id, bytes: u64) -> Result<(), MachineError> {
        self.call(format!("enlarge {volume_id} of {instance_id} to {} GiB", bytes >> 30), || Ok(())).await
    }

    async fn status(&self, instance_id: &Id) -> Result<Status, MachineError> {
        if !self.running().iter().any(|(id, _)| id == instance_id) {
            return Err(MachineError::NotFound(instance_id.clone()));
        }
        Ok(self.statuses.lock().get(instance_id).copied().unwrap_or(Status::Runs))
    }

    fn cpu_time(&self, instance_id: &Id) -> Option<Duration> {
        let is_running = self.running().iter().any(|(id, _)| id == instance_id);
        is_running.then(|| self.cpu_time.lock().get(instance_id).copied().unwrap_or_default())
    }

    async fn limit_cpu(&self, instance_id: &Id, processors_milli: Option<u32>) -> Result<bool, MachineError> {
        self.cpu_limits.lock().insert(instance_id.clone(), processors_milli);
        Ok(true)
    }

    async fn forget(&self, instance_id: &Id) -> Result<(), MachineError> {
        self.call(format!("forget {instance_id}"), || {
            self.machines.lock().remove(instance_id);
            Ok(())
        })
        .await
    }

    fn ends(&self) -> UnboundedReceiver<Ended> {
        let (sender, receiver) = unbounded_channel();
        *self.ends.lock() = Some(sender);
        receiver
    }

    async fn console_output(&self, instance_id: &Id, limit: usize) -> Result<Vec<u8>, MachineError> {
        match self.machines.lock().get(instance_id) {
            Some(_) => Ok(vec![b'x'; limit.min(10)]),
            None => Err(MachineError::NotFound(instance_id.clone())),
        }
    }

    async fn console_screenshot(&self, instance_id: &Id) -> Result<Vec<u8>, MachineError> {
        Err(MachineError::NotFound(instance_id.clone()))
    }

    async fn uefi_variables(&self, instance_id: &Id) -> Result<Option<Vec<UefiVariable>>, MachineError> {
        Err(MachineError::NotFound(instance_id.clone()))
    }
}

#[async_trait]
impl Network for Doubles {
    async fn apply(&self, plan: Plan) -> Result<(), NetError> {
        let what = format!("apply {} vpcs {} interfaces", plan.vpcs.len(), plan.interfaces.len());
        self.call(what, || {
            if let Some(error) = self.apply_failures.lock().pop_front() {
                return Err(error);
            }
            *self.plan.lock() = Some(plan);
            Ok(())
        })
        .await
    }

    async fn disturbed(&self) {
        self.disturbance.notified().await;
    }

    async fn open_tap(&self, interface_id: &Id, queues: usize) -> Result<Vec<OwnedFd>, NetError> {
        let plan = self.plan.lock();
        let has =
            |plan: &Plan| plan.interfaces.iter().any(|interface| interface.interface_id == *interface_id);
        if !plan.as_ref().is_some_and(has) {
            return Err(NetError::NotFound(interface_id.clone()));
        }
        self.queues.lock().insert(interface_id.clone(), queues);
        Ok(vec![std::fs::File::open("/dev/null").unwrap().into()])
    }

    async fn close_tap(&self, interface_id: &Id) -> Result<(), NetError> {
        self.call(format!("close the tap of {interface_id}"), || Ok(())).await
    }

    async fn guest_answers(&self, interface_id: &Id) -> Result<bool, NetError> {
        self.asked.lock().push(tokio::time::Instant::now());
        let plan = self.plan.lock();
        let mut interfaces = plan.iter().flat_map(|plan| &plan.interfaces);
        match interfaces.any(|interface| interface.interface_id == *interface_id) {
            true => Ok(!self.silent.lock().contains(interface_id)),
            false => Err(NetError::NotFound(interface_id.clone())),
        }
    }

    async fn open_services(&self, _vpc_id: &Id) -> Result<ServiceSockets, NetError> {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let sockets = ServiceSockets {
            metadata: vec![listener()],
            dhcp: socket(),
            dns_udp: vec![socket()],
            dns_tcp: Vec::new(),
            time: vec![socket()],
            ipv6: None,
        };
        *self.metadata_address.lock() = Some(sockets.metadata[0].local_addr().unwrap());
        *self.dns_address.lock() = Some(sockets.dns_udp[0].local_addr().unwrap());
        Ok(sockets)
    }

    fn interface_of_connection(&self, _vpc_id: &Id, _stream: &TcpStream) -> Option<Id> {
        Some(self.plan.lock().as_ref()?.interfaces.first()?.interface_id.clone())
    }

    fn index_of_interface(&self, _interface_id: &Id) -> Option<u32> {
        None
    }

    fn interface_of_index(&self, _vpc_id: &Id, _index: u32) -> Option<Id> {
        None
    }

    fn interface_of_address(&self, _vpc_id: &Id, _address: IpAddr) -> Option<Id> {
        Some(self.plan.lock().as_ref()?.interfaces.first()?.interface_id.clone())
    }

    fn mtu(&self) -> u16 {
        1450
    }

    async fn remove_all(&self) -> Result<(), NetError> {
        Ok(())
    }
}

#[async_trait]
impl Disks for Doubles {
    async fn list(&self) -> Result<Vec<Id>, DiskError> {
        Ok(self.volumes.lock().iter().cloned().collect())
    }

    async fn ensure(&self, volume: &Volume) -> Result<(), DiskError> {
        self.call(format!("make {}", volume.volume_id), || {
            if let Some(error) = self.disk_failures.lock().pop_front() {
                return Err(error);
            }
            if volume.made && !self.volumes.lock().contains(&volume.volume_id) {
                return Err(DiskError::Lost(volume.volume_id.clone()));
            }
            self.volumes.lock().insert(volume.volume_id.clone());
            Ok(())
        })
        .await
    }

    async fn open(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        self.layers(volume_id).await
    }

    async fn layers(&self, volume_id: &Id) -> Result<DiskFile, DiskError> {
        let count = *self.layers.lock().get(volume_id).unwrap_or(&1);
        let layer = |number: usize| DiskLayer {
            path: format!("/{volume_id}.{number}").into(),
            format: DiskFormat::Raw,
        };
        Ok(DiskFile { layers: (0..count).rev().map(layer).collect(), key: None })
    }

    async fn begin_freeze(
        &self,
        snapshots: &[NewSnapshot],
        instance_id: Option<&Id>,
    ) -> Result<Option<Freeze>, DiskError> {
        let key = snapshots[0].snapshot_id.to_string();
        if self.snapshots.lock().contains(&key) {
            return Ok(None);
        }
        if let Some(freeze) = self.freezes.lock().get(&key) {
            return Ok(Some(freeze.clone()));
        }
        let mut freeze = Freeze { key: key.clone(), instance_id: instance_id.cloned(), volumes: vec![] };
        for new in snapshots {
            *self.layers.lock().entry(new.volume_id.clone()).or_insert(1) += 1;
            freeze.volumes.push((new.volume_id.clone(), self.layers(&new.volume_id).await?));
        }
        self.call(format!("begin {key}"), || {
            self.freezes.lock().insert(key.clone(), freeze.clone());
            Ok(Some(freeze))
        })
        .await
    }

    async fn freezes(&self) -> Result<Vec<Freeze>, DiskError> {
        Ok(self.freezes.lock().values().cloned().collect())
    }

    async fn finish_freeze(&self, key: &str) -> Result<(), DiskError> {
        self.call(format!("finish {key}"), || {
            self.freezes.lock().remove(key);
            self.snapshots.lock().insert(key.to_owned());
            Ok(())
        })
        .await
    }

    async fn fold(&self, volume_id: &Id) -> Result<Option<Vec<DiskLayer>>, DiskError> {
        let before = self.layers(volume_id).await?.layers;
        if before.len() <= 3 {
            return Ok(None);
        }
        self.layers.lock().insert(volume_id.clone(), 2);
        Ok(Some(before))
    }

    async fn undo_freeze(&self, key: &str) -> Result<(), DiskError> {
        self.call(format!("undo {key}"), || {
            let freeze = self.freezes.lock().remove(key).unwrap();
            for (volume_id, _) in freeze.volumes {
                *self.layers.lock().get_mut(&volume_id).unwrap() -= 1;
            }
            Ok(())
        })
        .await
    }

    async fn delete(&self, volume_id: &Id) -> Result<(), DiskError> {
        for (instance_id, _) in self.running() {
            let uses = |spec: &MachineSpec| spec.disks.iter().any(|disk| disk.volume_id == *volume_id);
            let specs = self.specs.lock();
            let spec = specs.iter().rfind(|spec| spec.instance_id == instance_id);
            assert!(!spec.is_some_and(uses), "{volume_id} is deleted under {instance_id}");
        }
        self.call(format!("delete {volume_id}"), || {
            self.volumes.lock().remove(volume_id);
            Ok(())
        })
        .await
    }
}

//! Volumes that several instances have at once.

use super::*;
use host::machine::{DiskFormat, MachineSpec};
use model::{Kind, SeededRandom};

fn shared_volume() -> Volume {
    let multi_attach = Some(examples::disk_limits(1000));
    Volume { snapshot_id: None, multi_attach, ..examples::volume(9) }
}

fn with_it(number: u32) -> Instance {
    let mut instance = examples::instance(number);
    let volume_id = shared_volume().volume_id;
    let disk = Disk { volume_id, device_name: "/dev/sdf".into(), root: false, ..instance.disks[0].clone() };
    instance.disks.push(disk);
    instance
}

/// Two instances, the second of which gets the volume while it runs.
fn desired_by_two() -> Desired {
    let mut desired = desired(2);
    desired.volumes.insert(shared_volume().volume_id, shared_volume());
    desired.instances.insert(id(1), with_it(1));
    desired
}

impl Room {
    async fn with_shared_volume() -> (Room, Desired) {
        let mut room = Room::new().await;
        let mut desired = desired_by_two();
        room.agent.replace(desired.clone()).await;
        room.settle().await;
        desired.instances.insert(id(2), with_it(2));
        room.put(&with_it(2)).await;
        room.settle().await;
        room.doubles.log();
        (room, desired)
    }

    fn own_machine(&self) -> Option<MachineSpec> {
        let volume_id = shared_volume().volume_id;
        let is_running = self.doubles.running().iter().any(|(id, _)| *id == volume_id);
        let specs = self.doubles.specs.lock();
        specs.iter().rfind(|spec| spec.instance_id == volume_id).filter(|_| is_running).cloned()
    }
}

fn without_it(instance: &Instance, detach: Detach) -> Instance {
    let mut instance = instance.clone();
    instance.disks[1].detach = Some(detach);
    instance
}

#[tokio::test(start_paused = true)]
async fn it_has_a_machine_of_its_own_from_the_first_to_the_last() {
    let (mut room, _) = Room::with_shared_volume().await;
    let own = room.own_machine().unwrap();
    assert_eq!(own.disks[0].limits, shared_volume().multi_attach);
    assert_eq!(own.disks[0].layers[0].format, DiskFormat::Raw);
    for spec in room.doubles.specs.lock().iter().filter(|spec| Id::is_of(Kind::Instance, &spec.instance_id)) {
        let formats: Vec<_> = spec.disks.iter().map(|disk| disk.layers[0].format).collect();
        assert_eq!(formats, [DiskFormat::Raw, DiskFormat::Shared]);
    }
    room.put(&without_it(&with_it(1), Detach::Asked)).await;
    room.settle().await;
    assert!(room.own_machine().is_some());
    // The guest clings to it: by force it goes, too.
    room.doubles.clung_to.lock().insert(shared_volume().volume_id);
    room.put(&without_it(&with_it(2), Detach::Asked)).await;
    room.settle().await;
    assert!(room.own_machine().is_some());
    room.put(&without_it(&with_it(2), Detach::Forced)).await;
    room.settle().await;
    assert!(room.own_machine().is_none());
    let log = room.doubles.log();
    let forgotten = format!("forget {}", shared_volume().volume_id);
    assert_eq!(log.iter().filter(|line| **line == forgotten).count(), 1, "{log:?}");
    // One has it again.
    room.put(&with_it(1)).await;
    room.settle().await;
    assert!(room.own_machine().is_some());
}

/// Whoever ends the cloud when its instances have stopped leaves nothing that runs.
#[tokio::test(start_paused = true)]
async fn when_its_instances_are_told_to_have_stopped_its_machine_is_gone() {
    let (mut room, desired) = Room::with_shared_volume().await;
    let stopped = |number| Instance { power: Power::OffForced, ..desired.instances[&id(number)].clone() };
    room.put(&stopped(1)).await;
    room.settle().await;
    assert!(room.own_machine().is_some());
    room.put(&stopped(2)).await;
    loop {
        let Observation::Instance(told) = room.observations.recv().await.unwrap() else { continue };
        if matches!(told.state, InstanceObservation::Stopped { .. }) {
            break;
        }
    }
    assert!(room.own_machine().is_none());
}

#[tokio::test(start_paused = true)]
async fn where_it_ends_it_is_started_again() {
    let (mut room, desired) = Room::with_shared_volume().await;
    let volume_id = shared_volume().volume_id;
    room.doubles.end_by_itself(&volume_id, EndCause::Lost("killed".into()));
    room.settle().await;
    assert_eq!(room.doubles.log(), [format!("make {volume_id}"), format!("start {volume_id} 1")]);
    // While the agent was away, too.
    room.doubles.end_by_itself(&volume_id, EndCause::Lost("killed".into()));
    room.restart().await;
    assert!(room.own_machine().is_none());
    room.agent.replace(desired.clone()).await;
    room.settle().await;
    assert!(room.own_machine().is_some());
    // One that runs is found again, and is as fast as it shall be by now.
    room.doubles.log();
    room.restart().await;
    let mut faster = desired;
    faster.volumes.get_mut(&volume_id).unwrap().multi_attach = Some(examples::disk_limits(5000));
    room.agent.replace(faster).await;
    room.settle().await;
    let log = room.doubles.log();
    assert!(log.contains(&format!("limit {volume_id} of {volume_id} to 5000")), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("end")), "{log:?}");
}

/// After the host has started anew nothing runs, and nothing is left where no instance shall have it.
#[tokio::test(start_paused = true)]
async fn one_that_nobody_has_any_more_goes_with_a_restart() {
    let (mut room, mut desired) = Room::with_shared_volume().await;
    let running: Vec<Id> = room.doubles.running().into_iter().map(|(id, _)| id).collect();
    for machine in running {
        room.doubles.end_by_itself(&machine, EndCause::Lost("power".into()));
    }
    desired.instances.clear();
    desired.volumes.remove(&shared_volume().volume_id);
    room.restart().await;
    room.agent.replace(desired).await;
    room.settle().await;
    assert!(room.doubles.machines.lock().is_empty());
    assert!(!room.doubles.volumes.lock().contains(&shared_volume().volume_id));
}

#[tokio::test(start_paused = true)]
async fn it_grows_in_its_machine_first() {
    let (mut room, mut desired) = Room::with_shared_volume().await;
    let volume = desired.volumes.get_mut(&shared_volume().volume_id).unwrap();
    volume.size_gib = 20;
    volume.generation += 1;
    let change = Change::PutVolume(volume.clone());
    room.agent.apply(vec![change]).await;
    room.settle().await;
    let volume_id = shared_volume().volume_id;
    let enlarged = |machine: &Id| format!("enlarge {volume_id} of {machine} to 20 GiB");
    let expected = [format!("make {volume_id}"), enlarged(&volume_id), enlarged(&id(1)), enlarged(&id(2))];
    assert_eq!(room.doubles.log(), expected);
}

#[tokio::test(start_paused = true)]
async fn snapshots_of_it_and_others_are_of_one_moment() {
    let (mut room, desired) = Room::with_shared_volume().await;
    let snapshot = |number: u64, volume_id: Id| NewSnapshot {
        snapshot_id: Id::new(Kind::Snapshot, &SeededRandom::new(number)),
        volume_id,
    };
    let alone = snapshot(1, shared_volume().volume_id);
    room.agent.create_snapshots(vec![alone.clone()]).await.unwrap();
    let own = shared_volume().volume_id;
    let expected = [
        format!("begin {}", alone.snapshot_id),
        format!("freeze 1 disks of {own}"),
        format!("finish {}", alone.snapshot_id),
    ];
    assert_eq!(room.doubles.log(), expected);
    let root = desired.instances[&id(1)].disks[0].volume_id.clone();
    let both = vec![snapshot(2, root), snapshot(3, own.clone())];
    let key = &both[0].snapshot_id;
    room.agent.create_snapshots(both.clone()).await.unwrap();
    let expected = [
        format!("begin {key}"),
        format!("pause {}", id(1)),
        format!("pause {}", id(2)),
        format!("freeze 1 disks of {}", id(1)),
        format!("freeze 1 disks of {own}"),
        format!("resume {}", id(1)),
        format!("resume {}", id(2)),
        format!("finish {key}"),
    ];
    assert_eq!(room.doubles.log(), expected);
    // Killed at any step, it is finished by the next agent, and no guest stays paused.
    for step in 0..8 {
        let new =
            vec![snapshot(10 + 2 * step, both[0].volume_id.clone()), snapshot(11 + 2 * step, own.clone())];
        *room.doubles.hang.lock() = Some((step as usize, false));
        let asked = room.agent.create_snapshots(new.clone());
        assert!(tokio::time::timeout(Duration::from_secs(60), asked).await.is_err());
        *room.doubles.hang.lock() = None;
        room.restart().await;
        room.settle().await;
        assert!(room.doubles.freezes.lock().is_empty() && room.doubles.statuses.lock().is_empty(), "{step}");
        room.agent.replace(desired.clone()).await;
        room.settle().await;
        room.agent.create_snapshots(new.clone()).await.unwrap();
        assert!(room.doubles.snapshots.lock().contains(new[0].snapshot_id.as_str()));
    }
    // What the first has done is not undone when another refuses.
    room.doubles.log();
    let new = vec![snapshot(90, both[0].volume_id.clone()), snapshot(91, own.clone())];
    room.doubles.freeze_refusals_of.lock().insert(own.clone());
    assert!(room.agent.create_snapshots(new.clone()).await.is_err());
    assert_eq!(room.doubles.freezes.lock().len(), 1);
    assert!(room.doubles.statuses.lock().is_empty(), "guests go on");
    room.doubles.freeze_refusals_of.lock().clear();
    room.agent.create_snapshots(new).await.unwrap();
    assert!(room.doubles.freezes.lock().is_empty());
}

/// Once it is for one alone again, that one's own limits are what counts, and it goes on.
#[tokio::test(start_paused = true)]
async fn one_that_is_no_longer_for_several_is_shared_until_it_is_detached() {
    let (mut room, mut desired) = Room::with_shared_volume().await;
    let volume_id = shared_volume().volume_id;
    room.put(&without_it(&with_it(2), Detach::Asked)).await;
    room.settle().await;
    let volume = desired.volumes.get_mut(&volume_id).unwrap();
    volume.multi_attach = None;
    volume.generation += 1;
    room.agent.apply(vec![Change::PutVolume(volume.clone())]).await;
    room.doubles.log();
    room.settle().await;
    assert_eq!(room.doubles.log(), [format!("limit {volume_id} of {volume_id} to 0")]);
    room.put(&without_it(&with_it(1), Detach::Asked)).await;
    room.settle().await;
    assert!(room.own_machine().is_none());
    room.put(&with_it(2)).await;
    room.settle().await;
    assert!(room.own_machine().is_none());
    let specs = room.doubles.specs.lock();
    let spec = specs.iter().rfind(|spec| spec.instance_id == id(2)).unwrap();
    assert_eq!(spec.disks[1].layers[0].format, DiskFormat::Raw);
}

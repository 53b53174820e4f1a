//! Disks under running instances: attached, detached, larger, and in snapshots.

use super::*;
use host::machine::MachineError;
use model::{Kind, SeededRandom};

fn data_disk() -> (Volume, Disk) {
    let mut disk = examples::instance(1).disks[0].clone();
    let volume = Volume { snapshot_id: None, ..examples::volume(2) };
    disk.volume_id = volume.volume_id.clone();
    disk.device_name = "/dev/sdf".into();
    disk.root = false;
    (volume, disk)
}

fn new_snapshot(number: u64, volume: u32) -> NewSnapshot {
    let snapshot_id = Id::new(Kind::Snapshot, &SeededRandom::new(number));
    NewSnapshot { snapshot_id, volume_id: examples::volume(volume).volume_id }
}

/// What was last told of the instance's disks.
fn disks(told: &[ObservedInstance]) -> Vec<(Id, PlugState)> {
    let last = told.last().map(|observed| observed.devices.clone()).unwrap_or_default();
    last.into_iter().map(|device| (device.device_id, device.state)).collect()
}

impl Room {
    /// With a second disk attached while it runs.
    async fn with_data_disk() -> (Room, Instance, Volume) {
        let (mut room, desired) = Room::with_instance().await;
        let (volume, disk) = data_disk();
        room.agent.apply(vec![Change::PutVolume(volume.clone())]).await;
        let mut instance = desired.instances[&id(1)].clone();
        instance.disks.push(disk.clone());
        room.put(&instance).await;
        let told = room.observed().await;
        let root = instance.disks[0].volume_id.clone();
        assert_eq!(disks(&told), [(root, PlugState::Attached), (disk.volume_id, PlugState::Attached)]);
        room.doubles.log();
        (room, instance, volume)
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_comes_to_a_running_instance_and_leaves_it() {
    let (mut room, mut instance, volume) = Room::with_data_disk().await;
    // A volume that is to go stays until the guest has let go of it.
    room.doubles.clung_to.lock().insert(volume.volume_id.clone());
    instance.disks[1].detach = Some(Detach::Asked);
    room.put(&instance).await;
    assert_eq!(disks(&room.observed().await)[1].1, PlugState::Busy);
    room.agent.apply(vec![Change::RemoveVolume(volume.volume_id.clone())]).await;
    room.observed().await;
    assert!(!room.doubles.log().iter().any(|line| line.starts_with("delete")));
    room.doubles.clung_to.lock().clear();
    assert_eq!(disks(&room.observed().await)[1].1, PlugState::Detached);
    assert!(room.doubles.log().contains(&format!("delete {}", volume.volume_id)));
}

#[tokio::test(start_paused = true)]
async fn force_takes_a_disk_that_a_guest_clings_to() {
    let (mut room, mut instance, volume) = Room::with_data_disk().await;
    room.doubles.clung_to.lock().insert(volume.volume_id.clone());
    instance.disks[1].detach = Some(Detach::Forced);
    room.put(&instance).await;
    assert_eq!(disks(&room.observed().await)[1].1, PlugState::Detached);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_it_is_asked_which_disks_there_are() {
    let (mut room, mut instance, volume) = Room::with_data_disk().await;
    let mut desired = desired(1);
    desired.volumes.insert(volume.volume_id.clone(), volume.clone());
    // Nobody remembers that it was attached, and now it shall leave.
    instance.disks[1].detach = Some(Detach::Asked);
    desired.instances.insert(id(1), instance);
    room.restart().await;
    room.agent.replace(desired).await;
    assert_eq!(disks(&room.observed().await)[1].1, PlugState::Detached);
    let log = room.doubles.log();
    assert!(log.contains(&format!("detach {} from {}", volume.volume_id, id(1))), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn a_volume_grows_under_its_guest() {
    let (mut room, _, mut volume) = Room::with_data_disk().await;
    volume.size_gib += 10;
    volume.generation += 1;
    room.agent.apply(vec![Change::PutVolume(volume.clone())]).await;
    let told = room.settle().await;
    assert_eq!(told, [format!("{} Ready {{ size_gib: {} }}", volume.volume_id, volume.size_gib)]);
    let enlarged = format!("enlarge {} of {} to {} GiB", volume.volume_id, id(1), volume.size_gib);
    assert!(room.doubles.log().contains(&enlarged));
}

#[tokio::test(start_paused = true)]
async fn snapshots_of_an_instance_are_of_one_moment() {
    let (room, _, _) = Room::with_data_disk().await;
    let both = vec![new_snapshot(1, 1), new_snapshot(2, 2)];
    for _ in 0..2 {
        room.agent.create_snapshots(both.clone()).await.unwrap();
    }
    let key = &both[0].snapshot_id;
    let expected = [format!("begin {key}"), format!("freeze 2 disks of {}", id(1)), format!("finish {key}")];
    assert_eq!(room.doubles.log(), expected);
    let unknown = room.agent.create_snapshots(vec![new_snapshot(3, 9)]).await;
    assert!(matches!(unknown, Err(HostError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_made_short_is_so_under_the_guest_too() {
    let (mut room, _, volume) = Room::with_data_disk().await;
    for number in 1..=3 {
        room.agent.create_snapshots(vec![new_snapshot(number, 2)]).await.unwrap();
        room.observed().await;
    }
    let expected = format!("rebase {} of {} from 4 to 2 layers", volume.volume_id, id(1));
    assert_eq!(room.doubles.log().last(), Some(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_refuses_is_told_and_nothing_stays() {
    let (room, _, _) = Room::with_data_disk().await;
    let snapshot = vec![new_snapshot(1, 1)];
    room.doubles.freeze_failures.lock().push_back(MachineError::Failed("No".into()));
    let refused = room.agent.create_snapshots(snapshot.clone()).await;
    assert!(matches!(refused, Err(HostError::Failed(message)) if message == "No"));
    assert!(room.doubles.freezes.lock().is_empty() && room.doubles.snapshots.lock().is_empty());
    room.agent.create_snapshots(snapshot).await.unwrap();
}

/// Killed at every step of a snapshot: the next agent finishes it, or it is as if it had never been asked for.
#[tokio::test(start_paused = true)]
async fn a_snapshot_survives_its_agent() {
    for step in 0..4 {
        for after in [false, true] {
            let (mut room, instance, volume) = Room::with_data_disk().await;
            let snapshot = vec![new_snapshot(1, 2)];
            *room.doubles.hang.lock() = Some((step, after));
            let asked = room.agent.create_snapshots(snapshot.clone());
            let is_done = tokio::time::timeout(Duration::from_secs(60), asked).await.is_ok();
            *room.doubles.hang.lock() = None;
            room.restart().await;
            room.settle().await;
            assert!(room.doubles.freezes.lock().is_empty(), "finished unasked");
            let log = room.doubles.log();
            let at = |what: &str| log.iter().position(|line| line.starts_with(what));
            assert!(at("finish").is_none() || at("freeze") < at("finish"), "{log:?}");
            let mut desired = desired(1);
            desired.volumes.insert(volume.volume_id.clone(), volume);
            desired.instances.insert(id(1), instance);
            room.agent.replace(desired).await;
            room.observed().await;
            room.agent.create_snapshots(snapshot.clone()).await.unwrap();
            let made = room.doubles.snapshots.lock().clone();
            assert_eq!(made.into_iter().collect::<Vec<_>>(), [snapshot[0].snapshot_id.to_string()]);
            if step == 3 {
                assert!(is_done, "no more than three steps");
            }
        }
    }
}

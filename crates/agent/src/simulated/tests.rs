//! The simulated host on tokio's clock.

use super::*;
use crate::examples;
use agent_api::{Architecture, Power};

fn host(options: SimulatedOptions) -> SimulatedHost {
    SimulatedHost::new(examples::host_description(), options)
}

fn put(instance: Instance) -> Vec<Change> {
    vec![Change::PutInstance(Box::new(instance))]
}

fn told(observations: &mut UnboundedReceiver<Observation>) -> Vec<(u64, InstanceObservation)> {
    std::iter::from_fn(|| observations.try_recv().ok())
        .filter_map(|observation| match observation {
            Observation::Instance(observed) => Some((observed.boot, observed.state)),
            Observation::Volume { .. } => None,
        })
        .collect()
}

async fn next(observations: &mut UnboundedReceiver<Observation>) -> (u64, InstanceObservation) {
    match observations.recv().await {
        Some(Observation::Instance(observed)) => (observed.boot, observed.state),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_takes_its_time() {
    let host = host(SimulatedOptions {
        start: Duration::from_secs(20),
        shutdown: Duration::from_secs(5),
        end: Duration::ZERO,
    });
    let mut observations = host.observe();
    let mut instance = examples::instance(1);
    host.apply(put(instance.clone())).await;
    assert_eq!(told(&mut observations), [(1, InstanceObservation::Preparing)]);
    let began = Instant::now();
    assert_eq!(next(&mut observations).await, (1, InstanceObservation::Running));
    assert_eq!(began.elapsed().as_secs(), 20);
    instance.boot = 2;
    host.apply(put(instance.clone())).await;
    assert_eq!(next(&mut observations).await, (2, InstanceObservation::Preparing));
    assert_eq!(next(&mut observations).await, (2, InstanceObservation::Running));
    assert_eq!(began.elapsed().as_secs(), 45);
    instance.power = Power::Off;
    host.apply(put(instance.clone())).await;
    assert_eq!(next(&mut observations).await, (2, InstanceObservation::Stopped(StopCause::Asked)));
    host.apply(vec![Change::RemoveInstance(instance.instance_id.clone())]).await;
    assert_eq!(next(&mut observations).await, (0, InstanceObservation::Removed));
    assert!(host.console_output(&instance.instance_id).await.is_err());
}

#[tokio::test]
async fn at_once_doubled_and_late_messages_do_no_harm() {
    let host = host(SimulatedOptions::immediate());
    let mut observations = host.observe();
    let mut instance = examples::instance(1);
    instance.generation = 5;
    host.apply(put(instance.clone())).await;
    host.apply(put(instance.clone())).await;
    let started = [(1, InstanceObservation::Preparing), (1, InstanceObservation::Running)];
    assert_eq!(told(&mut observations), started);
    instance.generation = 4;
    instance.power = Power::OffForced;
    host.apply(put(instance.clone())).await;
    assert_eq!(told(&mut observations), []);
    let id = instance.instance_id.clone();
    host.apply(vec![Change::RemoveInstance(id.clone()), Change::RemoveInstance(id)]).await;
    let removed = (0, InstanceObservation::Removed);
    assert_eq!(told(&mut observations), [removed.clone(), removed]);
}

#[tokio::test]
async fn a_new_observer_is_told_all_and_the_old_one_ends() {
    let host = host(SimulatedOptions::immediate());
    let mut first = host.observe();
    let mut desired = Desired::default();
    for number in 1..=3 {
        let instance = examples::instance(number);
        desired.instances.insert(instance.instance_id.clone(), instance);
    }
    desired.volumes.insert(examples::volume(1).volume_id, examples::volume(1));
    host.replace(desired.clone()).await;
    let mut second = host.observe();
    assert!(matches!(second.try_recv(), Ok(Observation::Volume { state: VolumeState::Ready { .. }, .. })));
    assert_eq!(told(&mut second), vec![(1, InstanceObservation::Running); 3]);
    while first.recv().await.is_some() {}
    desired.instances.pop_last();
    host.replace(desired).await;
    assert_eq!(told(&mut second), [(0, InstanceObservation::Removed)]);
    assert_eq!(host.running(), 2);
}

#[tokio::test]
async fn faults_are_told_and_a_higher_boot_starts_again() {
    let host = host(SimulatedOptions::immediate());
    let mut observations = host.observe();
    let mut instance = examples::instance(1);
    host.fail_next_launches(1, "No memory");
    host.apply(put(instance.clone())).await;
    let failed = InstanceObservation::Failed { message: "No memory".into() };
    assert_eq!(told(&mut observations), [(1, InstanceObservation::Preparing), (1, failed)]);
    instance.boot = 2;
    host.apply(put(instance.clone())).await;
    assert!(host.power_off_guest(&instance.instance_id));
    let guest = InstanceObservation::Stopped(StopCause::Guest);
    assert_eq!(told(&mut observations).last(), Some(&(2, guest)));
    host.apply(put(instance.clone())).await;
    assert_eq!(told(&mut observations), [], "what ended by itself stays so");
    assert!(!host.lose_instance(&instance.instance_id, "killed"));
}

#[tokio::test]
async fn a_lost_host_is_silent_and_comes_back_with_its_guests_gone() {
    let host = host(SimulatedOptions::immediate());
    let mut observations = host.observe();
    let instance = examples::instance(1);
    host.apply(put(instance.clone())).await;
    host.lose();
    told(&mut observations);
    assert!(observations.recv().await.is_none());
    host.apply(put(examples::instance(2))).await;
    host.restore();
    let mut observations = host.observe();
    let [(1, InstanceObservation::Stopped(StopCause::Lost { .. }))] = &told(&mut observations)[..] else {
        panic!("the instance is not told to be lost");
    };
}

#[tokio::test]
async fn the_console_says_that_it_is_simulated() {
    let host = host(SimulatedOptions::immediate());
    let instance = examples::instance(1);
    host.apply(put(instance.clone())).await;
    let console = host.console_output(&instance.instance_id).await.unwrap();
    assert!(String::from_utf8(console).unwrap().contains("no guest runs on a simulated host"));
    let screen = host.console_screenshot(&instance.instance_id).await.unwrap();
    let image = jpeg::load_from_memory_with_format(&screen, jpeg::ImageFormat::Jpeg).unwrap();
    assert_eq!((image.width(), image.height()), (160, 100));
    assert_eq!(host.describe().architecture, Architecture::X86_64);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_instances_need_one_timer() {
    let host = host(SimulatedOptions::default());
    let mut observations = host.observe();
    let changes = (0..100_000).map(|number| Change::PutInstance(Box::new(examples::instance(number))));
    host.apply(changes.collect()).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
    let mut running = 0;
    while running < 100_000 {
        running += usize::from(next(&mut observations).await.1 == InstanceObservation::Running);
    }
    tokio::task::yield_now().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test]
async fn disks_come_and_go_under_a_guest_and_grow() {
    let host = host(SimulatedOptions::immediate());
    let mut observations = host.observe();
    let mut instance = examples::instance(1);
    let (root, mut data) = (instance.disks[0].clone(), instance.disks[0].clone());
    data.volume_id = examples::volume(2).volume_id;
    let disks = |observations: &mut UnboundedReceiver<Observation>| {
        let mut last = Vec::new();
        while let Ok(Observation::Instance(observed)) = observations.try_recv() {
            last = observed.devices.into_iter().map(|device| (device.device_id, device.state)).collect();
        }
        last
    };
    host.apply(put(instance.clone())).await;
    let of_root = (root.volume_id.clone(), PlugState::Attached);
    assert_eq!(disks(&mut observations), std::slice::from_ref(&of_root));
    instance.disks.push(data.clone());
    host.apply(put(instance.clone())).await;
    assert_eq!(disks(&mut observations), [of_root.clone(), (data.volume_id.clone(), PlugState::Attached)]);
    instance.disks[1].detach = Some(agent_api::Detach::Asked);
    host.apply(put(instance.clone())).await;
    assert_eq!(disks(&mut observations), [of_root, (data.volume_id.clone(), PlugState::Detached)]);

    let mut volume = examples::volume(2);
    host.apply(vec![Change::PutVolume(volume.clone())]).await;
    volume.size_gib += 1;
    host.apply(vec![Change::PutVolume(volume.clone())]).await;
    let sizes: Vec<_> = std::iter::from_fn(|| observations.try_recv().ok()).collect();
    let ready = |size_gib| Observation::Volume {
        volume_id: volume.volume_id.clone(),
        state: VolumeState::Ready { size_gib },
    };
    assert_eq!(sizes, [ready(volume.size_gib - 1), ready(volume.size_gib)]);
}

#[tokio::test]
async fn a_snapshot_of_a_volume_holds_what_its_own_held() {
    use agent_api::{BLOCK_BYTES, SnapshotStore};
    let snapshots = Arc::new(MemorySnapshots::new());
    let options = SimulatedOptions::immediate();
    let host = SimulatedHost::with_snapshots(examples::host_description(), options, snapshots.clone());
    let volume = examples::volume(1);
    let first = volume.snapshot_id.clone().unwrap();
    snapshots.begin(&first, volume.size_gib, None).await.unwrap();
    snapshots.put_block(&first, 3, &[7; BLOCK_BYTES]).await.unwrap();
    snapshots.complete(&first).await.unwrap();
    let snapshot_id = Id::new(model::Kind::Snapshot, &model::SeededRandom::new(1));
    let new = vec![NewSnapshot { snapshot_id: snapshot_id.clone(), volume_id: volume.volume_id.clone() }];
    assert!(matches!(host.create_snapshots(new.clone()).await, Err(HostError::NotFound(_))));
    host.apply(vec![Change::PutVolume(volume)]).await;
    snapshots.delete(&first).await.unwrap();
    for _ in 0..2 {
        host.create_snapshots(new.clone()).await.unwrap();
        assert_eq!(snapshots.get_block(&snapshot_id, 3).await.unwrap(), Some(vec![7; BLOCK_BYTES]));
        assert_eq!(snapshots.list_blocks(&snapshot_id, 0, 9).await.unwrap(), [3]);
    }
    assert!(snapshots.put_block(&snapshot_id, 4, &[7; BLOCK_BYTES]).await.is_err(), "sealed");
}

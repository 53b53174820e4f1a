//! The agent on driver doubles: whole lives, told as what was done in which order.

use crate::doubles::Doubles;
use crate::{Agent, AgentOptions, DiskError, examples};
use agent_api::*;
use host::machine::{EndCause, Ended, MachineError};
use host::net::NetError;
use model::{Environment, Id};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

mod disks;
mod interfaces;
mod sharing;

struct Room {
    doubles: Arc<Doubles>,
    state_dir: tempfile::TempDir,
    agent: Arc<Agent>,
    observations: UnboundedReceiver<Observation>,
}

impl Room {
    async fn observed(&mut self) -> Vec<ObservedInstance> {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let all = std::iter::from_fn(|| self.observations.try_recv().ok());
        let of_instance = |observation| match observation {
            Observation::Instance(observed) => Some(observed),
            Observation::Volume { .. } => None,
        };
        all.filter_map(of_instance).collect()
    }

    async fn new() -> Room {
        let state_dir = tempfile::tempdir().unwrap();
        let doubles = Doubles::new();
        let agent = start(&doubles, &state_dir).await;
        let observations = agent.observe();
        Room { doubles, state_dir, agent, observations }
    }

    /// With one instance running.
    async fn with_instance() -> (Room, Desired) {
        let mut room = Room::new().await;
        let desired = desired(1);
        room.agent.replace(desired.clone()).await;
        room.settle().await;
        assert_eq!(room.doubles.running(), [(id(1), 1)]);
        room.doubles.log();
        (room, desired)
    }

    /// What was told until nothing more happens. With the clock paused, an hour passes at once.
    async fn settle(&mut self) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let mut told = Vec::new();
        while let Ok(observation) = self.observations.try_recv() {
            told.push(match observation {
                // What checks find is told in tests of their own.
                Observation::Instance(observed) if observed.checks.is_some() => continue,
                Observation::Instance(observed) => {
                    format!("{} {} {:?}", observed.instance_id, observed.boot, observed.state)
                }
                Observation::Volume { volume_id, state } => format!("{volume_id} {state:?}"),
            });
        }
        told
    }

    async fn put(&self, instance: &Instance) {
        self.agent.apply(vec![Change::PutInstance(Box::new(instance.clone()))]).await;
    }

    /// The agent's process is killed and starts again.
    async fn restart(&mut self) {
        self.agent = start(&self.doubles, &self.state_dir).await;
        self.observations = self.agent.observe();
    }
}

async fn start(doubles: &Arc<Doubles>, state_dir: &tempfile::TempDir) -> Arc<Agent> {
    let (environment, _) = Environment::seeded(1, "2026-03-01T00:00:00Z".parse().unwrap());
    let options = AgentOptions::new(state_dir.path());
    // Making an RSA key takes seconds, and no machine waits for it.
    std::fs::write(state_dir.path().join("identity.key"), "none").unwrap();
    let (machines, network, disks) = (doubles.clone(), doubles.clone(), doubles.clone());
    Agent::start(options, machines, network, disks, environment, examples::host_description()).await.unwrap()
}

fn id(number: u32) -> Id {
    examples::instance(number).instance_id
}

fn desired(instances: u32) -> Desired {
    let mut desired = Desired::default();
    let (vpc, group) = (examples::vpc(), examples::security_group());
    desired.vpcs.insert(vpc.network.vpc_id.clone(), vpc);
    desired.security_groups.insert(group.network.group_id.clone(), group);
    for number in 1..=instances {
        let (instance, volume) = (examples::instance(number), examples::volume(number));
        desired.instances.insert(instance.instance_id.clone(), instance);
        desired.volumes.insert(volume.volume_id.clone(), volume);
    }
    desired
}

#[tokio::test(start_paused = true)]
async fn volumes_and_network_are_there_before_the_machine_starts() {
    let mut room = Room::new().await;
    room.agent.replace(desired(1)).await;
    let told = room.settle().await;
    insta::assert_snapshot!(told.join("\n"), @r"
    i-00000000000000001 1 Preparing
    vol-00000000000000001 Ready { size_gib: 8 }
    i-00000000000000001 1 Running
    ");
    let log = room.doubles.log();
    assert_eq!(log.last().unwrap(), "start i-00000000000000001 1");
    assert!(log.contains(&"make vol-00000000000000001".to_owned()), "{log:?}");
    assert!(log.contains(&"apply 1 vpcs 1 interfaces".to_owned()), "{log:?}");
    insta::assert_debug_snapshot!(room.doubles.specs.lock()[0]);
    insta::assert_debug_snapshot!(*room.doubles.plan.lock());
    assert_eq!(room.agent.console_output(&id(1)).await.unwrap(), b"xxxxxxxxxx");
    assert!(matches!(room.agent.console_output(&id(2)).await, Err(HostError::NotFound(_))));
    assert!(matches!(room.agent.console_screenshot(&id(1)).await, Err(HostError::Failed(_))));
}

#[tokio::test(start_paused = true)]
async fn messages_in_any_order_lead_to_the_same() {
    let mut room = Room::new().await;
    room.agent.replace(Desired::default()).await;
    room.put(&examples::instance(1)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(room.doubles.running(), []);
    room.agent.apply(vec![Change::PutVolume(examples::volume(1))]).await;
    room.agent.apply(vec![Change::PutSecurityGroup(examples::security_group())]).await;
    room.agent.apply(vec![Change::PutVpc(Box::new(examples::vpc()))]).await;
    assert!(room.settle().await.contains(&"i-00000000000000001 1 Running".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_volume_or_vpc_that_never_comes_is_told() {
    for missing in ["volume", "vpc"] {
        let mut room = Room::new().await;
        let mut desired = desired(1);
        if missing == "volume" {
            desired.volumes.clear();
        } else {
            desired.vpcs.clear();
        }
        room.agent.replace(desired).await;
        let told = room.settle().await;
        assert!(told.last().unwrap().contains("1 Failed"), "{missing}: {told:?}");
        assert_eq!(room.doubles.running(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_asks_the_guest_first_and_lets_go_of_the_network() {
    let (mut room, mut desired) = Room::with_instance().await;
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.power = Power::Off;
    room.put(instance).await;
    assert_eq!(room.settle().await, ["i-00000000000000001 1 Stopped(Asked)"]);
    let id = "i-00000000000000001";
    let expected = [format!("press {id}"), format!("end {id}"), "apply 0 vpcs 0 interfaces".into()];
    assert_eq!(room.doubles.log(), expected);
    assert_eq!(room.doubles.volumes.lock().len(), 1, "its volume stays");
}

#[tokio::test(start_paused = true)]
async fn a_deaf_guest_is_ended_after_its_time() {
    let (mut room, mut desired) = Room::with_instance().await;
    room.doubles.deaf.lock().insert(id(1));
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.power = Power::Off;
    let asked = Instant::now();
    room.put(instance).await;
    while !room.doubles.running().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!((90..=92).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());
    assert_eq!(room.settle().await, ["i-00000000000000001 1 Stopped(Asked)"]);
    assert!(room.doubles.log().iter().filter(|line| line.starts_with("press")).count() > 5);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_asked_before_its_instance_goes() {
    let (mut room, mut desired) = Room::with_instance().await;
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.power = Power::Gone;
    room.put(instance).await;
    assert_eq!(room.settle().await, ["i-00000000000000001 0 Removed"]);
    let log = room.doubles.log();
    assert_eq!(log[..3], ["press", "end", "forget"].map(|what| format!("{what} i-00000000000000001")));
    assert_eq!(room.doubles.volumes.lock().len(), 1, "its volume stays");
    // To one who may not know, and of one that never was here.
    for instance in [examples::instance(1), examples::instance(2)] {
        let name = instance.instance_id.clone();
        room.put(&Instance { power: Power::GoneForced, generation: 9, ..instance }).await;
        assert_eq!(room.settle().await, [format!("{name} 0 Removed")]);
    }
}

#[tokio::test(start_paused = true)]
async fn force_cuts_a_stop_and_an_end_short() {
    for (asked, forced, told) in [
        (Power::Off, Power::OffForced, "1 Stopped(Asked)"),
        (Power::Gone, Power::GoneForced, "0 Removed"),
        (Power::Off, Power::GoneForced, "0 Removed"),
    ] {
        let (mut room, mut desired) = Room::with_instance().await;
        room.doubles.deaf.lock().insert(id(1));
        let instance = desired.instances.get_mut(&id(1)).unwrap();
        instance.power = asked;
        room.put(instance).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(room.doubles.running().len(), 1);
        instance.power = forced;
        room.put(instance).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(room.doubles.running(), []);
        assert_eq!(room.settle().await, [format!("i-00000000000000001 {told}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_ends_and_starts_and_is_never_told_as_a_stop() {
    let (mut room, mut desired) = Room::with_instance().await;
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.boot = 2;
    room.put(instance).await;
    room.put(instance).await;
    assert_eq!(room.settle().await, ["i-00000000000000001 2 Preparing", "i-00000000000000001 2 Running"]);
    let log = room.doubles.log();
    assert_eq!(log.iter().filter(|line| line.starts_with("start")).count(), 1, "{log:?}");
    assert_eq!(room.doubles.running(), [(id(1), 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_ended_by_itself_is_told_and_stays_so_until_a_higher_boot() {
    let (mut room, mut desired) = Room::with_instance().await;
    room.doubles.end_by_itself(&id(1), EndCause::Guest);
    assert_eq!(room.settle().await, ["i-00000000000000001 1 Stopped(Guest)"]);
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.generation += 1;
    room.put(instance).await;
    assert_eq!(room.settle().await, [""; 0]);
    instance.boot = 2;
    room.put(instance).await;
    room.settle().await;
    let late = Ended { instance_id: id(1), boot: 1, cause: EndCause::Lost("late".into()) };
    room.doubles.tell_end(late);
    assert_eq!(room.settle().await, [""; 0], "a word about an earlier boot");
    room.doubles.end_by_itself(&id(1), EndCause::Lost("killed".into()));
    let lost = r#"i-00000000000000001 2 Stopped(Lost { message: "killed" })"#;
    assert_eq!(room.settle().await, [lost]);
}

fn io_error() -> std::io::Error {
    std::io::Error::other("a detail of the host")
}

#[tokio::test(start_paused = true)]
async fn passing_failures_are_tried_again_and_lasting_ones_told() {
    let broken = || MachineError::Io { what: "QMP".into(), source: io_error() };
    for (failures, expected) in [
        (vec![broken(), broken()], "1 Running"),
        (
            vec![broken(), broken(), broken()],
            "1 Failed { message: \"The host could not start the machine\" }",
        ),
        (vec![MachineError::Failed("No space".into())], "1 Failed { message: \"No space\" }"),
    ] {
        let mut room = Room::new().await;
        room.doubles.start_failures.lock().extend(failures);
        room.agent.replace(desired(1)).await;
        let told = room.settle().await;
        assert!(told.last().unwrap().ends_with(expected), "{told:?}");
        // A failed start leaves nothing behind that would keep the volume.
        room.agent.replace(Desired::default()).await;
        let told = room.settle().await;
        assert!(told.contains(&"vol-00000000000000001 Removed".to_owned()), "{told:?}");
        assert!(told.contains(&"i-00000000000000001 0 Removed".to_owned()), "{told:?}");
        assert!(room.doubles.machines.lock().is_empty() && room.doubles.volumes.lock().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_or_disk_that_recovers_is_waited_for() {
    let mut room = Room::new().await;
    room.doubles.apply_failures.lock().push_back(NetError::Io { what: "nft".into(), source: io_error() });
    room.doubles.disk_failures.lock().push_back(DiskError::Io { what: "copy".into(), source: io_error() });
    room.agent.replace(desired(1)).await;
    let told = room.settle().await;
    assert_eq!(told.last().unwrap(), "i-00000000000000001 1 Running", "{told:?}");
    room.doubles.disk_failures.lock().push_back(DiskError::Failed("The disk is full".into()));
    room.agent.replace(desired(2)).await;
    let told = room.settle().await;
    assert!(
        told.contains(&r#"i-00000000000000002 1 Failed { message: "The disk is full" }"#.to_owned()),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_network_that_somebody_disturbs_is_applied_again() {
    let mut room = Room::new().await;
    room.agent.replace(desired(1)).await;
    room.settle().await;
    let applied = || room.doubles.log.lock().iter().filter(|line| line.starts_with("apply")).count();
    let before = applied();
    room.doubles.disturbance.notify_one();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(applied(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_data_is_gone_is_lost_and_never_made_anew() {
    let mut room = Room::new().await;
    let mut desired = desired(1);
    desired.volumes.values_mut().for_each(|volume| volume.made = true);
    room.agent.replace(desired).await;
    let told = room.settle().await;
    let reason = "The data of the volume vol-00000000000000001 is not on its host any more";
    let failed = format!("i-00000000000000001 1 Failed {{ message: {reason:?} }}");
    assert!(told.contains(&"vol-00000000000000001 Lost".to_owned()) && told.contains(&failed), "{told:?}");
    assert!(room.doubles.volumes.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_removed_instance_is_ended_before_its_volume_and_vpc_go() {
    let (mut room, _) = Room::with_instance().await;
    room.agent
        .apply(vec![
            Change::RemoveVpc(examples::vpc().network.vpc_id),
            Change::RemoveSecurityGroup(examples::security_group().network.group_id),
        ])
        .await;
    room.settle().await;
    assert_eq!(room.doubles.log(), [""; 0], "what the instance is in stays as it was");
    room.agent
        .apply(vec![Change::RemoveVolume(examples::volume(1).volume_id), Change::RemoveInstance(id(1))])
        .await;
    let told = room.settle().await;
    assert_eq!(told, ["i-00000000000000001 0 Removed", "vol-00000000000000001 Removed"]);
    let log = room.doubles.log();
    assert_eq!(log[..2], ["end i-00000000000000001", "forget i-00000000000000001"]);
    assert_eq!(room.doubles.plan.lock().as_ref().unwrap().vpcs, []);
    // Said again to one who may not know.
    room.agent.apply(vec![Change::RemoveInstance(id(1))]).await;
    assert_eq!(room.settle().await, ["i-00000000000000001 0 Removed"]);
    room.put(&examples::instance(1)).await;
    assert!(room.settle().await[0].ends_with("Preparing"), "and it may come again");
}

#[tokio::test(start_paused = true)]
async fn older_generations_are_ignored() {
    let (mut room, mut desired) = Room::with_instance().await;
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.generation = 9;
    room.put(instance).await;
    instance.generation = 8;
    instance.power = Power::OffForced;
    room.put(instance).await;
    assert_eq!(room.settle().await, [""; 0]);
    assert_eq!(room.doubles.running().len(), 1);
    let idle = room.doubles.log();
    assert_eq!(idle, [""; 0], "what changes nothing costs nothing");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_tells_what_it_found_and_touches_nothing_before_it_knows() {
    let (mut room, desired) = Room::with_instance().await;
    room.doubles.volumes.lock().insert(examples::volume(7).volume_id);
    room.restart().await;
    assert_eq!(room.settle().await, ["i-00000000000000001 1 Running"]);
    room.agent.apply(vec![Change::RemoveInstance(id(1))]).await;
    room.settle().await;
    assert_eq!(room.doubles.log(), [""; 0], "changes before the whole are not acted upon");
    room.agent.replace(desired.clone()).await;
    let told = room.settle().await;
    assert!(told.contains(&"vol-00000000000000007 Removed".to_owned()), "{told:?}");
    let log = room.doubles.log();
    assert!(!log.iter().any(|line| line.starts_with("start") || line.starts_with("end")), "{log:?}");
    assert_eq!(log[0], "apply 1 vpcs 1 interfaces", "without a moment in which the guest had no network");
    room.doubles.end_by_itself(&id(1), EndCause::Guest);
    room.settle().await;
    // An end is told when it is known whether it was asked for: the agent may have died in the middle of it.
    let mut stopped = desired.clone();
    stopped.instances.get_mut(&id(1)).unwrap().power = Power::Off;
    for (desired, cause) in [(desired, "Guest"), (stopped, "Asked")] {
        room.restart().await;
        assert_eq!(room.settle().await, [""; 0]);
        room.agent.replace(desired).await;
        let told = room.settle().await;
        assert!(told.contains(&format!("i-00000000000000001 1 Stopped({cause})")), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn volumes_wait_for_a_machine_whose_disks_are_not_known() {
    let (mut room, _) = Room::with_instance().await;
    room.restart().await;
    room.agent.replace(Desired::default()).await;
    let told = room.settle().await;
    let ended = told.iter().position(|line| line == "i-00000000000000001 0 Removed");
    let deleted = told.iter().position(|line| line == "vol-00000000000000001 Removed");
    assert!(ended.unwrap() < deleted.unwrap(), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_becomes_as_fast_as_it_shall_be_under_its_guest() {
    let (mut room, mut desired) = Room::with_instance().await;
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.disks[0].limits = Some(examples::disk_limits(5000));
    room.put(instance).await;
    room.settle().await;
    assert_eq!(room.doubles.log(), ["limit vol-00000000000000001 of i-00000000000000001 to 5000"]);
    instance.metadata.tags.clear();
    room.put(instance).await;
    room.settle().await;
    assert_eq!(room.doubles.log(), [""; 0]);
    // Who comes new does not know what its predecessor has told the machine.
    room.restart().await;
    room.agent.replace(desired).await;
    room.settle().await;
    let log = room.doubles.log();
    assert!(
        log.contains(&"limit vol-00000000000000001 of i-00000000000000001 to 5000".to_owned()),
        "{log:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn instance_store_volumes_outlive_a_reboot_and_no_stop() {
    let mut room = Room::new().await;
    let mut desired = desired(1);
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.machine.instance_store = vec![1 << 20];
    room.agent.replace(desired.clone()).await;
    room.settle().await;
    let volume = room.doubles.specs.lock()[0].scratch[0].clone();
    std::fs::write(&volume, [7; 1 << 20]).unwrap();
    let instance = desired.instances.get_mut(&id(1)).unwrap();
    instance.boot = 2;
    room.put(instance).await;
    room.settle().await;
    assert_eq!(room.doubles.running(), [(id(1), 2)]);
    assert_eq!(std::fs::read(&volume).unwrap(), [7; 1 << 20]);
    instance.power = Power::Off;
    room.put(instance).await;
    room.settle().await;
    assert!(!volume.exists());
    (instance.power, instance.boot) = (Power::On, 3);
    room.put(instance).await;
    room.settle().await;
    assert_eq!(std::fs::read(&volume).unwrap(), [0; 1 << 20]);
    room.agent.apply(vec![Change::RemoveInstance(id(1))]).await;
    room.settle().await;
    assert!(!volume.exists());
}

/// A launch, a reboot, a stop and a removal; at every call to a driver the agent is killed, once before the call
/// has its effect and once after it, and starts again.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_is_made_good() {
    let mut phases = vec![desired(2)];
    let mut next = desired(2);
    next.instances.get_mut(&id(1)).unwrap().boot = 2;
    phases.push(next.clone());
    next.instances.get_mut(&id(1)).unwrap().power = Power::Off;
    phases.push(next.clone());
    next.instances.get_mut(&id(2)).unwrap().power = Power::Gone;
    phases.push(next.clone());
    next.instances.remove(&id(2));
    next.volumes.remove(&examples::volume(2).volume_id);
    phases.push(next);
    phases.push(Desired::default());

    let mut crashes = 0;
    for phase in 0..phases.len() {
        for call in 0.. {
            let mut hung = false;
            for after in [false, true] {
                let mut room = Room::new().await;
                for before in &phases[..phase] {
                    room.agent.replace(before.clone()).await;
                    room.settle().await;
                }
                *room.doubles.hang.lock() = Some((call, after));
                room.agent.replace(phases[phase].clone()).await;
                room.settle().await;
                hung = matches!(room.doubles.hang.lock().take(), Some((0, _)));
                room.restart().await;
                room.agent.replace(phases[phase].clone()).await;
                room.settle().await;
                check(&room, &phases[phase]);
                crashes += 1;
            }
            if !hung {
                break;
            }
        }
    }
    assert!(crashes > 30, "only {crashes} crashes");
}

fn check(room: &Room, desired: &Desired) {
    let on = desired.instances.values().filter(|instance| instance.power == Power::On);
    let expected: Vec<(Id, u64)> = on.map(|instance| (instance.instance_id.clone(), instance.boot)).collect();
    assert_eq!(room.doubles.running(), expected);
    let may_be = |id| desired.instances.get(id).is_some_and(|instance| instance.power != Power::Gone);
    assert!(room.doubles.machines.lock().keys().all(may_be));
    assert!(room.doubles.volumes.lock().iter().eq(desired.volumes.keys()));
    let plan = room.doubles.plan.lock();
    let interfaces = plan.as_ref().map_or(0, |plan| plan.interfaces.len());
    assert_eq!(interfaces, expected.len());
}

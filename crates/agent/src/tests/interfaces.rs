//! Network interfaces under running instances.

use super::*;
use agent_api::Interface;
use model::Kind;

fn second() -> Interface {
    let mut interface = examples::instance(2).interfaces[0].clone();
    interface.device_index = 1;
    interface
}

/// What was last told of the second interface.
async fn told(room: &mut Room) -> Option<PlugState> {
    let id = second().network.interface_id;
    let last = room.observed().await.pop()?;
    last.devices.into_iter().find(|device| device.device_id == id).map(|device| device.state)
}

impl Room {
    async fn with_second_interface() -> (Room, Instance) {
        let (mut room, desired) = Room::with_instance().await;
        let mut instance = desired.instances[&id(1)].clone();
        instance.interfaces.push(second());
        room.doubles.log();
        room.put(&instance).await;
        assert_eq!(told(&mut room).await, Some(PlugState::Attached));
        (room, instance)
    }
}

#[tokio::test(start_paused = true)]
async fn an_interface_is_on_the_network_before_the_guest_has_it_and_until_it_lets_go() {
    let (mut room, mut instance) = Room::with_second_interface().await;
    let id = second().network.interface_id;
    let log = room.doubles.log();
    let place = |word: &str| log.iter().position(|line| line.starts_with(word));
    assert!(place("apply") < place("attach eni-"), "{log:?}");
    let is_planned = |room: &Room| {
        let plan = room.doubles.plan.lock();
        plan.iter().flat_map(|plan| &plan.interfaces).any(|interface| interface.interface_id == id)
    };
    room.doubles.clung_to.lock().insert(id.clone());
    instance.interfaces[1].detach = Some(Detach::Asked);
    room.put(&instance).await;
    assert_eq!(told(&mut room).await, Some(PlugState::Busy));
    assert!(is_planned(&room));
    room.doubles.clung_to.lock().clear();
    assert_eq!(told(&mut room).await, Some(PlugState::Detached));
    instance.interfaces.pop();
    room.put(&instance).await;
    room.observed().await;
    assert!(!is_planned(&room));
}

#[tokio::test(start_paused = true)]
async fn force_takes_the_tap_of_one_that_a_guest_clings_to() {
    let (mut room, mut instance) = Room::with_second_interface().await;
    let id = second().network.interface_id;
    room.doubles.clung_to.lock().insert(id.clone());
    instance.interfaces[1].detach = Some(Detach::Forced);
    room.put(&instance).await;
    assert_eq!(told(&mut room).await, Some(PlugState::Detached));
    assert!(room.doubles.log().contains(&format!("close the tap of {id}")));
}

/// The primary one is never asked for, whatever the machine says that it has.
#[tokio::test(start_paused = true)]
async fn after_a_restart_the_secondary_ones_are_known_again() {
    let (mut room, mut instance) = Room::with_second_interface().await;
    let mut desired = desired(1);
    instance.interfaces[1].detach = Some(Detach::Asked);
    desired.instances.insert(Id::parse(Kind::Instance, &instance.instance_id).unwrap(), instance);
    room.restart().await;
    room.doubles.log();
    room.agent.replace(desired).await;
    assert_eq!(told(&mut room).await, Some(PlugState::Detached));
    let log = room.doubles.log();
    let detached: Vec<_> = log.iter().filter(|line| line.starts_with("detach")).collect();
    assert_eq!(detached, [&format!("detach {} from {}", second().network.interface_id, id(1))]);
}

#[tokio::test(start_paused = true)]
async fn an_interface_has_the_queues_that_it_asks_for() {
    let (mut room, desired) = Room::with_instance().await;
    let mut instance = desired.instances[&id(1)].clone();
    instance.interfaces.push(Interface { queues: Some(4), ..second() });
    room.put(&instance).await;
    assert_eq!(told(&mut room).await, Some(PlugState::Attached));
    let queues: Vec<usize> = room.doubles.queues.lock().values().copied().collect();
    assert_eq!(queues, [instance.machine.vcpus as usize, 4]);
}

//! What runs and should not is stopped; what should and does not is started or failed with its reason; a host that was
//! away catches up.

use crate::cloud::{Blocks, Cloud};
use crate::crashing::Crashing;
use agent_api::{InstanceObservation, Power, StopCause};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::MemoryStore;

#[tokio::test(start_paused = true)]
async fn a_host_that_was_away_catches_up_both_ways() {
    let cloud = Cloud::start().await;
    let (stays, stops, goes, ends) =
        (cloud.run(&[]).await, cloud.run(&[]).await, cloud.run(&[]).await, cloud.run(&[]).await);
    for id in [&stays, &stops, &goes, &ends] {
        cloud.observe(id, 1, InstanceObservation::Running, None);
        cloud.until(id, |instance| instance.state.name() == "running").await;
    }
    let idle = cloud.run(&[]).await;
    cloud.observe(&idle, 1, InstanceObservation::Running, None);
    cloud.until(&idle, |instance| instance.state.name() == "running").await;
    cloud.stop(&idle).await;
    cloud.told(&ends).await;
    cloud.host_leaves();
    let is_away = || cloud.1.hosts.iter().all(|host| !host.is_heard());
    while !is_away() {
        tokio::task::yield_now().await;
    }
    cloud.ok("StopInstances", &[("InstanceId.1", &stops)]).await;
    cloud.ok("TerminateInstances", &[("InstanceId.1", &goes)]).await;
    let again = cloud.call("StartInstances", &[("InstanceId.1", &idle)]).await;
    assert_eq!(
        again.unwrap_err(),
        "InsufficientInstanceCapacity",
        "nothing is placed on a host that is away"
    );
    let lost = InstanceObservation::Stopped(StopCause::Lost { message: "The host lost power".into() });
    cloud.observe(&ends, 1, lost, None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(cloud.on_host().contains(&goes), "it hears nothing");
    cloud.until(&stops, |instance| instance.state.name() == "stopping").await;
    cloud.until(&goes, |instance| instance.state.name() == "shutting-down").await;

    cloud.host_returns();
    cloud.until(&goes, |instance| instance.state.name() == "terminated").await;
    let mut expected = vec![stays.clone(), stops.clone(), ends.clone(), idle.clone()];
    expected.sort();
    assert_eq!(cloud.on_host(), expected);
    assert_eq!(cloud.told(&stops).await.power, Power::Off);
    assert_eq!(cloud.told(&stays).await.power, Power::On);
    // What it saw happen meanwhile it tells now.
    cloud.until(&ends, |instance| instance.state.name() == "stopped").await;
    let shown = cloud.ok("DescribeInstances", &[("InstanceId.1", &ends)]).await;
    assert!(shown.0.contains("<message>Server.InternalError: The host lost power</message>"), "{}", shown.0);
    assert_eq!(shown.all("code"), ["Server.InternalError", "80"]);
    cloud.observe(&stops, 1, InstanceObservation::Stopped(StopCause::Asked), None);
    cloud.until(&stops, |instance| instance.state.name() == "stopped").await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_on_a_host_that_stays_away_fails_and_says_why() {
    let cloud = Cloud::start().await;
    let id = cloud.run(&[]).await;
    cloud.told(&id).await;
    cloud.host_leaves();
    tokio::time::sleep(Duration::from_secs(17 * 60)).await;
    cloud.until(&id, |instance| instance.state.name() == "shutting-down").await;
    let shown = cloud.ok("DescribeInstances", &[("InstanceId.1", &id)]).await;
    let why = "Server.InternalError: The instance's host did not start it in time";
    assert!(shown.all("message").contains(&why), "{}", shown.0);
    cloud.host_returns();
    cloud.until(&id, |instance| instance.state.name() == "terminated").await;
    assert_eq!(cloud.on_host(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_control_that_starts_anew_says_all_that_shall_be_and_takes_in_what_was_missed() {
    let (store, snapshots) = (Arc::new(MemoryStore::new()), Arc::new(Blocks::default()));
    let before = Cloud::over(store.clone(), snapshots.clone()).await.unwrap();
    let (runs, gone) = (before.run(&[]).await, before.run(&[]).await);
    before.told(&gone).await;
    before.ok("TerminateInstances", &[("InstanceId.1", &gone)]).await;
    drop(before);
    // Its host knows nothing of either: the one is started, that the other is gone is said.
    let after = Cloud::over(store, snapshots).await.unwrap();
    assert_eq!(after.told(&runs).await.power, Power::On);
    after.until(&gone, |instance| instance.state.name() == "terminated").await;
    assert_eq!(after.on_host(), [runs]);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_asked_for_again() {
    let left = AtomicI64::new(i64::MAX);
    let store = Arc::new(Crashing { inner: MemoryStore::new(), left, stands: false });
    let cloud = Cloud::over(store.clone(), Arc::new(Blocks::default())).await.unwrap();
    let id = cloud.run(&[]).await;
    store.left.store(0, Ordering::SeqCst);
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    cloud.until(&id, |instance| instance.state.name() == "pending").await;
    store.left.store(i64::MAX, Ordering::SeqCst);
    cloud.until(&id, |instance| instance.state.name() == "running").await;
}

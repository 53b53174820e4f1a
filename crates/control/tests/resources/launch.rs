use crate::cloud::Cloud;
use agent_api::InstanceObservation;
use std::time::Duration;

/// The host of these tests takes everything in and starts nothing.
#[tokio::test(start_paused = true)]
async fn a_launch_that_no_host_brings_about_ends_with_its_reason() {
    let cloud = Cloud::start().await;
    let id = cloud.run(&[]).await;
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    let described = cloud.ok("DescribeInstances", &[("InstanceId.1", id.as_str())]).await;
    assert!(described.0.contains("<name>pending</name>"), "{}", described.0);
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    let described = cloud.ok("DescribeInstances", &[("InstanceId.1", id.as_str())]).await;
    assert!(described.0.contains("<name>terminated</name>"), "{}", described.0);
    assert!(described.0.contains("did not start it in time"), "{}", described.0);
}

/// A guest that never ran is as stopped as can be: without this the stop would wait for ever.
#[tokio::test(start_paused = true)]
async fn a_stop_ends_though_the_launch_before_it_failed() {
    let cloud = Cloud::start().await;
    let id = cloud.run(&[]).await;
    cloud.ok("StopInstances", &[("InstanceId.1", &id)]).await;
    cloud.observe(&id, 1, InstanceObservation::Failed { message: "The driver failed".into() }, None);
    cloud.until(&id, |instance| instance.state.name() == "stopped").await;
}

/// Its place may be another's since it stopped.
#[tokio::test(start_paused = true)]
async fn what_is_terminated_when_stopped_takes_nothing_of_its_host() {
    let cloud = Cloud::start().await;
    let (stopped, runs) = (cloud.run(&[]).await, cloud.run(&[]).await);
    for id in [&stopped, &runs] {
        cloud.observe(id, 1, InstanceObservation::Running, None);
        cloud.until(id, |instance| instance.state.name() == "running").await;
    }
    cloud.stop(&stopped).await;
    cloud.host_leaves();
    for id in [&stopped, &runs] {
        cloud.ok("TerminateInstances", &[("InstanceId.1", id)]).await;
        cloud.until(id, |instance| instance.state.name() == "shutting-down").await;
    }
    cloud.until(&stopped, |instance| !instance.occupies_host()).await;
    cloud.until(&runs, |instance| instance.occupies_host()).await;
}

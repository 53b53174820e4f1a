use crate::cloud::Cloud;
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

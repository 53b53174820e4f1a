use crate::cloud::Cloud;
use std::time::Duration;

const ALLOCATE: [(&str, &str); 3] =
    [("AvailabilityZone", "us-east-1a"), ("InstanceType", "t3.micro"), ("Quantity", "1")];

#[tokio::test]
async fn a_real_host_keeps_the_volumes_of_what_is_stopped() {
    let cloud = Cloud::real().await;
    let stopped = cloud.run(&[]).await;
    cloud.stop(&stopped).await;
    // The only host has a volume that could not be anywhere else.
    assert_eq!(cloud.call("AllocateHosts", &ALLOCATE).await.unwrap_err(), "InsufficientHostCapacity");
    let modify = async |name: &str, value: &str| {
        cloud.call("ModifyInstancePlacement", &[("InstanceId", stopped.as_str()), (name, value)]).await
    };
    // A tenancy that its host allows is given; one that it does not is not.
    modify("Tenancy", "dedicated").await.unwrap();
    modify("Tenancy", "default").await.unwrap();
    cloud.run(&[]).await;
    assert_eq!(modify("Tenancy", "dedicated").await.unwrap_err(), "UnsupportedOperation");
    cloud.ok("StartInstances", &[("InstanceId.1", stopped.as_str())]).await;
}

#[tokio::test]
async fn a_real_host_is_allocated_while_it_is_empty() {
    let cloud = Cloud::real().await;
    let host_id = cloud.ok("AllocateHosts", &ALLOCATE).await.one("item").to_owned();
    assert_eq!(cloud.call("AllocateHosts", &ALLOCATE).await.unwrap_err(), "InsufficientHostCapacity");
    let images =
        cloud.ok("DescribeImages", &[("Filter.1.Name", "name"), ("Filter.1.Value.1", "al2023*x86_64")]);
    let image = images.await.one("imageId").to_owned();
    let launch = [
        ("ImageId", image.as_str()),
        ("InstanceType", "t3.micro"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("Placement.AvailabilityZone", "us-east-1a"),
    ];
    assert_eq!(cloud.call("RunInstances", &launch).await.unwrap_err(), "InsufficientInstanceCapacity");
    let id = cloud.run(&[("Placement.HostId", host_id.as_str())]).await;
    // What the guest finds at placement/host-id.
    assert_eq!(cloud.told(&id).await.metadata.host_id.as_deref(), Some(host_id.as_str()));
    let release = cloud.ok("ReleaseHosts", &[("HostId.1", host_id.as_str())]).await;
    assert_eq!(release.one("code"), "Client.InvalidHost.Occupied");
    // Of what is stopped there may be volumes on a host that is released.
    cloud.stop(&id).await;
    let release = cloud.ok("ReleaseHosts", &[("HostId.1", host_id.as_str())]).await;
    assert_eq!(release.one("successful").matches(&host_id).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_released_host_is_forgotten_after_an_hour() {
    let cloud = Cloud::start().await;
    let host_id = cloud.ok("AllocateHosts", &ALLOCATE).await.one("item").to_owned();
    cloud.ok("ReleaseHosts", &[("HostId.1", host_id.as_str())]).await;
    let described = cloud.ok("DescribeHosts", &[("HostId.1", host_id.as_str())]).await;
    assert_eq!(described.one("state"), "released");
    tokio::time::sleep(Duration::from_secs(62 * 60)).await;
    let gone = cloud.call("DescribeHosts", &[("HostId.1", host_id.as_str())]).await;
    assert_eq!(gone.unwrap_err(), "InvalidHostID.NotFound");
}

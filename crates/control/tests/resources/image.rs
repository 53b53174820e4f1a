use crate::cloud::Cloud;
use crate::ebs_direct::snapshot;
use agent_api::{InstanceObservation, StopCause};
use std::time::Duration;

#[tokio::test]
async fn an_image_is_registered_described_and_deregistered() {
    let cloud = Cloud::start().await;
    let register = [("Name", "acceptance"), ("RootDeviceName", "/dev/sda1"), ("Architecture", "x86_64")];
    let id = cloud.ok("RegisterImage", &register).await.one("imageId").to_owned();
    assert_eq!(cloud.call("RegisterImage", &register).await.unwrap_err(), "InvalidAMIName.Duplicate");
    let own = cloud.ok("DescribeImages", &[("Owner.1", "self")]).await;
    assert_eq!(
        (own.one("imageId"), own.one("imageState"), own.one("deviceName")),
        (id.as_str(), "available", "/dev/sda1")
    );
    let run = [("ImageId", id.as_str()), ("InstanceType", "t3.micro"), ("MinCount", "1"), ("MaxCount", "1")];
    cloud.ok("RunInstances", &run).await;
    cloud.ok("DeregisterImage", &[("ImageId", &id)]).await;
    assert_eq!(cloud.call("RunInstances", &run).await.unwrap_err(), "InvalidAMIID.NotFound");
    cloud.ok("RegisterImage", &register).await;
}

#[tokio::test]
async fn owners_select_and_do_not_hide_what_is_named() {
    let cloud = Cloud::start().await;
    let find = async |owner: &str, pattern: &str| {
        let parameters = [("Owner.1", owner), ("Filter.1.Name", "name"), ("Filter.1.Value.1", pattern)];
        cloud.ok("DescribeImages", &parameters).await.all("imageId").len()
    };
    assert_eq!(find("amazon", "al2023-ami-*-x86_64").await, 1);
    assert_eq!(find("099720109477", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*").await, 1);
    assert_eq!(find("self", "*").await, 0);
    let amazons = cloud
        .ok("DescribeImages", &[("Filter.1.Name", "name"), ("Filter.1.Value.1", "debian-12-amd64-*")])
        .await;
    let named = [("ImageId.1", amazons.one("imageId")), ("Owner.1", "self")];
    assert!(cloud.ok("DescribeImages", &named).await.all("imageId").is_empty());
    let unknown = [("ImageId.1", "ami-0123456789abcdef0")];
    assert_eq!(cloud.call("DescribeImages", &unknown).await.unwrap_err(), "InvalidAMIID.NotFound");
    let foreign = [("ImageId", amazons.one("imageId"))];
    assert_eq!(cloud.call("DeregisterImage", &foreign).await.unwrap_err(), "AuthFailure");
}

#[tokio::test]
async fn a_snapshot_stays_while_an_image_is_made_of_it() {
    let cloud = Cloud::start().await;
    let (id, other) = (snapshot(&cloud, &[(0, 1)]).await, snapshot(&cloud, &[(0, 1)]).await);
    let register = async |name: &str, snapshots: &[&str]| {
        let devices: Vec<(String, String)> = snapshots
            .iter()
            .enumerate()
            .flat_map(|(at, id)| {
                let device = if at == 0 { "/dev/xvda".to_owned() } else { format!("/dev/sd{at}") };
                let name = |member: &str| format!("BlockDeviceMapping.{}.{member}", at + 1);
                [(name("DeviceName"), device), (name("Ebs.SnapshotId"), (*id).to_owned())]
            })
            .collect();
        let mut parameters = vec![("Name", name)];
        parameters.extend(devices.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        cloud.ok("RegisterImage", &parameters).await.one("imageId").to_owned()
    };
    let one = register("one", &[&id, &other]).await;
    let two = register("two", &[&id]).await;
    let delete = async || cloud.call("DeleteSnapshot", &[("SnapshotId", &id)]).await;
    assert_eq!(delete().await.unwrap_err(), "InvalidSnapshot.InUse");
    let gone = cloud.ok("DeregisterImage", &[("ImageId", &one), ("DeleteAssociatedSnapshots", "true")]).await;
    let results: std::collections::BTreeMap<_, _> =
        gone.all("snapshotId").into_iter().zip(gone.all("returnCode")).collect();
    assert_eq!(results, [(id.as_str(), "skipped"), (other.as_str(), "success")].into());
    let left = cloud.ok("DescribeSnapshots", &[("Owner.1", "self")]).await;
    assert_eq!(left.one("snapshotId"), id);
    cloud.ok("DeregisterImage", &[("ImageId", &two)]).await;
    delete().await.unwrap();
    assert_eq!(delete().await.unwrap_err(), "InvalidSnapshot.NotFound");
}

#[tokio::test]
async fn what_cannot_boot_is_refused() {
    let cloud = Cloud::start().await;
    let register = async |parameters: &[(&str, &str)]| {
        let mut all = vec![("Name", "an image")];
        all.extend(parameters);
        cloud.call("RegisterImage", &all).await.unwrap_err()
    };
    let device = |name: &'static str| ("BlockDeviceMapping.1.DeviceName", name);
    let snapshot = ("BlockDeviceMapping.1.Ebs.SnapshotId", "snap-0123456789abcdef0");
    assert_eq!(register(&[device("/dev/xvda"), snapshot]).await, "InvalidSnapshot.NotFound");
    let size = ("BlockDeviceMapping.1.Ebs.VolumeSize", "1");
    assert_eq!(register(&[device("/dev/sdz"), size]).await, "InvalidBlockDeviceMapping");
    assert_eq!(
        register(&[("Architecture", "arm64"), ("BootMode", "legacy-bios")]).await,
        "InvalidParameterCombination"
    );
    assert_eq!(register(&[("VirtualizationType", "paravirtual")]).await, "UnsupportedOperation");
}

#[tokio::test]
async fn a_disabled_or_deprecated_image_is_listed_when_asked_for() {
    let cloud = Cloud::start().await;
    let id = cloud.ok("RegisterImage", &[("Name", "an image")]).await.one("imageId").to_owned();
    cloud.ok("DisableImage", &[("ImageId", &id)]).await;
    let own = async |more: &[(&str, &str)]| {
        let mut all = vec![("Owner.1", "self")];
        all.extend(more);
        cloud.ok("DescribeImages", &all).await.all("imageId").len()
    };
    assert_eq!(own(&[]).await, 0);
    assert_eq!(own(&[("IncludeDisabled", "true")]).await, 1);
    let run = [("ImageId", id.as_str()), ("InstanceType", "t3.micro"), ("MinCount", "1"), ("MaxCount", "1")];
    assert_eq!(cloud.call("RunInstances", &run).await.unwrap_err(), "InvalidAMIID.Unavailable");
    cloud.ok("EnableImage", &[("ImageId", &id)]).await;
    assert_eq!(own(&[]).await, 1);
    let past = [("ImageId", id.as_str()), ("DeprecateAt", "2020-01-01T00:00:00Z")];
    assert_eq!(cloud.call("EnableImageDeprecation", &past).await.unwrap_err(), "InvalidParameterValue");
}

#[tokio::test(start_paused = true)]
async fn an_image_is_whole_though_its_instance_is_terminated_before_the_guest_is_down() {
    let cloud = Cloud::start().await;
    let id = cloud.run(&[]).await;
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    cloud.until(&id, |instance| instance.state.name() == "running").await;
    let made = cloud.ok("CreateImage", &[("InstanceId", &id), ("Name", "an image")]).await;
    cloud.until(&id, |instance| instance.hold.is_some()).await;
    cloud.ok("TerminateInstances", &[("InstanceId.1", &id)]).await;
    cloud.until(&id, |instance| instance.state.name() == "terminated").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = cloud.ok("DescribeImages", &[("ImageId.1", made.one("imageId"))]).await;
    assert_eq!(shown.one("imageState"), "available");
    let volumes = cloud.ok("DescribeVolumes", &[]).await;
    assert!(volumes.all("volumeId").is_empty(), "{}", volumes.0);
}

#[tokio::test(start_paused = true)]
async fn an_image_of_an_instance_that_stops_is_made_once_its_guest_is_down() {
    let cloud = Cloud::start().await;
    let id = cloud.run(&[]).await;
    let create = [("InstanceId", id.as_str()), ("Name", "an image")];
    assert_eq!(cloud.call("CreateImage", &create).await.unwrap_err(), "InvalidParameterValue");
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    cloud.until(&id, |instance| instance.state.name() == "running").await;
    cloud.ok("StopInstances", &[("InstanceId.1", &id)]).await;
    let image = cloud.ok("CreateImage", &create).await.one("imageId").to_owned();
    let state = async || {
        tokio::time::sleep(Duration::from_secs(60)).await;
        cloud.ok("DescribeImages", &[("ImageId.1", &image)]).await.one("imageState").to_owned()
    };
    assert_eq!(state().await, "pending");
    cloud.observe(&id, 1, InstanceObservation::Stopped(StopCause::Asked), None);
    assert_eq!(state().await, "available");
    cloud.until(&id, |instance| instance.state.name() == "stopped").await;
}

//! Every kind of workflow, with a crash at every commit: before it, so that the step's effect is had twice, and after
//! it, so that nobody heard of it.

use crate::cloud::{Blocks, Cloud};
use crate::crashing::Crashing;
use crate::ebs_direct;
use agent_api::{InstanceObservation, StopCause};
use aws_api::Request;
use control::instance::Hold;
use control::workflow::Work;
use futures::future::BoxFuture;
use model::InstanceState;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::MemoryStore;

/// One kind's scenario: what to have first, the call that begins it, and what holds once it has ended.
struct Scenario {
    kind: &'static str,
    prepare: fn(&Cloud) -> BoxFuture<'_, String>,
    begin: for<'a> fn(&'a Cloud, &'a str) -> BoxFuture<'a, ()>,
    holds: fn(&Cloud, &Blocks, &str) -> bool,
}

/// A kind without a line here fails `every_kind_has_its_scenario`.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        kind: "delete-blocks",
        prepare: |cloud| Box::pin(snapshot(cloud)),
        begin: |cloud, id| {
            Box::pin(async move { drop(cloud.call("DeleteSnapshot", &[("SnapshotId", id)]).await) })
        },
        holds: |cloud, blocks, id| {
            !blocks.ids().iter().any(|held| held == id)
                || records(cloud, |tables| tables.snapshots.contains(id))
        },
    },
    Scenario {
        kind: "take-snapshots",
        prepare: |cloud| Box::pin(cloud.run(&[])),
        begin: |cloud, id| {
            Box::pin(async move {
                let instance = ("InstanceSpecification.InstanceId", id);
                drop(cloud.call("CreateSnapshots", &[instance]).await);
            })
        },
        holds: |cloud, blocks, _| all_taken(cloud, blocks),
    },
    Scenario {
        kind: "store-snapshots",
        prepare: |cloud| Box::pin(ebs_direct::snapshot(cloud, &[(0, 1)])),
        begin: |cloud, id| {
            Box::pin(async move {
                let source = [("SourceSnapshotId", id), ("SourceRegion", "us-east-1")];
                drop(cloud.call("CopySnapshot", &source).await);
            })
        },
        holds: |cloud, blocks, _| all_taken(cloud, blocks),
    },
    Scenario {
        kind: "copy-snapshots",
        prepare: |cloud| Box::pin(ebs_direct::snapshot(cloud, &[(0, 1), (7, 2)])),
        begin: |cloud, id| {
            Box::pin(async move {
                let source = [("SourceSnapshotId", id), ("SourceRegion", "us-east-1")];
                drop(cloud.call("CopySnapshot", &source).await);
            })
        },
        holds: |cloud, blocks, _| all_taken(cloud, blocks),
    },
    Scenario {
        kind: "copy-volume",
        prepare: |cloud| {
            Box::pin(async move {
                let volume = [("AvailabilityZone", "us-east-1a"), ("Size", "1")];
                let made = cloud.ok("CreateVolume", &volume).await.all("volumeId")[0].to_owned();
                let is_made = || {
                    records(cloud, |tables| {
                        tables.volumes.find(&made).is_some_and(|volume| volume.state() == "available")
                    })
                };
                while !is_made() {
                    cloud.observe_volumes();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                made
            })
        },
        begin: |cloud, id| {
            Box::pin(async move {
                drop(cloud.call("CopyVolumes", &[("SourceVolumeId", id)]).await);
                // It goes, but not before what it held is safe.
                drop(cloud.call("DeleteVolume", &[("VolumeId", id)]).await);
            })
        },
        holds: |cloud, blocks, id| {
            records(cloud, |tables| {
                let copy = tables.volumes.iter().find(|volume| volume.copied.is_some());
                let is_made = copy.is_none_or(|copy| copy.state() == "available");
                let source = tables.volumes.find(id);
                blocks.ids().is_empty()
                    && is_made
                    && source.is_none_or(|source| source.state() == "available")
            })
        },
    },
    Scenario {
        kind: "create-image",
        prepare: |cloud| Box::pin(running(cloud)),
        begin: |cloud, id| {
            Box::pin(async move {
                drop(cloud.call("CreateImage", &[("InstanceId", id), ("Name", "an image")]).await);
                guests_go_down(cloud);
            })
        },
        holds: |cloud, blocks, id| {
            let (image, instance) = records(cloud, |tables| {
                let image = tables.images.with("name", "an image").next().cloned();
                (image, tables.instances.find(id).cloned().unwrap())
            });
            let boots = if image.is_some() { 2 } else { 1 };
            let is_available = image.is_none_or(|image| image.check_available().is_ok());
            is_available && instance.hold.is_none() && instance.boot == boots && all_taken(cloud, blocks)
        },
    },
    Scenario {
        kind: "keep-snapshot-near",
        prepare: |cloud| Box::pin(ebs_direct::snapshot(cloud, &[(0, 1)])),
        begin: |cloud, id| {
            Box::pin(async move {
                let restore = [("SourceSnapshotId.1", id), ("AvailabilityZone.1", "us-east-1a")];
                drop(cloud.call("EnableFastSnapshotRestores", &restore).await);
            })
        },
        holds: |cloud, blocks, id| {
            records(cloud, |tables| {
                let mut restores = tables.fast_snapshot_restores.with("snapshot-id", id);
                let is_enabled = restores.next().is_some_and(|restore| restore.enabled_at.is_some());
                is_enabled == blocks.is_near(id)
            })
        },
    },
    Scenario {
        kind: "replace-root-volume",
        prepare: |cloud| Box::pin(running(cloud)),
        begin: |cloud, id| {
            Box::pin(async move {
                let replace = [("InstanceId", id), ("DeleteReplacedRootVolume", "true")];
                drop(cloud.call("CreateReplaceRootVolumeTask", &replace).await);
                hosts_do_theirs(cloud).await;
            })
        },
        holds: |cloud, _, id| {
            records(cloud, |tables| {
                let instance = tables.instances.find(id).unwrap();
                let root = tables.volumes.find(&instance.disks[0].volume_id).unwrap();
                let is_begun = tables.replace_root_volume_tasks.with("instance-id", id).next().is_some();
                let is_attached = root.attachment_to(id).is_some();
                let boots = if is_begun { 2 } else { 1 };
                is_attached
                    && instance.hold.is_none()
                    && instance.boot == boots
                    && tables.volumes.iter().count() == 1
            })
        },
    },
];

/// Has the host make the volumes that are to be, and end the guests that are to be down, as they are asked for.
async fn hosts_do_theirs(cloud: &Cloud) {
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cloud.observe_volumes();
        guests_go_down(cloud);
    }
}

/// Whether every snapshot that is there is whole, and no block is there that none needs.
fn all_taken(cloud: &Cloud, blocks: &Blocks) -> bool {
    records(cloud, |tables| {
        tables.snapshots.iter().all(|snapshot| {
            snapshot.is_completed() && blocks.ids().contains(&snapshot.snapshot_id.to_string())
        }) && blocks.ids().iter().all(|id| tables.snapshots.contains(id))
    })
}

fn records<R>(cloud: &Cloud, look: impl FnOnce(&control::engine::Tables) -> R) -> R {
    look(&cloud.1.view.read())
}

/// An instance that runs.
async fn running(cloud: &Cloud) -> String {
    let id = cloud.run(&[]).await;
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    cloud.until(&id, |instance| instance.state == InstanceState::Running).await;
    id
}

async fn snapshot(cloud: &Cloud) -> String {
    let body = serde_json::json!({ "VolumeSize": 1 }).to_string();
    let request =
        Request { method: "POST".into(), path: "/snapshots".into(), body: body.into(), ..Default::default() };
    let answer = cloud.ebs("StartSnapshot", request).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    answer["SnapshotId"].as_str().unwrap().to_owned()
}

/// Has the host say that the guests are down which are to be.
fn guests_go_down(cloud: &Cloud) {
    let held = records(cloud, |tables| {
        let held = tables.instances.iter().filter(|instance| instance.hold == Some(Hold::Asked));
        held.map(|instance| instance.instance_id.clone()).collect::<Vec<_>>()
    });
    for id in held {
        cloud.observe(&id, 1, InstanceObservation::Stopped(StopCause::Asked), None);
    }
}

/// Waits until no workflow is left; they all end.
async fn all_ended(cloud: &Cloud) {
    for _ in 0..1000 {
        if records(cloud, |tables| tables.workflows.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        cloud.observe_volumes();
        guests_go_down(cloud);
    }
    panic!("a workflow does not end");
}

/// Runs the scenario with a crash at the given commit after it began; whether the crash came at all.
async fn with_crash(scenario: &Scenario, commits: i64, stands: bool) -> bool {
    let (inner, blocks) = (MemoryStore::new(), Arc::new(Blocks::default()));
    let cloud = Cloud::over(Arc::new(inner.clone()), blocks.clone()).await.unwrap();
    let subject = (scenario.prepare)(&cloud).await;
    drop(cloud);
    let store = Arc::new(Crashing { inner: inner.clone(), left: AtomicI64::new(commits), stands });
    let cloud = Cloud::over(store.clone(), blocks.clone()).await.unwrap();
    (scenario.begin)(&cloud, &subject).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(cloud);
    let cloud = Cloud::over(Arc::new(inner), blocks.clone()).await.unwrap();
    all_ended(&cloud).await;
    assert!((scenario.holds)(&cloud, &blocks, &subject), "{} after {commits} commits", scenario.kind);
    store.left.load(Ordering::SeqCst) < 0
}

#[tokio::test(start_paused = true)]
async fn replacements_are_told_for_as_long_as_their_instance_is() {
    let cloud = Cloud::start().await;
    let id = cloud.run(&[]).await;
    cloud.observe(&id, 1, InstanceObservation::Running, None);
    cloud.until(&id, |instance| instance.state == InstanceState::Running).await;
    cloud.ok("CreateReplaceRootVolumeTask", &[("InstanceId", &id)]).await;
    hosts_do_theirs(&cloud).await;
    let told = async || {
        let tasks = cloud.ok("DescribeReplaceRootVolumeTasks", &[]).await;
        tasks.all("taskState").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["succeeded"]);
    cloud.ok("TerminateInstances", &[("InstanceId.1", &id)]).await;
    cloud.observe(&id, 2, InstanceObservation::Removed, None);
    cloud.until(&id, |instance| instance.is_terminated()).await;
    assert_eq!(told().await, ["succeeded"]);
    tokio::time::sleep(Duration::from_secs(2 * 60 * 60)).await;
    assert!(told().await.is_empty());
}

#[test]
fn every_kind_has_its_scenario() {
    let with: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.kind).collect();
    assert_eq!(with, Work::KINDS);
}

#[tokio::test(start_paused = true)]
async fn every_commit_may_be_the_last() {
    for scenario in SCENARIOS {
        for stands in [false, true] {
            let mut commits = 0;
            while with_crash(scenario, commits, stands).await {
                commits += 1;
                assert!(commits < 100, "{} does not end", scenario.kind);
            }
            assert!(commits >= 2, "{} was crashed at {commits} commits only", scenario.kind);
        }
    }
}

//! Volumes, snapshots and images: what is done to them, and what holds of them.

use crate::actions::Run;
use crate::call::Call;
use crate::world::World;
use agent_api::HostAgent;
use control::attachment::AttachmentState;
use control::engine::Tables;
use control::snapshot::SnapshotState;
use control::volume::Condition;
use std::collections::BTreeSet;

impl Run {
    pub fn store(&mut self) -> Call {
        let (volumes, snapshots, images) = {
            let tables = self.world.region().view.read();
            let volumes: Vec<_> = tables.volumes.iter().map(|one| one.volume_id.to_string()).collect();
            let snapshots: Vec<_> = tables.snapshots.iter().map(|one| one.snapshot_id.to_string()).collect();
            let images = tables.images.iter().filter(|image| image.name.starts_with("made-"));
            (volumes, snapshots, images.map(|image| image.image_id.to_string()).collect::<Vec<_>>())
        };
        let volume = self.one_of(&volumes, "vol-0123456789abcdef0");
        let snapshot = self.one_of(&snapshots, "snap-0123456789abcdef0");
        let image = self.one_of(&images, "ami-0123456789abcdef0");
        let (volume, snapshot) = (("VolumeId", volume.as_str()), ("SnapshotId", snapshot.as_str()));
        let instance = self.an_instance();
        let zone = ("AvailabilityZone", ["us-east-1a", "us-east-1b"][self.draw(2)]);
        let device = ("Device", ["/dev/sdf", "/dev/sdg", "/dev/sdh"][self.draw(3)]);
        let size = ("Size", ["1", "9", "20"][self.draw(3)]);
        let name = format!("made-{}-{}", self.trace.len(), self.draw(1000));
        let (operation, parameters) = match self.draw(22) {
            0..=2 => ("CreateVolume", vec![zone, size]),
            3 => ("CreateVolume", vec![zone, snapshot]),
            4..=7 => ("AttachVolume", vec![volume, ("InstanceId", &instance), device]),
            8 => ("DetachVolume", vec![volume]),
            9 => ("DetachVolume", vec![volume, ("Force", "true")]),
            10 => ("DeleteVolume", vec![volume]),
            11 => ("ModifyVolume", vec![volume, size]),
            12 => ("CreateSnapshot", vec![volume]),
            13 => ("CreateSnapshots", vec![("InstanceSpecification.InstanceId", instance.as_str())]),
            14 => ("DeleteSnapshot", vec![snapshot]),
            15 => ("CreateImage", vec![("InstanceId", instance.as_str()), ("Name", &name)]),
            16 => ("DeregisterImage", vec![("ImageId", image.as_str())]),
            17 => ("CreateReplaceRootVolumeTask", vec![("InstanceId", instance.as_str())]),
            18 => (
                "CreateReplaceRootVolumeTask",
                vec![("InstanceId", instance.as_str()), ("DeleteReplacedRootVolume", "true")],
            ),
            19 => ("CopySnapshot", vec![("SourceRegion", "us-east-1"), ("SourceSnapshotId", snapshot.1)]),
            20 => ("DetachVolume", vec![volume, ("InstanceId", instance.as_str())]),
            _ => {
                let shared = [("VolumeType", "io2"), ("Iops", "100"), ("MultiAttachEnabled", "true")];
                ("CreateVolume", [zone, ("Size", "9")].into_iter().chain(shared).collect())
            }
        };
        match operation {
            "DeleteVolume" => drop(self.kept.remove(volume.1)),
            "DeleteSnapshot" => drop(self.kept.remove(snapshot.1)),
            _ => {}
        }
        Call::new(operation, parameters)
    }

    pub fn one_of(&self, ids: &[String], none: &str) -> String {
        let at = self.draw(ids.len().max(1));
        ids.get(at).map_or(none, String::as_str).to_owned()
    }
}

/// What is wrong at any moment: of a volume and its instance each knows of the other, and they are on one host.
pub fn violations(tables: &Tables) -> Vec<String> {
    let mut wrong = Vec::new();
    for instance in tables.instances.iter() {
        for disk in &instance.disks {
            let volume = tables.volumes.find(&disk.volume_id);
            let attachment = volume.and_then(|volume| volume.attachment_to(&instance.instance_id));
            if attachment.is_none_or(|attachment| attachment.device_name != disk.device_name) {
                wrong.push(format!("{} has {disk:?}, which has {attachment:?}", instance.instance_id));
            }
        }
    }
    let attached = tables
        .volumes
        .iter()
        .flat_map(|volume| volume.attachments.iter().map(move |attachment| (volume, attachment)));
    for (volume, attachment) in attached {
        let instance = tables.instances.find(&attachment.instance_id);
        let has = instance.is_some_and(|instance| {
            instance.disks.iter().any(|disk| disk.volume_id == volume.volume_id)
                && volume.host_id.as_ref() == Some(&instance.placement.host_id)
        });
        if !has {
            wrong.push(format!(
                "{} is attached to {}, which has it not",
                volume.volume_id, attachment.instance_id
            ));
        }
    }
    wrong
}

/// What has not come to its end although time has passed.
pub fn left_over(world: &World) -> Vec<String> {
    let tables = world.region().view.read();
    let mut found = Vec::new();
    for volume in tables.volumes.iter() {
        let is_over = volume.attachments.iter().all(|one| one.state == AttachmentState::Attached);
        if matches!(volume.state(), "creating" | "deleting") || !is_over {
            found.push(format!(
                "{} is {} for ever: {:?}",
                volume.volume_id,
                volume.state(),
                volume.attachments
            ));
        }
    }
    for snapshot in tables.snapshots.iter().filter(|one| one.state == SnapshotState::Pending) {
        found.push(format!("{} is pending for ever", snapshot.snapshot_id));
    }
    for image in tables.images.iter().filter(|image| image.name.starts_with("made-")) {
        if image.state() == "pending" {
            found.push(format!("{} is pending for ever", image.image_id));
        }
    }
    for task in tables.replace_root_volume_tasks.iter().filter(|task| task.completed_at.is_none()) {
        found.push(format!("{} is {:?} for ever", task.task_id, task.state));
    }
    for instance in tables.instances.iter().filter(|instance| instance.hold.is_some()) {
        found.push(format!("{} is held for ever", instance.instance_id));
    }
    let whole = tables.snapshots.iter().filter(|one| one.state == SnapshotState::Completed);
    let recorded: BTreeSet<String> = whole.map(|one| one.snapshot_id.to_string()).collect();
    let stored: BTreeSet<String> = world.snapshots.ids().into_iter().collect();
    found.extend(stored.difference(&recorded).map(|id| format!("the blocks of {id} are left over")));
    found.extend(recorded.difference(&stored).map(|id| format!("{id} has no blocks")));
    found
}

/// Data on hosts that no record is of, and records whose data is nowhere although nobody said that it is lost.
pub fn leaked(world: &World) -> Vec<String> {
    let tables = world.region().view.read();
    let mut found = Vec::new();
    let mut here = BTreeSet::new();
    for host in &world.hosts {
        let host_id = host.describe().host_id;
        for id in host.volumes() {
            let record = tables.volumes.find(&id);
            if record.is_none_or(|volume| volume.host_id.as_deref() != Some(&*host_id)) {
                found.push(format!("the data of {id} is left over on {host_id}"));
            }
            here.insert(id);
        }
    }
    let whole = tables.volumes.iter().filter(|volume| volume.condition == Condition::Made && !volume.lost);
    found.extend(
        whole
            .filter(|volume| !here.contains(&volume.volume_id))
            .map(|volume| format!("{} is said to be whole and is nowhere", volume.volume_id)),
    );
    found
}

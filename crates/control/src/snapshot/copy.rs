//! CopySnapshot and CopyImage's part in it: whole snapshots under new ids, of this region or another, which share all
//! blocks with them.

use super::{Snapshot, SnapshotState, create, store};
use crate::Context;
use crate::description;
use crate::encryption::{self, Asked, Encryption, Unnamed};
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tags, Tx};
use crate::image::{self, Image};
use crate::region::RegionState;
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use agent_api::HostError;
use async_trait::async_trait;
use aws_api::ec2;
use model::{Error, Id, Kind, Region, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What copies are that shall be done within a time.
pub const TIMED: &str = "Time-based copies are";
const DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

pub async fn copy_snapshot(
    context: &Context,
    input: ec2::CopySnapshotRequest,
) -> Result<ec2::CopySnapshotResult> {
    refuse_what_is_not_there(&input)?;
    let encrypted = Asked::of(input.encrypted, &input.kms_key_id)?;
    let description = input.description.as_deref().unwrap_or_default();
    description::check(description)?;
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::Snapshot])?.of(Kind::Snapshot);
    let id = Id::parse(Kind::Snapshot, input.source_snapshot_id.as_deref().unwrap_or_default())?;
    let source_region = source_region(context, input.source_region.as_deref()).await?;
    let source = source_region.view.record::<Snapshot>(&id);
    let source = source.ok_or_else(|| Id::not_found(Kind::Snapshot, &id))?;
    if !source.is_completed() {
        return Err(Error::new("IncorrectState", format!("Snapshot '{id}' is not completed.")));
    }
    let snapshot_id = context
        .transact(|tx| {
            let encryption = of_copy(context, tx, &encrypted, &source)?;
            let copy = make(tx, &source, description, tags.clone(), encryption);
            begin(tx, vec![copy.clone()], None);
            Ok(copy.to)
        })
        .await?;
    Ok(ec2::CopySnapshotResult { snapshot_id: Some(snapshot_id.to_string()), tags: tags.to_api() })
}

fn refuse_what_is_not_there(input: &ec2::CopySnapshotRequest) -> Result<()> {
    refuse([
        (given(&input.destination_outpost_arn), "Outposts are"),
        (given(&input.destination_availability_zone), "Local Zones are"),
        (input.completion_duration_minutes.is_some(), TIMED),
    ])
}

/// The region that a copy is made from.
pub async fn source_region(context: &Context, name: Option<&str>) -> Result<Arc<RegionState>> {
    let name = name.ok_or_else(|| Error::missing_parameter("SourceRegion"))?;
    let invalid = |_| Error::invalid_parameter_value(format!("Invalid source region: '{name}'"));
    let region: Region = name.parse().map_err(invalid)?;
    context.control.region(&region).await.map_err(invalid)
}

/// How the copy of a snapshot is encrypted.
pub fn of_copy(
    context: &Context,
    tx: &mut Tx<'_>,
    asked: &Asked,
    source: &Snapshot,
) -> Result<Option<Encryption>> {
    encryption::choose(context, tx, asked, source.encryption.as_ref(), Unnamed::Default)
}

/// The record of a copy that is about to be made; `begin` has it made.
pub fn make(
    tx: &mut Tx<'_>,
    source: &Snapshot,
    description: &str,
    tags: Tags,
    encryption: Option<Encryption>,
) -> Copy {
    let snapshot = Snapshot {
        snapshot_id: tx.new_id(Kind::Snapshot),
        // A copy shows no volume.
        volume_id: None,
        description: description.to_owned(),
        state: SnapshotState::Pending,
        state_message: None,
        stored_percent: None,
        upload: None,
        started_at: tx.now(),
        completed_at: None,
        encryption,
        public: false,
        create_volume_permissions: Vec::new(),
        tags,
        ..source.clone()
    };
    tx.create(&snapshot);
    let from_encryption = source.encryption.clone();
    Copy { from: source.snapshot_id.clone(), from_encryption, to: snapshot.snapshot_id }
}

/// Has copies made, and with the last of them their image ready.
pub fn begin(tx: &mut Tx<'_>, copies: Vec<Copy>, image_id: Option<Id>) {
    workflow::begin(tx, Work::CopySnapshots(CopySnapshots { copies, image_id }));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    from: Id,
    #[serde(default)]
    from_encryption: Option<Encryption>,
    to: Id,
}

impl Copy {
    pub fn to(&self) -> &Id {
        &self.to
    }
}

impl Copy {
    async fn carry_out(&self, world: &World) -> Result<(), Failure> {
        // Deleted meanwhile.
        let Some(to) = world.region.view.record::<Snapshot>(&self.to) else { return Ok(()) };
        if to.encryption.as_ref().is_some_and(Encryption::lacks_key) {
            return Err(Failure::Never(encryption::NOT_ACCESSIBLE.into()));
        }
        let never = |error: Error| Failure::Never(error.message);
        if let Some(of) = &self.from_encryption {
            let key = encryption::data_key_anywhere(&world.control, of).await.map_err(never)?;
            world.control.snapshots.tell(&key).await;
        }
        let key = encryption::tell(&world.control, &world.region, &to).await.map_err(never)?;
        let copied = world.control.snapshots.copy(&self.from, &self.to, key.as_ref()).await;
        copied.map_err(|error| match error {
            HostError::NotFound(what) => Failure::Never(format!("{what} is no more")),
            HostError::Failed(message) => Failure::Again(message),
        })
    }
}

/// Makes copies that have their records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopySnapshots {
    /// Never empty.
    copies: Vec<Copy>,
    image_id: Option<Id>,
}

#[async_trait]
impl Steps for CopySnapshots {
    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn subject(&self) -> &str {
        self.copies.first().map_or("", |copy| &copy.to)
    }

    fn step(&self) -> &'static str {
        "copying snapshots"
    }

    async fn act(&self, world: &World) -> Result<Decision, Failure> {
        for copy in &self.copies {
            copy.carry_out(world).await?;
        }
        let work = self.clone();
        Ok(Box::new(move |tx| {
            let copies = work.copies.iter().map(|copy| copy.to.clone());
            store::begin(tx, copies.collect(), work.image_id.clone());
            Ok(Next::Done)
        }))
    }

    fn undo(&self, tx: &mut Tx<'_>, reason: &str) -> Result<()> {
        for copy in &self.copies {
            create::fail(tx, &copy.to, reason);
        }
        if let Some(image) = self.image_id.as_ref().and_then(|id| tx.get::<Image>(id)) {
            let condition = image::Condition::Failed { message: reason.to_owned() };
            tx.put(&Image { condition, ..(*image).clone() });
        }
        Ok(())
    }
}

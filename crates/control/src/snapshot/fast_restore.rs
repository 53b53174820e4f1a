//! Fast snapshot restore: what a snapshot holds stays where volumes are made of it, so that they lack nothing from the
//! start (EBS User Guide, "Amazon EBS fast snapshot restore").

use super::Snapshot;
use crate::Context;
use crate::encryption;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::{Tables, Tx, filter};
use crate::region::Zone;
use crate::workflow::{self, Decision, Failure, Next, Steps, Work, World};
use agent_api::HostError;
use async_trait::async_trait;
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Of one snapshot in one zone. Kept for as long as the snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FastSnapshotRestore {
    /// Snapshot and zone.
    pub key: String,
    pub snapshot_id: Id,
    pub owner: AccountId,
    pub zone: Box<str>,
    pub state: State,
    /// Why it has come to this state, where that was not asked for.
    pub failure: Option<String>,
    pub enabling_at: Option<Timestamp>,
    pub optimizing_at: Option<Timestamp>,
    pub enabled_at: Option<Timestamp>,
    pub disabling_at: Option<Timestamp>,
    pub disabled_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Enabling,
    Optimizing,
    Enabled,
    Disabling,
    Disabled,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Enabling => "enabling",
            State::Optimizing => "optimizing",
            State::Enabled => "enabled",
            State::Disabling => "disabling",
            State::Disabled => "disabled",
        }
    }

    fn is_wanted(self) -> bool {
        matches!(self, State::Enabling | State::Optimizing | State::Enabled)
    }
}

const SNAPSHOT_ID: &str = "snapshot-id";

impl Record for FastSnapshotRestore {
    const TABLE: &'static str = "fast-snapshot-restore";
    const INDEXED: &'static [&'static str] = &[SNAPSHOT_ID];

    fn id(&self) -> &str {
        &self.key
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            SNAPSHOT_ID => filter::one(values, self.snapshot_id.as_str()),
            "owner-id" => filter::one(values, self.owner.as_str()),
            "availability-zone" => filter::one(values, self.zone.as_ref()),
            "state" => filter::one(values, self.state.name()),
            _ => false,
        }
    }
}

impl FastSnapshotRestore {
    fn key(snapshot_id: &Id, zone: &Zone) -> String {
        format!("{snapshot_id}/{}", zone.name)
    }

    fn is_now(&mut self, state: State, now: Timestamp) {
        self.state = state;
        let (at, later): (_, &mut [&mut Option<Timestamp>]) = match state {
            State::Enabling => (
                &mut self.enabling_at,
                &mut [
                    &mut self.optimizing_at,
                    &mut self.enabled_at,
                    &mut self.disabling_at,
                    &mut self.disabled_at,
                ],
            ),
            State::Optimizing => (&mut self.optimizing_at, &mut []),
            State::Enabled => (&mut self.enabled_at, &mut []),
            State::Disabling => (&mut self.disabling_at, &mut []),
            State::Disabled => (&mut self.disabled_at, &mut []),
        };
        *at = Some(now);
        later.iter_mut().for_each(|later| **later = None);
    }

    fn reason(&self) -> String {
        match &self.failure {
            None => "Client.UserInitiated".into(),
            Some(why) => format!("Server.InternalError: {why}"),
        }
    }
}

/// Whether volumes of the snapshot lack nothing in this zone.
pub fn is_enabled(tables: &Tables, snapshot_id: &Id, zone: &str) -> bool {
    let mut restores = tables.fast_snapshot_restores.with(SNAPSHOT_ID, snapshot_id);
    restores.any(|restore| &*restore.zone == zone && restore.state == State::Enabled)
}

/// The snapshot goes.
pub(super) fn forget(tx: &mut Tx<'_>, snapshot_id: &Id) {
    let restores = tx.tables().fast_snapshot_restores.with(SNAPSHOT_ID, snapshot_id);
    let keys: Vec<String> = restores.map(|restore| restore.key.clone()).collect();
    keys.iter().for_each(|key| tx.delete::<FastSnapshotRestore>(key));
}

/// What became of one snapshot: its restores, one a zone; or why there is none.
type Outcome = std::result::Result<Vec<FastSnapshotRestore>, Error>;

/// Has each snapshot's restores in these zones be wanted or not.
async fn change(
    context: &Context,
    zones: (&[String], &[String]),
    snapshot_ids: &[String],
    want: bool,
) -> Result<Vec<(String, Vec<Zone>, Outcome)>> {
    let zones = zones_of(context, zones)?;
    if snapshot_ids.is_empty() {
        return Err(Error::missing_parameter("SourceSnapshotId"));
    }
    let mut outcomes = Vec::new();
    for asked in snapshot_ids {
        let outcome = context.transact(|tx| change_one(tx, asked, &zones, want)).await;
        outcomes.push((asked.clone(), zones.clone(), outcome));
    }
    Ok(outcomes)
}

fn change_one(tx: &mut Tx<'_>, asked: &str, zones: &[Zone], want: bool) -> Outcome {
    let id = Id::parse(Kind::Snapshot, asked)?;
    let snapshot = tx.get::<Snapshot>(&id).ok_or_else(|| Id::not_found(Kind::Snapshot, &id))?;
    if !snapshot.is_completed() {
        return Err(Error::new("IncorrectState", format!("The snapshot {id} is not in state 'completed'")));
    }
    let now = tx.now();
    let mut restores = Vec::new();
    for zone in zones {
        let key = FastSnapshotRestore::key(&id, zone);
        let had = tx.get::<FastSnapshotRestore>(&key);
        if had.as_ref().is_none_or(|had| !had.state.is_wanted()) && !want {
            let message = format!("Fast snapshot restore is not enabled for {id} in {}", zone.name);
            return Err(Error::new("InvalidParameterValue", message));
        }
        let mut restore = had.map_or_else(
            || FastSnapshotRestore {
                key,
                snapshot_id: id.clone(),
                owner: snapshot.owner.clone(),
                zone: zone.name.as_str().into(),
                state: State::Disabled,
                failure: None,
                enabling_at: None,
                optimizing_at: None,
                enabled_at: None,
                disabling_at: None,
                disabled_at: None,
            },
            |had| (*had).clone(),
        );
        if restore.state.is_wanted() != want {
            restore.failure = None;
            restore.is_now(if want { State::Enabling } else { State::Disabling }, now);
            tx.put(&restore);
            workflow::begin(tx, Work::KeepSnapshotNear(KeepSnapshotNear { key: restore.key.clone() }));
        }
        restores.push(restore);
    }
    Ok(restores)
}

fn zones_of(context: &Context, (names, ids): (&[String], &[String])) -> Result<Vec<Zone>> {
    match (names, ids) {
        ([], []) => return Err(Error::missing_parameter("AvailabilityZone")),
        ([_, ..], [_, ..]) => {
            return Err(Error::invalid_parameter_combination(
                "The parameters AvailabilityZone and AvailabilityZoneId cannot be used together",
            ));
        }
        _ => {}
    }
    let zones = &context.region.zones;
    let find = |asked: &String, found: Option<&Zone>| {
        found
            .cloned()
            .ok_or_else(|| Error::invalid_parameter_value(format!("Invalid availability zone: [{asked}]")))
    };
    let named = names.iter().map(|name| find(name, context.region.zone_named(name)));
    named.chain(ids.iter().map(|id| find(id, zones.iter().find(|zone| zone.id == *id)))).collect()
}

/// What both operations answer, each in types of its own.
macro_rules! answer {
    ($context:expr, $input:expr, $want:literal, $result:ident, $item:ident, $failure:ident, $state:ident, $error:ident) => {{
        let (context, input) = ($context, $input);
        let zones = (&*input.availability_zones, &*input.availability_zone_ids);
        let mut result = ec2::$result::default();
        for (snapshot_id, zones, outcome) in change(context, zones, &input.source_snapshot_ids, $want).await?
        {
            match outcome {
                Ok(restores) => result.successful.extend(restores.iter().map(|restore| {
                    let told = to_api(context, restore);
                    ec2::$item {
                        snapshot_id: told.snapshot_id,
                        availability_zone: told.availability_zone,
                        availability_zone_id: told.availability_zone_id,
                        state: told.state,
                        state_transition_reason: told.state_transition_reason,
                        owner_id: told.owner_id,
                        owner_alias: told.owner_alias,
                        enabling_time: told.enabling_time,
                        optimizing_time: told.optimizing_time,
                        enabled_time: told.enabled_time,
                        disabling_time: told.disabling_time,
                        disabled_time: told.disabled_time,
                    }
                })),
                Err(error) => {
                    let in_zone = |zone: &Zone| ec2::$state {
                        availability_zone: Some(zone.name.clone()),
                        availability_zone_id: Some(zone.id.clone()),
                        error: Some(ec2::$error {
                            code: Some(error.code.to_string()),
                            message: Some(error.message.clone()),
                        }),
                    };
                    result.unsuccessful.push(ec2::$failure {
                        snapshot_id: Some(snapshot_id),
                        fast_snapshot_restore_state_errors: zones.iter().map(in_zone).collect(),
                    });
                }
            }
        }
        Ok(result)
    }};
}

pub async fn enable_fast_snapshot_restores(
    context: &Context,
    input: ec2::EnableFastSnapshotRestoresRequest,
) -> Result<ec2::EnableFastSnapshotRestoresResult> {
    answer!(
        context,
        input,
        true,
        EnableFastSnapshotRestoresResult,
        EnableFastSnapshotRestoreSuccessItem,
        EnableFastSnapshotRestoreErrorItem,
        EnableFastSnapshotRestoreStateErrorItem,
        EnableFastSnapshotRestoreStateError
    )
}

pub async fn disable_fast_snapshot_restores(
    context: &Context,
    input: ec2::DisableFastSnapshotRestoresRequest,
) -> Result<ec2::DisableFastSnapshotRestoresResult> {
    answer!(
        context,
        input,
        false,
        DisableFastSnapshotRestoresResult,
        DisableFastSnapshotRestoreSuccessItem,
        DisableFastSnapshotRestoreErrorItem,
        DisableFastSnapshotRestoreStateErrorItem,
        DisableFastSnapshotRestoreStateError
    )
}

pub async fn describe_fast_snapshot_restores(
    context: &Context,
    input: ec2::DescribeFastSnapshotRestoresRequest,
) -> Result<ec2::DescribeFastSnapshotRestoresResult> {
    let tables = context.tables();
    let query = Query {
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ..Query::default()
    };
    let page = describe::select(
        &tables.fast_snapshot_restores,
        Kind::Snapshot,
        &query,
        |_| true,
        |restore, name, values| match name {
            "availability-zone-id" => filter::some(values, zone_id(context, restore)),
            _ => false,
        },
    )?;
    Ok(ec2::DescribeFastSnapshotRestoresResult {
        fast_snapshot_restores: page.records.iter().map(|restore| to_api(context, restore)).collect(),
        next_token: page.next_token,
    })
}

fn zone_id<'c>(context: &'c Context, restore: &FastSnapshotRestore) -> Option<&'c str> {
    context.region.zone_named(&restore.zone).map(|zone| zone.id.as_str())
}

fn to_api(context: &Context, restore: &FastSnapshotRestore) -> ec2::DescribeFastSnapshotRestoreSuccessItem {
    ec2::DescribeFastSnapshotRestoreSuccessItem {
        snapshot_id: Some(restore.snapshot_id.to_string()),
        availability_zone: Some(restore.zone.to_string()),
        availability_zone_id: zone_id(context, restore).map(str::to_owned),
        state: Some(restore.state.name().into()),
        state_transition_reason: Some(restore.reason()),
        owner_id: Some(restore.owner.to_string()),
        owner_alias: None,
        enabling_time: restore.enabling_at,
        optimizing_time: restore.optimizing_at,
        enabled_time: restore.enabled_at,
        disabling_time: restore.disabling_at,
        disabled_time: restore.disabled_at,
    }
}

/// How long to leave a snapshot that more of is still to come.
const PAUSE: Duration = Duration::from_millis(200);

/// Brings a snapshot near, or lets it go again, as its restore says by then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeepSnapshotNear {
    key: String,
}

#[async_trait]
impl Steps for KeepSnapshotNear {
    /// EBS takes an hour for each TiB.
    fn deadline(&self) -> Duration {
        Duration::from_secs(7 * 24 * 60 * 60)
    }

    fn subject(&self) -> &str {
        &self.key
    }

    fn step(&self) -> &'static str {
        "keeping a snapshot near"
    }

    async fn act(&self, world: &World) -> std::result::Result<Decision, Failure> {
        let found = {
            let tables = world.region.view.read();
            let restore = tables.fast_snapshot_restores.find(&self.key).cloned();
            restore.map(|restore| {
                let mut restores = tables.fast_snapshot_restores.with(SNAPSHOT_ID, &restore.snapshot_id);
                // Whatever zone it is in, it is the same store.
                let is_wanted = restores.any(|restore| restore.state.is_wanted());
                (restore, is_wanted)
            })
        };
        let Some((restore, is_wanted)) = found else { return workflow::decide(Next::Done) };
        if let Some(snapshot) = world.region.view.record::<Snapshot>(&restore.snapshot_id) {
            let told = encryption::tell(&world.control, &world.region, &snapshot).await;
            told.map_err(|error| Failure::Never(error.message))?;
        }
        let percent = match world.control.snapshots.keep_near(&restore.snapshot_id, is_wanted).await {
            Ok(percent) => percent,
            // Deleted meanwhile.
            Err(HostError::NotFound(_)) => return workflow::decide(Next::Done),
            Err(HostError::Failed(message)) => return Err(Failure::Again(message)),
        };
        let seen = restore.state;
        Ok(Box::new(move |tx| {
            let Some(restore) = tx.get::<FastSnapshotRestore>(&restore.key) else { return Ok(Next::Done) };
            if restore.state != seen {
                return Ok(Next::Wait(Duration::ZERO));
            }
            Ok(step(tx, restore, percent))
        }))
    }

    fn undo(&self, tx: &mut Tx<'_>, reason: &str) -> Result<()> {
        if let Some(restore) = tx.get::<FastSnapshotRestore>(&self.key) {
            let mut restore = (*restore).clone();
            restore.failure = Some(reason.to_owned());
            restore.is_now(State::Disabled, tx.now());
            tx.put(&restore);
        }
        Ok(())
    }
}

fn step(tx: &mut Tx<'_>, restore: Arc<FastSnapshotRestore>, percent: u8) -> Next {
    let (state, next) = match restore.state {
        State::Enabling => (State::Optimizing, Next::Wait(Duration::ZERO)),
        State::Optimizing if percent < 100 => return Next::Wait(PAUSE),
        State::Optimizing => (State::Enabled, Next::Done),
        State::Disabling => (State::Disabled, Next::Done),
        State::Enabled | State::Disabled => return Next::Done,
    };
    let mut restore = (*restore).clone();
    restore.is_now(state, tx.now());
    tx.put(&restore);
    next
}

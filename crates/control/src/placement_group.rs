//! Placement groups.

use crate::Context;
use crate::engine::describe;
use crate::engine::retire::{self, Retire};
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::unsupported::{given, refuse};
use crate::engine::{Tables, Tags, Tx, filter};
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result};
use serde::{Deserialize, Serialize};

/// Most partitions of a group in each zone (EC2 User Guide, "Partition placement groups").
const PARTITIONS_MAX: i32 = 7;
const PARTITIONS_DEFAULT: i32 = 2;
const NAME_LEN_MAX: usize = 255;
const NAME_SCOPE: &str = "placement-group-name";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    Cluster,
    Partition,
    Spread,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpreadLevel {
    Host,
    #[default]
    Rack,
}

impl Strategy {
    fn name(self) -> &'static str {
        match self {
            Strategy::Cluster => "cluster",
            Strategy::Partition => "partition",
            Strategy::Spread => "spread",
        }
    }
}

impl SpreadLevel {
    fn name(self) -> &'static str {
        match self {
            SpreadLevel::Host => "host",
            SpreadLevel::Rack => "rack",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacementGroup {
    pub group_id: Id,
    pub owner: AccountId,
    pub name: String,
    pub strategy: Strategy,
    pub partition_count: Option<u32>,
    pub spread_level: Option<SpreadLevel>,
    #[serde(default)]
    pub retired: bool,
    pub tags: Tags,
}

impl PlacementGroup {
    /// EC2's `PlacementGroupState`.
    fn state(&self) -> &'static str {
        if self.retired { "deleting" } else { "available" }
    }
}

impl Retire for PlacementGroup {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

impl Record for PlacementGroup {
    const TABLE: &'static str = "placement-group";
    const INDEXED: &'static [&'static str] = &["group-name"];

    fn id(&self) -> &str {
        &self.group_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "group-name" => filter::one(values, self.name.as_str()),
            "spread-level" => filter::some(values, self.spread_level.map(SpreadLevel::name)),
            "state" => filter::one(values, self.state()),
            "strategy" => filter::one(values, self.strategy.name()),
            _ => false,
        }
    }
}

fn unknown(name: &str) -> Error {
    Error::new("InvalidPlacementGroup.Unknown", format!("The Placement Group '{name}' is unknown."))
}

pub async fn create_placement_group(
    context: &Context,
    input: ec2::CreatePlacementGroupRequest,
) -> Result<ec2::CreatePlacementGroupResult> {
    refuse([
        (given(&input.linked_group_id), "Linked placement groups are"),
        (input.operator.is_some(), "Placement groups that a service provider operates are"),
    ])?;
    let name = input
        .group_name
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Error::missing_parameter("GroupName"))?;
    if name.len() > NAME_LEN_MAX || !name.is_ascii() {
        return Err(Error::invalid_parameter_value(format!(
            "A placement group's name has at most {NAME_LEN_MAX} ASCII characters"
        )));
    }
    let strategy = match input.strategy.as_deref() {
        Some("partition") => Strategy::Partition,
        Some("spread") => Strategy::Spread,
        None if input.partition_count.is_some() => Strategy::Partition,
        _ => Strategy::Cluster,
    };
    let partition_count = match (strategy, input.partition_count) {
        (Strategy::Partition, count) => {
            let count = count.unwrap_or(PARTITIONS_DEFAULT);
            if !(1..=PARTITIONS_MAX).contains(&count) {
                return Err(Error::invalid_parameter_value(format!(
                    "The partition count must be between 1 and {PARTITIONS_MAX}"
                )));
            }
            Some(count as u32)
        }
        (_, None) => None,
        (_, Some(_)) => {
            return Err(Error::invalid_parameter_combination("Only the partition strategy has partitions"));
        }
    };
    let spread_level = match (strategy, input.spread_level.as_deref()) {
        (Strategy::Spread, Some("host")) => Some(SpreadLevel::Host),
        (Strategy::Spread, _) => Some(SpreadLevel::Rack),
        (_, None) => None,
        (_, Some(_)) => {
            return Err(Error::invalid_parameter_combination("Only the spread strategy has a spread level"));
        }
    };
    let tags = Specified::from_api(&input.tag_specifications, &[Kind::PlacementGroup])?;
    let group = context
        .transact(|tx| {
            let group = PlacementGroup {
                group_id: tx.new_id(Kind::PlacementGroup),
                owner: context.account().clone(),
                name: name.clone(),
                strategy,
                partition_count,
                spread_level,
                retired: false,
                tags: tags.of(Kind::PlacementGroup),
            };
            if !tx.claim(NAME_SCOPE, &name, &group.group_id) {
                return Err(Error::new(
                    "InvalidPlacementGroup.Duplicate",
                    format!("The Placement Group '{name}' already exists."),
                ));
            }
            tx.create(&group);
            Ok(group)
        })
        .await?;
    Ok(ec2::CreatePlacementGroupResult { placement_group: Some(to_api(context, &group)) })
}

fn to_api(context: &Context, group: &PlacementGroup) -> ec2::PlacementGroup {
    ec2::PlacementGroup {
        group_id: Some(group.group_id.to_string()),
        group_arn: Some(context.arn("placement-group", &group.name)),
        group_name: Some(group.name.clone()),
        state: Some(group.state().into()),
        strategy: Some(group.strategy.name().into()),
        partition_count: group.partition_count.map(|count| count as i32),
        spread_level: group.spread_level.map(|level| level.name().to_owned()),
        tags: group.tags.to_api(),
        ..Default::default()
    }
}

pub async fn describe_placement_groups(
    context: &Context,
    input: ec2::DescribePlacementGroupsRequest,
) -> Result<ec2::DescribePlacementGroupsResult> {
    let tables = context.tables();
    let mut ids = input.group_ids.clone();
    for name in &input.group_names {
        let group = tables.placement_groups.with("group-name", name).next().ok_or_else(|| unknown(name))?;
        ids.push(group.group_id.to_string());
    }
    let arn = |group: &PlacementGroup| context.arn("placement-group", &group.name);
    let groups = describe::select_all(
        &tables.placement_groups,
        Kind::PlacementGroup,
        &ids,
        &input.filters,
        |group, name, values| name == "group-arn" && filter::one(values, arn(group)),
    )?;
    Ok(ec2::DescribePlacementGroupsResult {
        placement_groups: groups.iter().map(|group| to_api(context, group)).collect(),
    })
}

pub async fn delete_placement_group(
    context: &Context,
    input: ec2::DeletePlacementGroupRequest,
) -> Result<()> {
    let name = input.group_name.ok_or_else(|| Error::missing_parameter("GroupName"))?;
    let found = context.tables().placement_groups.with("group-name", &name).next().cloned();
    let id = found.ok_or_else(|| unknown(&name))?.group_id.clone();
    let in_use = |tables: &Tables| {
        let mut instances = tables.instances.with("placement-group-name", &name);
        instances.any(|instance| !instance.is_terminated()).then(|| {
            Error::new(
                "InvalidPlacementGroup.InUse",
                format!("The placement group {name} is in use and may not be deleted."),
            )
        })
    };
    let gone = |tx: &mut Tx<'_>, _: &PlacementGroup| tx.release(NAME_SCOPE, &name);
    retire::delete(context, &id, || unknown(&name), in_use, gone).await
}

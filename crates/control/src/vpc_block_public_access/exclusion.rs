//! Exclusions: VPCs and subnets that the region's mode leaves more.

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::table::{Record, Values};
use crate::engine::tags::Specified;
use crate::engine::unsupported::given;
use crate::engine::{Tables, Tags, Tx, filter, quota};
use crate::{subnet, vpc};
use aws_api::ec2;
use model::{AccountId, Error, Id, Kind, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// A VPC or a subnet has at most one.
const EXCLUDED_SCOPE: &str = "public-access-exclusion-of";
/// The field with what it is of. Ours: EC2 finds them by its ARN.
const BY_RESOURCE: &str = "cumulet:resource-id";

/// EC2's `InternetGatewayExclusionMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExclusionMode {
    AllowBidirectional,
    AllowEgress,
}

impl ExclusionMode {
    const ALL: [ExclusionMode; 2] = [ExclusionMode::AllowBidirectional, ExclusionMode::AllowEgress];

    fn from_api(name: Option<&str>) -> Result<ExclusionMode> {
        let name = name.ok_or_else(|| Error::missing_parameter("InternetGatewayExclusionMode"))?;
        let found = ExclusionMode::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| {
            Error::invalid_parameter_value(format!("{name} is no InternetGatewayExclusionMode"))
        })
    }

    fn name(self) -> &'static str {
        match self {
            ExclusionMode::AllowBidirectional => "allow-bidirectional",
            ExclusionMode::AllowEgress => "allow-egress",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VpcBlockPublicAccessExclusion {
    pub exclusion_id: Id,
    pub owner: AccountId,
    /// A VPC or one of its subnets.
    pub resource_id: Id,
    pub vpc_id: Id,
    pub mode: ExclusionMode,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
    /// It is shown for a while after.
    pub deleted_at: Option<Timestamp>,
    pub tags: Tags,
}

impl VpcBlockPublicAccessExclusion {
    /// EC2's `VpcBlockPublicAccessExclusionState`.
    fn state(&self) -> &'static str {
        match (self.deleted_at, self.updated_at) {
            (Some(_), _) => "delete-complete",
            (None, Some(_)) => "update-complete",
            (None, None) => "create-complete",
        }
    }

    fn arn(&self, context: &Context) -> String {
        let kind = if self.resource_id == self.vpc_id { Kind::Vpc } else { Kind::Subnet };
        context.arn(kind.resource_type(), &self.resource_id)
    }
}

impl Record for VpcBlockPublicAccessExclusion {
    const TABLE: &'static str = "vpc-block-public-access-exclusion";
    const INDEXED: &'static [&'static str] = &[BY_RESOURCE];

    fn id(&self) -> &str {
        &self.exclusion_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            BY_RESOURCE => {
                filter::some(values, self.deleted_at.is_none().then_some(self.resource_id.as_str()))
            }
            "internet-gateway-exclusion-mode" => filter::one(values, self.mode.name()),
            "state" => filter::one(values, self.state()),
            _ => false,
        }
    }
}

/// The exclusion of a VPC or a subnet.
pub(super) fn of_resource(tables: &Tables, id: &str) -> impl Iterator<Item = ExclusionMode> {
    tables.vpc_block_public_access_exclusions.with(BY_RESOURCE, id).map(|exclusion| exclusion.mode)
}

/// Ends the exclusion of a VPC or a subnet that goes.
pub fn forget(tx: &mut Tx<'_>, resource_id: &str) {
    let of = tx.tables().vpc_block_public_access_exclusions.with(BY_RESOURCE, resource_id).next();
    if let Some(id) = of.map(|exclusion| exclusion.exclusion_id.clone())
        && let Some(exclusion) = tx.get::<VpcBlockPublicAccessExclusion>(&id)
    {
        end(tx, &exclusion);
    }
}

fn end(tx: &mut Tx<'_>, exclusion: &VpcBlockPublicAccessExclusion) -> VpcBlockPublicAccessExclusion {
    let ended = VpcBlockPublicAccessExclusion { deleted_at: Some(tx.now()), ..exclusion.clone() };
    tx.release(EXCLUDED_SCOPE, &exclusion.resource_id);
    tx.put(&ended);
    ended
}

fn to_api(
    context: &Context,
    exclusion: &VpcBlockPublicAccessExclusion,
    state: &str,
) -> ec2::VpcBlockPublicAccessExclusion {
    ec2::VpcBlockPublicAccessExclusion {
        exclusion_id: Some(exclusion.exclusion_id.to_string()),
        internet_gateway_exclusion_mode: Some(exclusion.mode.name().into()),
        resource_arn: Some(exclusion.arn(context)),
        state: Some(state.into()),
        creation_timestamp: Some(exclusion.created_at),
        last_update_timestamp: Some(exclusion.updated_at.unwrap_or(exclusion.created_at)),
        deletion_timestamp: exclusion.deleted_at,
        tags: exclusion.tags.to_api(),
        ..Default::default()
    }
}

pub async fn create_vpc_block_public_access_exclusion(
    context: &Context,
    input: ec2::CreateVpcBlockPublicAccessExclusionRequest,
) -> Result<ec2::CreateVpcBlockPublicAccessExclusionResult> {
    let mode = ExclusionMode::from_api(input.internet_gateway_exclusion_mode.as_deref())?;
    match (given(&input.vpc_id), given(&input.subnet_id)) {
        (true, true) => {
            return Err(Error::invalid_parameter_combination(
                "An exclusion is either of a VPC or of a subnet: VpcId and SubnetId cannot be used together",
            ));
        }
        (false, false) => return Err(Error::missing_parameter("VpcId or SubnetId")),
        _ => {}
    }
    let kind = Kind::VpcBlockPublicAccessExclusion;
    let tags = Specified::from_api(&input.tag_specifications, &[kind])?;
    let exclusion = context
        .transact(|tx| {
            let (resource_id, vpc_id) = match input.subnet_id.as_deref().filter(|id| !id.is_empty()) {
                Some(id) => {
                    let subnet = subnet::depend(tx, id)?;
                    (subnet.subnet_id.clone(), subnet.vpc_id.clone())
                }
                None => {
                    let vpc_id = vpc::depend(tx, input.vpc_id.as_deref().unwrap_or_default())?.vpc_id.clone();
                    (vpc_id.clone(), vpc_id)
                }
            };
            tx.serialize("public-access-exclusions");
            let all = tx.tables().vpc_block_public_access_exclusions.iter();
            let count = all.filter(|exclusion| exclusion.deleted_at.is_none()).count() + 1;
            tx.quotas().check_within(quota::PUBLIC_ACCESS_EXCLUSIONS, count)?;
            let exclusion = VpcBlockPublicAccessExclusion {
                exclusion_id: tx.new_id(kind),
                owner: context.account().clone(),
                resource_id,
                vpc_id,
                mode,
                created_at: tx.now(),
                updated_at: None,
                deleted_at: None,
                tags: tags.of(kind),
            };
            if !tx.claim(EXCLUDED_SCOPE, &exclusion.resource_id, &exclusion.exclusion_id) {
                return Err(Error::invalid_parameter_value(format!(
                    "An exclusion already exists for resource {}",
                    exclusion.resource_id
                )));
            }
            tx.create(&exclusion);
            Ok(exclusion)
        })
        .await?;
    Ok(ec2::CreateVpcBlockPublicAccessExclusionResult {
        vpc_block_public_access_exclusion: Some(to_api(context, &exclusion, "create-in-progress")),
    })
}

/// Reads an exclusion that is to be changed; `verb` is what becomes of it.
fn find(tx: &mut Tx<'_>, id: &str, verb: &str) -> Result<VpcBlockPublicAccessExclusion> {
    let exclusion = tx.get::<VpcBlockPublicAccessExclusion>(id);
    let exclusion = exclusion.ok_or_else(|| Id::not_found(Kind::VpcBlockPublicAccessExclusion, id))?;
    if exclusion.deleted_at.is_some() {
        return Err(Error::invalid_parameter_value(format!(
            "Exclusion {id} is in {} state and cannot be {verb}.",
            exclusion.state()
        )));
    }
    Ok((*exclusion).clone())
}

fn parse_id(id: Option<String>) -> Result<Id> {
    Id::parse(Kind::VpcBlockPublicAccessExclusion, &id.unwrap_or_default())
}

pub async fn modify_vpc_block_public_access_exclusion(
    context: &Context,
    input: ec2::ModifyVpcBlockPublicAccessExclusionRequest,
) -> Result<ec2::ModifyVpcBlockPublicAccessExclusionResult> {
    let mode = ExclusionMode::from_api(input.internet_gateway_exclusion_mode.as_deref())?;
    let id = parse_id(input.exclusion_id)?;
    let exclusion = context
        .transact(|tx| {
            let mut exclusion = find(tx, &id, "modified")?;
            (exclusion.mode, exclusion.updated_at) = (mode, Some(tx.now()));
            tx.put(&exclusion);
            Ok(exclusion)
        })
        .await?;
    Ok(ec2::ModifyVpcBlockPublicAccessExclusionResult {
        vpc_block_public_access_exclusion: Some(to_api(context, &exclusion, "update-in-progress")),
    })
}

pub async fn delete_vpc_block_public_access_exclusion(
    context: &Context,
    input: ec2::DeleteVpcBlockPublicAccessExclusionRequest,
) -> Result<ec2::DeleteVpcBlockPublicAccessExclusionResult> {
    let id = parse_id(input.exclusion_id)?;
    let exclusion = context
        .transact(|tx| {
            let exclusion = find(tx, &id, "deleted")?;
            Ok(end(tx, &exclusion))
        })
        .await?;
    Ok(ec2::DeleteVpcBlockPublicAccessExclusionResult {
        vpc_block_public_access_exclusion: Some(to_api(context, &exclusion, "delete-in-progress")),
    })
}

pub async fn describe_vpc_block_public_access_exclusions(
    context: &Context,
    input: ec2::DescribeVpcBlockPublicAccessExclusionsRequest,
) -> Result<ec2::DescribeVpcBlockPublicAccessExclusionsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.exclusion_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "exclusionIds",
    };
    let page = describe::select(
        &tables.vpc_block_public_access_exclusions,
        Kind::VpcBlockPublicAccessExclusion,
        &query,
        |_| true,
        |exclusion, name, values| match name {
            "resource-arn" => filter::one(values, exclusion.arn(context)),
            _ => false,
        },
    )?;
    let shown = page.records.iter().map(|exclusion| to_api(context, exclusion, exclusion.state()));
    Ok(ec2::DescribeVpcBlockPublicAccessExclusionsResult {
        vpc_block_public_access_exclusions: shown.collect(),
        next_token: page.next_token,
    })
}

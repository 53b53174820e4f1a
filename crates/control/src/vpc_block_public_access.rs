//! VPC Block Public Access: what of a region's subnets the internet gateways shut out (VPC User Guide, "Block public
//! access to VPCs and subnets").
//!
//! A change holds for the records as soon as it is stored, and hosts follow at once, as with rules: so it is seen to be
//! under way only in the answer of the call that makes it.

mod exclusion;

pub use exclusion::{
    VpcBlockPublicAccessExclusion, create_vpc_block_public_access_exclusion,
    delete_vpc_block_public_access_exclusion, describe_vpc_block_public_access_exclusions, forget,
    modify_vpc_block_public_access_exclusion,
};

use crate::Context;
use crate::engine::Tables;
use crate::engine::settings::{self, MANAGED_BY, Settings};
use crate::engine::table::{Record, Values};
use crate::subnet::Subnet;
use aws_api::ec2;
use datapath::PublicAccess;
use exclusion::ExclusionMode;
use model::{AccountId, Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// EC2's `InternetGatewayBlockMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlockMode {
    #[default]
    Off,
    Bidirectional,
    Ingress,
}

impl BlockMode {
    const ALL: [BlockMode; 3] = [BlockMode::Off, BlockMode::Bidirectional, BlockMode::Ingress];

    fn name(self) -> &'static str {
        match self {
            BlockMode::Off => "off",
            BlockMode::Bidirectional => "block-bidirectional",
            BlockMode::Ingress => "block-ingress",
        }
    }

    /// What is left of it for whom an exclusion is about.
    fn under(self, exclusion: ExclusionMode) -> BlockMode {
        match (self, exclusion) {
            (_, ExclusionMode::AllowBidirectional) => BlockMode::Off,
            (BlockMode::Bidirectional, ExclusionMode::AllowEgress) => BlockMode::Ingress,
            (mode, ExclusionMode::AllowEgress) => mode,
        }
    }

    pub fn to_desired(self) -> PublicAccess {
        match self {
            BlockMode::Off => PublicAccess::Open,
            BlockMode::Ingress => PublicAccess::Outward,
            BlockMode::Bidirectional => PublicAccess::Blocked,
        }
    }

    pub fn to_api(self) -> ec2::BlockPublicAccessStates {
        ec2::BlockPublicAccessStates { internet_gateway_block_mode: Some(self.name().into()) }
    }
}

/// What an account has chosen for a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VpcBlockPublicAccessOptions {
    pub owner: AccountId,
    pub mode: BlockMode,
    /// None before it has.
    pub updated_at: Option<Timestamp>,
}

impl Record for VpcBlockPublicAccessOptions {
    const TABLE: &'static str = "vpc-block-public-access-options";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        self.owner.as_str()
    }

    fn field<'a>(&'a self, _: &str, _: &mut Values<'a>) -> bool {
        false
    }
}

impl Settings for VpcBlockPublicAccessOptions {
    fn new(account: &AccountId) -> Self {
        VpcBlockPublicAccessOptions { owner: account.clone(), mode: BlockMode::default(), updated_at: None }
    }
}

/// The mode of a VPC.
pub fn of_vpc(tables: &Tables, owner: &AccountId, vpc_id: &str) -> BlockMode {
    let options: VpcBlockPublicAccessOptions = settings::of(tables, owner);
    exclusion::of_resource(tables, vpc_id).fold(options.mode, BlockMode::under)
}

/// The mode of a subnet: of its own exclusion and its VPC's the one counts that allows more.
pub fn of_subnet(tables: &Tables, subnet: &Subnet) -> BlockMode {
    let mode = of_vpc(tables, &subnet.owner, &subnet.vpc_id);
    exclusion::of_resource(tables, &subnet.subnet_id).fold(mode, BlockMode::under)
}

fn to_api(
    context: &Context,
    options: &VpcBlockPublicAccessOptions,
    state: &str,
) -> ec2::VpcBlockPublicAccessOptions {
    ec2::VpcBlockPublicAccessOptions {
        aws_account_id: Some(context.account().to_string()),
        aws_region: Some(context.region.view.region.to_string()),
        state: Some(state.into()),
        internet_gateway_block_mode: Some(options.mode.name().into()),
        last_update_timestamp: options.updated_at,
        managed_by: Some(MANAGED_BY.into()),
        exclusions_allowed: Some("allowed".into()),
        ..Default::default()
    }
}

pub async fn describe_vpc_block_public_access_options(
    context: &Context,
    _: ec2::DescribeVpcBlockPublicAccessOptionsRequest,
) -> Result<ec2::DescribeVpcBlockPublicAccessOptionsResult> {
    let options: VpcBlockPublicAccessOptions = settings::of(&context.tables(), context.account());
    let state = if options.updated_at.is_some() { "update-complete" } else { "default-state" };
    Ok(ec2::DescribeVpcBlockPublicAccessOptionsResult {
        vpc_block_public_access_options: Some(to_api(context, &options, state)),
    })
}

pub async fn modify_vpc_block_public_access_options(
    context: &Context,
    input: ec2::ModifyVpcBlockPublicAccessOptionsRequest,
) -> Result<ec2::ModifyVpcBlockPublicAccessOptionsResult> {
    let wanted = input.internet_gateway_block_mode.as_deref();
    let wanted = wanted.ok_or_else(|| Error::missing_parameter("InternetGatewayBlockMode"))?;
    let mode = BlockMode::ALL.into_iter().find(|mode| mode.name() == wanted);
    let mode = mode
        .ok_or_else(|| Error::invalid_parameter_value(format!("{wanted} is no InternetGatewayBlockMode")))?;
    let updated_at = Some(context.environment.clock.now());
    settings::change(context, |options: &mut VpcBlockPublicAccessOptions| {
        (options.mode, options.updated_at) = (mode, updated_at);
    })
    .await?;
    let options: VpcBlockPublicAccessOptions = settings::of(&context.tables(), context.account());
    Ok(ec2::ModifyVpcBlockPublicAccessOptionsResult {
        vpc_block_public_access_options: Some(to_api(context, &options, "update-in-progress")),
    })
}

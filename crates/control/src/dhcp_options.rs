//! DHCP options.

pub mod create;

use crate::Context;
use crate::engine::describe::{self, Query};
use crate::engine::retire::Retire;
use crate::engine::table::{Record, Values};
use crate::engine::{Claim, Tags, Tx, filter};
use aws_api::ec2;
use model::{AccountId, Id, Kind, Result};
use serde::{Deserialize, Serialize};

/// Stands among the servers for the VPC's own.
pub const VPC_RESOLVER: &str = "AmazonProvidedDNS";

const DEFAULT_SCOPE: &str = "dhcp-options";
const DEFAULT: &str = "default";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DhcpOptions {
    pub dhcp_options_id: Id,
    pub owner: AccountId,
    /// In the order in which they are shown.
    pub configurations: Vec<(String, Vec<String>)>,
    #[serde(default)]
    pub retired: bool,
    pub tags: Tags,
}

impl DhcpOptions {
    /// What a VPC has where nobody chose others: the region's domain, and the VPC's own resolver. One set for all of
    /// a region's VPCs, made for the first.
    pub fn of_region(tx: &mut Tx<'_>, owner: &AccountId) -> Id {
        let key = Claim::key(DEFAULT_SCOPE, DEFAULT);
        if let Some(options) = tx.get::<Claim>(&key).and_then(|claim| tx.get::<DhcpOptions>(&claim.owner)) {
            if options.retired {
                // Taken into use again: whoever is about to delete it looks once more.
                tx.put(&DhcpOptions { retired: false, ..(*options).clone() });
            }
            return options.dhcp_options_id.clone();
        }
        let options = DhcpOptions::amazon(tx, owner);
        tx.claim(DEFAULT_SCOPE, DEFAULT, &options.dhcp_options_id);
        tx.create(&options);
        options.dhcp_options_id
    }

    fn amazon(tx: &Tx<'_>, owner: &AccountId) -> DhcpOptions {
        DhcpOptions {
            dhcp_options_id: tx.new_id(Kind::DhcpOptions),
            owner: owner.clone(),
            configurations: vec![
                ("domain-name".into(), vec![tx.region().private_dns_domain()]),
                ("domain-name-servers".into(), vec![VPC_RESOLVER.into()]),
            ],
            retired: false,
            tags: Tags::default(),
        }
    }
}

impl Retire for DhcpOptions {
    fn retired(&mut self) -> &mut bool {
        &mut self.retired
    }

    fn is_retired(&self) -> bool {
        self.retired
    }
}

impl Record for DhcpOptions {
    const TABLE: &'static str = "dhcp-options";
    const INDEXED: &'static [&'static str] = &[];

    fn id(&self) -> &str {
        &self.dhcp_options_id
    }

    fn tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }

    fn field<'a>(&'a self, name: &str, values: &mut Values<'a>) -> bool {
        match name {
            "dhcp-options-id" => filter::one(values, self.dhcp_options_id.as_str()),
            "key" => filter::many(values, self.configurations.iter().map(|(key, _)| key.as_str())),
            "value" => filter::many(
                values,
                self.configurations.iter().flat_map(|(_, values)| values).map(String::as_str),
            ),
            "owner-id" => filter::one(values, self.owner.as_str()),
            _ => false,
        }
    }
}

pub async fn describe_dhcp_options(
    context: &Context,
    input: ec2::DescribeDhcpOptionsRequest,
) -> Result<ec2::DescribeDhcpOptionsResult> {
    let tables = context.tables();
    let query = Query {
        ids: &input.dhcp_options_ids,
        filters: &input.filters,
        max_results: input.max_results,
        next_token: input.next_token.as_deref(),
        ids_name: "dhcpOptionsIds",
    };
    let page = describe::select(&tables.dhcp_options, Kind::DhcpOptions, &query, |_| true, |_, _, _| false)?;
    Ok(ec2::DescribeDhcpOptionsResult {
        dhcp_options: page.records.iter().map(|options| to_api(options)).collect(),
        next_token: page.next_token,
    })
}

fn to_api(options: &DhcpOptions) -> ec2::DhcpOptions {
    ec2::DhcpOptions {
        dhcp_options_id: Some(options.dhcp_options_id.to_string()),
        owner_id: Some(options.owner.to_string()),
        tags: options.tags.to_api(),
        dhcp_configurations: options
            .configurations
            .iter()
            .map(|(key, values)| ec2::DhcpConfiguration {
                key: Some(key.clone()),
                values: values
                    .iter()
                    .map(|value| ec2::AttributeValue { value: Some(value.clone()) })
                    .collect(),
            })
            .collect(),
    }
}

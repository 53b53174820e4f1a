//! `cumulet instance-type`: types of the owner's own, beside AWS's.

use crate::cloud::Locate;
use crate::query::{Client, RESERVED};
use crate::table;
use anyhow::{Context, Result, bail};
use aws_api::cumulet::{InstanceType, ListInstanceTypesResponse};
use clap::{Subcommand, ValueEnum};
use percent_encoding::utf8_percent_encode;
use std::process::ExitCode;
use std::str::FromStr;

const PATH: &str = "/instance-types";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a type, which instances can then have like any of AWS's
    Create(CreateArgs),
    /// Delete a type that no instance has
    Delete(DeleteArgs),
    /// List the types of your own
    List(ListArgs),
}

/// What is not said of a type is not limited.
#[derive(clap::Args)]
struct CreateArgs {
    /// The type's name, as family.size; the family must be none of AWS's
    name: String,
    /// Virtual processors
    #[arg(long, value_name = "N")]
    vcpus: i64,
    /// Memory
    #[arg(long, value_name = "MIB")]
    memory: i64,
    /// What its instances' processors are
    #[arg(long, value_enum, default_value_t = Architecture::X86_64)]
    architecture: Architecture,
    /// Network bandwidth, each way
    #[arg(long, value_name = "GBPS", value_parser = number)]
    network_gbps: Option<f64>,
    /// Network bandwidth of an instance that has saved some
    #[arg(long, value_name = "GBPS", value_parser = number, requires = "network_gbps")]
    network_peak_gbps: Option<f64>,
    /// Throughput to each volume, in megabits a second
    #[arg(long, value_name = "MBPS", requires = "ebs_iops")]
    ebs_mbps: Option<i64>,
    /// Operations a second of each volume
    #[arg(long, value_name = "N", requires = "ebs_mbps")]
    ebs_iops: Option<i64>,
    /// Instance store volumes, and the size of each in gigabytes, as 2x75
    #[arg(long, value_name = "COUNTxGB")]
    instance_storage: Option<Storage>,
    /// Burstable: what of each processor an instance without CPU credits may use
    #[arg(long, value_name = "PERCENT", value_parser = number)]
    burstable: Option<f64>,
    #[command(flatten)]
    locate: Locate,
}

#[derive(clap::Args)]
struct DeleteArgs {
    name: String,
    #[command(flatten)]
    locate: Locate,
}

#[derive(clap::Args)]
struct ListArgs {
    #[command(flatten)]
    locate: Locate,
}

#[derive(Clone, Copy, ValueEnum)]
enum Architecture {
    #[value(name = "x86_64")]
    X86_64,
    Arm64,
}

/// JSON has no way to say the others.
fn number(text: &str) -> Result<f64> {
    let number: f64 = text.parse()?;
    if number.is_finite() { Ok(number) } else { bail!("it is not finite") }
}

#[derive(Clone, Copy)]
struct Storage {
    count: i64,
    gigabytes: i64,
}

impl FromStr for Storage {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Storage> {
        let (count, gigabytes) = text.split_once('x').context("it is not as 2x75")?;
        Ok(Storage { count: count.parse()?, gigabytes: gigabytes.parse()? })
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Create(args) => create(args)?,
        Command::Delete(args) => {
            let name = utf8_percent_encode(&args.name, RESERVED);
            Client::new(args.locate.cloud()?)?.delete_operator(&format!("{PATH}/{name}"))?;
        }
        Command::List(args) => list(&Client::new(args.locate.cloud()?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: CreateArgs) -> Result<()> {
    let architecture = args.architecture.to_possible_value();
    let figures = InstanceType {
        instance_type: Some(args.name),
        v_cpus: Some(args.vcpus),
        memory_mi_b: Some(args.memory),
        architecture: architecture.map(|value| value.get_name().to_owned()),
        network_bandwidth_in_gbps: args.network_gbps,
        network_peak_bandwidth_in_gbps: args.network_peak_gbps,
        ebs_bandwidth_in_mbps: args.ebs_mbps,
        ebs_iops: args.ebs_iops,
        instance_storage_count: args.instance_storage.map(|storage| storage.count),
        instance_storage_size_in_gb: args.instance_storage.map(|storage| storage.gigabytes),
        baseline_percent: args.burstable,
    };
    let client = Client::new(args.locate.cloud()?)?;
    client.tell_operator(PATH, &serde_json::json!({ "InstanceType": figures }))
}

fn list(client: &Client) -> Result<()> {
    let mut rows = Vec::new();
    let mut query = String::new();
    loop {
        let page: ListInstanceTypesResponse = client.operator(PATH, &query)?;
        rows.extend(page.instance_types.iter().map(row));
        match page.next_token {
            Some(token) => query = format!("nextToken={}", utf8_percent_encode(&token, RESERVED)),
            None => break,
        }
    }
    let headings = ["TYPE", "ARCH", "VCPUS", "MEMORY", "NETWORK", "EBS", "STORAGE", "BASELINE"];
    print!("{}", table::render(headings, &rows));
    Ok(())
}

fn row(of: &InstanceType) -> [String; 8] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let network = of.network_bandwidth_in_gbps.map(|baseline| match of.network_peak_bandwidth_in_gbps {
        Some(peak) if peak > baseline => format!("{baseline} to {peak} Gbps"),
        _ => format!("{baseline} Gbps"),
    });
    let ebs =
        of.ebs_bandwidth_in_mbps.zip(of.ebs_iops).map(|(mbps, iops)| format!("{mbps} Mbps, {iops} IOPS"));
    let storage = of.instance_storage_count.zip(of.instance_storage_size_in_gb);
    [
        of.instance_type.clone().unwrap_or_default(),
        of.architecture.clone().unwrap_or_default(),
        of.v_cpus.unwrap_or_default().to_string(),
        format!("{} MiB", of.memory_mi_b.unwrap_or_default()),
        or_none(network),
        or_none(ebs),
        or_none(storage.map(|(count, gigabytes)| format!("{count}x{gigabytes} GB"))),
        or_none(of.baseline_percent.map(|percent| format!("{percent} %"))),
    ]
}

//! `cumulet explain`: why something is as it is.

use crate::cloud::Locate;
use crate::query::{Client, RESERVED};
use crate::table;
use anyhow::Result;
use aws_api::cumulet::ExplainPlacementResponse;
use clap::Subcommand;
use percent_encoding::utf8_percent_encode;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Why an instance is on its host, and what speaks against the others
    Placement {
        #[command(flatten)]
        locate: Locate,
        instance_id: String,
    },
}

pub fn run(args: Args) -> Result<ExitCode> {
    let What::Placement { locate, instance_id } = args.what;
    let client = Client::new(locate.cloud()?)?;
    let path = format!("/instances/{}/placement", utf8_percent_encode(&instance_id, RESERVED));
    let placement: ExplainPlacementResponse = client.operator(&path, "")?;
    let here = placement.host_id.as_deref().unwrap_or_default();
    let wanted = placement.wanted.unwrap_or_default();
    println!(
        "{instance_id} is on {here}; it takes {} vCPUs and {} MiB.",
        wanted.vcpus.unwrap_or_default(),
        wanted.memory_mi_b.unwrap_or_default()
    );
    let rows: Vec<_> = placement
        .candidates
        .iter()
        .map(|candidate| {
            let free = candidate.free.clone().unwrap_or_default();
            let host_id = candidate.host_id.clone().unwrap_or_default();
            let verdict = match (&candidate.refusal, host_id == here) {
                (Some(refusal), _) => format!("no: {refusal}"),
                (None, true) => "here".to_owned(),
                (None, false) => "possible".to_owned(),
            };
            [
                host_id,
                candidate.availability_zone.clone().unwrap_or_default(),
                candidate.rack.clone().unwrap_or_default(),
                free.vcpus.unwrap_or_default().to_string(),
                format!("{} MiB", free.memory_mi_b.unwrap_or_default()),
                verdict,
            ]
        })
        .collect();
    print!("{}", table::render(["HOST", "ZONE", "RACK", "FREE VCPUS", "FREE MEMORY", "VERDICT"], &rows));
    Ok(ExitCode::SUCCESS)
}

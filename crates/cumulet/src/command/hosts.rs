//! `cumulet hosts`: the machines behind the cloud, how full they are, and what runs where.

use crate::cloud::Locate;
use crate::query::{Client, RESERVED};
use crate::table;
use anyhow::Result;
use aws_api::cumulet::{Host, ListHostsResponse, Room};
use percent_encoding::utf8_percent_encode;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
    /// Each host's instances too
    #[arg(short, long)]
    instances: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let hosts = all(&Client::new(args.locate.cloud()?)?)?;
    if args.instances {
        let headings = ["HOST", "INSTANCE", "TYPE", "STATE", "GROUP", "PARTITION"];
        let rows: Vec<_> = hosts.iter().flat_map(instances).collect();
        print!("{}", table::render(headings, &rows));
    } else {
        let headings = [
            "HOST",
            "ZONE",
            "RACK",
            "ARCH",
            "ACCEL",
            "STATE",
            "VCPUS",
            "MEMORY",
            "INSTANCES",
            "DEDICATED HOST",
        ];
        let rows: Vec<_> = hosts.iter().map(summary).collect();
        print!("{}", table::render(headings, &rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn all(client: &Client) -> Result<Vec<Host>> {
    let mut hosts = Vec::new();
    let mut query = String::new();
    loop {
        let page: ListHostsResponse = client.operator("/hosts", &query)?;
        hosts.extend(page.hosts);
        match page.next_token {
            Some(token) => query = format!("nextToken={}", utf8_percent_encode(&token, RESERVED)),
            None => return Ok(hosts),
        }
    }
}

fn summary(host: &Host) -> [String; 10] {
    let room = |of: fn(&Room) -> Option<i64>| {
        let value = |room: &Option<Room>| room.as_ref().and_then(of).unwrap_or_default();
        (value(&host.taken), value(&host.capacity))
    };
    let (vcpus, vcpus_max) = room(|room| room.vcpus);
    let (memory, memory_max) = room(|room| room.memory_mi_b);
    [
        host.host_id.clone().unwrap_or_default(),
        host.availability_zone.clone().unwrap_or_default(),
        host.rack.clone().unwrap_or_default(),
        host.architecture.clone().unwrap_or_default(),
        host.acceleration.clone().unwrap_or_default(),
        host.state.clone().unwrap_or_default(),
        format!("{vcpus}/{vcpus_max}"),
        format!("{:.1}/{:.1} GiB", memory as f64 / 1024.0, memory_max as f64 / 1024.0),
        host.instances.len().to_string(),
        host.dedicated_host_id.clone().unwrap_or_else(|| "-".into()),
    ]
}

fn instances(host: &Host) -> impl Iterator<Item = [String; 6]> {
    host.instances.iter().map(|instance| {
        [
            host.host_id.clone().unwrap_or_default(),
            instance.instance_id.clone().unwrap_or_default(),
            instance.instance_type.clone().unwrap_or_default(),
            instance.state.clone().unwrap_or_default(),
            instance.placement_group.clone().unwrap_or_else(|| "-".into()),
            instance.partition_number.map_or_else(|| "-".into(), |partition| partition.to_string()),
        ]
    })
}

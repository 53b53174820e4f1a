//! `cumulet network pool`: prefixes of the network around the host whose addresses instances have as public ones.

use crate::cloud::Locate;
use crate::query::{Client, RESERVED};
use crate::table;
use anyhow::Result;
use aws_api::cumulet::{ListPublicPoolsResponse, PublicPool};
use clap::Subcommand;
use ipnet::Ipv4Net;
use percent_encoding::utf8_percent_encode;

const PATH: &str = "/network/pools";

#[derive(Subcommand)]
pub enum Pool {
    /// Take public addresses from a prefix of which nobody else uses an address
    Add {
        /// As 192.168.50.128/25
        cidr: Ipv4Net,
        /// The host's interface to the network of the prefix: the host answers there for addresses in use. Without one the
        /// prefix must be routed to the host
        #[arg(long, value_name = "NAME")]
        interface: Option<String>,
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        #[command(flatten)]
        locate: Locate,
    },
    /// List the pools, and how much of each is free
    List {
        #[command(flatten)]
        locate: Locate,
    },
    /// Remove a pool of which no address is in use
    Remove {
        /// Its id, or its prefix
        pool: String,
        #[command(flatten)]
        locate: Locate,
    },
}

pub fn run(pool: Pool) -> Result<()> {
    match pool {
        Pool::Add { cidr, interface, description, locate } => {
            let input = serde_json::json!({
                "Cidr": cidr.trunc().to_string(),
                "Interface": interface,
                "Description": description,
            });
            Client::new(locate.cloud()?)?.tell_operator(PATH, &input)
        }
        Pool::List { locate } => {
            let rows: Vec<_> = all(&Client::new(locate.cloud()?)?)?.iter().map(row).collect();
            print!("{}", table::render(["POOL", "CIDR", "INTERFACE", "FREE", "DESCRIPTION"], &rows));
            Ok(())
        }
        Pool::Remove { pool, locate } => {
            let client = Client::new(locate.cloud()?)?;
            let cidr = pool.parse::<Ipv4Net>().map(|cidr| cidr.trunc().to_string()).ok();
            let found = match &cidr {
                Some(_) => all(&client)?.into_iter().find(|found| found.cidr == cidr),
                None => None,
            };
            let id = found.and_then(|found| found.pool_id).unwrap_or(pool);
            client.delete_operator(&format!("{PATH}/{}", utf8_percent_encode(&id, RESERVED)))
        }
    }
}

fn all(client: &Client) -> Result<Vec<PublicPool>> {
    let mut pools = Vec::new();
    let mut query = String::new();
    loop {
        let page: ListPublicPoolsResponse = client.operator(PATH, &query)?;
        pools.extend(page.public_pools);
        match page.next_token {
            Some(token) => query = format!("nextToken={}", utf8_percent_encode(&token, RESERVED)),
            None => return Ok(pools),
        }
    }
}

fn row(pool: &PublicPool) -> [String; 5] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let count = |count: Option<i64>| count.unwrap_or_default();
    [
        text(&pool.pool_id),
        text(&pool.cidr),
        pool.interface.clone().unwrap_or_else(|| "(routed)".into()),
        format!("{} of {}", count(pool.available), count(pool.addresses)),
        text(&pool.description),
    ]
}

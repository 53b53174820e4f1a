//! How long it takes to decide where an instance goes, among few hosts and among many, and with a placement group.
//! `cargo bench -p control`

use agent_api::Architecture;
use control::instance::placement::Tenancy;
use control::placement::{Candidate, Group, Load, Member, Request, Tenants, choose};
use control::placement_group::{SpreadLevel, Strategy};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 200;
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

fn main() {
    let mut before: Option<f64> = None;
    for count in [100, 10_000] {
        let names: Vec<(String, String)> =
            (0..count).map(|at| (format!("host-{at:05}"), format!("rack-{:04}", at / 20))).collect();
        let hosts: Vec<Candidate> = names
            .iter()
            .enumerate()
            .map(|(at, (host_id, rack))| Candidate {
                host_id,
                zone: ZONES[at % ZONES.len()],
                rack,
                architecture: Architecture::X86_64,
                away: false,
                capacity: Load { vcpus: 256, memory_mib: 512 * 1024 },
                load: Load { vcpus: (at * 7 % 255) as u64, memory_mib: (at * 7919 % 500_000) as u64 },
                tenants: Tenants { default: 1, dedicated: 0 },
                allocation: None,
            })
            .collect();
        let plain = micros(&hosts, None);
        let members = names.iter().step_by(count / 10).take(5);
        let members = members.map(|(host_id, _)| Member { host_id: host_id.clone(), partition: Some(1) });
        let grouped = micros(
            &hosts,
            Some(Group {
                strategy: Strategy::Partition,
                partition_count: 7,
                spread_level: SpreadLevel::Rack,
                partition: None,
                members: members.collect(),
            }),
        );
        println!("{count:>6} hosts: {plain:>8.1} µs a decision, {grouped:>8.1} µs in a partition group");
        if let Some(before) = before.replace(plain) {
            println!("100 times the hosts take {:.1} times as long", plain / before);
        }
    }
}

fn micros(hosts: &[Candidate<'_>], group: Option<Group>) -> f64 {
    let zones = ["us-east-1b".to_owned()];
    let wanted = Load { vcpus: 2, memory_mib: 1024 };
    let request = Request {
        instance_type: "t3.micro",
        architecture: Architecture::X86_64,
        wanted,
        zones: &zones,
        bound_to: None,
        tenancy: Tenancy::Default,
        dedicated_host_id: None,
        group,
    };
    let began = Instant::now();
    for _ in 0..ROUNDS {
        black_box(choose(black_box(hosts), black_box(&request))).expect("a host has room");
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

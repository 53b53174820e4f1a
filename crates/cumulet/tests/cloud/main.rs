//! A whole cloud in one process, from one seed: calls, faults of hosts and links, and crashes of the control plane at any
//! commit, with invariants after every step. `CUMULET_SEED=7` replays one seed, `CUMULET_SEEDS=5000` runs so many.

mod actions;
mod call;
#[path = "../../../control/tests/resources/crashing.rs"]
mod crashing;
mod interfaces;
mod invariants;
mod link;
mod manage;
mod network;
mod storage;
mod world;

use actions::{FEW_HOSTS, Run};

const STEPS: usize = 40;

/// What happened, a line a step; or what was wrong and what led to it.
fn run(seed: u64) -> Result<Vec<String>, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // Most are small, so that they fill; some have hundreds of hosts and thousands of instances.
        let hosts = if seed % 50 == 49 { 300 } else { FEW_HOSTS };
        let mut run = Run::new(seed, hosts).await;
        for _ in 0..STEPS {
            run.step().await;
            run.check(&[])?;
        }
        run.settle().await?;
        Ok(run.trace)
    })
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn every_seed_holds() {
    let seeds = match number("CUMULET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CUMULET_SEEDS").unwrap_or(200),
    };
    let failed: Vec<u64> = seeds
        .filter(|seed| match run(*seed) {
            Ok(_) => false,
            Err(wrong) => {
                eprintln!("{wrong}\nReplay with CUMULET_SEED={seed}\n");
                true
            }
        })
        .collect();
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..5 {
        assert_eq!(run(seed).unwrap(), run(seed).unwrap(), "seed {seed}");
    }
}

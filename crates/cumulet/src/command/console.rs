//! `cumulet console`: what a guest writes to its serial console.

use crate::cloud::Locate;
use crate::query::Client;
use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How often to ask for more.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    locate: Locate,
    /// The instance: i-…
    instance: String,
    /// Go on showing what comes, until interrupted
    #[arg(short, long)]
    follow: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let client = Client::new(args.locate.cloud()?)?;
    let mut shown: Vec<u8> = Vec::new();
    loop {
        let parameters = [("InstanceId", args.instance.as_str()), ("Latest", "true")];
        let answer = client.ec2("GetConsoleOutput", &parameters)?;
        let output =
            STANDARD.decode(answer.text_of("output")).context("the console's output is not base64")?;
        let mut out = std::io::stdout().lock();
        out.write_all(news(&shown, &output))?;
        out.flush()?;
        shown = output;
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PERIOD);
    }
}

/// How much of the end of what was shown is looked for in what came.
const OVERLAP: usize = 512;

/// What of `now` comes after `before`: the cloud shows a window, whose beginning moves on when it is full.
fn news<'n>(before: &[u8], now: &'n [u8]) -> &'n [u8] {
    if let Some(rest) = now.strip_prefix(before) {
        return rest;
    }
    let tail = &before[before.len().saturating_sub(OVERLAP)..];
    match now.windows(tail.len().max(1)).rposition(|window| window == tail) {
        Some(at) => &now[at + tail.len()..],
        None => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_shown() {
        assert_eq!(news(b"", b"abc"), b"abc");
        assert_eq!(news(b"abc", b"abcdef"), b"def");
        assert_eq!(news(b"abcdef", b"cdefgh"), b"cdefgh");
        let long: Vec<u8> = (0..2000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let mut moved = long[3000..].to_vec();
        moved.extend(b"new");
        assert_eq!(news(&long, &moved), b"new");
    }
}

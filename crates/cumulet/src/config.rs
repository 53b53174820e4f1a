//! Flags, their mirror in the environment (`CUMULET_LISTEN`) and in a TOML file of the same names. A flag wins
//! over the environment, the environment over the file, the file over the default.

use anyhow::{Context, Result, bail};
use clap::Args;
use control::{Limits, Quotas, Rates};
use ipnet::Ipv4Net;
use model::{AccountId, Region};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const DATA_DIR: &str = "/var/lib/cumulet";
const LISTEN: &str = "127.0.0.1:8773";
const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";
/// As EC2 checks its instances: every minute.
const KEEP_FREE: u8 = 15;
const STATUS_CHECK_PERIOD_S: u64 = 60;
/// Zones of a simulated region, as most of AWS's have.
const SIMULATED_ZONES: usize = 3;
/// Set aside for tests between networks (RFC 2544): nobody's real address.
pub const PUBLIC_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 16);
const MTU: u16 = 9001;
const MTU_MIN: u16 = 1280;
/// Zones are named by one letter.
const ZONES_MAX: usize = 26;
/// Hosts and racks of a simulated region.
const SIMULATED_HOSTS_MAX: usize = 100_000;

/// What `serve` can be told. Every field may come from a flag, the environment or the file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServeArgs {
    /// TOML file with the same names as these flags [default: DATA_DIR/cumulet.toml where it is there]
    #[arg(long, env = "CUMULET_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Where the cloud keeps everything [default: /var/lib/cumulet; with --simulate: memory]
    #[arg(long, env = "CUMULET_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to put what snapshots hold: a folder, or s3://BUCKET/PREFIX [default: DATA_DIR/blocks]
    #[arg(long, env = "CUMULET_BLOCK_STORE", value_name = "URL")]
    block_store: Option<String>,
    /// With less than this of the disk free, what snapshots hold is kept in the block store alone; 100 is always
    /// [default: 15]
    #[arg(long, env = "CUMULET_KEEP_FREE", value_name = "PERCENT")]
    keep_free: Option<u8>,
    /// Where requests are accepted [default: 127.0.0.1:8773]
    #[arg(long, env = "CUMULET_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Simulate hosts and guests: the whole API, no root, no machines
    #[arg(long, env = "CUMULET_SIMULATE", num_args = 0..=1, default_missing_value = "true")]
    simulate: Option<bool>,
    /// The cloud's account [default: 000000000000]
    #[arg(long, env = "CUMULET_ACCOUNT_ID", value_name = "12 DIGITS")]
    account_id: Option<AccountId>,
    /// The cloud's region; with --simulate every AWS region exists [default: us-east-1]
    #[arg(long, env = "CUMULET_REGION", value_name = "NAME")]
    region: Option<Region>,
    /// The root's access key instead of a generated one; needs --secret-key
    #[arg(long, env = "CUMULET_ACCESS_KEY", value_name = "KEY")]
    access_key: Option<String>,
    /// The secret of --access-key
    #[arg(long, env = "CUMULET_SECRET_KEY", value_name = "SECRET", hide_env_values = true)]
    secret_key: Option<String>,
    /// Where public addresses come from [default: 198.18.0.0/16]
    #[arg(long, env = "CUMULET_PUBLIC_POOL", value_name = "CIDR")]
    public_pool: Option<Ipv4Net>,
    /// Longest packet of guests' links, in bytes [default: 9001, as EC2]
    #[arg(long, env = "CUMULET_MTU", value_name = "BYTES")]
    mtu: Option<u16>,
    /// This host's address by which other hosts reach it [default: the one by which it reaches the internet]
    #[arg(long, env = "CUMULET_UNDERLAY", value_name = "ADDR")]
    underlay: Option<Ipv4Addr>,
    /// Simulated hosts in each region [default: one of unlimited size in each zone]
    #[arg(long, env = "CUMULET_HOSTS", value_name = "N")]
    hosts: Option<usize>,
    /// Racks that the simulated hosts stand in, over all zones [default: as many as hosts]
    #[arg(long, env = "CUMULET_RACKS", value_name = "N")]
    racks: Option<usize>,
    /// Zones of each simulated region [default: 3]
    #[arg(long, env = "CUMULET_ZONES", value_name = "N")]
    zones: Option<usize>,
    /// End instances when the cloud stops, instead of leaving them running
    #[arg(long, env = "CUMULET_STOP_INSTANCES", num_args = 0..=1, default_missing_value = "true")]
    stop_instances: Option<bool>,
    /// Seconds between checks of each instance's status [default: 60, as EC2]
    #[arg(long, env = "CUMULET_STATUS_CHECK_PERIOD", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    status_check_period: Option<u32>,
    /// Bound what each region may hold: vcpus, instances, volumes, snapshots, images, key-pairs, security-groups…
    #[arg(long = "quota", env = "CUMULET_QUOTAS", value_name = "NAME=COUNT", value_delimiter = ',')]
    #[serde(default)]
    quotas: Vec<String>,
    /// Reading requests a second of each operation and account [default: 100000]
    #[arg(long, env = "CUMULET_READ_RATE", value_name = "N")]
    read_rate: Option<f64>,
    /// Other requests a second of each operation and account [default: 5000]
    #[arg(long, env = "CUMULET_WRITE_RATE", value_name = "N")]
    write_rate: Option<f64>,
    /// Log lines as JSON
    #[arg(long, env = "CUMULET_LOG_JSON", num_args = 0..=1, default_missing_value = "true")]
    log_json: Option<bool>,
}

/// What `serve` does, decided.
#[derive(Clone, Debug)]
pub struct Config {
    /// None is memory.
    pub data_dir: Option<PathBuf>,
    /// None is in the data directory.
    pub block_store: Option<String>,
    /// In percent of the file system.
    pub keep_free: u8,
    pub listen: SocketAddr,
    pub simulate: Option<Simulated>,
    pub account: AccountId,
    pub region: Region,
    pub root_key: Option<(String, String)>,
    pub public_pool: Ipv4Net,
    pub mtu: u16,
    /// None is as the host's routes say.
    pub underlay: Option<Ipv4Addr>,
    pub stop_instances: bool,
    pub status_check_period: Duration,
    pub limits: Limits,
    pub log_json: bool,
}

/// The simulated hosts of each region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// None is one of unlimited size in each zone.
    pub hosts: Option<usize>,
    pub racks: usize,
    pub zones: usize,
}

impl Config {
    /// What the file in a data directory says.
    pub fn of(data_dir: &Path) -> Result<Config> {
        ServeArgs { data_dir: Some(data_dir.to_owned()), ..ServeArgs::default() }.resolve()
    }
}

impl ServeArgs {
    pub fn resolve(self) -> Result<Config> {
        let file = self.file()?;
        let simulate = self.simulate.or(file.simulate).unwrap_or(false);
        let hosts = self.hosts.or(file.hosts);
        let racks = self.racks.or(file.racks);
        let zones = self.zones.or(file.zones);
        if !simulate && (hosts.is_some() || racks.is_some() || zones.is_some()) {
            bail!("--hosts, --racks and --zones describe a simulated cloud: add --simulate");
        }
        let block_store = self.block_store.or(file.block_store);
        if simulate && block_store.is_some() {
            bail!("--block-store is where real snapshots are kept: leave it out with --simulate");
        }
        let underlay = self.underlay.or(file.underlay);
        if simulate && underlay.is_some() {
            bail!("--underlay is an address of a real host: leave it out with --simulate");
        }
        let simulate = if simulate { Some(simulated(hosts, racks, zones)?) } else { None };
        let data_dir = self.data_dir.or(file.data_dir);
        let root_key = match (self.access_key.or(file.access_key), self.secret_key.or(file.secret_key)) {
            (Some(access_key), Some(secret_key)) => Some((access_key, secret_key)),
            (None, None) => None,
            _ => bail!("--access-key and --secret-key belong together"),
        };
        Ok(Config {
            data_dir: if simulate.is_some() {
                data_dir
            } else {
                Some(data_dir.unwrap_or_else(|| DATA_DIR.into()))
            },
            block_store,
            keep_free: keep_free(self.keep_free.or(file.keep_free))?,
            listen: pick(self.listen, file.listen, LISTEN)?,
            simulate,
            account: pick(self.account_id, file.account_id, ACCOUNT)?,
            region: pick(self.region, file.region, REGION)?,
            root_key,
            public_pool: self.public_pool.or(file.public_pool).unwrap_or(PUBLIC_POOL),
            mtu: mtu(self.mtu.or(file.mtu))?,
            underlay,
            limits: Limits {
                quotas: quotas(if self.quotas.is_empty() { &file.quotas } else { &self.quotas })?,
                rates: rates(self.read_rate.or(file.read_rate), self.write_rate.or(file.write_rate))?,
            },
            stop_instances: self.stop_instances.or(file.stop_instances).unwrap_or(false),
            status_check_period: Duration::from_secs(
                self.status_check_period
                    .or(file.status_check_period)
                    .map_or(STATUS_CHECK_PERIOD_S, u64::from)
                    .max(1),
            ),
            log_json: self.log_json.or(file.log_json).unwrap_or(false),
        })
    }

    fn file(&self) -> Result<ServeArgs> {
        let default = self.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR)).join("cumulet.toml");
        let (path, must_be_there) = match &self.config {
            Some(path) => (path.clone(), true),
            None => (default, false),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                toml::from_str(&text).with_context(|| format!("{} is not as it should be", path.display()))
            }
            Err(error) if !must_be_there && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(ServeArgs::default())
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

fn quotas(given: &[String]) -> Result<Quotas> {
    let mut quotas = Quotas::default();
    for one in given {
        let (name, count) =
            one.split_once('=').with_context(|| format!("--quota {one}: it is NAME=COUNT"))?;
        let count = count.parse().with_context(|| format!("--quota {one}: {count} is not a count"))?;
        if !quotas.set(name, count) {
            let names: Vec<_> = Quotas::names().collect();
            bail!("--quota {one}: there is no quota {name}; there are {}", names.join(", "));
        }
    }
    Ok(quotas)
}

fn rates(reading: Option<f64>, writing: Option<f64>) -> Result<Rates> {
    let default = Rates::default();
    let rates =
        Rates { reading: reading.unwrap_or(default.reading), writing: writing.unwrap_or(default.writing) };
    if ![rates.reading, rates.writing].iter().all(|rate| rate.is_finite() && *rate > 0.0) {
        bail!("--read-rate and --write-rate must be more than 0");
    }
    Ok(rates)
}

fn pick<T: std::str::FromStr>(flag: Option<T>, file: Option<T>, default: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match flag.or(file) {
        Some(value) => Ok(value),
        None => default.parse().with_context(|| format!("the default {default}")),
    }
}

/// As long as every link of IPv6 carries (RFC 8200), and no longer than EC2's.
fn keep_free(asked: Option<u8>) -> Result<u8> {
    match asked.unwrap_or(KEEP_FREE) {
        percent @ 0..=100 => Ok(percent),
        asked => bail!("--keep-free is a percentage, and not {asked}"),
    }
}

fn mtu(asked: Option<u16>) -> Result<u16> {
    match asked {
        None => Ok(MTU),
        Some(asked) if (MTU_MIN..=MTU).contains(&asked) => Ok(asked),
        Some(asked) => bail!("--mtu is between {MTU_MIN} and {MTU}, and not {asked}"),
    }
}

fn simulated(hosts: Option<usize>, racks: Option<usize>, zones: Option<usize>) -> Result<Simulated> {
    let zones = zones.unwrap_or(SIMULATED_ZONES);
    if zones == 0 || zones > ZONES_MAX {
        bail!("--zones must be 1 to {ZONES_MAX}");
    }
    let least = hosts.unwrap_or(zones);
    let racks = racks.unwrap_or(least);
    if least < zones || least > SIMULATED_HOSTS_MAX {
        bail!("--hosts must be at least one for each of the {zones} zones and at most {SIMULATED_HOSTS_MAX}");
    }
    if racks < zones || racks > least {
        bail!(
            "--racks must be at least one for each of the {zones} zones and at most the number of hosts, {least}"
        );
    }
    Ok(Simulated { hosts, racks, zones })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("cumulet.toml");
        std::fs::write(&config, "region = \"eu-west-1\"\naccount-id = \"111122223333\"\nsimulate = true\n")
            .unwrap();
        let args = ServeArgs {
            config: Some(config),
            region: Some("eu-north-1".parse().unwrap()),
            ..Default::default()
        };
        let config = args.resolve().unwrap();
        assert_eq!(config.region.as_str(), "eu-north-1");
        assert_eq!(config.account.as_str(), "111122223333");
        assert_eq!(config.data_dir, None);
    }

    #[test]
    fn only_a_real_host_has_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("cumulet.toml");
        std::fs::write(&config, "underlay = \"10.1.2.3\"\n").unwrap();
        let args = ServeArgs { config: Some(config), ..Default::default() };
        assert_eq!(args.clone().resolve().unwrap().underlay, Some(Ipv4Addr::new(10, 1, 2, 3)));
        let error = ServeArgs { simulate: Some(true), ..args }.resolve().unwrap_err();
        assert!(error.to_string().contains("--underlay"), "{error}");
    }

    #[test]
    fn a_misspelt_name_in_the_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("cumulet.toml");
        std::fs::write(&config, "regin = \"eu-west-1\"\n").unwrap();
        let error = ServeArgs { config: Some(config), ..Default::default() }.resolve().unwrap_err();
        assert!(format!("{error:#}").contains("regin"), "{error:#}");
    }

    #[test]
    fn impossible_simulated_clouds_are_refused() {
        assert!(simulated(Some(2), None, Some(3)).is_err());
        assert!(simulated(Some(4), Some(8), Some(2)).is_err());
        assert!(simulated(None, None, Some(27)).is_err());
        assert_eq!(simulated(None, None, None).unwrap(), Simulated { hosts: None, racks: 3, zones: 3 });
    }
}

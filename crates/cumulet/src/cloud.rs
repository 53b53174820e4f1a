//! How the user's commands find the cloud: by the file that `serve` leaves in the data directory, or by the
//! environment variables that every AWS client reads.

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the cloud is and the root's key to it.
#[derive(Clone, Deserialize, Serialize)]
pub struct Cloud {
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
}

const FILE: &str = "cloud.json";

/// The flag that every user's command has.
#[derive(Args, Clone, Debug)]
pub struct Locate {
    /// The cloud's data directory
    #[arg(long, env = "CUMULET_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Locate {
    /// The data directory's cloud where one is named, else the environment's, else the default directory's.
    pub fn cloud(&self) -> Result<Cloud> {
        match &self.data_dir {
            Some(dir) => Cloud::read(dir),
            None => match Cloud::from_environment() {
                Some(cloud) => Ok(cloud),
                None => Cloud::read(Path::new(crate::config::DATA_DIR)),
            },
        }
    }
}

impl Cloud {
    fn from_environment() -> Option<Cloud> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Cloud {
            endpoint: variable("AWS_ENDPOINT_URL_EC2").or_else(|| variable("AWS_ENDPOINT_URL"))?,
            region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"))?,
            access_key_id: variable("AWS_ACCESS_KEY_ID")?,
            secret_access_key: variable("AWS_SECRET_ACCESS_KEY")?,
        })
    }

    pub fn read(dir: &Path) -> Result<Cloud> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: start a cloud with 'cumulet serve', name its --data-dir, or set the AWS environment variables",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is not as serve writes it", path.display()))
    }

    /// Leaves the file for the user's commands; nobody else may read it.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (path, fresh) = (dir.join(FILE), dir.join("cloud.json.new"));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .with_context(|| format!("cannot write {}", fresh.display()))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What a shell needs to evaluate for AWS clients to find the cloud.
    pub fn exports(&self) -> String {
        let variables = [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", &self.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_access_key),
            ("AWS_DEFAULT_REGION", &self.region),
        ];
        variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect()
    }
}

/// As one word of a POSIX shell.
fn quoted(value: &str) -> String {
    let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:+=@%".contains(&b));
    if plain && !value.is_empty() { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_the_shell() {
        assert_eq!(quoted("abc/+="), "abc/+=");
        assert_eq!(quoted("a'b c"), r"'a'\''b c'");
        assert_eq!(quoted(""), "''");
    }
}

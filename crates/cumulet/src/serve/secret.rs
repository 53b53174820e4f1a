//! The key that encrypts secrets at rest: in a file beside the data that only its owner reads, or given by the
//! environment, so that it need not lie on the same disk.

use anyhow::{Context, Result, bail};
use model::Environment;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE: &str = "secret.key";
/// 64 hexadecimal digits.
pub const VARIABLE: &str = "CUMULET_ENCRYPTION_KEY";

pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

pub fn encryption_key(data_dir: Option<&Path>, environment: &Environment) -> Result<[u8; 32]> {
    if let Ok(text) = std::env::var(VARIABLE) {
        return parse(&text).with_context(|| format!("{VARIABLE} is not 64 hexadecimal digits"));
    }
    let mut key = [0u8; 32];
    environment.random.fill(&mut key);
    let Some(dir) = data_dir else { return Ok(key) };
    let path = path(dir);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            parse(text.trim()).with_context(|| format!("{} is not 64 hexadecimal digits", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Whole or not at all: a key cut short would lock the secrets up for good.
            let fresh = dir.join("secret.key.new");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            std::fs::File::open(dir)?.sync_all()?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn parse(text: &str) -> Result<[u8; 32]> {
    let mut key = [0u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        bail!("it has {} characters", text.len());
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment::system();
        let first = encryption_key(Some(dir.path()), &environment).unwrap();
        assert_eq!(encryption_key(Some(dir.path()), &environment).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

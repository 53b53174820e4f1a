//! Settings of a namespace's network stack: files under `/proc/sys/net`, where each thread sees its own namespace's.

use std::io;
use std::path::{Path, PathBuf};

/// In the order given: `ip_forward` resets others.
pub(super) fn write<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    settings.into_iter().try_for_each(|(name, value)| {
        let path = path_of(name);
        match std::fs::write(&path, value) {
            // A kernel without IPv6 has nothing to be told of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6/") => {
                return Ok(());
            }
            result => result,
        }
        .map_err(|error| io::Error::new(error.kind(), format!("can't set {}: {error}", path.display())))
    })
}

pub(super) fn read(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path_of(name))?.trim().to_owned())
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

//! Settings of a namespace's network stack: files under `/proc/sys/net`, where each thread sees its own namespace's.

use std::io;
use std::path::{Path, PathBuf};

/// Of every namespace that passes packets on for others. Reverse path filtering is off: the packet filter asks who sends.
/// Nobody's word is taken for an address or a route.
pub(super) const ROUTER: [(&str, &str); 13] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
];

/// In the order given: `ip_forward` resets others.
pub(super) fn write<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    settings.into_iter().try_for_each(|(name, value)| {
        let path = path_of(name);
        match std::fs::write(&path, value) {
            // A kernel without IPv6 has nothing to be told of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_of_ipv6(name) => return Ok(()),
            result => result,
        }
        .map_err(|error| io::Error::new(error.kind(), format!("can't set {}: {error}", path.display())))
    })
}

pub(super) fn read(name: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path_of(name))?.trim().to_owned())
}

fn is_of_ipv6(name: &str) -> bool {
    name.starts_with("ipv6/") || name.starts_with("netfilter/nf_conntrack_frag6_")
}

/// Names of the directory's entries.
pub(super) fn list(directory: &str) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(path_of(directory))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Whether the kernel has IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    path_of("ipv6").exists()
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

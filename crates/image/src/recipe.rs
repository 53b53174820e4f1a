//! What can be built, and what a build gives.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// Kernel, busybox and dropbear: at its prompt in seconds under emulation.
    Tiny,
    /// Debian 12 as a cloud knows it: cloud-init, OpenSSH, systemd.
    Debian12,
}

impl Recipe {
    pub const ALL: [Recipe; 2] = [Recipe::Debian12, Recipe::Tiny];

    /// As the user names it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Tiny => "tiny",
            Recipe::Debian12 => "debian-12",
        }
    }

    /// For the AMI's description.
    pub fn description(self) -> &'static str {
        match self {
            Recipe::Tiny => "Linux with busybox and dropbear, from Debian 12 packages",
            Recipe::Debian12 => "Debian 12 (bookworm)",
        }
    }

    /// The smallest volume it fits on, in GiB.
    pub(crate) fn size_gib(self) -> u32 {
        match self {
            Recipe::Tiny => 1,
            Recipe::Debian12 => 8,
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Recipe {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let known = Recipe::ALL.map(Recipe::name).join(", ");
        let found = Recipe::ALL.into_iter().find(|recipe| recipe.name() == name);
        found.ok_or_else(|| anyhow::anyhow!("there is no image `{name}` to build: choose one of {known}"))
    }
}

/// A bootable disk, ready to be uploaded and registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// A raw, sparse file.
    pub path: PathBuf,
    /// Of the volume it needs.
    pub size_gib: u32,
    pub virtual_bytes: u64,
    /// RegisterImage's `Architecture`.
    pub architecture: &'static str,
    /// RegisterImage's `BootMode`: boots under BIOS and UEFI.
    pub boot_mode: &'static str,
    pub description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for recipe in Recipe::ALL {
            assert_eq!(recipe.name().parse::<Recipe>().unwrap(), recipe);
        }
        let message = "arch".parse::<Recipe>().unwrap_err().to_string();
        assert_eq!(message, "there is no image `arch` to build: choose one of debian-12, tiny");
    }
}

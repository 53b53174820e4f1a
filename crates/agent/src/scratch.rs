//! Instance store volumes: files that are there while their instance runs (EC2 User Guide, "Instance store temporary
//! block storage"). A reboot keeps them; a stop, a termination and whatever ends the machine takes them away.

use agent_api::Instance;
use model::Id;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(crate) struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    pub(crate) fn new(state_dir: &Path) -> Scratch {
        Scratch { dir: state_dir.join("scratch") }
    }

    /// The instance's volumes, in order; made empty where they are not there. They take up what is written to them.
    pub(crate) fn ensure(&self, instance: &Instance) -> io::Result<Vec<PathBuf>> {
        let sizes = &instance.machine.instance_store;
        if sizes.is_empty() {
            return Ok(Vec::new());
        }
        let dir = self.dir.join(instance.instance_id.as_str());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let ensure = |(index, size): (usize, &u64)| {
            let path = dir.join(index.to_string());
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.set_len(*size)?;
            Ok(path)
        };
        sizes.iter().enumerate().map(ensure).collect()
    }

    /// To be called once the machine is gone.
    pub(crate) fn remove(&self, instance_id: &Id) {
        remove(&self.dir.join(instance_id.as_str()));
    }

    /// Removes what is left of all instances but those named.
    pub(crate) fn sweep<'a>(&self, keep: impl Iterator<Item = &'a Id>) {
        let keep: HashSet<&str> = keep.map(Id::as_str).collect();
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_none_or(|name| !keep.contains(name)) {
                remove(&entry.path());
            }
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(path = %path.display(), error, "instance store volumes not removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn volumes_keep_their_data_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(dir.path());
        let mut instance = examples::instance(1);
        assert!(scratch.ensure(&instance).unwrap().is_empty());
        assert!(!dir.path().join("scratch").exists());
        instance.machine.instance_store = vec![1 << 40, 4096];
        let volumes = scratch.ensure(&instance).unwrap();
        let lengths: Vec<u64> = volumes.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
        assert_eq!(lengths, [1 << 40, 4096]);
        fs::write(&volumes[1], [7; 4096]).unwrap();
        assert_eq!(scratch.ensure(&instance).unwrap(), volumes);
        assert_eq!(fs::read(&volumes[1]).unwrap(), [7; 4096]);
        scratch.sweep([&instance.instance_id].into_iter());
        assert!(volumes[1].exists());
        scratch.remove(&instance.instance_id);
        scratch.ensure(&instance).unwrap();
        assert_eq!(fs::read(&volumes[1]).unwrap(), [0; 4096]);
        scratch.sweep(std::iter::empty());
        assert!(!volumes[0].exists());
    }
}

//! The host's disk is full: the guest must not see it, and goes on when there is room again.

use crate::guest::Then;
use crate::host::Host;
use host::machine::Hypervisor;
use rustix::mount::{MountFlags, UnmountFlags};
use std::path::{Path, PathBuf};

/// A small file system, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf, size: &str) -> SmallDisk {
        std::fs::create_dir(&path).unwrap();
        let small = SmallDisk(path);
        small.mount(MountFlags::empty(), size);
        small
    }

    fn mount(&self, flags: MountFlags, size: &str) {
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount("tmpfs", &self.0, "tmpfs", flags, options.as_c_str()).unwrap();
    }

    fn grow(&self, size: &str) {
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), options.as_c_str()).unwrap();
    }

    fn is_full(&self) -> bool {
        rustix::fs::statvfs(&self.0).unwrap().f_bavail == 0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a machine of a test that failed may still have files open.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn enlarge(disk: &Path) {
    std::fs::OpenOptions::new().write(true).open(disk).unwrap().set_len(64 << 20).unwrap();
}

#[tokio::test]
async fn a_guest_waits_for_room_and_never_sees_an_error() {
    let Some(host) = Host::new() else { return };
    let small = SmallDisk::new(host.dir.path().join("small"), "3m");
    let mut spec = host.spec("writing:", Then::FillDisk);
    let disk = small.0.join("disk");
    std::fs::copy(&spec.disks[0].layers[0].path, &disk).unwrap();
    enlarge(&disk);
    spec.disks[0].layers[0].path = disk;
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    host.said(&spec, "writing:", 1).await;
    while !small.is_full() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!host.console(&spec).await.contains("writing:D"));
    small.grow("32m");
    host.said(&spec, "writing:D", 1).await;
    host.driver().end(&spec.instance_id).await.unwrap();
}

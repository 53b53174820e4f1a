//! The life of a machine with the tiny image, under QEMU without acceleration: first boot by BIOS on a larger disk,
//! second boot by UEFI, and a copy of the disk in another instance.
//!
//! Needs root and QEMU. The disk is built once and kept in Cargo's directory for tests.

mod guest;
mod metadata;

use guest::{Firmware, Guest, Key};
use image::{Recipe, Silent, build};
use metadata::{Instance, Metadata};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// Appends to a file, so that a second run would show.
const USER_DATA: &str =
    "#!/bin/sh\necho run >>/root/runs\necho \"user data speaks, run $(wc -l </root/runs)\"\n";
const LARGER_DISK_BYTES: u64 = 2 << 30;

#[test]
fn a_tiny_machine_lives() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: building an image and running a guest need root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk.raw");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    build(Recipe::Tiny, &disk, &cache, &Silent).unwrap();
    // The build needs the host's.
    enter_network_of_its_own();
    File::options().write(true).open(&disk).unwrap().set_len(LARGER_DISK_BYTES).unwrap();
    let key = Key::make(directory.path());
    let metadata = Metadata::serve();

    metadata.set(Instance {
        id: "i-00000000000000001",
        user_data: USER_DATA.into(),
        owners_key: key.public.clone(),
    });
    let guest = Guest::boot(&disk, Firmware::Bios, directory.path());
    let console = guest.wait_for("tiny: user data done, exit status 0");
    assert!(console.contains("tiny login:"), "no prompt:\n{console}");
    assert!(console.contains("user data speaks, run 1"), "no user data:\n{console}");
    assert_eq!(guest.ssh(&key, "hostname"), "ip-10-0-0-7");
    let root_kib: u64 = guest.ssh(&key, "df -k / | tail -n 1 | awk '{print $2}'").parse().unwrap();
    assert!(root_kib > 1_700_000, "the root file system did not grow: {root_kib} KiB");
    let host_key = guest.ssh(&key, "dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep ^ssh-");
    guest.press_power_button();

    let guest = Guest::boot(&disk, Firmware::Uefi, directory.path());
    guest.wait_for("tiny: instance i-00000000000000001 is up");
    assert_eq!(guest.ssh(&key, "cat /root/runs; ls -d /sys/firmware/efi"), "run\n/sys/firmware/efi");
    let again = guest.ssh(&key, "dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep ^ssh-");
    assert_eq!(again, host_key, "the host key changed in a reboot");
    guest.press_power_button();

    metadata.set(Instance {
        id: "i-00000000000000002",
        user_data: gzip(USER_DATA),
        owners_key: key.public.clone(),
    });
    let guest = Guest::boot(&disk, Firmware::Bios, directory.path());
    let console = guest.wait_for("tiny: user data done, exit status 0");
    assert!(console.contains("user data speaks, run 2"), "no user data in the copy:\n{console}");
    let another = guest.ssh(&key, "dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep ^ssh-");
    assert_ne!(another, host_key, "two instances share a host key");
    guest.press_power_button();
    assert!(metadata.refused_none(), "a request came without a token");
}

/// Addresses and ports of this thread and of all it starts are its own, and end with it.
fn enter_network_of_its_own() {
    // SAFETY: only moves the calling thread into a new, empty network namespace.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "no network namespace");
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
}

fn gzip(text: &str) -> Vec<u8> {
    let script = format!("printf '%s' '{text}' | gzip -c");
    Command::new("sh").args(["-c", &script]).output().unwrap().stdout
}

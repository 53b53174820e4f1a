//! What a machine is made of: disks over others, network cards, firmware.

use crate::guest::Then;
use crate::host::{Host, disk};
use host::machine::{DiskFormat, DiskLayer, EndCause, Firmware, Hypervisor, MachineError, NicSpec};
use model::{Id, Kind, SystemRandom, UefiVariable};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The machine's own user can read neither the overlay nor what it lies over: it is handed both.
#[tokio::test]
async fn a_guest_boots_from_an_overlay_over_a_sealed_file() {
    let Some(mut host) = Host::new() else { return };
    let mut spec = host.spec("below", Then::PowerOff);
    let base = spec.disks[0].layers[0].path.clone();
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o400)).unwrap();
    let overlay = base.with_extension("qcow2");
    let options = "cluster_size=128k,extended_l2=on";
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-o", options]).arg(&overlay).arg("8G");
    assert!(create.status().unwrap().success());
    std::fs::set_permissions(&overlay, std::fs::Permissions::from_mode(0o600)).unwrap();
    spec.disks[0].layers[0].path = overlay;
    spec.disks[0].layers[0].format = DiskFormat::Qcow2;
    spec.disks[0].layers.push(DiskLayer { path: base, format: DiskFormat::Raw });
    let empty = host.dir.path().join("empty");
    std::fs::File::create(&empty).unwrap().set_len(1 << 30).unwrap();
    spec.disks.push(disk(Id::new(Kind::Volume, &SystemRandom), empty));
    spec.scratch = (0..9).map(|number| host.dir.path().join(format!("scratch{number}"))).collect();
    for path in &spec.scratch {
        std::fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
    }
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    assert_eq!(host.next_end().await.cause, EndCause::Guest);
    assert!(host.console(&spec).await.contains("below"));
}

#[tokio::test]
async fn a_network_card_has_its_tap_and_gives_it_back() {
    let Some(host) = Host::new() else { return };
    let name = format!("hostm{}", std::process::id());
    let mut spec = host.spec("hello", Then::Halt);
    let interface_id = Id::new(Kind::NetworkInterface, &SystemRandom);
    spec.nics = vec![NicSpec { interface_id, mac: [2, 0, 0, 1, 2, 3], mtu: 9001 }];
    host.driver().start(spec.clone(), vec![]).await.expect_err("no tap was given");
    for boot in 1..=2 {
        spec.boot = boot;
        // Busy unless the queue was given back.
        let tap = open_tap(&name).unwrap();
        host.driver().start(spec.clone(), vec![vec![tap]]).await.unwrap();
        assert!(open_tap(&name).is_err(), "the machine has the queue");
        host.driver().end(&spec.instance_id).await.unwrap();
    }
}

/// The guest listens to nothing: what it is asked for it keeps, and has no link where that was taken by force.
#[tokio::test]
async fn a_network_card_comes_and_goes() {
    let Some(host) = Host::new() else { return };
    let card = |number: u8| NicSpec {
        interface_id: Id::new(Kind::NetworkInterface, &SystemRandom),
        mac: [2, 0, 0, 1, 2, number],
        mtu: 9001,
    };
    let name = |number: u8| format!("hostc{number}-{}", std::process::id());
    let mut spec = host.spec("deaf", Then::Halt);
    spec.nics = vec![card(0), card(1)];
    spec.nics_max = 3;
    let driver = host.driver();
    let taps = [0, 1].map(|number| vec![open_tap(&name(number)).unwrap()]);
    driver.start(spec.clone(), taps.into()).await.unwrap();
    host.said(&spec, "deaf", 1).await;
    let instance_id = &spec.instance_id;
    let third = card(2);
    for _ in 0..2 {
        // The second time the machine has it.
        let tap = if open_tap(&name(2)).is_ok() { open_queues(&name(2)) } else { open_queues(&name(9)) };
        driver.attach_nic(instance_id, third.clone(), tap.into()).await.unwrap();
    }
    assert!(open_tap(&name(2)).is_err(), "the machine has the queue");
    assert!(driver.attached(instance_id).await.unwrap().contains(&third.interface_id));
    let full = driver.attach_nic(instance_id, card(3), vec![open_tap(&name(3)).unwrap()]).await;
    assert!(matches!(full, Err(MachineError::Failed(_))), "the type has three: {full:?}");
    let interface_id = &third.interface_id;
    assert!(!driver.detach_nic(instance_id, interface_id, false).await.unwrap());
    assert!(driver.attached(instance_id).await.unwrap().contains(interface_id));
    assert!(driver.detach_nic(instance_id, interface_id, true).await.unwrap());
    assert!(!driver.attached(instance_id).await.unwrap().contains(interface_id));
    let again = driver.attach_nic(instance_id, third, vec![open_tap(&name(4)).unwrap()]).await;
    assert!(matches!(again, Err(MachineError::Failed(_))), "its device is there still: {again:?}");
    driver.end(instance_id).await.unwrap();
}

/// The only queue of a tap that is gone when nobody has it open.
fn open_tap(name: &str) -> std::io::Result<OwnedFd> {
    open_with(name, 0)
}

/// Of one that has several.
fn open_queues(name: &str) -> [OwnedFd; 3] {
    [0; 3].map(|_| open_with(name, libc::IFF_MULTI_QUEUE).unwrap())
}

fn open_with(name: &str, flags: libc::c_int) -> std::io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeros is a valid value of this plain C structure, which lives through the call.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request)
    };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(file.into()) }
}

#[tokio::test]
async fn uefi_variables_stay_with_the_machine() {
    let Some(host) = Host::new() else { return };
    let mut spec = host.spec("never run by UEFI", Then::Halt);
    spec.firmware = Firmware::Uefi;
    spec.memory_mib = 256;
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    // The firmware says on the serial port what it tries to boot.
    host.said(&spec, "BdsDxe", 1).await;
    host.driver().end(&spec.instance_id).await.unwrap();
    let variables = host.machines().join(&*spec.instance_id).join("uefi-vars.fd");
    let after = std::fs::read(&variables).unwrap();
    let new = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap();
    assert_ne!(after, new, "the firmware wrote its own");
    let kept = host.driver().uefi_variables(&spec.instance_id).await.unwrap().unwrap();
    assert!(kept.iter().any(|variable| variable.name == "BootOrder"));
    spec.boot = 2;
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    host.driver().end(&spec.instance_id).await.unwrap();
}

/// With a platform key the firmware is another, which alone can write to its variables and says that it enforces.
#[tokio::test]
async fn a_machine_with_keys_starts_by_secure_boot() {
    let Some(host) = Host::new() else { return };
    let mut spec = host.spec("never run by UEFI", Then::Halt);
    (spec.firmware, spec.memory_mib) = (Firmware::Uefi, 256);
    let key = UefiVariable {
        name: "PK".into(),
        vendor: UefiVariable::GLOBAL,
        attributes: 7 | UefiVariable::TIME_AUTHENTICATED,
        data: vec![1; 48],
        signed_at: [1; 16],
        signer: Vec::new(),
    };
    spec.uefi_variables = vec![key.clone()];
    host.driver().start(spec.clone(), vec![]).await.unwrap();
    host.said(&spec, "BdsDxe", 1).await;
    let kept = host.driver().uefi_variables(&spec.instance_id).await.unwrap().unwrap();
    assert!(kept.contains(&key));
    let enforced = kept.iter().find(|variable| variable.name == "SecureBootEnable").unwrap();
    assert_eq!(enforced.data, [1]);
    host.driver().end(&spec.instance_id).await.unwrap();
    let after = host.driver().uefi_variables(&spec.instance_id).await.unwrap().unwrap();
    assert!(kept.iter().all(|variable| after.iter().any(|other| other.name == variable.name)));
}

/// What a guest that broke out of its machine would find itself as.
#[tokio::test]
async fn the_process_has_no_rights() {
    let Some(host) = Host::new() else { return };
    let spec = host.started("hello", Then::Halt).await;
    let other = host.started("other", Then::Halt).await;
    let mut users = Vec::new();
    for pid in host.processes() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(name), ["0000000000000000"], "{name}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".into()], vec!["2".into()]));
        assert!(field("Groups:").is_empty());
        users.push(field("Uid:")[0].clone());
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(environment.is_empty(), "no secret of ours is in it");
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let target = std::fs::read_link(entry.unwrap().path()).unwrap();
            let target = target.to_string_lossy().into_owned();
            let ours = host.dir.path().to_string_lossy().into_owned();
            let is_memory = target.starts_with("/memfd:");
            let is_known =
                is_memory || target.starts_with(&ours) || !target.starts_with('/') || target == "/dev/null";
            assert!(is_known, "{target}");
        }
    }
    assert_eq!(users.len(), 2);
    assert!(users[0] != users[1] && !users.contains(&"0".to_owned()), "{users:?}");
    for spec in [spec, other] {
        host.driver().end(&spec.instance_id).await.unwrap();
    }
}

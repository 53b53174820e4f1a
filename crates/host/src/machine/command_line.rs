//! QEMU's command line: a pure function of what the machine is and of the descriptors that it is handed.
//!
//! The guest finds what it would find at EC2 as far as software looks at it: the DMI data by which cloud-init and
//! others know the cloud (EC2 User Guide, "Identify EC2 instances"), virtio disks named after their volumes, its
//! network cards in order, a serial console, a screen.
//!
//! Works with QEMU from 7.2 on.

use super::aio::Aio;
use super::disk::{self, NamedLayer};
use super::{DiskFormat, DiskLayer, MachineSpec, console, nic};
use model::Id;
use serde_json::{Value, json};
use std::os::fd::RawFd;

/// Slots into which disks can be plugged while the guest runs, and which those of its start are in, so that they can
/// leave: one for each but the root disk.
pub(super) const PORTS: usize = DISKS_MAX - 1;

/// As many as the largest instance types take (EC2 User Guide, "Maximum network interfaces").
pub(super) const NICS_MAX: usize = 15;
/// Most volumes that an instance takes (EC2 User Guide, "Instance volume limits").
pub(super) const DISKS_MAX: usize = 28;
/// As many as any instance type has.
pub(super) const SCRATCH_MAX: usize = 24;

/// Where things are on the PCI bus. Each has its place whatever else there is, so that a guest finds its network
/// cards under the same names after a disk has come or gone.
mod slot {
    pub(super) const SCREEN: &str = "0x1";
    pub(super) const RANDOM: &str = "0x2";
    pub(super) const ROOT_DISK: &str = "0x4";
    pub(super) const PRIMARY_NIC: &str = "0x5";
    const NIC_PORTS: usize = 0x6;
    /// Behind all other disks, with the first of them as the first function of its device: without that one a guest
    /// looks for no others.
    const SCRATCH: usize = 0x18;
    const PORTS: usize = 0x1b;
    const FUNCTIONS: usize = 8;

    pub(super) fn nic_port(index: usize) -> String {
        format!("{:#x}.{:#x}", NIC_PORTS + index / FUNCTIONS, index % FUNCTIONS)
    }

    pub(super) fn scratch(index: usize) -> String {
        format!("{:#x}.{:#x}", SCRATCH + index / FUNCTIONS, index % FUNCTIONS)
    }

    pub(super) fn port(index: usize) -> String {
        format!("{:#x}.{:#x}", PORTS + index / FUNCTIONS, index % FUNCTIONS)
    }
}

/// A translated copy of the guest's code is kept up to this size; QEMU's own choice is a gigabyte a machine.
const TRANSLATION_CACHE_MIB: u32 = 256;

/// How the guest's processors are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Acceleration {
    /// By the host's.
    Kvm,
    /// By translation: slow, works everywhere.
    Tcg,
}

impl Acceleration {
    /// `kvm` or `tcg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Acceleration::Kvm => "kvm",
            Acceleration::Tcg => "tcg",
        }
    }
}

/// UEFI firmware, by the numbers of its descriptors.
#[derive(Debug)]
pub(super) struct HandedFirmware {
    pub(super) code: RawFd,
    pub(super) variables: RawFd,
    /// Only the firmware may write to its variables.
    pub(super) is_secure: bool,
}

/// The numbers of the descriptors that QEMU inherits.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) monitor: RawFd,
    pub(super) monitor_spare: RawFd,
    pub(super) firmware: Option<HandedFirmware>,
    /// To the TPM's process.
    pub(super) tpm: Option<RawFd>,
    /// The layers of each.
    pub(super) disks: Vec<Vec<HandedFile>>,
    /// What opens those of each that is encrypted.
    pub(super) secrets: Vec<Option<RawFd>>,
    pub(super) scratch: Vec<HandedFile>,
    /// The queues of each.
    pub(super) taps: Vec<Vec<RawFd>>,
}

#[derive(Debug)]
pub(super) struct HandedFile {
    pub(super) fd: RawFd,
    pub(super) fd_to_read: Option<RawFd>,
    pub(super) aio: Aio,
}

/// The machine's UUID as its guest sees it: it begins with `ec2`, as EC2's do, and stays over all its starts.
pub(super) fn uuid(instance_id: &Id) -> String {
    let hash = blake3::hash(instance_id.as_bytes());
    let hex = hash.to_hex();
    // Version 4, variant 1, as of a random UUID.
    format!("ec2{}-{}-4{}-8{}-{}", &hex[..5], &hex[5..9], &hex[9..12], &hex[12..15], &hex[15..27])
}

/// As those of EC2's instance store volumes it begins with `AWS`, and has at most 20 characters.
fn scratch_serial(spec: &MachineSpec, index: usize) -> String {
    let hex = blake3::hash(spec.instance_id.as_bytes()).to_hex().to_uppercase();
    format!("AWS{}{index:02}", &hex[..15])
}

pub(super) fn arguments(spec: &MachineSpec, acceleration: Acceleration, handed: &Handed) -> Vec<String> {
    let mut line = CommandLine { arguments: Vec::new(), sets: 0 };
    line.process(spec);
    if spec.is_sharing() {
        line.add("-machine", "none");
        line.monitors(handed);
        line.display_and_disks();
    } else {
        line.machine(acceleration, handed.firmware.as_ref());
        line.identity(spec);
        line.monitors(handed);
        line.ends();
        line.processors_and_memory(spec);
        line.devices_of_every_machine();
        if let Some(tpm) = handed.tpm {
            line.tpm(tpm);
        }
        line.ports(spec);
    }
    for (disk, fd) in spec.disks.iter().zip(&handed.secrets) {
        if let Some(fd) = fd {
            let name = disk::secret_name(&disk.volume_id);
            line.add("-object", format!("secret,id={name},file=/proc/self/fd/{fd}"));
        }
    }
    for (index, (disk, handed)) in spec.disks.iter().zip(&handed.disks).enumerate() {
        let name = disk.layers.first().map(disk::node_name).unwrap_or_default();
        let layers = disk.layers.iter().zip(handed);
        let layers = layers.map(|(layer, file)| line.layer(layer, file, &disk::mark(&disk.volume_id, layer)));
        let nodes = disk::nodes(&name, &layers.collect::<Vec<_>>(), disk::secret(disk).as_deref());
        line.add("-blockdev", nodes.to_string());
        if spec.is_sharing() {
            break;
        }
        let mut device = disk::device(disk, &name);
        match index.checked_sub(1) {
            None => {
                // The root disk, and no other. It stays for as long as the machine runs.
                device["bootindex"] = 0.into();
                device["bus"] = "pcie.0".into();
                device["addr"] = slot::ROOT_DISK.into();
            }
            Some(port) => device["bus"] = port_name(port).into(),
        }
        line.device(device);
    }
    for (index, file) in handed.scratch.iter().enumerate() {
        let name = format!("scratch{index}");
        let place = line.file(file, &name);
        let layer = NamedLayer { name: name.clone(), format: DiskFormat::Raw, place, aio: file.aio };
        line.add("-blockdev", disk::nodes(&name, &[layer], None).to_string());
        line.device(json!({
            "driver": "virtio-blk-pci", "id": &name, "drive": &name, "serial": scratch_serial(spec, index),
            "iothread": "disks", "bus": "pcie.0", "addr": slot::scratch(index), "multifunction": true,
        }));
    }
    for (index, (nic, tap)) in spec.nics.iter().zip(&handed.taps).enumerate() {
        let queues = tap.iter().map(RawFd::to_string).collect::<Vec<_>>().join(":");
        line.add("-netdev", format!("tap,id={},fds={queues}", nic::netdev(&nic.interface_id)));
        let mut device = nic::device(nic, tap.len());
        match index.checked_sub(1) {
            None => {
                device["bus"] = "pcie.0".into();
                device["addr"] = slot::PRIMARY_NIC.into();
            }
            Some(port) => device["bus"] = nic_port_name(port).into(),
        }
        line.device(device);
    }
    line.arguments
}

struct CommandLine {
    arguments: Vec<String>,
    /// Descriptor sets made so far.
    sets: usize,
}

impl CommandLine {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.arguments.extend([option.to_owned(), value.into()]);
    }

    fn device(&mut self, device: Value) {
        self.add("-device", device.to_string());
    }

    /// A descriptor set of one: the name by which QEMU opens what it was handed.
    fn set(&mut self, fd: RawFd) -> String {
        self.sets += 1;
        let set = self.sets;
        self.add("-add-fd", format!("fd={fd},set={set}"));
        format!("/dev/fdset/{set}")
    }

    fn process(&mut self, spec: &MachineSpec) {
        self.add("-name", format!("guest={},debug-threads=on", spec.instance_id));
        self.arguments.extend(["-nodefaults", "-no-user-config"].map(str::to_owned));
        self.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    }

    fn machine(&mut self, acceleration: Acceleration, firmware: Option<&HandedFirmware>) {
        let is_secure = firmware.is_some_and(|firmware| firmware.is_secure);
        let smm = if is_secure { "on" } else { "off" };
        let mut machine = format!("q35,usb=off,vmport=off,smm={smm},hpet=off,dump-guest-core=off");
        if let Some(firmware) = firmware {
            for (name, fd, read_only) in
                [("code", firmware.code, true), ("variables", firmware.variables, false)]
            {
                let file = self.set(fd);
                self.add(
                    "-blockdev",
                    json!({
                        "driver": "raw", "node-name": name, "read-only": read_only,
                        "file": { "driver": "file", "filename": file, "locking": "off" },
                    })
                    .to_string(),
                );
            }
            machine.push_str(",pflash0=code,pflash1=variables");
        }
        if is_secure {
            // The guest itself can't write to what the firmware keeps.
            self.add("-global", "driver=cfi.pflash01,property=secure,value=on");
        }
        self.add("-machine", machine);
        match acceleration {
            Acceleration::Kvm => {
                self.add("-accel", "kvm");
                self.add("-cpu", "host");
            }
            Acceleration::Tcg => {
                self.add("-accel", format!("tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}"));
                self.add("-cpu", "max");
            }
        }
    }

    /// What the guest reads of itself in its DMI data.
    fn identity(&mut self, spec: &MachineSpec) {
        let uuid = uuid(&spec.instance_id);
        let product = spec.instance_type.replace(',', ",,");
        self.add("-uuid", uuid.clone());
        self.add("-smbios", "type=0,vendor=Amazon EC2,version=1.0,date=10/16/2017");
        self.add(
            "-smbios",
            format!("type=1,manufacturer=Amazon EC2,product={product},serial={uuid},uuid={uuid}"),
        );
        self.add("-smbios", format!("type=2,manufacturer=Amazon EC2,asset={}", spec.instance_id));
        self.add("-smbios", "type=3,manufacturer=Amazon EC2,asset=Amazon EC2");
    }

    /// One for us, one to spare.
    fn monitors(&mut self, handed: &Handed) {
        // Nothing of the guest runs before we say so.
        self.arguments.push("-S".into());
        for (name, fd) in [("monitor", handed.monitor), ("monitor-spare", handed.monitor_spare)] {
            self.add("-chardev", format!("socket,id={name},fd={fd},server=on,wait=off"));
            self.add("-mon", format!("chardev={name},mode=control"));
        }
    }

    /// Who decides what happens at the end of a guest.
    fn ends(&mut self) {
        // A guest that has powered off stays until we have seen it. One that panics goes on, as at EC2: it hangs, or
        // restarts by its own rule.
        self.add("-action", "reboot=reset,shutdown=pause,panic=none");
        self.add("-boot", "strict=on,menu=off");
    }

    fn processors_and_memory(&mut self, spec: &MachineSpec) {
        let (vcpus, threads) = (spec.vcpus, spec.threads_per_core.max(1));
        self.add("-smp", format!("cpus={vcpus},sockets=1,cores={},threads={threads}", vcpus / threads));
        self.add("-m", format!("size={}M", spec.memory_mib));
        self.add("-rtc", "base=utc");
        // Sleep states would end in a guest that nobody can wake.
        self.add("-global", "ICH9-LPC.disable_s3=1");
        self.add("-global", "ICH9-LPC.disable_s4=1");
    }

    fn display_and_disks(&mut self) {
        self.add("-display", "none");
        self.add("-object", "iothread,id=disks");
    }

    fn devices_of_every_machine(&mut self) {
        self.display_and_disks();
        self.add("-chardev", format!("ringbuf,id={},size={}", console::CHARDEV, console::RING_BYTES));
        self.device(json!({ "driver": "isa-serial", "chardev": console::CHARDEV, "index": 0 }));
        self.device(json!({ "driver": "VGA", "id": "screen", "bus": "pcie.0", "addr": slot::SCREEN }));
        self.add("-object", "rng-builtin,id=random");
        self.device(
            json!({ "driver": "virtio-rng-pci", "rng": "random", "bus": "pcie.0", "addr": slot::RANDOM }),
        );
    }

    fn tpm(&mut self, process: RawFd) {
        self.add("-chardev", format!("socket,id=tpm,fd={process}"));
        self.add("-tpmdev", "emulator,id=tpm,chardev=tpm");
        self.device(json!({ "driver": "tpm-crb", "tpmdev": "tpm" }));
    }

    /// What is plugged in and out while the guest runs is in ports.
    fn ports(&mut self, spec: &MachineSpec) {
        for port in 0..PORTS {
            self.port(port_name(port), slot::port(port), port + 1);
        }
        let nics = spec.nics_max.clamp(spec.nics.len(), NICS_MAX).saturating_sub(1);
        for port in 0..nics {
            self.port(nic_port_name(port), slot::nic_port(port), PORTS + port + 1);
        }
    }

    fn port(&mut self, name: String, address: String, number: usize) {
        self.device(json!({
            "driver": "pcie-root-port", "id": name, "chassis": number, "slot": number,
            "bus": "pcie.0", "addr": address, "multifunction": true,
            // None of what is plugged here needs ports of the old kind, which are few.
            "io-reserve": 0,
        }));
    }

    fn layer(&mut self, layer: &DiskLayer, file: &HandedFile, mark: &str) -> NamedLayer {
        let place = disk::socket_in(file.fd, layer).unwrap_or_else(|| self.file(file, mark));
        NamedLayer { name: disk::node_name(layer), format: layer.format, place, aio: file.aio }
    }

    /// The descriptor set that a file is opened from.
    fn file(&mut self, file: &HandedFile, mark: &str) -> String {
        self.sets += 1;
        let set = self.sets;
        for fd in std::iter::once(file.fd).chain(file.fd_to_read) {
            self.add("-add-fd", format!("fd={fd},set={set},opaque={mark}"));
        }
        format!("/dev/fdset/{set}")
    }
}

pub(super) fn port_name(port: usize) -> String {
    format!("port{port}")
}

/// Those of secondary network cards, the first of which is number 0.
pub(super) fn nic_port_name(port: usize) -> String {
    format!("nic-port{port}")
}

#[cfg(test)]
mod tests {
    use super::super::{DiskBus, DiskSpec, Firmware, NicSpec};
    use super::*;
    use model::Kind;

    fn layer(name: &str) -> DiskLayer {
        let format = if name.ends_with("raw") { DiskFormat::Raw } else { DiskFormat::Qcow2 };
        DiskLayer { path: std::path::Path::new("/never/seen").join(name), format }
    }

    fn spec() -> MachineSpec {
        let id = |kind, text| Id::parse(kind, text).unwrap();
        MachineSpec {
            instance_id: id(Kind::Instance, "i-0123456789abcdef0"),
            boot: 1,
            instance_type: "t3.micro".into(),
            firmware: Firmware::Bios,
            uefi_variables: vec![],
            tpm: false,
            vcpus: 2,
            threads_per_core: 2,
            memory_mib: 1024,
            disks: vec![DiskSpec {
                layers: ["vol-0123456789abcdef0.1.qcow2", "snap-0123456789abcdef0.0.raw"].map(layer).into(),
                volume_id: id(Kind::Volume, "vol-0123456789abcdef0"),
                bus: DiskBus::Virtio,
                limits: None,
                key: None,
            }],
            scratch: vec![],
            nics: vec![NicSpec {
                interface_id: id(Kind::NetworkInterface, "eni-0123456789abcdef0"),
                mac: [0x02, 0, 0, 0xab, 0xcd, 0xef],
                mtu: 9001,
            }],
            nics_max: 2,
        }
    }

    fn handed() -> Handed {
        Handed {
            monitor: 10,
            monitor_spare: 11,
            firmware: None,
            tpm: None,
            disks: vec![vec![
                HandedFile { fd: 12, fd_to_read: Some(19), aio: Aio::Native },
                HandedFile { fd: 13, fd_to_read: None, aio: Aio::Threads },
            ]],
            secrets: vec![None],
            scratch: vec![],
            taps: vec![vec![14, 15]],
        }
    }

    fn readable(arguments: &[String]) -> String {
        let mut text = String::new();
        for argument in arguments {
            let is_option = argument.starts_with('-');
            text.push_str(if is_option { "\n" } else { " " });
            text.push_str(argument);
        }
        text
    }

    #[test]
    fn an_instance_of_an_image() {
        insta::assert_snapshot!(readable(&arguments(&spec(), Acceleration::Tcg, &handed())));
    }

    #[test]
    fn a_uefi_machine_with_an_empty_second_disk_under_kvm() {
        let mut spec = spec();
        spec.firmware = Firmware::Uefi;
        spec.tpm = true;
        spec.disks.push(DiskSpec {
            layers: vec![layer("vol-0fedcba9876543210.0.raw")],
            volume_id: Id::parse(Kind::Volume, "vol-0fedcba9876543210").unwrap(),
            bus: DiskBus::Nvme,
            limits: None,
            key: None,
        });
        spec.scratch = vec!["/never/seen".into()];
        let mut handed = handed();
        handed.firmware = Some(HandedFirmware { code: 15, variables: 16, is_secure: false });
        handed.tpm = Some(21);
        handed.scratch = vec![HandedFile { fd: 18, fd_to_read: None, aio: Aio::IoUring }];
        handed.disks.push(vec![HandedFile { fd: 17, fd_to_read: Some(20), aio: Aio::Threads }]);
        insta::assert_snapshot!(readable(&arguments(&spec, Acceleration::Kvm, &handed)));
    }

    #[test]
    fn secure_boot_is_kept_by_system_management_mode() {
        let mut handed = handed();
        handed.firmware = Some(HandedFirmware { code: 15, variables: 16, is_secure: true });
        let arguments = readable(&arguments(&spec(), Acceleration::Tcg, &handed));
        assert!(arguments.contains("-machine q35,usb=off,vmport=off,smm=on,"));
        assert!(arguments.contains("-global driver=cfi.pflash01,property=secure,value=on\n"));
    }

    #[test]
    fn an_encrypted_disk_is_opened_by_a_file_in_memory() {
        let (mut spec, mut handed) = (spec(), handed());
        spec.disks[0].layers.truncate(1);
        spec.disks[0].key = Some(super::super::DiskKey::Known([0xab; 32].into()));
        handed.secrets = vec![Some(22)];
        let arguments = readable(&arguments(&spec, Acceleration::Tcg, &handed));
        let is_there = |text: &str| arguments.contains(text);
        assert!(is_there("-object secret,id=key-vol-0123456789abcdef0,file=/proc/self/fd/22\n"));
        assert!(is_there(r#""encrypt":{"format":"luks","key-secret":"key-vol-0123456789abcdef0"}"#));
        assert!(!is_there("abab"));
        assert!(!serde_json::to_string(&spec).unwrap().contains("key"), "it is on no record");
    }

    #[test]
    fn one_that_shares_a_disk_has_nothing_else() {
        let sharing = MachineSpec::sharing(spec().disks.remove(0));
        insta::assert_snapshot!(readable(&arguments(&sharing, Acceleration::Tcg, &handed())));
    }

    #[test]
    fn nothing_of_a_name_is_taken_for_an_option() {
        let mut spec = spec();
        spec.instance_type = "t3.micro,serial=other".into();
        let arguments = arguments(&spec, Acceleration::Tcg, &handed());
        assert!(
            arguments.iter().any(|argument| argument.contains("product=t3.micro,,serial=other,serial=ec2"))
        );
    }

    #[test]
    fn uuids_are_ec2s_and_stay() {
        let random = model::SeededRandom::new(3);
        let id = Id::new(Kind::Instance, &random);
        let text = uuid(&id);
        assert_eq!(text, uuid(&id));
        assert_ne!(text, uuid(&Id::new(Kind::Instance, &random)));
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!((lengths, &text[..3]), (vec![8, 4, 4, 4, 12], "ec2"));
    }
}

//! A QEMU without acceleration, its serial console, and a way in by ssh.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A boot takes 4 s on an idle machine, and the machine that runs all tests is not idle.
const PATIENCE: Duration = Duration::from_secs(120);
const SSH_PORT: &str = "2222";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

pub struct Guest {
    qemu: Child,
    console: Receiver<Vec<u8>>,
    monitor: PathBuf,
}

impl Guest {
    pub fn boot(disk: &Path, firmware: Firmware, scratch: &Path) -> Guest {
        let monitor = scratch.join("monitor");
        let _ = std::fs::remove_file(&monitor);
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-machine",
            "q35,accel=tcg",
            "-cpu",
            "max",
            "-m",
            "512",
            "-nodefaults",
            "-display",
            "none",
        ]);
        command.args([
            "-serial",
            "stdio",
            "-device",
            "virtio-blk-pci,drive=root",
            "-device",
            "virtio-net-pci,netdev=nic",
        ]);
        command.arg("-drive").arg(format!("if=none,id=root,format=raw,file={}", disk.display()));
        // The guest's 169.254.169.254 is this network's 127.0.0.1.
        command.arg("-netdev").arg(format!(
            "user,id=nic,net=169.254.169.0/24,host=169.254.169.254,dns=169.254.169.253,dhcpstart=169.254.169.15,\
             hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22"
        ));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        if firmware == Firmware::Uefi {
            let variables = scratch.join("variables");
            std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
            command.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
            command.arg("-drive").arg(format!("if=pflash,format=raw,file={}", variables.display()));
        }
        let mut qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = qemu.stdout.take().unwrap();
        let (send, console) = channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut part) {
                if send.send(part[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Guest { qemu, console, monitor }
    }

    /// What the console said until it said `text`.
    pub fn wait_for(&self, text: &str) -> String {
        let (mut said, end) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            let so_far = String::from_utf8_lossy(&said).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
            match self.console.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(part) => said.extend(part),
                Err(RecvTimeoutError::Timeout) => panic!("no `{text}` after {PATIENCE:?}:\n{so_far}"),
                Err(RecvTimeoutError::Disconnected) => panic!("QEMU ended before `{text}`:\n{so_far}"),
            }
        }
    }

    /// What `command` prints, run by the user that Debian's images have too.
    pub fn ssh(&self, key: &Key, command: &str) -> String {
        let output = Command::new("ssh")
            .args(["-p", SSH_PORT, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "-i"])
            .arg(&key.private)
            .args(["admin@127.0.0.1", command])
            .output()
            .unwrap();
        assert!(output.status.success(), "ssh {command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The guest shuts down by itself.
    pub fn press_power_button(mut self) {
        let mut monitor = UnixStream::connect(&self.monitor).unwrap();
        let mut answers = BufReader::new(monitor.try_clone().unwrap()).lines();
        answers.next();
        for command in ["qmp_capabilities", "system_powerdown"] {
            writeln!(monitor, "{{\"execute\":\"{command}\"}}").unwrap();
            assert!(answers.by_ref().any(|line| line.is_ok_and(|line| line.contains("\"return\""))));
        }
        let end = Instant::now() + PATIENCE;
        loop {
            match self.console.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the power button did nothing for {PATIENCE:?}"),
            }
        }
        assert!(self.qemu.wait().unwrap().success());
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// An owner's key pair.
pub struct Key {
    private: PathBuf,
    pub public: String,
}

impl Key {
    pub fn make(directory: &Path) -> Key {
        let private = directory.join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "owner", "-f"])
            .arg(&private)
            .status();
        assert!(made.unwrap().success());
        let public = std::fs::read_to_string(private.with_extension("pub")).unwrap().trim().to_owned();
        Key { private, public }
    }
}

//! Compiles the program that the kernel runs (`bpf/shortcut.bpf.c`).

use std::path::Path;
use std::process::Command;

const SOURCE: &str = "bpf/shortcut.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // Where Debian and its relatives keep what differs by processor of the kernel's headers.
    let headers = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    let made = Command::new("clang")
        .args([
            "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-I", &headers, "-c", SOURCE, "-o",
        ])
        .arg(Path::new(&variable("OUT_DIR")).join("shortcut.o"))
        .status();
    match made {
        Ok(status) if status.success() => {}
        Ok(_) => panic!("clang could not compile {SOURCE}; does libbpf-dev lack? apt-get install libbpf-dev"),
        Err(error) => panic!("clang could not be run: {error}; apt-get install clang libbpf-dev"),
    }
}

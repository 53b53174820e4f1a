//! Compiles the programs that the kernel runs (`bpf`).

use std::path::Path;
use std::process::Command;

const PROGRAMS: [&str; 2] = ["shortcut", "translation"];

fn main() {
    PROGRAMS.into_iter().for_each(compile);
}

fn compile(program: &str) {
    let source = format!("bpf/{program}.bpf.c");
    println!("cargo::rerun-if-changed={source}");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // Where Debian and its relatives keep what differs by processor of the kernel's headers.
    let headers = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    let made = Command::new("clang")
        .args([
            "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-I", &headers, "-c", &source,
            "-o",
        ])
        .arg(Path::new(&variable("OUT_DIR")).join(format!("{program}.o")))
        .status();
    match made {
        Ok(status) if status.success() => {}
        Ok(_) => panic!("clang could not compile {source}; does libbpf-dev lack? apt-get install libbpf-dev"),
        Err(error) => panic!("clang could not be run: {error}; apt-get install clang libbpf-dev"),
    }
}

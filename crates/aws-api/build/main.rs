//! Generates the types and codecs of the operations listed in `operations.txt` from the service models.
//!
//! For each service a module: a struct for every shape that a listed operation reaches, a way in (`FromNode`) for
//! those that requests reach, a way out (`ToXml`, or serde for JSON services) for those that answers reach, and a
//! unit type for each operation.

mod emit;
mod model;

use std::path::Path;
use std::{env, fs};

/// Service modules and their models.
const SERVICES: &[(&str, &str)] = &[
    ("ec2", "ec2-2016-11-15"),
    ("sts", "sts-2011-06-15"),
    ("iam", "iam-2010-05-08"),
    ("ebs", "ebs-2019-11-02"),
    ("cumulet", "cumulet-2026-11-23"),
];

/// Shapes that are read from files too: they and what they reach get serde.
const SERDE_ROOTS: &[(&str, &str)] = &[("ec2", "InstanceTypeInfo")];

fn main() {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=operations.txt");
    println!("cargo:rerun-if-changed=models");
    let listed = fs::read_to_string("operations.txt").expect("operations.txt");
    let out = env::var("OUT_DIR").expect("OUT_DIR");
    let listed: Vec<(&str, &str)> = listed
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("operations.txt: service and operation on each line"))
        .collect();
    if let Some((service, _)) =
        listed.iter().find(|(of, _)| SERVICES.iter().all(|(service, _)| service != of))
    {
        panic!("operations.txt: no model of a service {service}");
    }
    for (service, file) in SERVICES {
        let text = fs::read_to_string(format!("models/{file}.json")).expect("the service's model");
        let model: model::Model = serde_json::from_str(&text).expect("the service's model is JSON");
        let operations: Vec<&str> =
            listed.iter().filter(|(of, _)| of == service).map(|(_, operation)| operation.trim()).collect();
        let roots: Vec<&str> =
            SERDE_ROOTS.iter().filter(|(of, _)| of == service).map(|(_, shape)| *shape).collect();
        let code = emit::module(service, &model, &operations, &roots);
        fs::write(Path::new(&out).join(format!("{service}.rs")), code).expect("writing the generated module");
    }
}

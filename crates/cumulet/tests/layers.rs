//! The direction of dependency that ARCHITECTURE.md draws, held against what the manifests say.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::BTreeSet;

/// What each crate may use of ours.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("aws-api", &["model"]),
    ("store", &["model"]),
    ("iam", &["model"]),
    ("datapath", &["model"]),
    ("agent-api", &["model", "datapath"]),
    ("control", &["model", "datapath", "aws-api", "store", "iam", "agent-api"]),
    ("server", &["model", "aws-api", "iam"]),
    ("volume", &["model"]),
    ("host", &["model", "datapath"]),
    ("agent", &["model", "datapath", "agent-api", "host", "volume"]),
    ("image", &["model"]),
    (
        "cumulet",
        &[
            "model",
            "datapath",
            "aws-api",
            "store",
            "iam",
            "agent-api",
            "control",
            "server",
            "volume",
            "host",
            "agent",
            "image",
        ],
    ),
];

#[test]
fn dependencies_go_one_way() {
    let metadata = MetadataCommand::new().no_deps().other_options(vec!["--offline".into()]).exec().unwrap();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let listed: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, listed, "every crate has its place in the picture");
    for package in &metadata.packages {
        let (_, allowed) = MAY_USE.iter().find(|(name, _)| *name == package.name.as_str()).unwrap();
        for dependency in
            package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal && d.path.is_some())
        {
            let name = dependency.name.as_str();
            assert!(allowed.contains(&name), "{} must not use {name}", package.name);
        }
    }
}

#[test]
fn the_architecture_page_names_every_crate() {
    let page = include_str!("../../../ARCHITECTURE.md");
    for (name, _) in MAY_USE {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}

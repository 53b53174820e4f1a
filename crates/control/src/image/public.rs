//! The public images that every region of a simulated cloud begins with, named and owned as AWS's and the
//! distributions' own are, so that lookups by owner and name find one. They hold nothing: a simulated host boots
//! anything.

use super::protection::Protection;
use super::{Image, ImageBlockDevice};
use crate::engine::Tags;
use agent_api::Architecture;
use model::{AccountId, Id, Kind, Region, Timestamp};
use sha2::{Digest, Sha256};

const AMAZON: &str = "137112412989";
const CANONICAL: &str = "099720109477";
const DEBIAN: &str = "136693071363";
/// The alias under which AWS shows its own images and those of verified providers.
const ALIAS: &str = "amazon";

/// One image for each architecture.
struct Public {
    owner: &'static str,
    /// `{arch}` stands for the owner's word for the architecture.
    name: &'static str,
    description: &'static str,
    root_device_name: &'static str,
    volume_type: &'static str,
    /// The owner's words for the architectures.
    x86_64: &'static str,
    arm64: &'static str,
    /// Whether it asks for IMDSv2.
    imds_v2: bool,
}

const PUBLIC: &[Public] = &[
    Public {
        owner: AMAZON,
        name: "al2023-ami-2023.9.20251110.1-kernel-6.1-{arch}",
        description: "Amazon Linux 2023 AMI 2023.9.20251110.1 {arch} HVM kernel-6.1",
        root_device_name: "/dev/xvda",
        volume_type: "gp3",
        x86_64: "x86_64",
        arm64: "arm64",
        imds_v2: true,
    },
    Public {
        owner: AMAZON,
        name: "amzn2-ami-hvm-2.0.20251110.0-{arch}-gp2",
        description: "Amazon Linux 2 AMI 2.0.20251110.0 {arch} HVM gp2",
        root_device_name: "/dev/xvda",
        volume_type: "gp2",
        x86_64: "x86_64",
        arm64: "arm64",
        imds_v2: false,
    },
    Public {
        owner: CANONICAL,
        name: "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{arch}-server-20251101",
        description: "Canonical, Ubuntu, 22.04, {arch} jammy image",
        root_device_name: "/dev/sda1",
        volume_type: "gp2",
        x86_64: "amd64",
        arm64: "arm64",
        imds_v2: false,
    },
    Public {
        owner: CANONICAL,
        name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{arch}-server-20251101",
        description: "Canonical, Ubuntu, 24.04, {arch} noble image",
        root_device_name: "/dev/sda1",
        volume_type: "gp3",
        x86_64: "amd64",
        arm64: "arm64",
        imds_v2: true,
    },
    Public {
        owner: DEBIAN,
        name: "debian-12-{arch}-20251101-2284",
        description: "Debian 12 (20251101-2284)",
        root_device_name: "/dev/xvda",
        volume_type: "gp3",
        x86_64: "amd64",
        arm64: "arm64",
        imds_v2: false,
    },
];

/// GiB of their root disks.
const SIZE_GIB: u32 = 8;

/// The public images of a region. Their ids follow from region and name: the same for everybody, always.
pub fn default_images(region: &Region, now: Timestamp) -> Vec<Image> {
    let architectures = [Architecture::X86_64, Architecture::Arm64];
    let all = PUBLIC.iter().flat_map(|public| architectures.map(|architecture| (public, architecture)));
    // A test shows that the table has no row that makes no image.
    all.filter_map(|(public, architecture)| image(region, now, public, architecture)).collect()
}

fn image(region: &Region, now: Timestamp, public: &Public, architecture: Architecture) -> Option<Image> {
    let (word, boot_mode) = match architecture {
        Architecture::X86_64 => (public.x86_64, "uefi-preferred"),
        Architecture::Arm64 => (public.arm64, "uefi"),
    };
    let name = public.name.replace("{arch}", word);
    Some(Image {
        condition: Default::default(),
        source_instance_id: None,
        ancestors: Vec::new(),
        protection: Protection::Disabled,
        last_launched_at: None,
        image_id: stable_id(region, &name)?,
        owner: public.owner.parse::<AccountId>().ok()?,
        owner_alias: Some(ALIAS.into()),
        description: public.description.replace("{arch}", word),
        architecture,
        boot_mode: Some(boot_mode.into()),
        root_device_name: public.root_device_name.into(),
        block_devices: vec![ImageBlockDevice {
            device_name: public.root_device_name.into(),
            snapshot_id: None,
            size_gib: Some(SIZE_GIB),
            volume_type: public.volume_type.into(),
            iops: None,
            throughput: None,
            delete_on_termination: true,
            encrypted: false,
            virtual_name: None,
        }],
        ena_support: true,
        sriov_net_support: Some("simple".into()),
        tpm: false,
        uefi_data: None,
        imds_support: public.imds_v2.then(|| "v2.0".into()),
        platform_details: "Linux/UNIX".into(),
        created_at: now,
        deprecated_at: None,
        disabled: false,
        public: true,
        launch_permissions: Vec::new(),
        tags: Tags::default(),
        name,
    })
}

fn stable_id(region: &Region, name: &str) -> Option<Id> {
    let digest = hex::encode(Sha256::digest(format!("{region}/{name}")));
    Id::parse(Kind::Image, &format!("ami-0{}", &digest[..16])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::filter::Pattern;
    use std::collections::BTreeSet;

    fn images(region: &str) -> Vec<Image> {
        default_images(&region.parse().unwrap(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn every_row_makes_two_images_with_stable_ids_of_their_own() {
        let here = images("us-east-1");
        assert_eq!(here.len(), 2 * PUBLIC.len());
        assert_eq!(here, images("us-east-1"));
        let ids: BTreeSet<Id> =
            here.into_iter().chain(images("eu-west-1")).map(|image| image.image_id).collect();
        assert_eq!(ids.len(), 4 * PUBLIC.len());
    }

    #[test]
    fn the_usual_lookups_find_one() {
        let images = images("us-east-1");
        for (owner, pattern) in [
            (AMAZON, "al2023-ami-2023*-x86_64"),
            (AMAZON, "amzn2-ami-hvm-*-x86_64-gp2"),
            (CANONICAL, "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"),
            (CANONICAL, "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*"),
            (CANONICAL, "ubuntu/images/*/ubuntu-noble-24.04-arm64-server-*"),
            (DEBIAN, "debian-12-amd64-*"),
        ] {
            let pattern = Pattern::parse(pattern);
            let found =
                images.iter().filter(|image| image.owner.as_str() == owner && pattern.matches(&image.name));
            assert_eq!(found.count(), 1, "{pattern:?}");
        }
    }
}

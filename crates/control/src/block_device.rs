//! What mappings of block devices may say that is not there, wherever they are given.

use crate::engine::unsupported::{given, refuse};
use aws_api::ec2;
use model::Result;

pub fn refuse_what_is_not_there(ebs: &ec2::EbsBlockDevice) -> Result<()> {
    refuse([
        (given(&ebs.outpost_arn), "Outposts are"),
        (
            given(&ebs.availability_zone) || given(&ebs.availability_zone_id),
            "Volumes in another zone than their instance are",
        ),
        (ebs.ebs_card_index.is_some_and(|index| index != 0), "Several EBS cards are"),
    ])
}

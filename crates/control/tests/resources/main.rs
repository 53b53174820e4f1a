//! What surrounds an instance, through the control plane's front door: key pairs, security groups, images and
//! snapshots, tags, placement groups, Dedicated Hosts, the default VPC.

mod cloud;
mod crashing;
mod dedicated_host;
mod ebs_direct;
mod image;
mod key_pair;
mod launch;
mod location;
mod placement_group;
mod reconcile;
mod security_group;
mod status;
mod tag;
mod vpc;
mod workflow;

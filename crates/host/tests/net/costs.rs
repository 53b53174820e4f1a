//! What things cost; run by hand: `cargo test -p host --test net costs -- --ignored --nocapture`.

use crate::cloud::{Cloud, id, possible, tcp_from};
use model::Kind;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints how long changes take"]
async fn costs_of_a_large_vpc() {
    if !possible() {
        return;
    }
    let mut cloud = Cloud::start().await;
    let vpc = cloud.add_vpc(1, "10.0.0.0/16");
    let groups: Vec<_> = (0..200u16)
        .map(|group| {
            let rules = (0..50).map(|rule| tcp_from(&format!("10.{rule}.0.0/16"), group * 100 + rule));
            cloud.add_group(group.into(), &vpc, rules.collect())
        })
        .collect();
    let timed = async |what: &str, cloud: &Cloud| {
        let start = Instant::now();
        cloud.apply().await;
        eprintln!("{what}: {} ms", start.elapsed().as_millis());
    };
    timed("an empty VPC", &cloud).await;
    for number in 0..1000 {
        let address = format!("10.0.{}.{}", number / 200, 10 + number % 200);
        cloud.add_interface(number, &vpc, &address, &[&groups[number as usize % 200]]);
    }
    timed("1000 interfaces in 200 groups", &cloud).await;
    timed("the same again", &cloud).await;
    cloud.add_interface(1000, &vpc, "10.0.9.9", &[&groups[0]]);
    timed("one interface more", &cloud).await;
    cloud.group(&groups[3]).ingress.push(tcp_from("0.0.0.0/0", 22));
    timed("one rule more", &cloud).await;
    cloud.plan.interfaces.retain(|nic| nic.interface_id != id(Kind::NetworkInterface, 1000));
    timed("one interface less", &cloud).await;
    let other = cloud.add_vpc(2, "10.0.0.0/16");
    cloud.add_interface(2000, &other, "10.0.0.5", &[]);
    timed("a second VPC with one interface", &cloud).await;
    cloud.plan.vpcs.retain(|vpc| vpc.vpc_id == other);
    cloud.plan.interfaces.retain(|nic| nic.vpc_id == other);
    timed("without the first VPC", &cloud).await;
}

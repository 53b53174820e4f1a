//! Addresses of IPv6 for what has IPv4 alone, in subnets that want them (RFC 6147; VPC User Guide, "DNS64 and NAT64"). What
//! has IPv6 is answered as it is.
//!
//! As EC2's, and unlike RFC 6052, it makes addresses of private ones too, which NAT gateways lead to; none of those that
//! they do not.

use crate::network::Guest;
use datapath::nat64;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::AAAA;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

/// How long an answer holds at most where nobody says how long its lack of IPv6 does (RFC 6147, 5.1.7).
const UNTOLD_SECONDS: u32 = 600;

/// The question that is asked where this query finds nothing; None where it is answered as it is. Who says that he
/// judges signatures himself is told only what is signed (RFC 6147, 5.5).
pub(super) fn question(guest: &Guest, query: &Message) -> Option<Query> {
    let [question] = &query.queries[..] else { return None };
    let is_for_ipv6 = question.query_type() == RecordType::AAAA && question.query_class() == DNSClass::IN;
    let judges =
        query.metadata.checking_disabled && query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    let wants = guest.vpc.dns64_subnets.contains(&guest.interface().network.subnet_id);
    (wants && is_for_ipv6 && !judges).then(|| {
        let mut question = question.clone();
        question.set_query_type(RecordType::A);
        question
    })
}

/// Whether an answer leaves room for another: the name may be there, and has no address of IPv6. One of IPv4 that only
/// looks like IPv6 is none.
pub(super) fn lacks_ipv6(answer: &Message) -> bool {
    let has_any = answer.answers.iter().any(
        |record| matches!(&record.data, RData::AAAA(AAAA(address)) if address.to_ipv4_mapped().is_none()),
    );
    !has_any && answer.metadata.response_code != ResponseCode::NXDomain && !answer.metadata.truncation
}

/// What is answered instead of `without`; nothing where the name has no address of IPv4 either.
pub(super) fn records(without: &Message, ipv4: &[Record]) -> Vec<Record> {
    let lacks = without.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(zone) => Some(record.ttl.min(zone.minimum)),
        _ => None,
    });
    let holds = lacks.unwrap_or(UNTOLD_SECONDS);
    let translated = |record: &Record| match &record.data {
        RData::A(address) if nat64::leads_to(address.0) => {
            let data = RData::AAAA(AAAA(nat64::ipv6(address.0)));
            Some(Record::from_rdata(record.name.clone(), record.ttl.min(holds), data))
        }
        RData::CNAME(_) => Some(record.clone()),
        _ => None,
    };
    let records: Vec<Record> = ipv4.iter().filter_map(translated).collect();
    let has_any = records.iter().any(|record| record.record_type() == RecordType::AAAA);
    if has_any { records } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use std::net::Ipv4Addr;

    fn record(name: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, data)
    }

    fn answer(code: ResponseCode, answers: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.add_answers(answers);
        message
    }

    #[test]
    fn what_has_ipv6_or_is_not_there_is_left_alone() {
        let ipv6 = |text: &str| record("x.", 9, RData::AAAA(AAAA(text.parse().unwrap())));
        let alias = record("x.", 9, RData::CNAME(CNAME(Name::from_ascii("y.").unwrap())));
        for (code, answers, expected) in [
            (ResponseCode::NoError, vec![], true),
            (ResponseCode::NoError, vec![alias.clone()], true),
            (ResponseCode::NoError, vec![alias, ipv6("2001:db8::1")], false),
            (ResponseCode::NoError, vec![ipv6("::ffff:192.0.2.1")], true),
            (ResponseCode::NXDomain, vec![], false),
            (ResponseCode::ServFail, vec![], true),
        ] {
            assert_eq!(lacks_ipv6(&answer(code, answers.clone())), expected, "{code} {answers:?}");
        }
    }

    #[test]
    fn an_answer_holds_as_long_as_the_lack_of_another() {
        let y = || Name::from_ascii("y.").unwrap();
        let ipv4 = |last, ttl| record("y.", ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, last))));
        let given = [record("x.", 77, RData::CNAME(CNAME(y()))), ipv4(1, 1000), ipv4(2, 5)];
        let said = |without: &Message, given: &[Record]| -> Vec<String> {
            let shown = |record: Record| format!("{} {} {}", record.name, record.ttl, record.data);
            records(without, given).into_iter().map(shown).collect()
        };
        let mut without = answer(ResponseCode::NoError, vec![]);
        let expected = ["x. 77 y.", "y. 600 64:ff9b::c000:201", "y. 5 64:ff9b::c000:202"];
        assert_eq!(said(&without, &given), expected);
        without.authorities.push(record("y.", 900, RData::SOA(SOA::new(y(), y(), 1, 1, 1, 1, 300))));
        assert_eq!(said(&without, &given)[1], "y. 300 64:ff9b::c000:201");

        assert!(said(&without, &given[..1]).is_empty(), "an alias of nothing");
        let near = record("y.", 9, RData::A(A(Ipv4Addr::new(169, 254, 169, 254))));
        assert!(said(&without, &[near]).is_empty());
    }
}

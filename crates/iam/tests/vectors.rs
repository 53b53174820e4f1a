//! Known answers: the requests of AWS's own SigV4 test suite and of EC2, STS, EBS and S3 clients, signed by
//! botocore 1.43 at a fixed moment. Each is signed here to the same signature, and verified.

use iam::{Credential, Credentials, Principal, RawRequest, Refusal, Secret, Signer, SkewPolicy, Verifier};
use jiff::SignedDuration;
use model::Timestamp;

const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const LOCAL: &str = "127.0.0.1:8773";
const EXAMPLE: &str = "example.amazonaws.com";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

struct OneKey;

impl Credentials for OneKey {
    fn find(&self, access_key_id: &str) -> Option<Credential> {
        (access_key_id == ACCESS_KEY_ID).then(|| Credential {
            secret: Secret::new(SECRET),
            principal: Principal {
                account: "123456789012".parse().unwrap(),
                arn: "arn:aws:iam::123456789012:root".into(),
                user_id: "123456789012".into(),
            },
            active: true,
        })
    }
}

fn now() -> Timestamp {
    "2015-08-30T12:36:00Z".parse().unwrap()
}

struct Vector {
    name: &'static str,
    service: &'static str,
    method: &'static str,
    path: &'static str,
    query: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    signed_headers: &'static str,
    signature: &'static str,
}

const VECTORS: &[Vector] = &[
    Vector {
        name: "get-vanilla",
        service: "service",
        method: "GET",
        path: "/",
        query: "",
        headers: &[("Host", EXAMPLE)],
        body: b"",
        signed_headers: "host;x-amz-date",
        signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    },
    Vector {
        name: "get-vanilla-query-order",
        service: "service",
        method: "GET",
        path: "/",
        query: "Param2=value2&Param1=value1&Param1=value0",
        headers: &[("Host", EXAMPLE)],
        body: b"",
        signed_headers: "host;x-amz-date",
        signature: "b54c315622c89a0cb5ebfd58de43e852f7a996f371c85b2cf101d993cc1a119f",
    },
    Vector {
        name: "get-utf8",
        service: "service",
        method: "GET",
        path: "/%E1%88%B4",
        query: "%E1%88%B4=bar",
        headers: &[("Host", EXAMPLE)],
        body: b"",
        signed_headers: "host;x-amz-date",
        signature: "b01c1453f85db7107a4ccbc7b6851d1c9e8eabbddc698a34ee7541ef8c0eab15",
    },
    Vector {
        name: "get-space-dots",
        service: "service",
        method: "GET",
        path: "/example%20space//a/./b/../c:d~/",
        query: "q=-._~",
        headers: &[("Host", EXAMPLE)],
        body: b"",
        signed_headers: "host;x-amz-date",
        signature: "d7df23dcbfbf0d2f13c30a04b08cea02e5252476ec3d297c0a214472d93af7d8",
    },
    Vector {
        name: "get-header-multi",
        service: "service",
        method: "GET",
        path: "/",
        query: "",
        headers: &[
            ("Host", EXAMPLE),
            ("My-Header1", " value1"),
            ("My-Header1", "value2  a   b c"),
            ("My-Header2", " \"a   b\"  "),
        ],
        body: b"",
        signed_headers: "host;my-header1;my-header2;x-amz-date",
        signature: "1e0e5d54eebaeeacedb8bb0cc17e5f817190eb7aacdb15b6fa22243688a7e6ba",
    },
    Vector {
        name: "ec2-post",
        service: "ec2",
        method: "POST",
        path: "/",
        query: "",
        headers: &[("Host", LOCAL), ("Content-Type", FORM)],
        body: b"Action=DescribeInstances&Version=2016-11-15&InstanceId.1=i-0123456789abcdef0",
        signed_headers: "content-type;host;x-amz-date",
        signature: "d93ee16a9f8793c15fae7ea61f945d6f9cd866c3703052e2d9afc2060e4f6fd7",
    },
    Vector {
        name: "ebs-get",
        service: "ebs",
        method: "GET",
        path: "/snapshots/snap-0123456789abcdef0/blocks/7",
        query: "blockToken=AAAB%2FZ%3D%3D",
        headers: &[("Host", LOCAL)],
        body: b"",
        signed_headers: "host;x-amz-date",
        signature: "103073bff2dc6580ff5a3062374f0b8c786935e24e37649aa1bca9724beee12b",
    },
    Vector {
        name: "s3-put",
        service: "s3",
        method: "PUT",
        path: "/bucket/a//b%20c/../d",
        query: "",
        headers: &[("Host", LOCAL)],
        body: b"data",
        signed_headers: "host;x-amz-content-sha256;x-amz-date",
        signature: "c8ad9c86f61cc721d6904c5a883d90722cc5950ad8e390eab834f1d0f5e15301",
    },
];

fn bytes<'a>(headers: &'a [(&'a str, &'a str)]) -> Vec<(&'a str, &'a [u8])> {
    headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
}

#[test]
fn signed_as_botocore_signs_and_verified() {
    let verifier = Verifier::default();
    let secret = Secret::new(SECRET);
    for vector in VECTORS {
        let &Vector { name, service, method, path, query, body, .. } = vector;
        let headers = bytes(vector.headers);
        let request = RawRequest { method, path, query, headers: &headers, body };
        let signer = Signer { access_key_id: ACCESS_KEY_ID, secret: &secret, region: "us-east-1", service };
        let added = signer.sign(&request, now()).unwrap();
        let authorization = added.iter().find(|(name, _)| *name == "authorization").unwrap();
        assert_eq!(
            authorization.1,
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, \
                 SignedHeaders={}, Signature={}",
                vector.signed_headers, vector.signature
            ),
            "{name}"
        );
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .copied()
            .chain(added.iter().map(|(name, value)| (*name, value.as_bytes())))
            .collect();
        let identity = verifier.verify(&RawRequest { headers: &headers, ..request }, now(), &OneKey);
        let identity = identity.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!((identity.region.as_str(), identity.service.as_str()), ("us-east-1", service));
        assert_eq!(identity.principal.arn, "arn:aws:iam::123456789012:root");
    }
}

/// What our own signer does not make, but clients send.
#[test]
fn other_forms_of_botocore_are_verified() {
    let date_header: &[(&str, &str)] = &[
        ("Host", LOCAL),
        ("Date", "Sun, 30 Aug 2015 12:36:00 -0000"),
        (
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sts/aws4_request, \
             SignedHeaders=date;host, \
             Signature=22e9fddc1af8a194597afb847ef43e360755f1282fdd2db632c5bf8104776f7a",
        ),
    ];
    let unsigned_payload: &[(&str, &str)] = &[
        ("Host", LOCAL),
        ("X-Amz-Date", "20150830T123600Z"),
        ("x-amz-Checksum", "abc="),
        ("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD"),
        (
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/ebs/aws4_request, \
             SignedHeaders=host;x-amz-checksum;x-amz-content-sha256;x-amz-date, \
             Signature=40e8df9aa44da5948768194647fdc01f1e548fd74b7d51676acb7b8ffcb86fcd",
        ),
    ];
    for (method, path, headers, body) in [
        ("POST", "/", date_header, &b"Action=GetCallerIdentity&Version=2011-06-15"[..]),
        ("PUT", "/snapshots/snap-0123456789abcdef0/blocks/7", unsigned_payload, b"data"),
    ] {
        let headers = bytes(headers);
        let request = RawRequest { method, path, query: "", headers: &headers, body };
        Verifier::default().verify(&request, now(), &OneKey).unwrap();
    }
}

/// Presigned by botocore: service, host, path, query, life in seconds.
const LINKS: &[(&str, &str, &str, &str, i64)] = &[
    (
        "ec2",
        LOCAL,
        "/",
        "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3AName&Filter.1.Value.1=a%20b%2Bc%2F%C3%BC\
         &X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fec2%2Faws4_request&X-Amz-Date=20150830T123600Z\
         &X-Amz-Expires=60&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=29ae2d2a34e5b52b52334c1531808bb1a9d1d539cf252f1f68fc63682f3edcc7",
        60,
    ),
    (
        "sts",
        "sts.amazonaws.com",
        "/",
        "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date=20150830T123600Z\
         &X-Amz-Expires=604800&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=957b008cee57363b92bf8dce03bb94bb071e9a5b254cbf8825bf03ecf5f4208d",
        604_800,
    ),
    (
        "s3",
        LOCAL,
        "/bucket/a//b%20c",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20150830T123600Z\
         &X-Amz-Expires=3600&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=7229916efa44c780d8c5113431644b85cfbbd0a2e7accf7e9130dc273998e132",
        3_600,
    ),
];

#[test]
fn links_are_presigned_as_botocore_does_and_live_as_long_as_they_say() {
    let verifier = Verifier::default();
    let secret = Secret::new(SECRET);
    for &(service, host, path, query, life) in LINKS {
        let headers = [("Host", host.as_bytes())];
        let request = RawRequest { method: "GET", path, query, headers: &headers, body: b"" };
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        verifier.verify(&request, at(0), &OneKey).unwrap();
        verifier.verify(&request, at(life), &OneKey).unwrap();
        verifier.verify(&request, at(-300), &OneKey).unwrap();
        let late = verifier.verify(&request, at(life + 1), &OneKey).unwrap_err();
        assert!(matches!(late, Refusal::LinkExpired(_)), "{late:?}");
        let early = verifier.verify(&request, at(-901), &OneKey).unwrap_err();
        assert!(matches!(early, Refusal::Skewed(_)), "{early:?}");

        let own_query = query.split_once("X-Amz-Algorithm").unwrap().0.trim_end_matches('&');
        let signer = Signer { access_key_id: ACCESS_KEY_ID, secret: &secret, region: "us-east-1", service };
        let unsigned = RawRequest { query: own_query, ..request };
        assert_eq!(signer.presign(&unsigned, now(), life as u32).unwrap(), query);
    }
}

#[test]
fn the_clocks_may_differ_by_the_policy_of_the_service() {
    let secret = Secret::new(SECRET);
    for (service, allowance) in [("ec2", 300), ("sts", 300), ("s3", 900)] {
        let verifier = Verifier::new(SkewPolicy::default());
        let headers = [("host", LOCAL.as_bytes())];
        let request = RawRequest { method: "GET", path: "/", query: "", headers: &headers, body: b"" };
        let signer = Signer { access_key_id: ACCESS_KEY_ID, secret: &secret, region: "us-east-1", service };
        let added = signer.sign(&request, now()).unwrap();
        let headers: Vec<(&str, &[u8])> = headers
            .iter()
            .copied()
            .chain(added.iter().map(|(name, value)| (*name, value.as_bytes())))
            .collect();
        let request = RawRequest { headers: &headers, ..request };
        let at = |seconds| verifier.verify(&request, now() + SignedDuration::from_secs(seconds), &OneKey);
        at(allowance).unwrap();
        at(-allowance).unwrap();
        let late = at(allowance + 1).unwrap_err().to_string();
        let early = at(-allowance - 1).unwrap_err().to_string();
        assert!(late.starts_with("Signature expired: 20150830T123600Z is now earlier than"), "{late}");
        assert!(late.contains(&format!("- {} min.)", allowance / 60)), "{late}");
        assert!(early.starts_with("Signature not yet current: 20150830T123600Z is still later"), "{early}");
    }
}

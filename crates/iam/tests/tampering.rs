//! Whatever happens to a signed request on its way, it is refused or means what it meant; and no bytes at all
//! make the verifier fall over.

use iam::{
    Credential, Credentials, Identity, Principal, RawRequest, Refusal, Secret, Signer, Verifier,
    claimed_service, form, normalize_path,
};
use model::Timestamp;
use proptest::prelude::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// `AKIDEXAMPLE` is active, `AKIDASLEEP` is not, and there is no other.
struct Keys;

impl Credentials for Keys {
    fn find(&self, access_key_id: &str) -> Option<Credential> {
        matches!(access_key_id, "AKIDEXAMPLE" | "AKIDASLEEP").then(|| Credential {
            secret: Secret::new(SECRET),
            principal: Principal {
                account: "123456789012".parse().unwrap(),
                arn: "arn:aws:iam::123456789012:root".into(),
                user_id: "123456789012".into(),
            },
            active: access_key_id == "AKIDEXAMPLE",
        })
    }
}

fn now() -> Timestamp {
    "2015-08-30T12:36:00Z".parse().unwrap()
}

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Sent {
    fn new(method: &str, path: &str, query: &str, body: &[u8]) -> Sent {
        let headers = vec![
            ("host".into(), b"127.0.0.1:8773".to_vec()),
            ("content-type".into(), b"text/plain".to_vec()),
        ];
        Sent { method: method.into(), path: path.into(), query: query.into(), headers, body: body.to_vec() }
    }

    fn with<T>(&self, act: impl FnOnce(&RawRequest<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        act(&RawRequest {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &headers,
            body: &self.body,
        })
    }

    fn signed_as(mut self, access_key_id: &str, service: &str) -> Sent {
        let secret = Secret::new(SECRET);
        let signer = Signer { access_key_id, secret: &secret, region: "us-east-1", service };
        let added = self.with(|request| signer.sign(request, now())).unwrap();
        self.headers.extend(added.into_iter().map(|(name, value)| (name.into(), value.into_bytes())));
        self
    }

    fn signed(self, service: &str) -> Sent {
        self.signed_as("AKIDEXAMPLE", service)
    }

    fn presigned(mut self) -> Sent {
        let secret = Secret::new(SECRET);
        let signer =
            Signer { access_key_id: "AKIDEXAMPLE", secret: &secret, region: "us-east-1", service: "ec2" };
        self.query = self.with(|request| signer.presign(request, now(), 60)).unwrap();
        self
    }

    fn header(mut self, name: &str, value: &str) -> Sent {
        self.headers.push((name.into(), value.as_bytes().to_vec()));
        self
    }

    fn verify(&self) -> Result<Identity, Refusal> {
        self.with(|request| Verifier::default().verify(request, now(), &Keys))
    }

    /// What the edge would act on: method, path, parameters by name and value, trimmed headers, body.
    fn meaning(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut parameters: Vec<(Vec<u8>, Vec<u8>)> = form::pairs(&self.query)
            .map(|(name, value)| (form::decode(name).into_owned(), form::decode(value).into_owned()))
            .collect();
        parameters.sort();
        // The Authorization header's own spaces, commas and letter case are free where it is not the signature.
        let is_space = |byte: &u8, name: &str| match byte {
            b' ' | b'\t' => true,
            b',' => name == "authorization",
            _ => false,
        };
        let mut headers: Vec<(String, Vec<Vec<u8>>)> = (self.headers.iter())
            .map(|(name, value)| {
                let name = name.to_ascii_lowercase();
                let words = value.split(|byte| is_space(byte, &name)).filter(|word| !word.is_empty());
                let words = words.map(|word| match word.starts_with(b"SignedHeaders=") {
                    true => word.to_ascii_lowercase(),
                    false => word.to_vec(),
                });
                (name.clone(), words.collect())
            })
            .collect();
        headers.sort();
        (self.method.clone(), normalize_path(&self.path).into_owned(), parameters, headers, self.body.clone())
    }
}

fn post() -> Sent {
    Sent::new("POST", "/snapshots/snap-1%20x/blocks", "a=b%2Fc&d", b"Action=RunInstances&MaxCount=1")
        .signed("ec2")
}

fn link() -> Sent {
    Sent::new("GET", "/", "Action=DescribeInstances&Version=2016-11-15", b"").presigned()
}

/// One byte of one place replaced.
fn altered(sent: &Sent, place: usize, index: usize, byte: u8) -> Sent {
    let mut altered = sent.clone();
    let replace_text = |text: &mut String| {
        let mut bytes = std::mem::take(text).into_bytes();
        let length = bytes.len().max(1);
        match bytes.get_mut(index % length) {
            Some(there) => *there = byte & 0x7f,
            None => bytes.push(byte & 0x7f),
        }
        *text = String::from_utf8(bytes).unwrap();
    };
    let places = 4 + altered.headers.len() * 2;
    match place % places {
        0 => replace_text(&mut altered.method),
        1 => replace_text(&mut altered.path),
        2 => replace_text(&mut altered.query),
        3 => {
            let length = altered.body.len().max(1);
            match altered.body.get_mut(index % length) {
                Some(there) => *there = byte,
                None => altered.body.push(byte),
            }
        }
        place => {
            let header = (place - 4) / 2;
            let (name, value) = &mut altered.headers[header];
            if place % 2 == 0 {
                replace_text(name);
            } else {
                let length = value.len();
                value[index % length] = byte;
            }
        }
    }
    altered
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn an_altered_request_is_refused(
        by_header: bool, place in 0usize..16, index in 0usize..400, byte: u8,
    ) {
        let sent = if by_header { post() } else { link() };
        let altered = altered(&sent, place, index, byte);
        if altered.meaning() == sent.meaning() {
            return Ok(());
        }
        prop_assert!(altered.verify().is_err(), "{altered:?}");
    }

    #[test]
    fn no_bytes_make_it_panic(
        method in "\\PC{0,8}", path in "\\PC{0,30}", query in "\\PC{0,60}",
        headers in prop::collection::vec(
            ("(host|Date|x-amz-date|authorization|x-amz-content-sha256|\\PC{0,8})",
             prop::collection::vec(any::<u8>(), 0..60)), 0..6),
        body in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let sent = Sent { method, path, query, headers, body };
        prop_assert!(sent.verify().is_err());
        sent.with(claimed_service);
    }

    #[test]
    fn no_authorization_makes_it_panic(
        fields in "(AWS4-HMAC-SHA256)? ?((Credential|SignedHeaders|Signature)=[a-z0-9/;]{0,40}(aws4_request)?,? ?){0,4}",
        date in "[0-9TZ]{14,17}",
    ) {
        let sent = Sent::new("GET", "/", "", b"").header("x-amz-date", &date).header("authorization", &fields);
        prop_assert!(sent.verify().is_err());
    }
}

#[test]
fn untouched_they_are_good() {
    post().verify().unwrap();
    let identity = link().verify().unwrap();
    assert_eq!(identity.access_key_id, "AKIDEXAMPLE");
}

#[test]
fn added_and_removed_parts_are_refused() {
    assert_eq!(
        post().header("x-amz-target", "Other").verify(),
        Err(Refusal::Unsigned("x-amz-target".into()))
    );
    assert!(post().header("host", "elsewhere").verify().is_err());
    assert!(post().header("content-type", "text/html").verify().is_err());
    let mut without = post();
    without.headers.retain(|(name, _)| name != "content-type");
    assert!(matches!(without.verify(), Err(Refusal::Malformed(_))));
    let mut more = link();
    more.query += "&DryRun=false";
    assert_eq!(more.verify(), Err(Refusal::Mismatch));
    let mut with_body = link();
    with_body.body = b"Action=TerminateInstances".to_vec();
    assert_eq!(with_body.verify(), Err(Refusal::Mismatch));
    // A header nobody signed is not the signature's concern.
    post().header("accept", "*/*").verify().unwrap();
}

#[test]
fn keys_that_are_not_known_or_not_active_are_refused() {
    let plain = Sent::new("GET", "/", "", b"");
    assert_eq!(plain.clone().signed_as("AKIDNOBODY", "ec2").verify(), Err(Refusal::UnknownAccessKey));
    assert_eq!(plain.clone().signed_as("AKIDASLEEP", "ec2").verify(), Err(Refusal::UnknownAccessKey));
    assert_eq!(plain.verify(), Err(Refusal::Missing));
}

#[test]
fn a_session_token_is_refused_as_none_was_issued() {
    let by_header = Sent::new("GET", "/", "", b"").header("x-amz-security-token", "token").signed("ec2");
    assert_eq!(by_header.verify(), Err(Refusal::UnknownSessionToken));
    let by_query = Sent::new("GET", "/", "X-Amz-Security-Token=token", b"").presigned();
    assert_eq!(by_query.verify(), Err(Refusal::UnknownSessionToken));
}

#[test]
fn the_stated_hash_must_be_the_bodys() {
    let stated = |service: &str, hash: &str| {
        Sent::new("PUT", "/a", "", b"data").header("x-amz-content-sha256", hash).signed(service).verify()
    };
    let true_hash = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7";
    stated("ec2", true_hash).unwrap();
    assert_eq!(stated("ec2", &true_hash.replace('3', "4")), Err(Refusal::Payload));
    assert_eq!(stated("ec2", "UNSIGNED-PAYLOAD"), Err(Refusal::Payload));
    assert_eq!(stated("sts", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), Err(Refusal::Payload));
}

#[test]
fn the_scope_must_be_of_the_day_and_cover_the_host() {
    let mut sent = post();
    for (_, value) in &mut sent.headers {
        *value = String::from_utf8_lossy(value).replace("/20150830/", "/20150829/").into_bytes();
    }
    assert!(matches!(sent.verify(), Err(Refusal::ScopeDate(_))));

    let mut hostless = Sent::new("GET", "/", "", b"");
    hostless.headers.clear();
    assert_eq!(hostless.signed("ec2").verify(), Err(Refusal::Unsigned("Host".into())));
}

#[test]
fn a_busy_callers_key_is_remembered_and_still_checked() {
    let verifier = Verifier::default();
    for _ in 0..3 {
        post().with(|request| verifier.verify(request, now(), &Keys)).unwrap();
        let mut other = post();
        other.body.push(b'!');
        let refusal = other.with(|request| verifier.verify(request, now(), &Keys)).unwrap_err();
        assert_eq!(refusal, Refusal::Mismatch);
    }
}

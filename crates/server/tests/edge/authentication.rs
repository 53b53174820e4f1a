//! Who is let in, and in which words each service refuses the others.

use crate::cloud::{ARN, start};
use crate::wire::{DESCRIBE, Draft, IDENTITY};
use server::Options;

#[tokio::test]
async fn signed_by_header_and_by_query() {
    let server = start(Options::default()).await;
    for draft in [
        Draft::post(DESCRIBE).signed(),
        Draft::get(DESCRIBE).signed(),
        Draft::get(DESCRIBE).presigned(60),
        Draft { method: "POST", ..Draft::get(DESCRIBE) }.presigned(60),
        Draft { method: "POST", query: DESCRIBE.into(), ..Draft::get("") }.signed(),
    ] {
        let answer = draft.ask(&server).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.body,
            format!(
                "ec2 DescribeInstances eu-home-1 {ARN} 127.0.0.1 /\nAction=DescribeInstances\nVersion=2016-11-15\n"
            )
        );
    }
}

/// Each way to be refused, with the status and code of EC2 and of STS.
#[tokio::test]
async fn each_refusal_in_the_words_of_its_service() {
    let server = start(Options::default()).await;
    let ec2 = || Draft::post(DESCRIBE);
    let sts = || Draft { service: "sts", ..Draft::post(IDENTITY) };
    let host = |draft: Draft, host: &str| {
        let mut draft = draft;
        draft.headers[0].1 = host.into();
        draft
    };
    let altered = |mut draft: Draft| {
        draft.body += "&DryRun=false";
        draft
    };
    let replaced = |mut draft: Draft, from: &str, to: &str| {
        let authorization = draft.headers.iter_mut().find(|(name, _)| name == "authorization").unwrap();
        authorization.1 = authorization.1.replace(from, to);
        draft
    };
    for (what, ec2, sts, ec2_error, sts_error) in [
        (
            "no signature",
            ec2(),
            host(sts(), "sts.eu-home-1.example"),
            (403, "MissingAuthenticationToken"),
            (403, "MissingAuthenticationToken"),
        ),
        (
            "unknown key",
            Draft { access_key_id: "AKIDNOBODY", ..ec2() }.signed(),
            Draft { access_key_id: "AKIDNOBODY", ..sts() }.signed(),
            (401, "AuthFailure"),
            (403, "InvalidClientTokenId"),
        ),
        (
            "wrong secret",
            Draft { secret: "guessed", ..ec2() }.signed(),
            Draft { secret: "guessed", ..sts() }.signed(),
            (401, "AuthFailure"),
            (403, "SignatureDoesNotMatch"),
        ),
        (
            "altered body",
            altered(ec2().signed()),
            altered(sts().signed()),
            (401, "AuthFailure"),
            (403, "SignatureDoesNotMatch"),
        ),
        (
            "slow clock",
            Draft { ahead_seconds: -301, ..ec2() }.signed(),
            Draft { ahead_seconds: -301, ..sts() }.signed(),
            (400, "RequestExpired"),
            (403, "SignatureDoesNotMatch"),
        ),
        (
            "fast clock",
            Draft { ahead_seconds: 301, ..ec2() }.signed(),
            Draft { ahead_seconds: 301, ..sts() }.signed(),
            (400, "RequestExpired"),
            (403, "SignatureDoesNotMatch"),
        ),
        (
            "expired link",
            Draft { ahead_seconds: -61, ..Draft::get(DESCRIBE) }.presigned(60),
            Draft { ahead_seconds: -61, service: "sts", ..Draft::get(IDENTITY) }.presigned(60),
            (400, "RequestExpired"),
            (403, "SignatureDoesNotMatch"),
        ),
        (
            "eternal link",
            Draft::get(DESCRIBE).presigned(604_801),
            Draft { service: "sts", ..Draft::get(IDENTITY) }.presigned(604_801),
            (400, "IncompleteSignature"),
            (400, "IncompleteSignature"),
        ),
        (
            "no date",
            Draft { ..replaced(ec2().signed(), "SignedHeaders=", "Headers=") },
            Draft { ..replaced(sts().signed(), "SignedHeaders=", "Headers=") },
            (400, "IncompleteSignature"),
            (400, "IncompleteSignature"),
        ),
        (
            "another day's scope",
            replaced(ec2().signed(), "/20240501/", "/20240430/"),
            replaced(sts().signed(), "/20240501/", "/20240430/"),
            (401, "AuthFailure"),
            (403, "SignatureDoesNotMatch"),
        ),
        (
            "session token",
            ec2().header("x-amz-security-token", "token").signed(),
            sts().header("x-amz-security-token", "token").signed(),
            (401, "AuthFailure"),
            (403, "InvalidClientTokenId"),
        ),
        (
            "another region",
            Draft { region: "eu-away-1", ..ec2() }.signed(),
            Draft { region: "eu-away-1", ..sts() }.signed(),
            (401, "AuthFailure"),
            (403, "SignatureDoesNotMatch"),
        ),
    ] {
        let answer = ec2.ask(&server).await;
        assert_eq!(answer.error(), ec2_error, "{what}");
        assert!(answer.body.contains("<Errors><Error>"), "{what}: {answer:?}");
        let answer = sts.ask(&server).await;
        assert_eq!(answer.error(), sts_error, "{what}");
        assert!(answer.body.contains("<ErrorResponse"), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn messages_say_what_to_do() {
    let server = start(Options::default()).await;
    let sts = || Draft { service: "sts", ..Draft::post(IDENTITY) };
    let late = Draft { ahead_seconds: -301, ..sts() }.signed().ask(&server).await;
    assert_eq!(
        late.message(),
        "Signature expired: 20240501T115459Z is now earlier than 20240501T115500Z (20240501T120000Z - 5 min.)"
    );
    let away = Draft { region: "eu-away-1", ..sts() }.signed().ask(&server).await;
    assert!(away.message().contains("scoped to a valid region"), "{away:?}");
    let wrong = Draft { secret: "guessed", ..Draft::post(DESCRIBE) }.signed().ask(&server).await;
    assert_eq!(wrong.message(), "AWS was not able to validate the provided access credentials");
}

#[tokio::test]
async fn global_services_are_signed_for_us_east_1_wherever_the_cloud_is() {
    let server = start(Options::default()).await;
    let sts = Draft { service: "sts", region: "us-east-1", ..Draft::post(IDENTITY) }.signed();
    let answer = sts.ask(&server).await;
    assert!(answer.body.starts_with("sts GetCallerIdentity eu-home-1 "), "{answer:?}");
}

//! What an endpoint lets through of its service's operations. Kept as it was given; its form is checked here, and it is
//! the service's to carry out.

use model::{Error, Result};
use serde_json::{Map, Value};

/// Lets everything through.
pub const DEFAULT: &str = r#"{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}"#;

/// Characters of a policy (PrivateLink Guide, "AWS PrivateLink quotas": with its white space).
const LEN_MAX: usize = 20_480;

/// Whether it is one (IAM User Guide, "Grammar of the IAM JSON policy language").
pub fn check(text: &str) -> Result<()> {
    if text.chars().count() > LEN_MAX {
        return Err(invalid(&format!("It may have at most {LEN_MAX} characters.")));
    }
    let Ok(Value::Object(policy)) = serde_json::from_str(text) else {
        return Err(invalid("It is not a JSON object."));
    };
    match policy.get("Version").map(Value::as_str) {
        None | Some(Some("2012-10-17" | "2008-10-17")) => {}
        Some(_) => return Err(invalid("Its version is neither 2012-10-17 nor 2008-10-17.")),
    }
    let statements: Vec<&Value> = match policy.get("Statement") {
        Some(Value::Array(statements)) => statements.iter().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    if statements.is_empty() {
        return Err(invalid("It has no statement."));
    }
    statements.into_iter().try_for_each(|statement| match statement {
        Value::Object(statement) => check_statement(statement),
        _ => Err(invalid("A statement is not an object.")),
    })
}

fn check_statement(statement: &Map<String, Value>) -> Result<()> {
    if !matches!(statement.get("Effect").and_then(Value::as_str), Some("Allow" | "Deny")) {
        return Err(invalid("The effect of a statement is neither Allow nor Deny."));
    }
    for (element, negated) in
        [("Principal", "NotPrincipal"), ("Action", "NotAction"), ("Resource", "NotResource")]
    {
        if statement.contains_key(element) == statement.contains_key(negated) {
            return Err(invalid(&format!("A statement has exactly one of {element} and {negated}.")));
        }
    }
    Ok(())
}

fn invalid(why: &str) -> Error {
    Error::new("InvalidPolicyDocument", format!("The specified policy document is not valid. {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_statements_that_say_who_what_and_where() {
        let one = r#"{"Effect":"Deny","Principal":"*","NotAction":"s3:*","Resource":["a","b"]}"#;
        for text in [
            DEFAULT.to_owned(),
            format!(r#"{{"Statement":{one}}}"#),
            format!(r#"{{"Statement":[{one},{one}]}}"#),
        ] {
            assert!(check(&text).is_ok(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for text in [
            "",
            "allow",
            "[]",
            "{}",
            r#"{"Statement":[]}"#,
            r#"{"Statement":["a"]}"#,
            r#"{"Statement":{"Effect":"Maybe","Principal":"*","Action":"*","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
            r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","NotAction":"*","Resource":"*"}}"#,
            &format!(r#"{{"Version":"2020-01-01","Statement":{one}}}"#),
            &format!("{DEFAULT}{}", " ".repeat(LEN_MAX)),
            &deep,
        ] {
            assert_eq!(check(text).unwrap_err().code, "InvalidPolicyDocument", "{text}");
        }
    }
}

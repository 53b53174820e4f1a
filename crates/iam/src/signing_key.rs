//! The key a request is signed with, made from the secret for one day, region and service; and the memory of
//! the keys in use, so that a busy caller costs one HMAC a request and not five.

use crate::claim::Scope;
use crate::{Secret, TERMINATOR};
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use sha2::Sha256;
use std::collections::HashMap;

#[derive(Clone, Copy)]
pub(crate) struct SigningKey([u8; 32]);

impl SigningKey {
    pub fn derive(secret: &Secret, scope: &Scope) -> SigningKey {
        let day = hmac(format!("AWS4{}", secret.expose()).as_bytes(), scope.day.as_bytes());
        let region = hmac(&day, scope.region.as_bytes());
        let service = hmac(&region, scope.service.as_bytes());
        SigningKey(hmac(&service, TERMINATOR.as_bytes()))
    }

    /// As lowercase hexadecimal digits.
    pub fn sign(&self, string_to_sign: &str) -> String {
        hex::encode(hmac(&self.0, string_to_sign.as_bytes()))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes keys of any length (RFC 2104)");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Some thousand callers, at about 200 bytes each.
const GENERATION_MAX: usize = 1024;

/// Remembers keys in two generations: one that is used stays, one that is not is forgotten once the younger
/// generation is full. Only keys that verified a request enter, so strangers can't push others out.
#[derive(Default)]
pub(crate) struct SigningKeyCache(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<String, SigningKey>,
    old: HashMap<String, SigningKey>,
}

impl SigningKeyCache {
    pub fn get(&self, secret: &Secret, scope: &Scope) -> Option<SigningKey> {
        let name = name(secret, scope);
        let mut generations = self.0.lock();
        if let Some(key) = generations.young.get(&name) {
            return Some(*key);
        }
        let key = generations.old.remove(&name)?;
        generations.insert(name, key);
        Some(key)
    }

    pub fn insert(&self, secret: &Secret, scope: &Scope, key: SigningKey) {
        self.0.lock().insert(name(secret, scope), key);
    }
}

impl Generations {
    fn insert(&mut self, name: String, key: SigningKey) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, key);
    }
}

/// The secret is in it, so that a key whose secret has changed is another key.
fn name(secret: &Secret, scope: &Scope) -> String {
    format!("{}/{}/{}/{}", scope.day, scope.region, scope.service, secret.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(region: &str) -> Scope {
        Scope { day: "20150830".into(), region: region.into(), service: "iam".into() }
    }

    #[test]
    fn the_documented_example() {
        // IAM User Guide, "Create a signed AWS API request": the key derived in its example.
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let key = SigningKey::derive(&secret, &scope("us-east-1"));
        assert_eq!(hex::encode(key.0), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn a_used_key_stays_and_the_rest_is_bounded() {
        let cache = SigningKeyCache::default();
        let secret = Secret::new("secret");
        let hot = scope("hot");
        cache.insert(&secret, &hot, SigningKey([7; 32]));
        for number in 0..5 * GENERATION_MAX {
            cache.insert(&secret, &scope(&number.to_string()), SigningKey([0; 32]));
            if number % 100 == 0 {
                assert_eq!(cache.get(&secret, &hot).map(|key| key.0), Some([7; 32]));
            }
        }
        let generations = cache.0.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
        drop(generations);
        assert!(cache.get(&secret, &scope("0")).is_none());
    }

    #[test]
    fn a_changed_secret_is_another_key() {
        let cache = SigningKeyCache::default();
        cache.insert(&Secret::new("before"), &scope("r"), SigningKey([7; 32]));
        assert!(cache.get(&Secret::new("after"), &scope("r")).is_none());
    }
}

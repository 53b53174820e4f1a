//! Making access keys of the form AWS's have: tools tell keys from other text by it.

use crate::Secret;
use model::Random;

/// `AKIA` marks a long-term key of a user or root (IAM User Guide, "IAM identifiers").
const ID_PREFIX: &str = "AKIA";
const ID_RANDOM_LEN: usize = 16;
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// 40 characters of 64 letters: 240 bits of chance.
const SECRET_LEN: usize = 40;
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[derive(Clone, Debug)]
pub struct AccessKey {
    pub id: String,
    pub secret: Secret,
}

impl AccessKey {
    pub fn generate(random: &dyn Random) -> Self {
        AccessKey {
            id: format!("{ID_PREFIX}{}", letters::<ID_RANDOM_LEN>(random, ID_ALPHABET)),
            secret: Secret::new(letters::<SECRET_LEN>(random, SECRET_ALPHABET)),
        }
    }
}

/// `N` letters, each as likely as any other: both alphabets' lengths divide 256.
fn letters<const N: usize>(random: &dyn Random, alphabet: &[u8]) -> String {
    let mut bytes = [0u8; N];
    random.fill(&mut bytes);
    bytes.iter().map(|byte| alphabet[usize::from(*byte) % alphabet.len()] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{SeededRandom, SystemRandom};
    use std::collections::HashSet;

    #[test]
    fn keys_have_the_form_of_aws_keys() {
        for _ in 0..100 {
            let key = AccessKey::generate(&SystemRandom);
            assert_eq!(key.id.len(), 20);
            assert!(key.id.starts_with("AKIA"));
            assert!(key.id[4..].bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b)));
            assert_eq!(key.secret.expose().len(), 40);
            assert!(key.secret.expose().bytes().all(|b| SECRET_ALPHABET.contains(&b)));
        }
    }

    #[test]
    fn keys_differ_and_follow_from_the_seed() {
        let random = SeededRandom::new(7);
        let keys: HashSet<_> = (0..100).map(|_| AccessKey::generate(&random).id).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.contains(&AccessKey::generate(&SeededRandom::new(7)).id));
    }

    #[test]
    fn every_letter_of_the_alphabet_is_used() {
        let random = SeededRandom::new(1);
        let seen: HashSet<char> = (0..200)
            .flat_map(|_| AccessKey::generate(&random).secret.expose().chars().collect::<Vec<_>>())
            .collect();
        assert_eq!(seen.len(), SECRET_ALPHABET.len());
    }

    #[test]
    fn debugging_shows_no_secret() {
        let key = AccessKey::generate(&SystemRandom);
        assert!(!format!("{key:?}").contains(key.secret.expose()));
    }
}

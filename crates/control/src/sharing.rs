//! Sharing with other accounts: who may launch an image, who may make volumes of a snapshot.

use model::{AccountId, Error, Result};

/// Changes of who something is shared with.
#[derive(Default)]
pub struct Changes {
    add: Vec<AccountId>,
    remove: Vec<AccountId>,
    public: Option<bool>,
}

impl Changes {
    /// What a request says, in either of the two ways to say it: by listed items, each whether it is added, its user
    /// and its group, or by one operation on users and groups. `code` is the error's where an item is nobody.
    pub fn of<'a>(
        listed: impl IntoIterator<Item = (bool, Option<&'a str>, Option<&'a str>)>,
        operation: Option<&str>,
        users: &[String],
        groups: &[String],
        code: &'static str,
    ) -> Result<Changes> {
        let mut changes = Changes::default();
        for (add, user, group) in listed {
            changes.note(add, user, group, code)?;
        }
        let add = operation != Some("remove");
        for user in users {
            changes.note(add, Some(user), None, code)?;
        }
        for group in groups {
            changes.note(add, None, Some(group), code)?;
        }
        Ok(changes)
    }

    fn note(&mut self, add: bool, user: Option<&str>, group: Option<&str>, code: &'static str) -> Result<()> {
        let invalid = |value: &str, kind: &str| {
            Error::new(code, format!("Invalid attribute item value \"{value}\" for {kind} item type."))
        };
        match (user, group) {
            (Some(user), _) => {
                let account = user.parse().map_err(|_| invalid(user, "userId"))?;
                if add { self.add.push(account) } else { self.remove.push(account) }
            }
            (None, Some("all")) => self.public = Some(add),
            (None, Some(other)) => return Err(invalid(other, "group")),
            (None, None) => {}
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty() && self.public.is_none()
    }

    /// Whether anybody gets what they had not, as far as is seen here.
    pub fn shares(&self) -> bool {
        self.makes_public() || !self.add.is_empty()
    }

    pub fn makes_public(&self) -> bool {
        self.public == Some(true)
    }

    pub fn apply(&self, public: &mut bool, accounts: &mut Vec<AccountId>) {
        accounts.retain(|account| !self.remove.contains(account));
        accounts.extend(self.add.iter().cloned());
        accounts.sort();
        accounts.dedup();
        *public = self.public.unwrap_or(*public);
    }
}

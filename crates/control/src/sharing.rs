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
    /// Adds what one item of a request says; `code` is the error's where it is nobody.
    pub fn note(
        &mut self,
        add: bool,
        user: Option<&str>,
        group: Option<&str>,
        code: &'static str,
    ) -> Result<()> {
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

    pub fn apply(&self, public: &mut bool, accounts: &mut Vec<AccountId>) {
        accounts.retain(|account| !self.remove.contains(account));
        accounts.extend(self.add.iter().cloned());
        accounts.sort();
        accounts.dedup();
        *public = self.public.unwrap_or(*public);
    }
}

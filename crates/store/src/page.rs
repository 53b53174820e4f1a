//! Pages of a range: where one begins and where it ends, the same for every backend whose keys are in order.

use crate::api::PAGE_LEN_MAX;
use crate::{Entry, Range, Revision, StoreError};
use std::ops::Bound;

/// Where in the order of all keys a page begins.
pub fn start<'a>(prefix: &'a str, after: Option<&'a str>) -> Bound<&'a str> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}

/// Takes a page from what begins at [`start`]. A page is never empty where there is more and the limit allows one.
pub fn page(
    prefix: &str,
    limit: usize,
    revision: Revision,
    entries: impl Iterator<Item = Result<Entry, StoreError>>,
) -> Result<Range, StoreError> {
    let mut page = Range { entries: Vec::new(), revision, more: false };
    let mut len = 0;
    for entry in entries {
        let entry = entry?;
        if !entry.key.starts_with(prefix) {
            break;
        }
        len += entry.key.len() + entry.value.len();
        let full = page.entries.len() >= limit || (len > PAGE_LEN_MAX && !page.entries.is_empty());
        if full {
            page.more = true;
            break;
        }
        page.entries.push(entry);
    }
    Ok(page)
}

//! Describe: by id, by filter, by page. One mechanism for every resource.

use crate::engine::filter::{self, Filter};
use crate::engine::table::{Record, Table, Values};
use aws_api::ec2;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Error, Id, Kind, Result};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most ids in one request (EC2 API Reference: requests with many ids should use filters or pages).
const IDS_MAX: usize = 1000;
/// Where an operation documents no page size of its own.
const PAGE_MAX: usize = 1000;

/// The parts of a Describe request that all have.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    pub ids: &'a [String],
    pub filters: &'a [ec2::Filter],
    pub max_results: Option<i32>,
    pub next_token: Option<&'a str>,
    /// The name under which EC2's messages know the list of ids: `instancesSet`.
    pub ids_name: &'static str,
}

/// One page of records, in the order of their ids.
pub struct Page<T> {
    pub records: Vec<Arc<T>>,
    pub next_token: Option<String>,
}

/// Selects from `table`. `visible` says what this caller may see at all; what it may not does not exist for it.
/// `field` answers filters that need more than the record itself; false passes the question on to the record.
pub fn select<'t, T: Record>(
    table: &'t Table<T>,
    kind: Kind,
    query: &Query<'_>,
    visible: impl Fn(&T) -> bool,
    field: impl Fn(&'t T, &str, &mut Values<'t>) -> bool,
) -> Result<Page<T>> {
    let filters = filter::parse(query.filters)?;
    let paging = Paging::parse(query)?;
    let passes = |record: &'t T| {
        filter::passes(&filters, |name, values| {
            field(record, name, values) || filter::record_field(record, name, values)
        })
    };
    // Any record tells which names of filters there are: they are checked also where an index or the page leaves
    // nothing to look at.
    if let Some(record) = table.iter().next() {
        passes(record)?;
    }
    if !query.ids.is_empty() {
        let records = by_id(table, kind, query.ids, &visible)?;
        let mut passed = Vec::with_capacity(records.len());
        for record in records {
            if passes(record)? {
                passed.push(record.clone());
            }
        }
        return Ok(Page { records: passed, next_token: None });
    }
    let mut page: Page<T> = Page { records: Vec::new(), next_token: None };
    let mut take = |record: &'t Arc<T>| -> Result<bool> {
        if !visible(record) || !passes(record)? {
            return Ok(true);
        }
        if page.records.len() == paging.limit {
            page.next_token = page.records.last().map(|last| paging.token_after(last.id()));
            return Ok(false);
        }
        page.records.push(record.clone());
        Ok(true)
    };
    match candidates(table, &filters, &paging.after) {
        Some(records) => {
            for record in records {
                if !take(record)? {
                    break;
                }
            }
        }
        None => {
            for record in table.after(&paging.after) {
                if !take(record)? {
                    break;
                }
            }
        }
    }
    Ok(page)
}

/// Selects from `table` for an operation that has no pages.
pub fn select_all<'t, T: Record>(
    table: &'t Table<T>,
    kind: Kind,
    ids: &[String],
    filters: &[ec2::Filter],
    field: impl Fn(&'t T, &str, &mut Values<'t>) -> bool,
) -> Result<Vec<Arc<T>>> {
    let mut records = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let query = Query { ids, filters, next_token: token.as_deref(), ..Query::default() };
        let page = select(table, kind, &query, |_| true, &field)?;
        records.extend(page.records);
        token = page.next_token;
        if token.is_none() {
            return Ok(records);
        }
    }
}

fn by_id<'t, T: Record>(
    table: &'t Table<T>,
    kind: Kind,
    ids: &[String],
    visible: impl Fn(&T) -> bool,
) -> Result<Vec<&'t Arc<T>>> {
    if ids.len() > IDS_MAX {
        return Err(Error::invalid_parameter_value(format!(
            "At most {IDS_MAX} ids can be given; use filters or pages instead"
        )));
    }
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let mut found = Vec::with_capacity(wanted.len());
    let mut missing = Vec::new();
    for id in wanted {
        Id::parse(kind, id)?;
        match table.find(id).filter(|record| visible(record)) {
            Some(record) => found.push(record),
            None => missing.push(id),
        }
    }
    match missing.as_slice() {
        [] => Ok(found),
        [one] => Err(Id::not_found(kind, one)),
        many => {
            let mut error = Id::not_found(kind, &many.join(", "));
            error.message =
                error.message.replace(" ID '", " IDs '").replace("does not exist", "do not exist");
            Err(error)
        }
    }
}

/// The records after `after` that the most selective indexed filter leaves, in order; None where no filter has an
/// index. None is looked at before it is asked for: a page of many costs what the page holds.
fn candidates<'t, T: Record>(
    table: &'t Table<T>,
    filters: &[Filter],
    after: &str,
) -> Option<impl Iterator<Item = &'t Arc<T>> + use<'t, T>> {
    let best = filters
        .iter()
        .filter(|filter| T::INDEXED.contains(&filter.name.as_str()) || filter.name.starts_with("tag:"))
        .filter_map(|filter| Some((&filter.name, filter.exact()?)))
        .min_by_key(|(name, values)| values.iter().map(|value| table.count(name, value)).sum::<usize>())?;
    let (name, values) = best;
    let mut heads: Vec<_> =
        values.into_iter().map(|value| table.with_after(name, value, after).peekable()).collect();
    Some(std::iter::from_fn(move || {
        let next =
            heads.iter_mut().filter_map(|head| head.peek().copied()).min_by_key(|record| record.id())?;
        // A record may be in several of the sets.
        for head in &mut heads {
            let _ = head.next_if(|record| record.id() == next.id());
        }
        Some(next)
    }))
}

struct Paging {
    limit: usize,
    /// The last id of the page before; empty for the first page.
    after: String,
    /// Ties a token to the filters that it was given for.
    filters: String,
}

impl Paging {
    fn parse(query: &Query<'_>) -> Result<Paging> {
        if !query.ids.is_empty() && query.max_results.is_some() {
            return Err(Error::invalid_parameter_combination(format!(
                "The parameter {} cannot be used with the parameter maxResults",
                query.ids_name
            )));
        }
        let limit = page_size(query.max_results)?;
        let filters = digest(query.filters);
        let after = match query.next_token {
            None | Some("") => String::new(),
            Some(token) => parse_token(token, &filters)?,
        };
        Ok(Paging { limit, after, filters })
    }

    fn token_after(&self, id: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("1|{}|{id}", self.filters))
    }
}

/// `MaxResults`: above 1000 is 1000. How few may be asked for the model says (`aws_api`).
pub fn page_size(max_results: Option<i32>) -> Result<usize> {
    match max_results {
        None => Ok(PAGE_MAX),
        Some(wanted) if wanted > 0 => Ok((wanted as usize).min(PAGE_MAX)),
        Some(wanted) => Err(Error::invalid_parameter_value(format!(
            "Value ( {wanted} ) for parameter maxResults is invalid. Expecting a value greater than or equal to 1."
        ))),
    }
}

fn parse_token(token: &str, filters: &str) -> Result<String> {
    let invalid =
        || Error::new("InvalidNextToken", "The specified next token is not valid for this request.");
    let text = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(invalid)?;
    match text.splitn(3, '|').collect::<Vec<_>>().as_slice() {
        ["1", of, after] if *of == filters => Ok((*after).to_owned()),
        _ => Err(invalid()),
    }
}

fn digest(filters: &[ec2::Filter]) -> String {
    use sha2::Digest;
    if filters.is_empty() {
        return String::new();
    }
    hex::encode(&sha2::Sha256::digest(format!("{filters:?}"))[..8])
}

/// Whether a question about things that there are none of is one at all: by filters of these names or, as all of
/// EC2's, by tags.
pub fn none(
    names: &[&str],
    filters: &[ec2::Filter],
    max_results: Option<i32>,
    next_token: Option<&str>,
) -> Result<()> {
    for Filter { name, .. } in filter::parse(filters)? {
        if !names.contains(&name.as_str()) && name != "tag-key" && !name.starts_with("tag:") {
            return Err(Error::invalid_parameter_value(format!("The filter '{name}' is invalid")));
        }
    }
    let none: [(); 0] = [];
    page_of(&none, |()| String::new(), filters, max_results, next_token).map(drop)
}

/// Pages through things that are not records (the catalogue of instance types): `key` orders them.
pub fn page_of<I: Clone>(
    sorted: &[I],
    key: impl Fn(&I) -> String,
    filters: &[ec2::Filter],
    max_results: Option<i32>,
    next_token: Option<&str>,
) -> Result<(Vec<I>, Option<String>)> {
    let query = Query { filters, max_results, next_token, ..Query::default() };
    let paging = Paging::parse(&query)?;
    let start = sorted.partition_point(|item| key(item) <= paging.after);
    let start = if paging.after.is_empty() { 0 } else { start };
    let rest = &sorted[start..];
    let page = rest[..rest.len().min(paging.limit)].to_vec();
    let more = rest.len() > paging.limit;
    let token = page.last().filter(|_| more).map(|last| paging.token_after(&key(last)));
    Ok((page, token))
}

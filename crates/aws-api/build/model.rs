//! The parts of a botocore-style service model that the generator reads.

use indexmap::IndexMap;
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Model {
    pub metadata: Metadata,
    pub operations: IndexMap<String, Operation>,
    pub shapes: IndexMap<String, Shape>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub protocol: String,
}

#[derive(Deserialize)]
pub struct Operation {
    pub http: Http,
    pub input: Option<ShapeRef>,
    pub output: Option<ShapeRef>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    pub method: String,
    pub request_uri: String,
    pub response_code: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShapeRef {
    pub shape: String,
    pub location_name: Option<String>,
    pub query_name: Option<String>,
    /// `uri`, `querystring`, `header`; the body where None.
    pub location: Option<String>,
    pub result_wrapper: Option<String>,
}

#[derive(Deserialize)]
pub struct Shape {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub members: IndexMap<String, ShapeRef>,
    #[serde(default)]
    pub required: Vec<String>,
    /// Of a list.
    pub member: Option<ShapeRef>,
    /// Of a map.
    pub key: Option<ShapeRef>,
    pub value: Option<ShapeRef>,
    #[serde(default)]
    pub flattened: bool,
    #[serde(default, rename = "enum")]
    pub values: Vec<String>,
    pub payload: Option<String>,
    /// Of a number's value, a string's characters, a list's items.
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Shape {
    /// What a map's entries call their two halves.
    pub fn entry(&self) -> (&str, &str) {
        (half(&self.key, "key"), half(&self.value, "value"))
    }
}

fn half<'s>(half: &'s Option<ShapeRef>, otherwise: &'s str) -> &'s str {
    half.as_ref().and_then(|half| half.location_name.as_deref()).unwrap_or(otherwise)
}

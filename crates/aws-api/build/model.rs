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
    pub member: Option<ShapeRef>,
    #[serde(default)]
    pub flattened: bool,
    #[serde(default, rename = "enum")]
    pub values: Vec<String>,
    pub payload: Option<String>,
}

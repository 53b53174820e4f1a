//! Calls of EC2 operations.

#[derive(Clone, Debug)]
pub struct Call {
    pub operation: &'static str,
    pub parameters: Vec<(String, String)>,
}

impl Call {
    pub fn new(operation: &'static str, parameters: Vec<(&str, &str)>) -> Call {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Call { operation, parameters: parameters.into_iter().map(owned).collect() }
    }

    pub fn value(&self, wanted: &str) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// Where its answer names what it has made.
    pub fn made(&self) -> Option<&'static str> {
        Some(match self.operation {
            "RunInstances" => "instanceId",
            "CreateVolume" => "volumeId",
            "CreateSnapshot" | "CreateSnapshots" | "CopySnapshot" => "snapshotId",
            "CreateSecurityGroup" => "groupId",
            "AllocateHosts" => "item",
            _ => return None,
        })
    }
}

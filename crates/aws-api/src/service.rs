//! The services that share the one port.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Ec2,
    Sts,
    Iam,
    Ebs,
    /// Ours: what an operator sees of the cloud behind the API.
    Cumulet,
}

/// How a service's requests and answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Ec2Query,
    AwsQuery,
    RestJson,
}

impl Service {
    pub const ALL: [Service; 5] = [Service::Ec2, Service::Sts, Service::Iam, Service::Ebs, Service::Cumulet];

    /// As the credential scope names it.
    pub const fn signing_name(self) -> &'static str {
        match self {
            Service::Ec2 => "ec2",
            Service::Sts => "sts",
            Service::Iam => "iam",
            Service::Ebs => "ebs",
            Service::Cumulet => "cumulet",
        }
    }

    pub fn from_signing_name(name: &str) -> Option<Service> {
        Service::ALL.into_iter().find(|service| service.signing_name() == name)
    }

    pub const fn protocol(self) -> Protocol {
        match self {
            Service::Ec2 => Protocol::Ec2Query,
            Service::Sts | Service::Iam => Protocol::AwsQuery,
            Service::Ebs | Service::Cumulet => Protocol::RestJson,
        }
    }

    /// The version that answers are written in.
    pub const fn api_version(self) -> &'static str {
        match self {
            Service::Ec2 => "2016-11-15",
            Service::Sts => "2011-06-15",
            Service::Iam => "2010-05-08",
            Service::Ebs => "2019-11-02",
            Service::Cumulet => "2026-11-23",
        }
    }

    /// EC2 has dated its API often; clients that name an older date than the current one are still served.
    pub fn takes_version(self, version: &str) -> bool {
        match self {
            Service::Ec2 => is_date(version) && version <= self.api_version(),
            _ => version == self.api_version(),
        }
    }

    /// With the slash that EC2's answers have and its model has not.
    pub const fn xml_namespace(self) -> &'static str {
        match self {
            Service::Ec2 => "http://ec2.amazonaws.com/doc/2016-11-15/",
            Service::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
            Service::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
            Service::Ebs | Service::Cumulet => "",
        }
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() })
}

//! A client that sends exactly the bytes it is told to, and requests signed as clients sign them.

use crate::cloud::{ACCESS_KEY_ID, Running, SECRET, now, within};
use iam::{RawRequest, Secret, Signer};
use jiff::SignedDuration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
pub const DESCRIBE: &str = "Action=DescribeInstances&Version=2016-11-15";
pub const IDENTITY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// A request to be signed: an EC2 POST in the cloud's region unless told otherwise.
#[derive(Clone)]
pub struct Draft {
    pub method: &'static str,
    pub path: &'static str,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub service: &'static str,
    pub region: &'static str,
    pub access_key_id: &'static str,
    pub secret: &'static str,
    /// The client's clock, against the cloud's.
    pub ahead_seconds: i64,
}

impl Draft {
    pub fn post(body: impl Into<String>) -> Draft {
        Draft { method: "POST", body: body.into(), ..Draft::get("") }.header("content-type", FORM)
    }

    pub fn get(query: impl Into<String>) -> Draft {
        Draft {
            method: "GET",
            path: "/",
            query: query.into(),
            headers: vec![("host".into(), "127.0.0.1:8773".into())],
            body: String::new(),
            service: "ec2",
            region: "eu-home-1",
            access_key_id: ACCESS_KEY_ID,
            secret: SECRET,
            ahead_seconds: 0,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Draft {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn signed(mut self) -> Draft {
        let secret = Secret::new(self.secret);
        let added = self.with_raw(&secret, |signer, raw, at| signer.sign(raw, at)).unwrap();
        self.headers.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self
    }

    pub fn presigned(mut self, expires_seconds: u32) -> Draft {
        let secret = Secret::new(self.secret);
        self.query =
            self.with_raw(&secret, |signer, raw, at| signer.presign(raw, at, expires_seconds)).unwrap();
        self
    }

    fn with_raw<T>(
        &self,
        secret: &Secret,
        act: impl FnOnce(Signer<'_>, &RawRequest<'_>, model::Timestamp) -> T,
    ) -> T {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let raw = RawRequest {
            method: self.method,
            path: self.path,
            query: &self.query,
            headers: &headers,
            body: self.body.as_bytes(),
        };
        let Draft { access_key_id, region, service, .. } = *self;
        let at = now() + SignedDuration::from_secs(self.ahead_seconds);
        act(Signer { access_key_id, secret, region, service }, &raw, at)
    }

    fn head(&self) -> String {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let mut head = format!("{} {}{mark}{} HTTP/1.1\r\n", self.method, self.path, self.query);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head
    }

    pub fn bytes(&self) -> Vec<u8> {
        format!("{}content-length: {}\r\n\r\n{}", self.head(), self.body.len(), self.body).into_bytes()
    }

    /// The body in a hundred chunks, or in such of seven bytes.
    pub fn chunked_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}transfer-encoding: chunked\r\n\r\n", self.head()).into_bytes();
        for chunk in self.body.as_bytes().chunks((self.body.len() / 100).max(7)) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }

    /// Sent on a connection of its own.
    pub async fn ask(&self, server: &Running) -> Answer {
        let mut wire = Wire::connect(server).await;
        wire.send(&self.bytes()).await;
        wire.answer().await
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Status and error code.
    pub fn error(&self) -> (u16, &str) {
        (self.status, self.between("<Code>", "</Code>"))
    }

    pub fn message(&self) -> &str {
        self.between("<Message>", "</Message>")
    }

    fn between(&self, start: &str, end: &str) -> &str {
        let (_, rest) = self.body.split_once(start).unwrap_or_else(|| panic!("no {start} in {self:?}"));
        rest.split_once(end).unwrap().0
    }
}

pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    pub async fn connect(server: &Running) -> Wire {
        Wire { stream: TcpStream::connect(server.address).await.unwrap(), received: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next answer; those behind it on the same connection are kept.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length: usize = answer.header("content-length").unwrap_or("0").parse().unwrap();
        while self.received.len() < length {
            self.receive().await;
        }
        answer.body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        answer
    }

    /// The next answer without its body.
    pub async fn head(&mut self) -> Answer {
        let head_end = loop {
            match self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.receive().await,
            }
        };
        let head = String::from_utf8(self.received.drain(..head_end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Answer { status, headers, body: String::new() }
    }

    async fn receive(&mut self) {
        let mut buffer = [0; 64 * 1024];
        let length = within(self.stream.read(&mut buffer)).await.unwrap();
        assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
        self.received.extend(&buffer[..length]);
    }

    /// Waits for the server to close the connection, which it does without another byte.
    pub async fn closed(mut self) {
        assert!(self.received.is_empty());
        let mut rest = Vec::new();
        match within(self.stream.read_to_end(&mut rest)).await {
            Ok(_) => assert_eq!(String::from_utf8_lossy(&rest), ""),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

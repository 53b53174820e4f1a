//! As much of an instance metadata service as the tiny image asks for, version 2 only.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const TOKEN: &str = "AQAEAtest==";

pub struct Instance {
    pub id: &'static str,
    pub user_data: Vec<u8>,
    pub owners_key: String,
}

/// Listens where QEMU's user network sends what a guest sends to 169.254.169.254.
pub struct Metadata {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    instance: Option<Instance>,
    without_token: bool,
}

impl Metadata {
    pub fn serve() -> Metadata {
        let listener = TcpListener::bind("127.0.0.1:80").unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        // Ends with the process; its network ends with the test's thread.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let _ = shared.lock().unwrap().answer(connection);
            }
        });
        Metadata { state }
    }

    pub fn set(&self, instance: Instance) {
        self.state.lock().unwrap().instance = Some(instance);
    }

    pub fn refused_none(&self) -> bool {
        !self.state.lock().unwrap().without_token
    }
}

impl State {
    fn answer(&mut self, mut connection: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection.try_clone()?.take(64 * 1024));
        let mut request = String::new();
        while reader.read_line(&mut request)? > 2 {}
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let body = match (method, path) {
            ("PUT", "/latest/api/token") => Some(TOKEN.as_bytes().to_vec()),
            ("GET", _) if !request.contains(&format!("X-aws-ec2-metadata-token: {TOKEN}\r\n")) => {
                self.without_token = true;
                None
            }
            ("GET", path) => self.instance.as_ref().and_then(|instance| instance.category(path)),
            _ => None,
        };
        let (status, body) = body.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        write!(connection, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
        connection.write_all(&body)
    }
}

impl Instance {
    fn category(&self, path: &str) -> Option<Vec<u8>> {
        match path {
            "/latest/meta-data/instance-id" => Some(self.id.into()),
            "/latest/meta-data/local-hostname" => Some("ip-10-0-0-7.ec2.internal".into()),
            "/latest/meta-data/public-keys/0/openssh-key" => Some(self.owners_key.clone().into()),
            "/latest/user-data" => Some(self.user_data.clone()),
            _ => None,
        }
    }
}

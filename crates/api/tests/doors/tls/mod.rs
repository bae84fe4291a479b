//! TLS on the client port: who is let in, what is spoken, and files that change.

mod authority;
mod caller;
mod entry;
mod reload;
mod speech;

use std::net::SocketAddr;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use milepost_api::{Listen, Listener, Role, TlsSettings};
use milepost_node::log::{Level, Log, Value};

use authority::{Authority, Files};
use caller::Caller;

use crate::support::{Member, Server};

/// Remembers what is logged.
#[derive(Default)]
pub struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn log_at(
        &self,
        level: Level,
        _: Option<&str>,
        _: &'static Location<'static>,
        message: &str,
        fields: &[(&str, Value)],
    ) {
        self.0.lock().unwrap().push(format!("{level:?} {message} {fields:?}"));
    }
}

impl Lines {
    /// Waits for `count` lines with `part`: clients hear of their refusal before it is written.
    pub async fn reach(&self, count: usize, part: &str) {
        while self.count(part) < count {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.count(part), count, "{part}");
    }

    pub fn count(&self, part: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

/// An authority, its server's files, and what the server logs.
pub struct Stage {
    pub authority: Authority,
    pub files: Files,
    pub log: Arc<Lines>,
}

impl Stage {
    pub fn new() -> Self {
        let (authority, files) = (Authority::new("authority"), Files::new());
        files.put_server(&authority.issue("server", &["localhost", "127.0.0.1"]));
        files.put("ca.pem", authority.pem());
        Self { authority, files, log: Arc::default() }
    }

    /// Server certificates, nothing more.
    pub fn settings(&self) -> TlsSettings {
        let (cert_file, key_file) = (self.files.path("cert.pem"), self.files.path("key.pem"));
        TlsSettings { cert_file, key_file, ..TlsSettings::default() }
    }

    /// The test's authority vouches for clients.
    pub fn strict(&self) -> TlsSettings {
        TlsSettings { trusted_ca_file: Some(self.files.path("ca.pem")), ..self.settings() }
    }

    pub fn serve(&self, role: Role, settings: TlsSettings) -> (Server, SocketAddr) {
        let address = Listen::Tcp { host: "127.0.0.1".into(), port: 0 };
        self.listen(vec![Listener { address, role, is_tls: true }], settings)
    }

    pub fn listen(&self, listeners: Vec<Listener>, settings: TlsSettings) -> (Server, SocketAddr) {
        let server = Server::configured(Member::new(), |config| {
            config.limits = crate::support::limits();
            config.listeners = listeners;
            config.tls = Some(settings);
            config.log = self.log.clone();
        });
        let address = server.doors.local_addrs()[0];
        (server, address)
    }

    /// Without a certificate.
    pub fn caller(&self) -> Caller {
        Caller::new(self.authority.der())
    }
}

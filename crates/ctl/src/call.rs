//! One call of a command: what was typed, and the way from there to a client and a printer.

use std::ffi::OsString;
use std::sync::Arc;

use milepost_client::{Auth, Client, Config, ConnectError, Deadline, Secure};

use crate::discovery;
use crate::env;
use crate::frame::{Flags, Spec};
use crate::globals;
use crate::log;
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::password;
use crate::print::{Format, Printer};

/// What a command is given.
pub struct Call {
    /// From the root to the command.
    pub path: Vec<&'static Spec>,
    /// Its flags, and those of the commands above.
    pub flags: Flags,
    /// Its arguments, as bytes: keys need not be UTF-8.
    pub args: Vec<Vec<u8>>,
    /// All words behind the program's name.
    pub raw: Vec<Vec<u8>>,
    /// Variables that the command reads itself, and that are not to be warned about.
    pub own_variables: &'static [&'static str],
    /// What the first question for it found out.
    settled: Option<(Config, Printer)>,
}

impl Call {
    /// A call, before the environment has been looked at.
    pub fn new(path: Vec<&'static Spec>, flags: Flags, args: Vec<Vec<u8>>, raw: Vec<Vec<u8>>) -> Call {
        Call { path, flags, args, raw, own_variables: &[], settled: None }
    }

    /// The client's configuration and the printer: environment, endpoints, TLS files, user, password, format, checked in
    /// this order. The password is asked for once.
    ///
    /// # Errors
    /// Whatever of these is wrong, with etcdctl's exit code.
    pub async fn settle(&mut self) -> Outcome<(Config, Printer)> {
        if let Some((config, printer)) = &self.settled {
            return Ok((config.clone(), *printer));
        }
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        env::settle(&self.path, &mut self.flags, &environment, self.own_variables)?;
        if self.flags.bool("debug") {
            self.tell_flags();
        }
        let endpoints = self.first_endpoints().await?;
        let config = Config {
            endpoints,
            dial_timeout: self.flags.duration("dial-timeout"),
            keepalive_time: self.flags.duration("keepalive-time"),
            keepalive_timeout: self.flags.duration("keepalive-timeout"),
            max_send_bytes: usize::try_from(self.flags.int("max-request-bytes")).unwrap_or(0),
            max_recv_bytes: usize::try_from(self.flags.int("max-recv-bytes")).unwrap_or(0),
            secure: self.secure()?,
            auth: self.auth()?,
            watcher: Some(Arc::new(log::failed_attempt)),
        };
        let printer = self.printer()?;
        self.settled = Some((config.clone(), printer));
        Ok((config, printer))
    }

    /// A client for all endpoints, and the printer.
    ///
    /// # Errors
    /// As [`Call::settle`] and [`connect`].
    pub async fn connect(&mut self) -> Outcome<(Client, Printer)> {
        let (config, printer) = self.settle().await?;
        Ok((connect(config).await?, printer))
    }

    /// `--command-timeout` from now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.flags.duration("command-timeout"))
    }

    /// The endpoints of `--endpoints` as they were written, without brackets around the list.
    pub fn listed_endpoints(&self) -> Vec<String> {
        globals::without_brackets(self.flags.list("endpoints"))
    }

    async fn first_endpoints(&self) -> Outcome<Vec<String>> {
        let domain = self.flags.text("discovery-srv");
        if !domain.is_empty() {
            let found = discovery::endpoints(
                domain,
                self.flags.text("discovery-srv-name"),
                self.flags.bool("insecure-discovery"),
            );
            let found = found.await.map_err(|why| Failure::new(exit::ERROR, why))?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(self.listed_endpoints().iter().map(|endpoint| endpoint.trim().to_owned()).collect())
    }

    fn secure(&self) -> Outcome<Secure> {
        let file = |name: &str| {
            let path = self.flags.text(name);
            if path.is_empty() && self.flags.changed(name) {
                return Err(Failure::args(format!("empty string is passed to --{name} option")));
            }
            Ok(path.to_owned())
        };
        // A discovered cluster is trusted by the domain's name, unless told that it may be insecure.
        let by_domain = !self.flags.bool("insecure-discovery");
        Ok(Secure {
            cert: file("cert")?,
            key: file("key")?,
            cacert: file("cacert")?,
            server_name: if by_domain { self.flags.text("discovery-srv").to_owned() } else { String::new() },
            insecure_transport: self.flags.bool("insecure-transport"),
            insecure_skip_verify: self.flags.bool("insecure-skip-tls-verify"),
        })
    }

    fn auth(&self) -> Outcome<Auth> {
        let (user, password) = (self.flags.text("user"), self.flags.text("password"));
        let token = self.flags.text("auth-jwt-token");
        if !token.is_empty() {
            return Ok(Auth::Token(token.to_owned()));
        }
        if user.is_empty() {
            return Ok(Auth::None);
        }
        user_and_password(user, password, "Password: ")
    }

    fn printer(&self) -> Outcome<Printer> {
        let name = self.flags.text("write-out");
        let format = Format::ALL.iter().find(|(known, _)| *known == name).map(|(_, format)| *format);
        let format = format.ok_or_else(|| Failure::new(exit::BAD_FEATURE, "unsupported output format"))?;
        Ok(Printer { format, hex: self.flags.bool("hex"), value_only: false })
    }

    /// `--debug`: the value of each global flag, as its variable; secrets are not shown.
    fn tell_flags(&self) {
        let above = &self.path[..self.path.len() - 1];
        let global = |name: &str| above.iter().flat_map(|spec| spec.inherited).any(|flag| flag.name == name);
        for (flag, value) in self.flags.shown().filter(|(flag, _)| global(flag.name)) {
            let secret = matches!(flag.name, "password" | "auth-jwt-token" | "user") && !value.is_empty();
            let value = if secret { "(not shown)" } else { &value };
            out::complain(format_args!("{}={value}", env::variable_of(flag.name)));
        }
    }
}

/// `user`, `user:password`, or a user whose password stands elsewhere or is asked for. With a password given, all of `user`
/// is the name, colons too.
///
/// # Errors
/// The password could not be read.
pub fn user_and_password(user: &str, password: &str, prompt: &str) -> Outcome<Auth> {
    let (user, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((user, password)) => (user, password.to_owned()),
        None => (user, password::ask(prompt)?.map_err(|why| Failure::new(exit::ERROR, why))?),
    };
    Ok(Auth::Password { user: user.to_owned(), password })
}

/// A client of `config`.
///
/// # Errors
/// Exit code 128 when the configuration cannot be used, 2 when the cluster refused us.
pub async fn connect(config: Config) -> Outcome<Client> {
    Client::connect(config).await.map_err(|error| match error {
        ConnectError::Config(why) => Failure::args(why),
        ConnectError::Refused(error) => Failure::new(exit::BAD_CONNECTION, error.to_string()),
    })
}

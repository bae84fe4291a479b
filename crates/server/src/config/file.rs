//! The configuration file: YAML, or JSON, which is YAML.
//!
//! Keys are the names of flags, in any case; unknown keys are passed over, with a warning. Values are typed as etcd types them: durations
//! are whole nanoseconds, lists of URLs are comma texts, TLS settings stand in maps of their own. Scalars are read by
//! YAML 1.1, so that `yes` and `on` are bools. Complaints about types have the words of etcd's decoder with a remedy beside
//! them. Source: etcd `embed.ConfigFromFile`.

use saphyr::{MappingOwned, ScalarStyle, YamlLoader, YamlOwned};
use saphyr_parser::Parser;

use super::scalar::Scalar;
use super::settings::{Note, Refusal, Settings, check};
use super::table::{Flag, Kind, find};
use super::words::UsageError;

/// Keys whose values etcd holds as text apart from the rest; its complaints show it.
const TEXTS_APART: [&str; 8] = [
    "listen-peer-urls",
    "listen-client-urls",
    "listen-client-http-urls",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "cors",
    "host-whitelist",
    "feature-gates",
];

/// Flags that have no key.
const NO_KEY: [&str; 7] = [
    "client-crl-file",
    "peer-crl-file",
    "raft-read-timeout",
    "raft-write-timeout",
    "discovery-fallback",
    "config-file",
    "version",
];

/// Keys of the two maps about TLS, with the flag each stands for on the client's side and on the members'.
const TRANSPORT: [(&str, Shape, &str, &str); 10] = [
    ("cert-file", Shape::Text, "cert-file", "peer-cert-file"),
    ("key-file", Shape::Text, "key-file", "peer-key-file"),
    ("client-cert-file", Shape::Text, "client-cert-file", "peer-client-cert-file"),
    ("client-key-file", Shape::Text, "client-key-file", "peer-client-key-file"),
    ("client-cert-auth", Shape::Bool, "client-cert-auth", "peer-client-cert-auth"),
    ("trusted-ca-file", Shape::Text, "trusted-ca-file", "peer-trusted-ca-file"),
    ("auto-tls", Shape::Bool, "auto-tls", "peer-auto-tls"),
    ("allowed-cn", Shape::Texts, "", "peer-cert-allowed-cn"),
    ("allowed-hostname", Shape::Texts, "client-cert-allowed-hostname", "peer-cert-allowed-hostname"),
    ("skip-client-san-verification", Shape::Bool, "", "peer-skip-client-san-verification"),
];

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Texts,
    Bool,
    /// Go's name of the integer's type, smallest and largest value.
    Integer(&'static str, i128, i128),
    /// Whole nanoseconds.
    Nanos,
}

impl Shape {
    fn of(flag: &Flag) -> Self {
        match (flag.kind, flag.name) {
            (Kind::Bool, _) => Self::Bool,
            (Kind::Unsigned, "snapshot-count" | "snapshot-catchup-entries") => {
                Self::Integer("uint64", 0, u64::MAX.into())
            }
            (Kind::Unsigned, _) => Self::Integer("uint", 0, u64::MAX.into()),
            (Kind::Unsigned32, _) => Self::Integer("uint32", 0, u32::MAX.into()),
            (Kind::Signed, "quota-backend-bytes") => Self::Integer("int64", i64::MIN.into(), i64::MAX.into()),
            (Kind::Signed, _) => Self::Integer("int", i64::MIN.into(), i64::MAX.into()),
            (Kind::Span, _) => Self::Nanos,
            (_, "log-outputs" | "cipher-suites") => Self::Texts,
            _ => Self::Text,
        }
    }

    const fn go_name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Texts => "[]string",
            Self::Bool => "bool",
            Self::Integer(name, ..) => name,
            Self::Nanos => "time.Duration",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Text => "write one text, in quotes if it looks like a number or a bool",
            Self::Texts => "write a list of texts, like [\"a\", \"b\"]",
            Self::Bool => "write true or false, without quotes",
            Self::Integer(..) => "write a whole number in range, without quotes or unit",
            Self::Nanos => {
                "write whole nanoseconds, without quotes or unit: 600000000000 is 10 minutes (units are for the command line)"
            }
        }
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// As [`parse`]; or it cannot be read.
pub fn read(path: &str) -> Result<Settings, UsageError> {
    let bytes = std::fs::read(path).map_err(|error| {
        let why = super::system_words(&error);
        let verb = if error.kind() == std::io::ErrorKind::IsADirectory { "read" } else { "open" };
        let remedy = "give --config-file (or ETCD_CONFIG_FILE) a file that this user may read";
        UsageError::Refused(Refusal::new(format!("{verb} {path}: {why}"), remedy))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let complaint = format!("error converting YAML to JSON: yaml: invalid UTF-8 at byte {at}");
        UsageError::Refused(Refusal::new(complaint, format!("save {path} as UTF-8")))
    })?;
    parse(&text)
}

/// Reads the settings in `text`.
///
/// # Errors
/// No YAML, a value of the wrong type, or an unknown feature gate: told through the log. A list of URLs that is none: plain
/// text.
pub fn parse(text: &str) -> Result<Settings, UsageError> {
    let mut settings = Settings::of_file();
    let top = match load(text)? {
        None => return Ok(settings),
        Some(YamlOwned::Mapping(top)) => top,
        Some(other) => {
            let complaint = decoding(format!("{} into Go value of type embed.configYAML", what(&other)));
            return Err(refused(complaint, "write one key: value in each line".into()));
        }
    };
    for (key, value) in sorted(&top) {
        top_level(&key, value, &mut settings)?;
    }
    check_values(&mut settings)?;
    Ok(settings)
}

fn load(text: &str) -> Result<Option<YamlOwned>, UsageError> {
    let mut loader = YamlLoader::<YamlOwned>::default();
    loader.early_parse(false);
    loader.allow_duplicate_keys(true);
    let failed = |error: &saphyr::ScanError| {
        let line = error.marker().line();
        let complaint = format!("error converting YAML to JSON: yaml: line {line}: {}", error.info());
        refused(complaint, format!("correct line {line}: indent with blanks, and quote texts that contain \": \""))
    };
    Parser::new_from_str(text).load(&mut loader, false).map_err(|error| failed(&error))?;
    if let Some(error) = loader.error() {
        return Err(failed(error));
    }
    let first = loader.into_documents().into_iter().next();
    Ok(first.filter(|document| !matches!(Scalar::of(document), Some(Scalar::Null))))
}

/// By key, as etcd's decoder meets them; the last of several spellings wins.
fn sorted(map: &MappingOwned) -> Vec<(String, &YamlOwned)> {
    let mut pairs: Vec<(String, &YamlOwned)> =
        map.iter().filter_map(|(key, value)| Some((key_text(key)?, value))).collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    pairs
}

fn key_text(key: &YamlOwned) -> Option<String> {
    match key {
        YamlOwned::Representation(text, ..) => Some(text.to_ascii_lowercase()),
        _ => None,
    }
}

fn top_level(key: &str, value: &YamlOwned, settings: &mut Settings) -> Result<(), UsageError> {
    match key {
        "client-transport-security" | "peer-transport-security" => return transport(key, value, settings),
        "socket-options" => {
            return nested(
                "SocketOpts.Config.socket-options",
                key,
                value,
                &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
                settings,
            );
        }
        "discovery-config" => return discovery(value, settings),
        _ => {}
    }
    let renamed = super::old::find(key).and_then(|old| match old.meaning {
        super::old::Meaning::Flag(name) => Some(name),
        _ => None,
    });
    let Some(flag) = find(renamed.unwrap_or(key)) else {
        settings.notes.push(unknown(key, super::words::nearest(key).as_deref()));
        return Ok(());
    };
    let of_transport = TRANSPORT.iter().any(|(_, _, client, peer)| [client, peer].contains(&&flag.name));
    if NO_KEY.contains(&flag.name)
        || of_transport
        || flag.name.starts_with("discovery-") && !flag.name.starts_with("discovery-srv")
        || flag.name.starts_with("socket-")
        || flag.kind == Kind::Ignored
    {
        settings.notes.push(unknown(key, None));
        return Ok(());
    }
    let holder = if TEXTS_APART.contains(&flag.name) { "configJSON" } else { "Config" };
    if let Some(text) = typed(&format!("configYAML.{holder}.{key}"), Shape::of(flag), value)? {
        settings.set(flag, text);
    }
    Ok(())
}

fn transport(key: &str, value: &YamlOwned, settings: &mut Settings) -> Result<(), UsageError> {
    let is_client = key.starts_with("client");
    let Some(map) = mapping(&format!("configYAML.configJSON.{key} of type embed.securityConfig"), value)? else {
        return Ok(());
    };
    for (inner, value) in sorted(map) {
        let Some((_, shape, client, peer)) = TRANSPORT.iter().find(|row| row.0 == inner) else {
            settings.notes.push(unknown(&format!("{key}.{inner}"), None));
            continue;
        };
        let Some(text) = typed(&format!("securityConfig.configJSON.{key}.{inner}"), *shape, value)? else { continue };
        match find(if is_client { client } else { peer }) {
            Some(flag) => settings.set(flag, text),
            None if inner == "allowed-cn" && !text.is_empty() => {
                settings.client_allowed_cn = text.split(',').map(str::to_owned).collect();
            }
            None => {}
        }
    }
    Ok(())
}

fn nested(
    holder: &str,
    key: &str,
    value: &YamlOwned,
    names: &[(&str, &str)],
    settings: &mut Settings,
) -> Result<(), UsageError> {
    let Some(map) = mapping(&format!("configYAML.Config.{key} of type transport.SocketOpts"), value)? else {
        return Ok(());
    };
    for (inner, value) in sorted(map) {
        let flag = names.iter().find(|(known, _)| *known == inner).and_then(|(_, name)| find(name));
        let Some(flag) = flag else {
            settings.notes.push(unknown(&format!("{key}.{inner}"), None));
            continue;
        };
        if let Some(text) = typed(&format!("{holder}.{inner}"), Shape::of(flag), value)? {
            settings.set(flag, text);
        }
    }
    Ok(())
}

fn discovery(value: &YamlOwned, settings: &mut Settings) -> Result<(), UsageError> {
    let Some(map) = mapping("configYAML.Config.discovery-config of type v3discovery.DiscoveryConfig", value)? else {
        return Ok(());
    };
    for (inner, value) in sorted(map) {
        match inner.as_str() {
            "token" => {
                let text = typed("DiscoveryConfig.Config.discovery-config.token", Shape::Text, value)?;
                set_named("discovery-token", text, settings);
            }
            "client" => {
                let holder = "configYAML.Config.discovery-config.client of type clientv3.ConfigSpec";
                let Some(client) = mapping(holder, value)? else { continue };
                for (inner, value) in sorted(client) {
                    discovery_client(&inner, value, settings)?;
                }
            }
            _ => settings.notes.push(unknown(&format!("discovery-config.{inner}"), None)),
        }
    }
    Ok(())
}

/// etcd says nothing of such keys; but whoever wrote one meant something by it.
fn unknown(key: &str, meant: Option<&str>) -> Note {
    let note = Note::warning("this key of the configuration file is not known and has no effect").with("key", key);
    match meant {
        Some(meant) => note.with("remedy", format!("did you mean {meant}?")),
        None => note,
    }
}

/// How the etcd is reached at which members meet. The sizes of messages there are not ours to bound; they are passed over.
fn discovery_client(key: &str, value: &YamlOwned, settings: &mut Settings) -> Result<(), UsageError> {
    let path = format!("Config.discovery-config.client.{key}");
    let (kind, names): (&str, &[(&str, &str)]) = match key {
        "endpoints" => {
            let text = typed(&format!("ConfigSpec.{path}"), Shape::Texts, value)?;
            set_named("discovery-endpoints", text, settings);
            return Ok(());
        }
        "dial-timeout" | "request-timeout" | "keepalive-time" | "keepalive-timeout" => {
            let text = typed(&format!("ConfigSpec.{path}"), Shape::Nanos, value)?;
            set_named(&format!("discovery-{key}"), text, settings);
            return Ok(());
        }
        "secure" => (
            "SecureConfig",
            &[
                ("cert", "discovery-cert"),
                ("key", "discovery-key"),
                ("cacert", "discovery-cacert"),
                ("insecure-transport", "discovery-insecure-transport"),
                ("insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
            ],
        ),
        "auth" => ("AuthConfig", &[("username", "discovery-user"), ("password", "discovery-password")]),
        _ => return Ok(()),
    };
    let Some(map) = mapping(&format!("configYAML.{path} of type clientv3.{kind}"), value)? else { return Ok(()) };
    for (inner, value) in sorted(map) {
        let flag = names.iter().find(|(known, _)| *known == inner).and_then(|(_, name)| find(name));
        let Some(flag) = flag else { continue };
        if let Some(text) = typed(&format!("{kind}.{path}.{inner}"), Shape::of(flag), value)? {
            settings.set(flag, text);
        }
    }
    Ok(())
}

fn set_named(name: &str, text: Option<String>, settings: &mut Settings) {
    if let (Some(text), Some(flag)) = (text, find(name)) {
        settings.set(flag, text);
    }
}

/// What only the values tell: etcd checks these after it has decoded everything.
fn check_values(settings: &mut Settings) -> Result<(), UsageError> {
    let gates = settings.text("feature-gates").to_owned();
    check(Kind::Gates, &gates).map_err(|why| refused(why, super::settings::spelled(Kind::Gates)))?;
    for name in [
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "initial-advertise-peer-urls",
        "advertise-client-urls",
        "listen-metrics-urls",
    ] {
        check(Kind::Urls, settings.text(name)).map_err(|why| {
            // etcd's slip: its operators know this complaint under the wrong name.
            let shown = if name == "advertise-client-urls" { "advertise-peer-urls" } else { name };
            UsageError::Plain(format!("unexpected error setting up {shown}: {why}"))
        })?;
    }
    check(Kind::Origins, settings.text("cors"))
        .map_err(|why| refused(format!("cors: {why}"), format!("cors {}", super::settings::spelled(Kind::Origins))))?;
    // Empty texts that etcd reads as the default.
    for name in ["cors", "host-whitelist", "initial-cluster-state"] {
        if settings.text(name).is_empty() {
            settings.unset(name);
        }
    }
    if settings.text("self-signed-cert-validity") == "0" {
        settings.unset("self-signed-cert-validity");
    }
    Ok(())
}

fn refused(complaint: String, remedy: String) -> UsageError {
    UsageError::Refused(Refusal::new(complaint, remedy))
}

fn decoding(detail: String) -> String {
    format!("error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {detail}")
}

/// Go's word for what a value is.
fn what(value: &YamlOwned) -> String {
    match value {
        YamlOwned::Sequence(_) => "array".into(),
        YamlOwned::Mapping(_) => "object".into(),
        other => match Scalar::of(other) {
            Some(Scalar::Bool(_)) => "bool".into(),
            Some(Scalar::Integer(_) | Scalar::Float(_)) => "number".into(),
            _ => "string".into(),
        },
    }
}

/// The map, `None` for null.
fn mapping<'a>(field: &str, value: &'a YamlOwned) -> Result<Option<&'a MappingOwned>, UsageError> {
    match value {
        YamlOwned::Mapping(map) => Ok(Some(map)),
        other if Scalar::of(other) == Some(Scalar::Null) => Ok(None),
        other => Err(refused(
            decoding(format!("{} into Go struct field {field}", what(other))),
            "write its keys below it, indented".into(),
        )),
    }
}

/// The value as it would be typed behind the flag, `None` for null, which changes nothing.
fn typed(field: &str, shape: Shape, value: &YamlOwned) -> Result<Option<String>, UsageError> {
    let wrong = |found: String, shape: Shape| {
        refused(
            decoding(format!("{found} into Go struct field {field} of type {}", shape.go_name())),
            format!("{}: {}", field.rsplit('.').next().unwrap_or(field), shape.remedy()),
        )
    };
    if let (Shape::Texts, YamlOwned::Sequence(items)) = (shape, value) {
        let mut texts = Vec::new();
        for item in items {
            match Scalar::of(item) {
                Some(Scalar::Text(text)) => texts.push(text),
                Some(Scalar::Null) => texts.push(String::new()),
                _ => return Err(wrong(what(item), Shape::Text)),
            }
        }
        return Ok(Some(texts.join(",")));
    }
    let Some(scalar) = Scalar::of(value) else { return Err(wrong(what(value), shape)) };
    let whole = match &scalar {
        Scalar::Integer(number) => Some(*number),
        Scalar::Float(number) => Scalar::whole(*number),
        _ => None,
    };
    match (shape, scalar, whole) {
        (_, Scalar::Null, _) => Ok(None),
        (Shape::Text, Scalar::Text(text), _) => Ok(Some(text)),
        (Shape::Bool, Scalar::Bool(yes), _) => Ok(Some(yes.to_string())),
        (Shape::Integer(_, least, most), _, Some(number)) if (least..=most).contains(&number) => {
            Ok(Some(number.to_string()))
        }
        (Shape::Nanos, _, Some(number)) if i64::try_from(number).is_ok() => Ok(Some(format!("{number}ns"))),
        (Shape::Integer(..) | Shape::Nanos, Scalar::Integer(number), _) => {
            Err(wrong(format!("number {number}"), shape))
        }
        (Shape::Integer(..) | Shape::Nanos, Scalar::Float(number), _) => Err(wrong(format!("number {number}"), shape)),
        _ => Err(wrong(what(value), shape)),
    }
}

/// Is this scalar written without quotes? Quoted ones are texts.
pub(super) const fn is_plain(style: &ScalarStyle) -> bool {
    matches!(style, ScalarStyle::Plain)
}

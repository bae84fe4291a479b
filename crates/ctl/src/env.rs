//! `ETCDCTL_*`: each global flag may come from the environment.
//!
//! Rules, as etcd's `pkg/flags` shows them: an empty value counts as none; the same option by flag and by environment ends
//! the call; every other variable with the prefix is warned about. A value that cannot be read is ignored by etcdctl without
//! a word; here it is warned about too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use crate::frame::{Flags, Spec};
use crate::go::quote;
use crate::log;
use crate::outcome::{Failure, Outcome, exit};

const PREFIX: &str = "ETCDCTL_";

/// `ETCDCTL_DIAL_TIMEOUT` for `dial-timeout`.
pub fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Sets flags of the commands above the last of `path` from `environment`; warns of what is not known.
///
/// `own` are variables that the command reads itself.
///
/// # Errors
/// A flag has been set both ways; the log line has told so.
pub fn settle(
    path: &[&'static Spec],
    flags: &mut Flags,
    environment: &[(OsString, OsString)],
    own: &[&str],
) -> Outcome {
    let above = &path[..path.len() - 1];
    let names: Vec<&str> = above.iter().flat_map(|spec| spec.inherited).map(|flag| flag.name).collect();
    let given = |name: &str| names.iter().copied().find(|flag| variable_of(flag) == name);
    // What the command line said, before anything is set from here.
    let by_flag: Vec<&str> = names.iter().copied().filter(|name| flags.changed(name)).collect();
    for (name, value) in environment {
        let shown = name.to_string_lossy();
        if !shown.starts_with(PREFIX) || own.contains(&shown.as_ref()) && !value.is_empty() {
            continue;
        }
        match given(&shown) {
            Some(flag) if by_flag.contains(&flag) => {
                log::fatal(
                    "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
                     environment variable or disable flag))",
                    vec![("environment-variable", shown.as_ref().into())],
                );
                return Err(Failure::silent(exit::ERROR));
            }
            Some(flag) if !value.is_empty() => {
                if let Err(why) = read(flags, flag, value) {
                    log::warn(
                        "the value of this environment variable cannot be read and is ignored",
                        vec![("environment-variable", shown.as_ref().into()), ("error", why.into())],
                    );
                }
            }
            _ => {
                let all = format!("{shown}={}", value.to_string_lossy());
                log::warn("unrecognized environment variable", vec![("environment-variable", all.into())]);
            }
        }
    }
    Ok(())
}

fn read(flags: &mut Flags, flag: &str, value: &OsString) -> Result<(), String> {
    match value.to_str() {
        Some(text) => flags.set(flag, text),
        None => Err(format!("{} is not UTF-8", quote(value.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{ROOT, get};
    use crate::frame;

    fn settled(line: &[&str], environment: &[(&str, &str)]) -> Outcome<Flags> {
        let path = [&ROOT, &get::COMMAND];
        let words: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        let (mut flags, _) = frame::parse(&path, &words).unwrap();
        let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        settle(&path, &mut flags, &environment, &[]).map(|()| flags)
    }

    #[test]
    fn the_environment_sets_what_the_line_does_not() {
        let flags = settled(&["k"], &[("ETCDCTL_WRITE_OUT", "json"), ("ETCDCTL_ENDPOINTS", "a,b")]).unwrap();
        assert_eq!((flags.text("write-out"), flags.list("endpoints")), ("json", &["a".into(), "b".into()][..]));
        let flags = settled(&["k", "--hex"], &[("ETCDCTL_WRITE_OUT", ""), ("OTHER", "x")]).unwrap();
        assert_eq!(flags.text("write-out"), "simple");
        let flags = settled(&["k"], &[("ETCDCTL_HEX", "perhaps"), ("ETCDCTL_API", "3")]).unwrap();
        assert!(!flags.bool("hex"));
    }

    #[test]
    fn both_ways_end_the_call() {
        let failure = settled(&["--hex"], &[("ETCDCTL_HEX", "true")]).unwrap_err();
        assert_eq!((failure.code, failure.text), (1, None));
        // etcd's tool finds the conflict even when the variable is empty.
        assert!(settled(&["--hex"], &[("ETCDCTL_HEX", "")]).is_err());
    }
}

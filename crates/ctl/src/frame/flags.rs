//! Reading flags: pflag's syntax and its words for what is wrong.

use super::values::{Flags, Value};
use super::{HELP, Spec};
use crate::go::{parse_bool, parse_duration, parse_int, parse_uint, quote};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag`, `--flag=false`; never takes the next word.
    Bool,
    /// A signed integer.
    Int,
    /// An unsigned integer.
    Uint,
    /// Any text.
    Text,
    /// A Go duration.
    Duration,
    /// Texts between commas, quoted as in CSV; the first use replaces the default, later ones add.
    List,
}

/// A flag: `--name`, perhaps `-n`, its kind, its default as text, its line of help.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// The letter behind a single dash.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// What it is when nobody sets it.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Whether pages leave it out.
    pub hidden: bool,
}

impl Flag {
    /// A switch, off unless set.
    pub const fn bool(name: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, kind: Kind::Bool, default: "false", help, hidden: false }
    }

    /// An integer.
    pub const fn int(name: &'static str, default: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, kind: Kind::Int, default, help, hidden: false }
    }

    /// A text.
    pub const fn text(name: &'static str, default: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, kind: Kind::Text, default, help, hidden: false }
    }

    /// A duration.
    pub const fn duration(name: &'static str, default: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, kind: Kind::Duration, default, help, hidden: false }
    }

    /// The value that `text` stands for.
    ///
    /// # Errors
    /// Go's words for a value of this kind that cannot be read.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        Ok(match self.kind {
            Kind::Bool => Value::Bool(parse_bool(text)?),
            Kind::Int => Value::Int(parse_int(text, 0)?),
            Kind::Uint => Value::Uint(parse_uint(text, 0)?),
            Kind::Text => Value::Text(text.to_owned()),
            Kind::Duration => Value::Duration(parse_duration(text)?),
            Kind::List => Value::List(split_list(text)?),
        })
    }

    fn called(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

/// One record of CSV: commas between texts, double quotes around texts that hold commas or quotes.
fn split_list(text: &str) -> Result<Vec<String>, String> {
    let mut items = Vec::new();
    let mut rest = text;
    if rest.is_empty() {
        return Ok(items);
    }
    loop {
        let column = text.len() - rest.len() + 1;
        if let Some(quoted) = rest.strip_prefix('"') {
            let (item, next) = split_quoted(quoted).ok_or_else(|| {
                format!("parse error on line 1, column {}: extraneous or missing \" in quoted-field", text.len() + 1)
            })?;
            items.push(item);
            rest = next;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if let Some(place) = rest[..end].find('"') {
                return Err(format!("parse error on line 1, column {}: bare \" in non-quoted-field", column + place));
            }
            items.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(items),
            None => {
                let column = text.len() - rest.len() + 1;
                return Err(format!(
                    "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                ));
            }
        }
    }
}

fn split_quoted(mut rest: &str) -> Option<(String, &str)> {
    let mut item = String::new();
    loop {
        let end = rest.find('"')?;
        item.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                item.push('"');
                rest = next;
            }
            None => return Some((item, rest)),
        }
    }
}

/// Reads `words` as flags and arguments of the last command of `path`, whose ancestors' inherited flags count too.
///
/// # Errors
/// pflag's words for what is wrong; `Ok` does not mean that no `--help` was among them.
pub fn parse(path: &[&'static Spec], words: &[Vec<u8>]) -> Result<(Flags, Vec<Vec<u8>>), String> {
    let mut reader = Reader { flags: Flags::of(path), args: Vec::new(), rest: words };
    while let Some((word, rest)) = reader.rest.split_first() {
        reader.rest = rest;
        match word.as_slice() {
            b"--" => {
                reader.args.extend_from_slice(rest);
                break;
            }
            [b'-', b'-', long @ ..] => reader.long(long, word)?,
            [b'-', short @ ..] if !short.is_empty() => reader.short(short)?,
            _ => reader.args.push(word.clone()),
        }
    }
    Ok((reader.flags, reader.args))
}

struct Reader<'a> {
    flags: Flags,
    args: Vec<Vec<u8>>,
    rest: &'a [Vec<u8>],
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Vec<u8>> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(word.clone())
    }

    fn long(&mut self, long: &[u8], word: &[u8]) -> Result<(), String> {
        if matches!(long[0], b'-' | b'=') {
            return Err(format!("bad flag syntax: {}", String::from_utf8_lossy(word)));
        }
        let mut parts = long.splitn(2, |&byte| byte == b'=');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let given = parts.next().map(<[u8]>::to_vec);
        let flag = self.flags.named(&name).ok_or_else(|| format!("unknown flag: --{name}"))?;
        let value = match given {
            Some(value) => value,
            None if flag.kind == Kind::Bool => b"true".to_vec(),
            None => self.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set(flag, value)
    }

    /// One dash: letters of switches, the last perhaps with a value behind it.
    fn short(&mut self, letters: &[u8]) -> Result<(), String> {
        let mut rest = letters;
        while let Some((&letter, behind)) = rest.split_first() {
            let all = String::from_utf8_lossy(rest).into_owned();
            let letter = letter as char;
            let flag = self
                .flags
                .lettered(letter)
                .ok_or_else(|| format!("unknown shorthand flag: {} in -{all}", quote_letter(letter)))?;
            let value = match behind {
                [b'=', value @ ..] if !value.is_empty() => {
                    rest = &[];
                    value.to_vec()
                }
                _ if flag.kind == Kind::Bool => {
                    rest = behind;
                    b"true".to_vec()
                }
                [] => {
                    rest = &[];
                    self.next().ok_or_else(|| format!("flag needs an argument: {} in -{all}", quote_letter(letter)))?
                }
                value => {
                    rest = &[];
                    value.to_vec()
                }
            };
            self.set(flag, value)?;
        }
        Ok(())
    }

    fn set(&mut self, flag: Flag, value: Vec<u8>) -> Result<(), String> {
        let bad = |value: &[u8], why: String| {
            format!("invalid argument {} for {} flag: {why}", quote(value), quote(flag.called().as_bytes()))
        };
        let text = String::from_utf8(value).map_err(|error| bad(error.as_bytes(), "not UTF-8".to_owned()))?;
        self.flags.set(flag.name, &text).map_err(|why| bad(text.as_bytes(), why))
    }
}

fn quote_letter(letter: char) -> String {
    let quoted = quote(letter.to_string().as_bytes());
    match letter {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        _ => format!("'{}'", &quoted[1..quoted.len() - 1]),
    }
}

/// All flags that the last command of `path` knows, sorted by name.
pub fn known(path: &[&'static Spec]) -> Vec<Flag> {
    let (last, above) = path.split_last().expect("a path ends with a command");
    let mut flags: Vec<Flag> = local(last, above.is_empty());
    flags.extend(above.iter().flat_map(|spec| spec.inherited.iter().copied()));
    flags.sort_by_key(|flag| flag.name);
    flags
}

/// The flags that belong to `spec` itself, sorted; the root's own help is hidden.
pub fn local(spec: &Spec, root: bool) -> Vec<Flag> {
    let mut flags: Vec<Flag> = spec.flags.iter().chain(spec.inherited).copied().collect();
    flags.push(Flag { hidden: root, ..HELP });
    flags.sort_by_key(|flag| flag.name);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Spec = Spec {
        name: "root",
        inherited: &[
            Flag { short: Some('w'), ..Flag::text("write-out", "simple", "") },
            Flag { kind: Kind::List, ..Flag::text("endpoints", "127.0.0.1:2379", "") },
        ],
        ..Spec::NEW
    };
    const LEAF: Spec = Spec {
        name: "leaf",
        flags: &[
            Flag { short: Some('i'), ..Flag::bool("interactive", "") },
            Flag::int("limit", "0", ""),
            Flag::duration("wait", "2s", ""),
        ],
        ..Spec::NEW
    };

    fn read(line: &str) -> Result<(Flags, Vec<String>), String> {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let (flags, args) = parse(&[&ROOT, &LEAF], &words)?;
        Ok((flags, args.into_iter().map(|arg| String::from_utf8(arg).unwrap()).collect()))
    }

    #[test]
    fn every_way_to_write_a_flag() {
        for line in ["a -w json b", "-wjson a b", "-w=json a b", "a b --write-out json", "--write-out=json a b"] {
            let (flags, args) = read(line).unwrap();
            assert_eq!((flags.text("write-out"), args), ("json", vec!["a".to_owned(), "b".to_owned()]), "{line}");
            assert!(flags.changed("write-out") && !flags.changed("limit"));
        }
        let (flags, args) = read("-iw fields --limit -0x5 -- -x --y").unwrap();
        assert!(flags.bool("interactive"));
        assert_eq!((flags.text("write-out"), flags.int("limit")), ("fields", -5));
        assert_eq!(args, ["-x", "--y"]);
        assert!(!read("--interactive=false -").unwrap().0.bool("interactive"));
        assert!(read("a --help b").unwrap().0.bool("help"));
    }

    #[test]
    fn lists_replace_the_default_and_then_add() {
        assert_eq!(read("a").unwrap().0.list("endpoints"), ["127.0.0.1:2379"]);
        let (flags, _) = read("--endpoints a,b --endpoints \"c,\"\"d\",").unwrap();
        assert_eq!(flags.list("endpoints"), ["a", "b", "c,\"d", ""]);
        assert!(read("--endpoints=").unwrap().0.list("endpoints").is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_in_pflags_words() {
        let golden = [
            ("--bogus", "unknown flag: --bogus"),
            ("---x", "bad flag syntax: ---x"),
            ("-ix", "unknown shorthand flag: 'x' in -x"),
            ("--limit", "flag needs an argument: --limit"),
            ("-w", "flag needs an argument: 'w' in -w"),
            (
                "--limit x",
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "-i=x",
                "invalid argument \"x\" for \"-i, --interactive\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
            ("--wait 5", "invalid argument \"5\" for \"--wait\" flag: time: missing unit in duration \"5\""),
            (
                "--endpoints a\"b",
                "invalid argument \"a\\\"b\" for \"--endpoints\" flag: parse error on line 1, column 2: bare \" in non-quoted-field",
            ),
        ];
        for (line, error) in golden {
            assert_eq!(read(line).map(|_| ()), Err(error.to_owned()), "{line}");
        }
    }
}

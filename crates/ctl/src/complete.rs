//! `__complete`: what could stand where the cursor is. The shells' scripts ask this; Cobra's tools answer in the same form:
//! one candidate for each line, a tab before its description, and a line `:4`, or `:0` if file names may stand there too.

use crate::commands::ROOT;
use crate::frame::{Flag, Kind, Spec, find, flags};
use crate::print::Format;

/// A candidate and what it is for.
type Candidate = (String, &'static str);

/// The answer for `words`, of which the last is the one under the cursor.
pub fn answer(words: &[Vec<u8>]) -> String {
    let (current, before) = match words.split_last() {
        Some((current, before)) => (String::from_utf8_lossy(current).into_owned(), before),
        None => (String::new(), words),
    };
    let found = find(&ROOT, before);
    let known = flags::known(&found.path);
    let files = ":0\n".to_owned();
    if before.iter().any(|word| word == b"--") {
        return files;
    }
    let candidates = match waiting_flag(before, &known) {
        Some(flag) => match values_of(flag) {
            [] => return files,
            values => matching(values, "", &current),
        },
        None => match current.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                match known.iter().find(|flag| flag.name == &name[2..]).map(values_of) {
                    Some(values) if !values.is_empty() => matching(values, &format!("{name}="), value),
                    _ => return files,
                }
            }
            _ if current.starts_with('-') => flag_names(&known, &current),
            // Arguments are the user's: a key, an id, a file.
            _ if is_leaf(&found.path) => return files,
            _ => words_of(&found.path, &current),
        },
    };
    let lines = candidates.iter().map(|(word, about)| match *about {
        "" => format!("{word}\n"),
        about => format!("{word}\t{about}\n"),
    });
    format!("{}:4\n", lines.collect::<String>())
}

/// The flag whose value comes next.
fn waiting_flag<'a>(before: &[Vec<u8>], known: &'a [Flag]) -> Option<&'a Flag> {
    let last = std::str::from_utf8(before.last()?).ok()?;
    let flag = match last.strip_prefix("--") {
        Some(name) => known.iter().find(|flag| flag.name == name),
        None => {
            let letter = last.strip_prefix('-')?.chars().last()?;
            known.iter().find(|flag| flag.short == Some(letter))
        }
    };
    flag.filter(|flag| flag.kind != Kind::Bool)
}

fn values_of(flag: &Flag) -> &'static [&'static str] {
    const FORMATS: [&str; 5] =
        [Format::ALL[0].0, Format::ALL[1].0, Format::ALL[2].0, Format::ALL[3].0, Format::ALL[4].0];
    match flag.name {
        "write-out" => &FORMATS,
        "consistency" => &["l", "s"],
        "order" => &["ASCEND", "DESCEND"],
        "sort-by" => &["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"],
        "load" => &["s", "m", "l", "xl"],
        _ => &[],
    }
}

fn matching(values: &[&'static str], before: &str, current: &str) -> Vec<Candidate> {
    let values = values.iter().filter(|value| value.starts_with(current));
    values.map(|value| (format!("{before}{value}"), "")).collect()
}

fn flag_names(known: &[Flag], current: &str) -> Vec<Candidate> {
    let names = known.iter().map(|flag| (format!("--{}", flag.name), flag.help));
    names.filter(|(name, _)| name.starts_with(current)).collect()
}

fn is_leaf(path: &[&'static Spec]) -> bool {
    let here = path[path.len() - 1];
    here.children.is_empty() && here.choices.is_empty()
}

/// Commands below, or the arguments that the command can have.
fn words_of(path: &[&'static Spec], current: &str) -> Vec<Candidate> {
    let here = path[path.len() - 1];
    if !here.choices.is_empty() {
        return matching(here.choices, "", current);
    }
    let children = here.children.iter().filter(|child| !child.hidden && child.name.starts_with(current));
    let mut names: Vec<Candidate> = children.map(|child| (child.name.to_owned(), child.short)).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> String {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let answer = answer(&words);
        answer.lines().map(|line| line.split('\t').next().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_could_stand_there() {
        assert_eq!(names("de"), "defrag del :4");
        assert_eq!(names("--hex member a"), "add :4");
        assert_eq!(names("get --sort-by V"), "VALUE VERSION :4");
        assert_eq!(names("get --order=A"), "--order=ASCEND :4");
        assert_eq!(names("get -w f"), "fields :4");
        assert_eq!(names("get --print"), "--print-value-only :4");
        assert_eq!(names("completion p"), "powershell :4");
        assert_eq!(names("--cacert x"), ":0");
        assert_eq!(names("put k -- x"), ":0");
        assert_eq!(names("snapshot save x"), ":0");
        assert!(answer(&[b"ver".to_vec()]).starts_with("version\tShows"));
    }
}

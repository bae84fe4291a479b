//! Finding the command that words name: Cobra's rules, unique prefixes and suggestions included.

use super::Spec;
use super::flags::{Flag, Kind, known};

/// Where the words led.
pub struct Found<'a> {
    /// From the root to the command.
    pub path: Vec<&'static Spec>,
    /// The words without the commands' names: flags and arguments.
    pub words: Vec<Vec<u8>>,
    /// The first word below the root that is no command, with its suggestions.
    pub unknown: Option<(&'a [u8], Vec<&'static str>)>,
}

/// Walks down from `root` as far as `words` name commands.
pub fn find<'a>(root: &'static Spec, words: &'a [Vec<u8>]) -> Found<'a> {
    let mut path = vec![root];
    let mut left: Vec<&'a Vec<u8>> = words.iter().collect();
    loop {
        let mut flags = known(&path);
        if path.len() > 1 {
            // Cobra learns of a command's own --help only after it has found it: till then it seems to take a value.
            flags.retain(|flag| flag.name != "help");
        }
        let here: &'static Spec = path[path.len() - 1];
        let Some(place) = first_argument(&left, &flags) else { break };
        let word: &'a [u8] = left[place].as_slice();
        let Some(child) = child_named(here, word) else {
            let unknown = (path.len() == 1).then(|| (word, suggestions(here, word)));
            return Found { path, words: left.into_iter().cloned().collect(), unknown };
        };
        left.remove(place);
        path.push(child);
    }
    Found { path, words: left.into_iter().cloned().collect(), unknown: None }
}

/// The place of the first word that is neither a flag nor a flag's value. Behind `--` there is none.
fn first_argument(words: &[&Vec<u8>], flags: &[Flag]) -> Option<usize> {
    let switch = |named: &dyn Fn(&Flag) -> bool| flags.iter().any(|flag| named(flag) && flag.kind == Kind::Bool);
    let mut place = 0;
    while let Some(word) = words.get(place) {
        let takes_next = match word.as_slice() {
            b"--" => return None,
            word if word.contains(&b'=') => false,
            [b'-', b'-', name @ ..] => !switch(&|flag| flag.name.as_bytes() == name),
            [b'-', letter] => !switch(&|flag| flag.short == Some(*letter as char)),
            _ => false,
        };
        if takes_next {
            place += 1;
        } else if !word.is_empty() && !word.starts_with(b"-") {
            return Some(place);
        }
        place += 1;
    }
    None
}

/// The child called `word`, or the only one whose name begins with it.
pub fn child_named(spec: &Spec, word: &[u8]) -> Option<&'static Spec> {
    if let Some(exact) = spec.children.iter().find(|child| child.name.as_bytes() == word) {
        return Some(exact);
    }
    let mut matching = spec.children.iter().filter(|child| !child.hidden && child.name.as_bytes().starts_with(word));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// Names near to `word`, in the tree's order: at most two edits away, or beginning with it.
fn suggestions(spec: &Spec, word: &[u8]) -> Vec<&'static str> {
    let word = word.to_ascii_lowercase();
    let near = |name: &str| distance(&word, name.as_bytes()) <= 2 || name.as_bytes().starts_with(&word);
    let mut names: Vec<_> = spec.children.iter().filter(|child| !child.hidden).map(|child| child.name).collect();
    names.retain(|name| near(name));
    names
}

/// Levenshtein's distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Spec = Spec {
        name: "root",
        inherited: &[Flag::text("endpoints", "", ""), Flag::bool("hex", "")],
        children: &[
            &Spec { name: "lease", children: &[&Spec { name: "list", ..Spec::NEW }], ..Spec::NEW },
            &Spec { name: "lock", ..Spec::NEW },
            &Spec { name: "del", ..Spec::NEW },
            &Spec { name: "version", ..Spec::NEW },
        ],
        ..Spec::NEW
    };

    fn found(line: &str) -> String {
        let words: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        let found = find(&ROOT, &words);
        let path: Vec<_> = found.path.iter().map(|spec| spec.name).collect();
        let words: Vec<_> = found.words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        match found.unknown {
            Some((word, near)) => format!("{} unknown, near {near:?}", String::from_utf8_lossy(word)),
            None => format!("{} | {}", path.join(" "), words.join(" ")),
        }
    }

    #[test]
    fn commands_are_found_between_flags_by_unique_prefix() {
        assert_eq!(found("--endpoints a lease --hex list x"), "root lease list | --endpoints a --hex x");
        assert_eq!(found("ver"), "root version | ");
        assert_eq!(found("lea li"), "root lease list | ");
        assert_eq!(found("lease bogus"), "root lease | bogus");
        assert_eq!(found("-- lock"), "root | -- lock");
        assert_eq!(found("lock lock -- sh -c x"), "root lock | lock -- sh -c x");
        assert_eq!(found("l"), "l unknown, near [\"lease\", \"lock\", \"del\"]");
        assert_eq!(found("lok"), "lok unknown, near [\"lock\"]");
        assert_eq!(found("bogus"), "bogus unknown, near []");
    }
}

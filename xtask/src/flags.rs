//! The few flags of the verbs: switches and values, nothing clever.

use std::collections::BTreeMap;

/// One flag: name with dashes, what stands for its value (empty for a switch), one line of help.
pub type Flag = (&'static str, &'static str, &'static str);

/// What was given.
#[derive(Debug)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// Reads `words` by `table`; `None` when help was asked for and has been printed.
    ///
    /// # Errors
    /// An unknown flag or a missing value, with the remedy.
    pub fn read(verb: &str, table: &'static [Flag], words: &[String]) -> Result<Option<Flags>, String> {
        let mut flags = BTreeMap::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--help" || word == "-h" {
                print_help(verb, table);
                return Ok(None);
            }
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let Some(&(name, value, _)) = table.iter().find(|(known, _, _)| *known == name) else {
                return Err(format!("unknown flag {name:?}: see cargo xtask {verb} --help"));
            };
            let given = match (value, attached) {
                ("", None) => String::new(),
                ("", Some(value)) => return Err(format!("{name} takes no value, but has {value:?}: leave it out")),
                (_, Some(given)) => given,
                (value, None) => {
                    words.next().cloned().ok_or_else(|| format!("{name} lacks its value: write {name} {value}"))?
                }
            };
            flags.insert(name, given);
        }
        Ok(Some(Flags(flags)))
    }

    /// Whether a switch was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A flag's value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A flag's value as a number of at least 1.
    ///
    /// # Errors
    /// Not such a number.
    pub fn count(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(0) | Err(_) => Err(format!("{name} {text:?} is not a number from 1 up: give one")),
            Ok(number) => Ok(Some(number)),
        }
    }
}

fn print_help(verb: &str, table: &[Flag]) {
    println!("usage: cargo xtask {verb} [flags]\n");
    for (name, value, help) in table {
        println!("  {:<22} {help}", format!("{name} {value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Flag] = &[("--quick", "", ""), ("--rounds", "N", "")];

    fn read(words: &[&str]) -> Result<Flags, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Flags::read("verb", TABLE, &words).map(|flags| flags.expect("no help was asked for"))
    }

    #[test]
    fn switches_and_values() {
        let flags = read(&["--quick", "--rounds=3"]).unwrap();
        assert!(flags.has("--quick"));
        assert_eq!(flags.count("--rounds"), Ok(Some(3)));
        assert_eq!(read(&["--rounds", "5"]).unwrap().text("--rounds"), Some("5"));
        assert_eq!(read(&[]).unwrap().count("--rounds"), Ok(None));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(read(&["--fast"]).unwrap_err().contains("unknown flag \"--fast\""));
        assert!(read(&["--rounds"]).unwrap_err().contains("write --rounds N"));
        assert!(read(&["--quick=1"]).unwrap_err().contains("takes no value"));
        assert!(read(&["--rounds", "0"]).unwrap().count("--rounds").unwrap_err().contains("\"0\""));
    }
}

//! Words that must not stand in code, by room. Comments and literals are not code.

use super::lexer::{code_only, without_tests};
use super::{Finding, Tree, room};

/// Where a banned word may stand all the same.
enum Except {
    /// Nowhere.
    Nowhere,
    /// In these rooms.
    Rooms(&'static [&'static str]),
    /// In these rooms, and anywhere in code that only tests run.
    RoomsAndTests(&'static [&'static str]),
    /// In files with these paths.
    Files(&'static [&'static str]),
}

struct Ban {
    /// As it stands in code, blanks left out.
    word: &'static str,
    except: Except,
    reason: &'static str,
}

/// Rooms that may touch files and clocks by themselves: the seam to the outside world, what stands beside it, and the
/// tools. `engine` hands a path to LMDB.
const WORLDLY: &[&str] = &["env", "engine", "server", "bench", "bin", "xtask"];

const BANS: &[Ban] = &[
    Ban {
        word: "unsafe",
        except: Except::Rooms(&["engine", "env"]),
        reason: "unsafe code lives in engine and env alone",
    },
    Ban { word: "todo!", except: Except::Nowhere, reason: "unfinished work belongs into an issue" },
    Ban { word: "unimplemented!", except: Except::Nowhere, reason: "unfinished work belongs into an issue" },
    Ban {
        word: "#[ignore",
        except: Except::Nowhere,
        reason: "pin today's answer with a note instead of ignoring a test",
    },
    Ban { word: "allow(dead_code", except: Except::Nowhere, reason: "code that nobody calls is deleted" },
    Ban { word: "allow(unused", except: Except::Nowhere, reason: "code that nobody calls is deleted" },
    Ban {
        word: "thread::sleep",
        except: Except::Files(&["crates/bench/src/tickets.rs", "xtask/src/member.rs"]),
        reason: "wait for the event itself, or advance the clock",
    },
    Ban {
        word: "std::fs",
        except: Except::RoomsAndTests(WORLDLY),
        reason: "files go through env::Disk, so that a power cut can be simulated",
    },
    Ban {
        word: "Instant::now",
        except: Except::RoomsAndTests(WORLDLY),
        reason: "time is an argument, or comes from env::Clock, so that a run can be replayed",
    },
    Ban {
        word: "SystemTime::now",
        except: Except::RoomsAndTests(WORLDLY),
        reason: "time is an argument, or comes from env::Clock, so that a run can be replayed",
    },
    Ban {
        word: ".elapsed()",
        except: Except::RoomsAndTests(WORLDLY),
        reason: "a hidden look at the clock; time is an argument, or comes from env::Clock",
    },
    Ban {
        word: "rand::rng(",
        except: Except::RoomsAndTests(&["env", "bench"]),
        reason: "randomness comes from env::Rng, so that a run can be replayed",
    },
];

/// All violations in the Rust files of `tree`.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in tree.ending(".rs") {
        let code = code_only(source);
        let shipped = if is_test_file(path) { String::new() } else { without_tests(&code) };
        for ban in BANS {
            let text = match ban.except {
                Except::Rooms(rooms) | Except::RoomsAndTests(rooms) if rooms.contains(&room(path)) => continue,
                Except::Files(files) if files.contains(&path) => continue,
                Except::RoomsAndTests(_) => &shipped,
                _ => &code,
            };
            for (index, line) in text.lines().enumerate() {
                if stands_in(line, ban.word) {
                    findings.push(Finding::error(path, index + 1, format!("{}: {}", ban.word, ban.reason)));
                }
            }
        }
    }
    findings
}

fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.split('/').any(|part| part == "tests" || part == "examples" || part == "benches")
        || name == "tests.rs"
        || name.ends_with("_test.rs")
        || name.ends_with("_tests.rs")
        || path.starts_with("test/")
}

/// Whether `word` stands in `line` as whole words, however it is spaced.
fn stands_in(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    // Blanks are dropped around punctuation only: "fn unsafe_x" must not become one word with its neighbour.
    let squeezed: String = line.split_whitespace().fold(String::new(), |mut text, part| {
        if text.ends_with(is_letter) && part.starts_with(is_letter) {
            text.push(' ');
        }
        text + part
    });
    squeezed.match_indices(word).any(|(at, _)| {
        let before = word.starts_with(is_letter) && squeezed[..at].chars().next_back().is_some_and(is_letter);
        let after = squeezed[at + word.len()..].chars().next().is_some_and(is_letter);
        let open_end = !word.ends_with(is_letter) || word.ends_with("dead_code") || word.ends_with("unused");
        !before && (open_end || !after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, source: &str) -> Vec<String> {
        check(&Tree::planted(&[(path, source)])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_ban_catches_a_planted_word_and_spares_its_exceptions() {
        for ban in BANS {
            // Calls get their arguments and attributes their end, as in a real line.
            let planted = format!("fn f() {{\n    {};\n}}\n", ban.word);
            let caught = found("crates/machine/src/kv.rs", &planted);
            assert_eq!(caught.len(), 1, "{}: {caught:?}", ban.word);
            assert!(caught[0].starts_with("crates/machine/src/kv.rs:2: "), "{caught:?}");
            match ban.except {
                Except::Nowhere => assert_eq!(found("xtask/src/x.rs", &planted).len(), 1, "{}", ban.word),
                Except::Rooms(rooms) | Except::RoomsAndTests(rooms) => {
                    for room in rooms.iter().filter(|room| !["bin", "xtask"].contains(room)) {
                        assert!(found(&format!("crates/{room}/src/x.rs"), &planted).is_empty(), "{} {room}", ban.word);
                    }
                }
                Except::Files(files) => assert!(found(files[0], &planted).is_empty(), "{}", ban.word),
            }
        }
    }

    #[test]
    fn words_in_comments_strings_and_longer_words_are_free() {
        let source = "// unsafe todo!\nlet a = \"unsafe\"; let unsafe_ish = 1; deny(unsafe_code); my_todo!();\n";
        assert!(found("crates/machine/src/kv.rs", source).is_empty());
        assert_eq!(found("crates/machine/src/kv.rs", "std :: fs :: read(x)").len(), 1);
        assert_eq!(found("crates/machine/src/kv.rs", "use std::fs;").len(), 1);
        assert!(found("crates/machine/src/kv.rs", "use std::fs_like;").is_empty());
        assert_eq!(found("crates/machine/src/kv.rs", "#[allow(unused_variables)]").len(), 1);
    }

    #[test]
    fn tests_may_use_files_and_clocks_but_never_sleep_or_hide() {
        let inside = "fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert!(found("crates/wal/src/log.rs", inside).is_empty());
        assert!(found("crates/wal/tests/golden.rs", "use std::fs;").is_empty());
        assert!(found("crates/wal/src/log_test.rs", "Instant::now()").is_empty());
        assert_eq!(found("crates/wal/src/log.rs", "#[cfg(test)]\nmod tests {}\nuse std::fs;").len(), 1);
        assert_eq!(found("crates/wal/tests/golden.rs", "thread::sleep(x)").len(), 1);
        assert_eq!(found("crates/wal/tests/golden.rs", "#[ignore]").len(), 1);
        assert_eq!(found("crates/wal/tests/golden.rs", "#[ignore = \"slow\"]").len(), 1);
    }
}

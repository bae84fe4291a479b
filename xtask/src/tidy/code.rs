//! Words that must not stand in code, by room. Comments and literals are not code.

use super::lexer::{code_only, without_tests};
use super::{Finding, Tree, room};

struct Ban {
    /// As it stands in code, blanks left out.
    word: &'static str,
    /// Where it may stand all the same.
    except: Except,
    reason: &'static str,
}

/// Places where a banned word may stand.
struct Except {
    rooms: &'static [&'static str],
    files: &'static [&'static str],
    /// Code that only tests run.
    tests: bool,
}

const NOWHERE: Except = Except { rooms: &[], files: &[], tests: false };

/// Rooms that may touch files by themselves: the seam to the outside world, what stands beside it, and the tools.
/// `engine` hands a path to LMDB.
const WITH_FILES: Except = Except {
    rooms: &["env", "engine", "server", "client", "ctl", "bench", "bin", "xtask"],
    // What these touch is no data: the kernel's own tables, a socket's left-over name, certificates, what the compiler
    // includes.
    files: &[
        "crates/api/src/http/debug/kernel.rs",
        "crates/api/src/metrics/process.rs",
        "crates/api/src/listen.rs",
        "crates/api/src/tls/files.rs",
        "crates/trust/src/lib.rs",
        "crates/proto/build.rs",
    ],
    tests: true,
};

/// Rooms that may look at the clock by themselves. The doors measure their requests and end them by the runtime's
/// timers; the clock by which leases run reaches them from below.
const WITH_CLOCKS: Except = Except {
    rooms: &["env", "engine", "api", "server", "client", "ctl", "bench", "bin", "xtask"],
    files: &[],
    tests: true,
};

const UNFINISHED: &str = "unfinished work belongs into an issue";
const UNUSED: &str = "code that nobody calls is deleted";
const CLOCK: &str = "time is an argument, or comes from env::Clock, so that a run can be replayed";

const BANS: &[Ban] = &[
    Ban {
        word: "unsafe",
        except: Except { rooms: &["engine", "env"], files: &[], tests: false },
        reason: "unsafe code lives in engine and env alone",
    },
    Ban { word: "todo!", except: NOWHERE, reason: UNFINISHED },
    Ban { word: "unimplemented!", except: NOWHERE, reason: UNFINISHED },
    Ban { word: "#[ignore", except: NOWHERE, reason: "pin today's answer with a note instead of ignoring a test" },
    Ban { word: "allow(dead_code", except: NOWHERE, reason: UNUSED },
    Ban { word: "allow(unused", except: NOWHERE, reason: UNUSED },
    Ban {
        word: "thread::sleep",
        except: Except {
            rooms: &[],
            files: &["crates/bench/src/tickets.rs", "crates/engine/src/lmdb/give_back.rs", "xtask/src/member.rs"],
            tests: false,
        },
        reason: "wait for the event itself, or advance the clock",
    },
    Ban {
        word: "std::fs",
        except: WITH_FILES,
        reason: "files go through env::Disk, so that a power cut can be simulated",
    },
    Ban { word: "Instant::now", except: WITH_CLOCKS, reason: CLOCK },
    Ban { word: "SystemTime::now", except: WITH_CLOCKS, reason: CLOCK },
    Ban { word: ".elapsed()", except: WITH_CLOCKS, reason: CLOCK },
    Ban {
        word: "rand::rng(",
        except: Except { rooms: &["env", "bench"], files: &[], tests: true },
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
            if ban.except.rooms.contains(&room(path)) || ban.except.files.contains(&path) {
                continue;
            }
            let text = if ban.except.tests { &shipped } else { &code };
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
            for room in ban.except.rooms.iter().filter(|room| !["bin", "xtask"].contains(room)) {
                assert!(found(&format!("crates/{room}/src/x.rs"), &planted).is_empty(), "{} {room}", ban.word);
            }
            for file in ban.except.files {
                assert!(found(file, &planted).is_empty(), "{} {file}", ban.word);
            }
            let in_tests = found("crates/machine/tests/x.rs", &planted);
            assert_eq!(in_tests.is_empty(), ban.except.tests, "{}", ban.word);
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

//! What `--version` prints.

/// The version of etcd that this server speaks, everywhere a client can see it.
pub const ETCD_VERSION: &str = "3.7.1";

/// The commit this was built from, or `unknown`.
pub const COMMIT: &str = env!("MILEPOST_COMMIT");

/// The compiler, like `1.95.0`.
pub const RUSTC: &str = env!("MILEPOST_RUSTC");

/// Architecture in Go's words, as tools that read etcd's output expect.
#[must_use]
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The four lines of `etcd --version`; scripts read the first.
#[must_use]
pub fn lines() -> String {
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {COMMIT}\nGo Version: none (rustc {RUSTC})\nGo OS/Arch: {}/{}\n",
        std::env::consts::OS,
        go_arch()
    )
}

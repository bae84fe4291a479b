//! `/debug/`: what a person looks at when something is odd.
//!
//! The paths are etcd's; behind them is what there is without Go's runtime: threads instead of goroutines, the kernel's
//! account of memory instead of a heap profile. Source: `facts/http.md` §1.

mod kernel;
mod recent;
mod vars;

use std::rc::Rc;

use http::StatusCode;

pub(crate) use self::recent::Recent;
use super::{not_found, wrong_method};
use crate::door::Door;
use crate::grpc::reply::Reply;

const HTML: &str = "text/html; charset=utf-8";

/// The page at `path`, below `/debug/`.
pub(super) async fn page(door: &Rc<Door>, path: &str, is_get: bool) -> Reply {
    match path.strip_prefix("/debug/") {
        Some("vars") if is_get => vars::page(door).await,
        Some("vars") => wrong_method(),
        Some("requests") => match &door.page.recent {
            Some(recent) => super::page(StatusCode::OK, HTML, recent.render()),
            None => not_found(),
        },
        Some(path) if door.config.is_pprof_on => match path.strip_prefix("pprof/") {
            Some(profile) => pprof(profile),
            None => not_found(),
        },
        _ => not_found(),
    }
}

/// The command line; what is no UTF-8 in it is shown as such.
fn words() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// What stands behind the name of one of Go's profiles.
fn pprof(profile: &str) -> Reply {
    let text = match profile {
        "" => return super::page(StatusCode::OK, HTML, INDEX),
        "cmdline" => words().join("\0"),
        // No table of names is in the binary.
        "symbol" => "num_symbols: 0\n".to_owned(),
        "goroutine" | "threadcreate" => kernel::threads(),
        "heap" | "allocs" => kernel::memory(),
        "profile" | "trace" | "block" | "mutex" => {
            let text = format!(
                "this server has no {profile} profile: it runs without Go's runtime\nuse perf instead: perf record -g -p {} -- sleep 30\n",
                std::process::id()
            );
            return super::error(StatusCode::NOT_IMPLEMENTED, text);
        }
        _ => return super::error(StatusCode::NOT_FOUND, "Unknown profile\n"),
    };
    super::error(StatusCode::OK, text)
}

const INDEX: &str = "<html>
<head><title>/debug/pprof/</title></head>
<body>
<p>/debug/pprof/</p>
<ul>
<li><a href='goroutine'>goroutine</a>: the threads, what they wait for, and their time</li>
<li><a href='threadcreate'>threadcreate</a>: the same</li>
<li><a href='heap'>heap</a>: memory, as the kernel counts it</li>
<li><a href='allocs'>allocs</a>: the same</li>
<li><a href='cmdline'>cmdline</a>: the command line</li>
<li><a href='symbol'>symbol</a>: how many symbols are known</li>
</ul>
<p>There is no profile, trace, block and mutex: they need Go's runtime. perf shows where time goes.</p>
</body>
</html>
";

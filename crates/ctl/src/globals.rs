//! The flags of every command.

use crate::frame::{Flag, Kind};

/// All of them. Pages leave them out; `etcdctl options` shows them.
pub const FLAGS: &[Flag] = &[
    hidden(Flag {
        kind: Kind::List,
        ..Flag::text("endpoints", "127.0.0.1:2379", "servers to ask, separated by commas")
    }),
    hidden(Flag::bool("debug", "show every flag's value on stderr before asking")),
    hidden(Flag {
        short: Some('w'),
        ..Flag::text("write-out", "simple", "format of the output: fields, json, protobuf, simple or table")
    }),
    hidden(Flag::bool("hex", "show keys, values and ids in hexadecimal")),
    hidden(Flag::duration("dial-timeout", "2s", "how long connecting may take")),
    hidden(Flag::duration("command-timeout", "5s", "how long an answer may take, once connected")),
    hidden(Flag::duration("keepalive-time", "2s", "pause between pings on a connection (at least 10s are kept)")),
    hidden(Flag::duration("keepalive-timeout", "6s", "how long a ping may stay unanswered")),
    hidden(Flag::int("max-request-bytes", "0", "largest request to send, in bytes (0 stands for 2 MiB)")),
    hidden(Flag::int("max-recv-bytes", "0", "largest answer to take, in bytes (0 stands for 2 GiB less one)")),
    hidden(Flag {
        default: "true",
        ..Flag::bool("insecure-transport", "do without TLS where neither files nor https:// ask for it")
    }),
    hidden(Flag {
        default: "true",
        ..Flag::bool("insecure-discovery", "accept endpoints without TLS from SRV records")
    }),
    hidden(Flag::bool("insecure-skip-tls-verify", "believe any server certificate (for tests only)")),
    hidden(Flag::text("cert", "", "file with our TLS certificate, PEM")),
    hidden(Flag::text("key", "", "file with our TLS key, PEM")),
    hidden(Flag::text("cacert", "", "file with the authorities that servers' certificates must come from, PEM")),
    hidden(Flag::text("auth-jwt-token", "", "token to show instead of --user and --password")),
    hidden(Flag::text("user", "", "name or name:password; a missing password is asked for")),
    hidden(Flag::text("password", "", "password; all of --user is then the name")),
    hidden(Flag { short: Some('d'), ..Flag::text("discovery-srv", "", "domain whose SRV records name the endpoints") }),
    hidden(Flag::text("discovery-srv-name", "", "suffix of the service's name in SRV records")),
];

const fn hidden(flag: Flag) -> Flag {
    Flag { hidden: true, ..flag }
}

/// Takes away brackets around the whole list, which documents print and people paste: `[a:2379,b:2379]`. A lone address of
/// IPv6 keeps its own.
pub fn without_brackets(endpoints: &[String]) -> Vec<String> {
    let mut endpoints = endpoints.to_vec();
    let (Some(first), Some(last)) = (endpoints.first(), endpoints.last()) else { return endpoints };
    let opens = first.trim_start().starts_with('[');
    let closes = last.trim_end().ends_with(']');
    let is_address = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    let inner = first.trim().trim_start_matches('[').trim_end_matches(']');
    if !opens || !closes || (endpoints.len() == 1 && is_address(inner) && !first.trim().starts_with("[[")) {
        return endpoints;
    }
    let first = endpoints[0].trim_start();
    // `[[::1]:2379,…]` opens twice; `[::1]:2379,[::1]` opens an address only.
    if endpoints.len() > 1 && first[1..].contains(']') && !first.starts_with("[[") {
        return endpoints;
    }
    endpoints[0] = first[1..].to_owned();
    let end = endpoints.len() - 1;
    let last = endpoints[end].trim_end();
    endpoints[end] = last[..last.len() - 1].to_owned();
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(list: &str) -> String {
        let list: Vec<String> = list.split(',').map(str::to_owned).collect();
        without_brackets(&list).join(",")
    }

    #[test]
    fn brackets_around_the_list_fall_away() {
        assert_eq!(bare("[172.31.22.142:2379]"), "172.31.22.142:2379");
        assert_eq!(bare("[a:1, b:2]"), "a:1, b:2");
        assert_eq!(bare("[http://a:1,unix://b]"), "http://a:1,unix://b");
        assert_eq!(bare("[[::1]:2379,[::1]:2380]"), "[::1]:2379,[::1]:2380");
    }

    #[test]
    fn brackets_of_addresses_stay() {
        for list in ["a:1", "[::1]:2379", "[::1]", "[::1]:2379,[::2]", "http://[::1]:2379", ""] {
            assert_eq!(bare(list), list);
        }
    }
}

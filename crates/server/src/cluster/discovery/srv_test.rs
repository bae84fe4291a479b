use milepost_node::log::NoLog;

use super::*;
use crate::config::words::{self, Request};

/// `a.x` is 10.0.0.1, `b.x` 10.0.0.2 and so on; others are not known.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    match host.as_bytes() {
        [letter @ b'a'..=b'e', b'.', b'x'] => Ok(([10, 0, 0, letter - b'a' + 1], port).into()),
        _ => Err(format!("lookup {host}: no such host")),
    }
}

fn config(peer_url: &str) -> Config {
    let url = format!("--initial-advertise-peer-urls={peer_url}");
    let args = ["--name=m", "--discovery-srv=x", &url].map(str::to_owned);
    let Ok(Request::Serve(settings)) = words::parse(&args, std::iter::empty()) else { panic!("{args:?}") };
    Config::new(&settings).unwrap().0
}

fn places(targets: &[&str]) -> Result<Vec<Srv>, LookupError> {
    Ok(targets.iter().map(|host| Srv { target: (*host).to_owned(), port: 2380, priority: 0, weight: 0 }).collect())
}

fn unknown(service: &str) -> Result<Vec<Srv>, LookupError> {
    let server = "192.0.2.1:53".parse().unwrap();
    Err(LookupError { name: format!("_{service}._tcp.x"), server, why: "no such host".into() })
}

fn found(
    peer_url: &str,
    with_tls: Result<Vec<Srv>, LookupError>,
    without: Result<Vec<Srv>, LookupError>,
) -> Result<String, String> {
    let asked = vec![
        Asked { service: "etcd-server-ssl".into(), has_tls: true, places: with_tls },
        Asked { service: "etcd-server".into(), has_tls: false, places: without },
    ];
    cluster(&config(peer_url), asked, &resolve, &NoLog).map_err(|refusal| refusal.complaint)
}

#[test]
fn this_member_is_known_by_its_address() {
    let of = |own: &str| found(own, unknown("etcd-server-ssl"), places(&["a.x", "b.x", "c.x"]));
    assert_eq!(of("http://b.x:2380").unwrap(), "0=http://a.x:2380,m=http://b.x:2380,1=http://c.x:2380");
    assert_eq!(of("http://a.x:2380").unwrap(), "m=http://a.x:2380,0=http://b.x:2380,1=http://c.x:2380");
    let tls = found("https://b.x:2380", places(&["a.x", "b.x"]), unknown("etcd-server"));
    assert_eq!(tls.unwrap(), "0=https://a.x:2380,m=https://b.x:2380");
    // A host that is not known is left out as long as others are.
    let some = found("http://b.x:2380", unknown("etcd-server-ssl"), places(&["gone.x", "b.x"]));
    assert_eq!(some.unwrap(), "m=http://b.x:2380");
}

#[test]
fn complaints_are_etcds() {
    let why = found("http://a.x:2380", unknown("etcd-server-ssl"), unknown("etcd-server")).unwrap_err();
    let line = |service: &str| {
        format!("error querying DNS SRV records for _{service} lookup _{service}._tcp.x on 192.0.2.1:53: no such host")
    };
    assert_eq!(why, format!("error setting up initial cluster: {}\n{}", line("etcd-server-ssl"), line("etcd-server")));
    let why = found("http://d.x:2380", unknown("etcd-server-ssl"), places(&["a.x"])).unwrap_err();
    assert_eq!(why, "error setting up initial cluster: cannot find local etcd member \"m\" in SRV records");
    let why = found("http://a.x:2380", places(&["a.x"]), unknown("etcd-server")).unwrap_err();
    let mismatch = "bootstrap at https://a.x:2380 from DNS for etcd-server-ssl has scheme mismatch with expected peer http://a.x:2380";
    assert!(why.contains(mismatch), "{why}");
    let why = found("http://gone.x:2380", unknown("etcd-server-ssl"), places(&["a.x"])).unwrap_err();
    assert!(why.contains("lookup gone.x: no such host"), "{why}");
}

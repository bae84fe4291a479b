//! What is sent again, and what is not.

use milepost_client::{Auth, Client, Code, Config};
use milepost_proto::etcdserverpb as pb;

use crate::support::scripted::{Scripted, Step, answer};
use crate::support::{client, get, put, run, soon};

const UNAVAILABLE: Step = Step::Refuse(14, "etcdserver: leader changed");

async fn of(server: &Scripted) -> Client {
    client(&[&server.address.to_string()]).await
}

#[test]
fn reads_are_repeated_while_the_server_is_unavailable() {
    run(async {
        let server = Scripted::start([UNAVAILABLE, UNAVAILABLE, UNAVAILABLE]).await;
        assert!(of(&server).await.kv().range(get("a"), soon()).await.is_ok());
        assert_eq!(server.paths(), ["Range"; 4]);
    });
}

#[test]
fn writes_are_sent_once() {
    run(async {
        let server = Scripted::start([UNAVAILABLE]).await;
        let error = of(&server).await.kv().put(put("a", "1"), soon()).await.unwrap_err();
        assert_eq!(error.to_string(), "etcdserver: leader changed");
        let server = Scripted::start([Step::Break]).await;
        let error = of(&server).await.kv().put(put("a", "1"), soon()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(server.paths(), ["Put"]);
    });
}

#[test]
fn a_read_survives_a_broken_connection() {
    run(async {
        let server = Scripted::start([Step::Break]).await;
        assert!(of(&server).await.kv().range(get("a"), soon()).await.is_ok());
        assert_eq!(server.paths(), ["Range"; 2]);
    });
}

#[test]
fn a_write_that_was_not_looked_at_is_sent_again() {
    run(async {
        let server = Scripted::start([Step::RefuseStream, Step::GoAway]).await;
        assert!(of(&server).await.kv().put(put("a", "1"), soon()).await.is_ok());
        assert_eq!(server.paths(), ["Put"]);
    });
}

#[test]
fn other_refusals_are_final() {
    run(async {
        let server =
            Scripted::start([Step::Refuse(11, "etcdserver: mvcc: required revision has been compacted")]).await;
        let error = of(&server).await.kv().range(get("a"), soon()).await.unwrap_err();
        assert_eq!(error.to_string(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(server.paths(), ["Range"]);
    });
}

async fn user(server: &Scripted) -> Result<Client, milepost_client::ConnectError> {
    let auth = Auth::Password { user: "u".into(), password: "p".into() };
    Client::connect(Config { endpoints: vec![server.address.to_string()], auth, ..Config::default() }).await
}

fn token(text: &str) -> Step {
    answer(&pb::AuthenticateResponse { token: text.into(), ..Default::default() })
}

#[test]
fn a_user_is_known_by_its_token_and_a_stale_one_is_replaced() {
    run(async {
        let stale = Step::Refuse(16, "etcdserver: invalid auth token");
        let server = Scripted::start([token("t1"), Step::Answer(Vec::new()), stale, token("t2")]).await;
        let client = user(&server).await.unwrap();
        client.kv().put(put("a", "1"), soon()).await.unwrap();
        client.kv().put(put("a", "2"), soon()).await.unwrap();
        let tokens: Vec<_> = server.asked().into_iter().map(|(_, token)| token).collect();
        let is = |text: &str| Some(text.to_owned());
        // A token is sent with the call that replaces it, too: the server does not look at it there.
        assert_eq!(tokens, [None, is("t1"), is("t1"), is("t1"), is("t2")]);
        assert_eq!(server.paths(), ["Authenticate", "Put", "Put", "Authenticate", "Put"]);
    });
}

#[test]
fn a_wrong_password_makes_no_client() {
    run(async {
        let text = "etcdserver: authentication failed, invalid user ID or password";
        let server = Scripted::start([Step::Refuse(3, text)]).await;
        assert_eq!(user(&server).await.err().unwrap().to_string(), text);
    });
}

#[test]
fn a_server_without_authentication_needs_no_token() {
    run(async {
        let server = Scripted::start([Step::Refuse(9, "etcdserver: authentication is not enabled")]).await;
        user(&server).await.unwrap().kv().put(put("a", "1"), soon()).await.unwrap();
        assert_eq!(server.asked()[1], ("/etcdserverpb.KV/Put".to_owned(), None));
    });
}

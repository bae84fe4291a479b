//! A watch response read where it lies: what is counted of it, without making anything of the rest.
//!
//! A thousand watchers of one key get a thousand responses for each put; decoding them all into values of their own takes
//! the generator longer than it takes a server to send them. Some are decoded in full beside it, see [`Glance::agrees`].

use milepost_proto::Message;
use milepost_proto::etcdserverpb::WatchResponse;
use milepost_proto::mvccpb::Event;

/// Field numbers of `WatchResponse`, `Event` and `KeyValue`. Source: etcd's `rpc.proto` and `kv.proto`.
mod field {
    pub const WATCH_ID: u64 = 2;
    pub const CANCELED: u64 = 4;
    pub const EVENTS: u64 = 11;
    pub const KV: u64 = 2;
    pub const MOD_REVISION: u64 = 3;
    pub const VALUE: u64 = 5;
}

/// Why a response is not counted.
pub type Fault = &'static str;

/// What a response says about itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Glance<'a> {
    /// Whom it concerns.
    pub watch_id: i64,
    /// The watcher is gone.
    pub canceled: bool,
    response: &'a [u8],
    /// The end of it that has all events.
    events: &'a [u8],
}

/// What is looked at of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// When it happened.
    pub mod_revision: i64,
    /// The whole value.
    pub value: &'a [u8],
}

/// A field's content.
enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that nothing here has.
    Other,
}

impl<'a> Glance<'a> {
    /// Looks at an encoded response.
    ///
    /// # Errors
    /// What keeps it from being one.
    pub fn at(response: &'a [u8]) -> Result<Self, Fault> {
        let mut glance = Self { watch_id: 0, canceled: false, response, events: &[] };
        let mut rest = response;
        loop {
            let before = rest;
            let Some((number, content)) = next(&mut rest)? else { return Ok(glance) };
            match (number, content) {
                (field::WATCH_ID, Content::Number(id)) => glance.watch_id = id as i64,
                (field::CANCELED, Content::Number(flag)) => glance.canceled = flag != 0,
                (field::EVENTS, Content::Bytes(_)) if glance.events.is_empty() => glance.events = before,
                _ => {}
            }
        }
    }

    /// Hands each event to `see`, in order.
    ///
    /// # Errors
    /// What keeps one from being an event, or `see` finds wrong.
    pub fn events(&self, mut see: impl FnMut(Seen<'a>) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut rest = self.events;
        while let Some((number, content)) = next(&mut rest)? {
            if let (field::EVENTS, Content::Bytes(event)) = (number, content) {
                see(seen(event)?)?;
            }
        }
        Ok(())
    }

    /// Decodes the whole response, and compares.
    ///
    /// # Errors
    /// It cannot be decoded, or says something else.
    pub fn agrees(&self) -> Result<(), String> {
        let whole = WatchResponse::decode(self.response).map_err(|error| format!("undecodable answer: {error}"))?;
        let mut events = whole.events.iter();
        let mut same = whole.watch_id == self.watch_id && whole.canceled == self.canceled;
        self.events(|seen| {
            let kv = events.next().and_then(|event: &Event| event.kv.as_ref());
            same &= kv.is_some_and(|kv| kv.mod_revision == seen.mod_revision && kv.value == seen.value);
            Ok(())
        })?;
        if same && events.next().is_none() { Ok(()) } else { Err("a response that can be read in two ways".into()) }
    }
}

#[inline]
fn seen(mut event: &[u8]) -> Result<Seen<'_>, Fault> {
    let mut kv = None;
    while let Some((number, content)) = next(&mut event)? {
        if let (field::KV, Content::Bytes(bytes)) = (number, content) {
            kv = Some(bytes);
        }
    }
    let mut kv = kv.ok_or("an event without its key")?;
    let mut seen = Seen { mod_revision: 0, value: &[] };
    while let Some((number, content)) = next(&mut kv)? {
        match (number, content) {
            (field::MOD_REVISION, Content::Number(revision)) => seen.mod_revision = revision as i64,
            (field::VALUE, Content::Bytes(value)) => seen.value = value,
            _ => {}
        }
    }
    Ok(seen)
}

/// The next field: its number and what it holds.
#[inline]
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u64, Content<'a>)>, Fault> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = number(rest)?;
    let content = match key & 7 {
        0 => Content::Number(number(rest)?),
        1 => take(rest, 8).map(|_| Content::Other)?,
        2 => {
            let length = number(rest)?;
            Content::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Content::Other)?,
        _ => return Err("undecodable answer: a field of a kind that there is not"),
    };
    Ok(Some((key >> 3, content)))
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Fault> {
    let cut = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = cut.ok_or("undecodable answer: it ends inside a field")?;
    *rest = left;
    Ok(taken)
}

/// Seven bits a byte, the lowest first; the last byte has no eighth bit.
#[inline]
fn number(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut number = 0;
    // The tenth byte has one bit left.
    for (at, byte) in rest.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            if at == 9 && *byte > 1 {
                break;
            }
            *rest = &rest[at + 1..];
            return Ok(number);
        }
    }
    Err("undecodable answer: a number without an end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use milepost_proto::etcdserverpb::ResponseHeader;
    use milepost_proto::mvccpb::KeyValue;

    fn response() -> WatchResponse {
        let kv = |mod_revision: i64, value: &'static [u8]| KeyValue {
            key: b"key".as_slice().into(),
            mod_revision,
            create_revision: 2,
            version: i64::MAX,
            value: value.into(),
            lease: -1,
        };
        let event = |mod_revision, value| Event { r#type: 0, kv: Some(kv(mod_revision, value)), prev_kv: None };
        let with_previous = Event { prev_kv: Some(kv(300, b"earlier")), ..event(301, b"later") };
        WatchResponse {
            header: Some(ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 301, raft_term: 2 }),
            watch_id: 70_000,
            events: vec![event(1, b""), event(300, &[7; 300]), with_previous],
            ..WatchResponse::default()
        }
    }

    #[test]
    fn what_is_seen_is_what_decoding_finds() {
        for response in
            [response(), WatchResponse::default(), WatchResponse { watch_id: -1, canceled: true, ..response() }]
        {
            let bytes = response.encode_to_vec();
            let glance = Glance::at(&bytes).unwrap();
            assert_eq!((glance.watch_id, glance.canceled), (response.watch_id, response.canceled));
            let mut seen = Vec::new();
            let mut see = |event: Seen<'_>| seen.push((event.mod_revision, event.value.to_vec()));
            glance
                .events(|event| {
                    see(event);
                    Ok(())
                })
                .unwrap();
            let kvs = response.events.iter().filter_map(|event| event.kv.as_ref());
            assert_eq!(seen, kvs.map(|kv| (kv.mod_revision, kv.value.to_vec())).collect::<Vec<_>>());
            glance.agrees().unwrap();
        }
    }

    #[test]
    fn a_wrong_look_is_noticed() {
        let bytes = response().encode_to_vec();
        let glance = Glance { watch_id: 1, ..Glance::at(&bytes).unwrap() };
        assert!(glance.agrees().unwrap_err().contains("two ways"));
    }

    #[test]
    fn cut_responses_and_events_without_keys_are_errors() {
        let bytes = response().encode_to_vec();
        let read = |bytes: &[u8]| Glance::at(bytes).and_then(|glance| glance.events(|_| Ok(())));
        let whole = |bytes: &[u8]| WatchResponse::decode(bytes).is_ok();
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]).is_ok(), whole(&bytes[..end]), "cut at {end}");
        }
        assert!(read(&[7]).unwrap_err().contains("kind"));
        // A number of ten bytes, and what no 64 bits hold.
        let long = |last| [[16].as_slice(), &[0xff; 9], &[last]].concat();
        assert_eq!(Glance::at(&long(1)).map(|glance| glance.watch_id), Ok(-1));
        for wrong in [long(2), long(0x81), vec![16, 0xff]] {
            assert!(read(&wrong).unwrap_err().contains("number") && !whole(&wrong), "{wrong:?}");
        }
        let keyless = WatchResponse { events: vec![Event::default()], ..WatchResponse::default() };
        assert!(read(&keyless.encode_to_vec()).unwrap_err().contains("without its key"));
    }
}

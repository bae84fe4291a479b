//! What the translating library lets pass and etcd does not: a field given twice, numbers with a plus, wrong padding.
//!
//! Which of two values was meant, nobody can know. Source: protojson, which refuses all of these.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use prost_reflect::Kind;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most elements that the lists of one message may have together. An empty one takes three bytes of JSON and a hundred
/// of memory: without a bound 16 MiB of JSON would become half a gigabyte. Transactions have 128 operations unless
/// `--max-txn-ops` says more.
pub(super) const ELEMENTS_MAX: usize = 100_000;

/// Reads a value of a kind, or a list of them, and keeps nothing. What else is wrong with it is left to whoever reads it
/// for good.
pub(super) struct Strict<'a> {
    kind: &'a Kind,
    /// Elements that the message may still have.
    left: &'a Cell<usize>,
}

impl<'a> Strict<'a> {
    /// A value of `kind`, in a message that may have `left` more elements.
    pub(super) fn new(kind: &'a Kind, left: &'a Cell<usize>) -> Self {
        Self { kind, left }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let kind = self.kind.as_message().filter(|kind| !kind.is_map_entry());
            let field =
                kind.and_then(|kind| kind.get_field_by_json_name(&name).or_else(|| kind.get_field_by_name(&name)));
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&field.number()) {
                return Err(A::Error::custom(format_args!("duplicate field {name:?}")));
            }
            seen.push(field.number());
            map.next_value_seed(Strict { kind: &field.kind(), ..self })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Strict { ..self })?.is_some() {
            let Some(left) = self.left.get().checked_sub(1) else {
                return Err(A::Error::custom(format_args!("more than {ELEMENTS_MAX} elements in one message")));
            };
            self.left.set(left);
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Kind::Bytes if !text.len().is_multiple_of(4) && text.ends_with('=') => {
                Err(E::custom(format_args!("invalid base64 {text:?}: wrong padding")))
            }
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 if text.starts_with('+') => {
                Err(E::custom(format_args!("invalid number {text:?}")))
            }
            _ => Ok(()),
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

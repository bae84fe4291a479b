//! What the translating library lets pass and etcd does not: a field given twice, numbers with a plus, wrong padding.
//!
//! Which of two values was meant, nobody can know. Source: protojson, which refuses all of these.

use std::borrow::Cow;
use std::fmt;

use prost_reflect::Kind;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Reads a value of this kind, or a list of them, and keeps nothing. What else is wrong with it is left to whoever reads
/// it for good.
pub(crate) struct Strict<'a>(pub(crate) &'a Kind);

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
            let kind = self.0.as_message().filter(|kind| !kind.is_map_entry());
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
            map.next_value_seed(Strict(&field.kind()))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Strict(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.0 {
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

//! JSON, read as the table that TOML would write it as.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The object that a text is; the error is for a person.
pub(super) fn table(json: &[u8]) -> Result<Spanned<DeTable<'_>>, String> {
    let mut text = serde_json::Deserializer::from_slice(json);
    let value = Value { is_root: true }.deserialize(&mut text).and_then(|value| text.end().map(|()| value));
    match value {
        Ok(Some(DeValue::Table(table))) => Ok(nowhere(table)),
        Ok(_) => Err("not a JSON object: write {\"tokens\": […]}".to_owned()),
        // it is JSON, but says too much or too little
        Err(error) if error.is_data() => Err(error.to_string()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// A value that no file has.
fn nowhere<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

/// Reads a value; `None` for null. `serde_json::Value` would let the last of several equal keys win.
struct Value {
    is_root: bool,
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<DeValue<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Option<DeValue<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Some(DeValue::Boolean(truth)))
    }

    // no key of a list is a number; whichever it is, it must not pass for an absent key

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        self.visit_bool(true)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        self.visit_bool(true)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        self.visit_bool(true)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(DeValue::String(text.into())))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(DeValue::String(text.to_owned().into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut array = DeArray::new();
        while let Some(item) = items.next_element_seed(Value { is_root: false })? {
            // a list with a hole would be a shorter one: of what is denied, none at all
            let item = item.ok_or_else(|| Error::custom("null in an array: write what it is, or leave it out"))?;
            array.push(nowhere(item));
        }
        Ok(Some(DeValue::Array(array)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut table, mut nulls) = (DeTable::new(), HashSet::new());
        while let Some(key) = members.next_key::<String>()? {
            if table.contains_key(&*key) || nulls.contains(&key) {
                return Err(Error::custom(format!("{key:?} occurs twice in one object: write each key once")));
            }
            match members.next_value_seed(Value { is_root: false })? {
                Some(value) => {
                    table.insert(nowhere(key.into()), nowhere(value));
                }
                // a list without users takes every user for active: that has to be meant
                None if self.is_root => {
                    return Err(Error::custom(format!("{key:?} is null: write what it is, or leave the key out")));
                }
                None => {
                    nulls.insert(key);
                }
            }
        }
        Ok(Some(DeValue::Table(table)))
    }
}

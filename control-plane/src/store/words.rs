//! The words of an enum, as they are sent and stored.

use serde::{
    Deserializer,
    de::{DeserializeOwned, Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};

/// All words of an enum whose cases have no content. Empty for other types.
pub fn of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut words: &'static [&'static str] = &[];
    // It always fails, after it has told its words.
    let _never = T::deserialize(Listener(&mut words)).err();
    words
}

/// Takes the words that a type offers to choose from, and chooses none.
struct Listener<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = words;
        Err(Error::custom("only the words are wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not an enum"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use muster_api::image::ImageState;

    use super::*;

    #[test]
    fn an_enum_tells_its_words() {
        assert!(of::<ImageState>().contains(&"empty"), "{:?}", of::<ImageState>());
        assert_eq!(of::<String>(), &[] as &[&str]);
    }
}

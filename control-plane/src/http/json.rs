//! Reads the JSON of a request into a type, strictly, and says in plain words what does not fit and where.
//!
//! serde's own way takes more than the API promises: an array for an object (`["t", "tenant"]` as `CreateToken`), a key
//! that is given twice (the last one wins), a NUL inside a text (which PostgreSQL cannot store). Its messages speak of
//! Rust ("expected struct CreateToken"). So there are two steps here: [`text`] makes a value of the bytes, [`read`]
//! makes a `T` of the value. `T` can be any type with `Deserialize`; it only should not be `#[serde(untagged)]` or
//! `#[serde(flatten)]`, because serde then reads what is inside in its own way.

use std::fmt::{self, Display};

use muster_api::{ErrorCode, error::FieldError};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer as _, MapAccess,
        SeqAccess, Unexpected, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value};

use crate::app::AppError;

/// Reads the body of a request. Text that is not JSON is 400; JSON that does not fit is 422 and names the place.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, AppError> {
    read(text(body)?).map_err(|Misfit { pointer, code, detail }| {
        AppError::Invalid(vec![FieldError { pointer, code: code.to_owned(), detail }])
    })
}

/// The value that the text of a body has.
fn text(body: &[u8]) -> Result<Value, AppError> {
    let not_json = |why: String| AppError::code(ErrorCode::NotJson, format!("the body is not JSON: {why}"));
    let mut input = serde_json::Deserializer::from_slice(body);
    let strict = Strict::deserialize(&mut input).and_then(|value| input.end().map(|()| value));
    strict.map(|Strict(value)| value).map_err(|error| not_json(error.to_string()))
}

/// Reads a value into a type.
fn read<T: DeserializeOwned>(value: Value) -> Result<T, Misfit> {
    T::deserialize(Node(value))
}

/// A value without keys that are given twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is given twice")));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// Where a value does not fit, and why.
#[derive(Debug, PartialEq, Eq)]
struct Misfit {
    /// JSON pointer from the value that was being read.
    pointer: String,
    code: &'static str,
    detail: String,
}

impl Misfit {
    fn invalid(detail: String) -> Self {
        Self { pointer: String::new(), code: "invalid", detail }
    }

    fn wrong(expected: &str, got: &Value) -> Self {
        let got = match got {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "true or false".to_owned(),
            Value::Number(number) => format!("the number {number}"),
            Value::String(_) => "a text".to_owned(),
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        Self::invalid(format!("expected {expected}, got {got}"))
    }

    /// The same, seen from the object or array around it.
    fn below(mut self, key: impl Display) -> Self {
        let key = key.to_string().replace('~', "~0").replace('/', "~1");
        self.pointer = format!("/{key}{}", self.pointer);
        self
    }
}

impl Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.detail)
    }
}

impl std::error::Error for Misfit {}

/// What a type says that it expects, without the words of Rust.
fn plain(expected: &dyn Expected) -> String {
    let said = expected.to_string();
    let number = |min: i128, max: i128| format!("a whole number from {min} to {max}");
    match said.as_str() {
        "u8" => number(0, u8::MAX.into()),
        "u16" => number(0, u16::MAX.into()),
        "u32" => number(0, u32::MAX.into()),
        "u64" | "usize" => number(0, u64::MAX.into()),
        "i32" => number(i32::MIN.into(), i32::MAX.into()),
        "i64" => number(i64::MIN.into(), i64::MAX.into()),
        "a string" => "a text".to_owned(),
        _ => said,
    }
}

impl serde::de::Error for Misfit {
    fn custom<T: Display>(detail: T) -> Self {
        Self::invalid(detail.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let got = match got {
            Unexpected::Bool(value) => value.to_string(),
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Float(number) => number.to_string(),
            Unexpected::Str(text) => format!("'{text}'"),
            Unexpected::Unit => "null".to_owned(),
            Unexpected::Seq => "an array".to_owned(),
            Unexpected::Map => "an object".to_owned(),
            other => other.to_string(),
        };
        Self::invalid(format!("expected {}, got {got}", plain(expected)))
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(got, expected)
    }

    fn invalid_length(got: usize, expected: &dyn Expected) -> Self {
        Self::invalid(format!("expected {}, got {got} items", plain(expected)))
    }

    fn unknown_variant(got: &str, known: &'static [&'static str]) -> Self {
        Self::invalid(format!("expected {}, got '{got}'", one_of(known)))
    }

    fn unknown_field(got: &str, known: &'static [&'static str]) -> Self {
        let hint = if known.is_empty() { "no fields".to_owned() } else { one_of(known) };
        Self { code: "unknown_field", ..Self::invalid(format!("there is no field '{got}' here: expected {hint}")) }
    }

    fn missing_field(name: &'static str) -> Self {
        Self { code: "missing", ..Self::invalid("this field is required".to_owned()) }.below(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::invalid(format!("the field '{name}' is given twice"))
    }
}

fn one_of(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    match words.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A value that is being read.
struct Node(Value);

/// A text as it may be stored: without NUL.
fn stored(text: String) -> Result<String, Misfit> {
    if text.contains('\0') {
        return Err(Misfit::invalid("the text has a NUL character".to_owned()));
    }
    Ok(text)
}

macro_rules! numbers {
    ($($method:ident $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            match &self.0 {
                Value::Number(number) if number.is_u64() || number.is_i64() => self.deserialize_any(visitor),
                other => Err(Misfit::wrong($expected, other)),
            }
        }
    )*};
}

macro_rules! only {
    ($($method:ident($($extra:ty),*) $case:pat => $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $(_: $extra,)* visitor: V) -> Result<V::Value, Misfit> {
            match &self.0 {
                $case => self.deserialize_any(visitor),
                other => Err(Misfit::wrong($expected, other)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (_, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().expect("what is no whole number is a float")),
            },
            Value::String(text) => visitor.visit_string(stored(text)?),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), next: 0 }),
            Value::Object(fields) => visitor.visit_map(Fields { fields: fields.into_iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::String(word) => visitor.visit_enum(Variant { word: stored(word)?, content: None }),
            Value::Object(fields) if fields.len() == 1 => {
                let (word, content) = fields.into_iter().next().ok_or_else(|| Misfit::custom("no variant"))?;
                visitor.visit_enum(Variant { word, content: Some(content) })
            }
            other => Err(Misfit::wrong(&one_of(known), &other)),
        }
    }

    numbers! {
        deserialize_i8 "a whole number";
        deserialize_i16 "a whole number";
        deserialize_i32 "a whole number";
        deserialize_i64 "a whole number";
        deserialize_u8 "a whole number";
        deserialize_u16 "a whole number";
        deserialize_u32 "a whole number";
        deserialize_u64 "a whole number";
    }

    only! {
        deserialize_bool() Value::Bool(_) => "true or false";
        deserialize_f32() Value::Number(_) => "a number";
        deserialize_f64() Value::Number(_) => "a number";
        deserialize_char() Value::String(_) => "a text";
        deserialize_str() Value::String(_) => "a text";
        deserialize_string() Value::String(_) => "a text";
        deserialize_unit() Value::Null => "null";
        deserialize_seq() Value::Array(_) => "an array";
        deserialize_tuple(usize) Value::Array(_) => "an array";
        deserialize_tuple_struct(&'static str, usize) Value::Array(_) => "an array";
        deserialize_map() Value::Object(_) => "an object";
        deserialize_struct(&'static str, &'static [&'static str]) Value::Object(_) => "an object";
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit_struct identifier ignored_any }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Misfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let place = self.next;
        self.next += 1;
        seed.deserialize(Node(item)).map(Some).map_err(|misfit| misfit.below(place))
    }
}

struct Fields {
    fields: serde_json::map::IntoIter,
    /// The key whose value is read next, and that value.
    value: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Misfit;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Misfit> {
        let Some((key, value)) = self.fields.next() else { return Ok(None) };
        let read = seed.deserialize(Node(key.clone().into())).map_err(|misfit| misfit.below(&key))?;
        self.value = Some((key, value));
        Ok(Some(read))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Misfit> {
        let (key, value) = self.value.take().ok_or_else(|| Misfit::custom("a value without a key"))?;
        seed.deserialize(Node(value)).map_err(|misfit| misfit.below(key))
    }
}

/// A word of an enum, with what stands beside it.
struct Variant {
    word: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Misfit;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Misfit> {
        let word = self.word.as_str().into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl Variant {
    fn content(self) -> (String, Node) {
        (self.word, Node(self.content.unwrap_or(Value::Null)))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        let (word, Node(content)) = self.content();
        if content.is_null() { Ok(()) } else { Err(Misfit::wrong("null", &content).below(word)) }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Misfit> {
        let (word, content) = self.content();
        seed.deserialize(content).map_err(|misfit| misfit.below(word))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Misfit> {
        let (word, content) = self.content();
        content.deserialize_tuple(len, visitor).map_err(|misfit| misfit.below(word))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Misfit> {
        let (word, content) = self.content();
        content.deserialize_struct("", fields, visitor).map_err(|misfit| misfit.below(word))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use muster_api::{deployment::CreateDeployment, image::CreateImage, token::CreateToken};
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Shape {
        Point,
        Circle(u8),
        Box { sides: Vec<u8> },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Everything {
        #[serde(default)]
        flag: bool,
        number: Option<f64>,
        signed: i64,
        shapes: Vec<Shape>,
        map: BTreeMap<String, u8>,
        pair: (u8, String),
    }

    fn misfit<T: DeserializeOwned + fmt::Debug>(value: Value) -> (String, &'static str, String) {
        let Misfit { pointer, code, detail } = read::<T>(value).expect_err("it does not fit");
        (pointer, code, detail)
    }

    #[test]
    fn values_are_read_as_serde_does() {
        let value = json!({
            "flag": true, "number": 1.5, "signed": -3, "map": {"a": 1}, "pair": [1, "x"],
            "shapes": ["point", {"circle": 3}, {"box": {"sides": [1, 2]}}],
        });
        let ours: Everything = read(value.clone()).expect("it fits");
        assert_eq!(ours, serde_json::from_value(value).expect("it fits"));
        assert_eq!(ours.shapes[2], Shape::Box { sides: vec![1, 2] });
    }

    #[test]
    fn an_array_is_not_an_object_at_any_depth() {
        for (value, place) in [
            (json!(["t", "tenant", "pa"]), ""),
            (json!({"name": "a", "source": ["debian"], "count": 1}), "/source"),
            (json!({"name": "a", "source": {"image": "debian"}, "count": 1, "ready": ["running"]}), "/ready"),
        ] {
            let (pointer, code, detail) = match place {
                "" => misfit::<CreateToken>(value),
                _ => misfit::<CreateDeployment>(value),
            };
            assert_eq!((pointer.as_str(), code), (place, "invalid"));
            assert_eq!(detail, "expected an object, got an array");
        }
        let (pointer, _, detail) = misfit::<CreateImage>(json!({"name": "a", "source": {"upload": []}}));
        assert_eq!((pointer.as_str(), detail.as_str()), ("/source/upload", "expected an object, got an array"));
    }

    #[test]
    fn what_does_not_fit_is_told_in_plain_words() {
        let told = |value: Value| {
            let (pointer, code, detail) = misfit::<CreateDeployment>(value);
            format!("{pointer} {code}: {detail}")
        };
        let with = |field: &str, value: Value| json!({"source": {"image": "debian"}, field: value});
        for (value, expected) in [
            (json!(null), " invalid: expected an object, got null"),
            (json!({}), "/source missing: this field is required"),
            (with("count", json!("3")), "/count invalid: expected a whole number, got a text"),
            (with("count", json!(1.5)), "/count invalid: expected a whole number, got the number 1.5"),
            (with("cpus", json!(-1)), "/cpus invalid: expected a whole number from 0 to 4294967295, got -1"),
            (with("dry_run", json!(0)), "/dry_run invalid: expected true or false, got the number 0"),
            (with("runtime", json!("docker")), "/runtime invalid: expected 'libvirt' or 'none', got 'docker'"),
            (with("runtime", json!(7)), "/runtime invalid: expected 'libvirt' or 'none', got the number 7"),
            (with("labels", json!({"a": 1})), "/labels/a invalid: expected a text, got the number 1"),
            (with("labels", json!({"a": "x\0"})), "/labels/a invalid: the text has a NUL character"),
            (with("labels", json!({"a\0": "x"})), "/labels/a\0 invalid: the text has a NUL character"),
            (with("name", json!("Web")), "/name invalid: a name starts with a letter a-z, got 'W'"),
        ] {
            assert_eq!(told(value), expected);
        }
        let unknown = told(with("cout", json!(1)));
        assert!(
            unknown.starts_with("/cout unknown_field: there is no field 'cout' here: expected 'name', "),
            "{unknown}"
        );
    }

    #[test]
    fn a_key_that_is_given_twice_is_refused() {
        let said = |body: &str| text(body.as_bytes()).expect_err("refused").to_string();
        let twice = said(r#"{"name": "a", "role": {"x": 1, "x": 1}}"#);
        assert!(twice.contains("the key \"x\" is given twice at line 1"), "{twice}");
        for body in ["", "{", "[1,]", "{} {}", "nul", "\u{feff}{}"] {
            assert!(said(body).starts_with("the body is not JSON: "), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(said(&deep).contains("recursion limit"), "{}", said(&deep));
    }
}

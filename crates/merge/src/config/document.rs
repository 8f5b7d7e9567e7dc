//! A YAML file as a tree that knows its lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::NonFiniteFloatPolicy;

use super::error::{ConfigError, Place, Problem};

/// Larger files are no configurations.
const MOST_BYTES: usize = 1 << 20;

/// Deeper files are no configurations; the tree is read by recursion.
const MOST_DEPTH: usize = 32;

/// A value and where it is.
#[derive(Debug)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: u64,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Truth(bool),
    /// Whole, and small enough to be one.
    Whole(i128),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) node: Node,
}

/// Reads a file. Keys that are there twice, more than one document, and aliases that multiply are errors.
pub(super) fn read(text: &str) -> Result<Node, ConfigError> {
    if text.len() > MOST_BYTES {
        return Err(ConfigError::new("", Problem::TooLarge { bytes: text.len(), most: MOST_BYTES }));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MOST_DEPTH, max_nodes: 100_000, max_documents: 1 },
        with_snippet: false,
        // Refused where they mean something, with the name of the parameter.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = Place { line: error.location().map(|location| location.line()), ..Place::default() };
        ConfigError { at, problem: Box::new(problem(&error)) }
    })
}

fn problem(error: &serde_saphyr::Error) -> Problem {
    match error.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => Problem::DuplicateKey { key: key.clone() },
        serde_saphyr::Error::Budget { .. } => Problem::TooMuch,
        other => Problem::Syntax { reason: in_one_line(&other.to_string()) },
    }
}

/// The parser's sentence without the place that is said elsewhere.
fn in_one_line(message: &str) -> String {
    let line = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let bare = line.split(" at line ").next().unwrap_or(&line).trim_end_matches('.');
    let mut letters = bare.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

impl Node {
    /// What it is, for a message.
    pub(super) fn described(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Truth(truth) => truth.to_string(),
            Value::Whole(number) => number.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Text(text) => format!("`{}`", text.chars().take(60).collect::<String>()),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    /// The line of the place with this path, or of the innermost place around it that the file has.
    pub(super) fn line_of(&self, path: &str) -> u64 {
        self.deepest(path, "").unwrap_or(self.line)
    }

    fn deepest(&self, path: &str, here: &str) -> Option<u64> {
        let inside =
            |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        match &self.value {
            Value::List(nodes) => nodes.iter().enumerate().find_map(|(index, node)| {
                let name = format!("{here}[{index}]");
                inside(&name).then(|| node.deepest(path, &name).unwrap_or(node.line))
            }),
            Value::Map(entries) => entries.iter().find_map(|entry| {
                let name = join(here, &entry.key);
                inside(&name).then(|| entry.node.deepest(path, &name).unwrap_or(entry.line))
            }),
            _ => None,
        }
    }
}

/// The path of a key below a path.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Whole(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Whole(number))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value()?;
            entries.push(Entry { key: key.value, line: key.referenced.line(), node });
        }
        Ok(Value::Map(entries))
    }
}

//! The shape of JSON: which keys there are and which types their values have, without the values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One line `path: types` for each path; the members of an array share a path.
pub(crate) fn shape(value: &Value) -> String {
    let mut types = BTreeMap::new();
    collect(value, "", &mut types);
    let line = |(path, types): (String, BTreeSet<&str>)| {
        format!("{path}: {}\n", types.into_iter().collect::<Vec<_>>().join(" | "))
    };
    types.into_iter().map(line).collect()
}

fn collect(value: &Value, path: &str, types: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    types.entry(path.to_owned()).or_default().insert(kind);
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, &format!("{path}[]"), types)),
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| collect(field, &format!("{path}.{key}"), types));
        }
        _ => {}
    }
}

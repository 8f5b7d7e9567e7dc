//! From an experiment file to the list of its steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::figure::FigureSpec;
use crate::Error;

/// An experiment file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExperimentFile {
    /// Heading of the page.
    pub(super) title: String,
    /// What is asked, first paragraph of the page.
    pub(super) about: String,
    /// What a person says of the results; goes on the page as it is.
    #[serde(default)]
    pub(super) findings: Option<String>,
    /// Tasks.
    step: Vec<RawStep>,
    /// Figures over results.
    #[serde(default)]
    pub(super) figure: Vec<FigureSpec>,
    /// Tables over results.
    #[serde(default)]
    pub(super) table: Vec<TableSpec>,
}

/// A table: a row for each step whose name begins as told, or a column.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableSpec {
    /// Its heading.
    pub(super) title: String,
    /// Beginning of the names of its steps.
    pub(super) steps: String,
    /// Heading and path of each value of a step.
    #[serde(alias = "rows")]
    pub(super) columns: Vec<(String, String)>,
    /// What the steps are.
    #[serde(default)]
    pub(super) steps_are: StepsAre,
    /// Where a list is in the results of the steps: its items, by their names, are the rows then, and paths begin there.
    #[serde(default)]
    pub(super) items: Option<String>,
}

/// What the steps of a table are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepsAre {
    #[default]
    Rows,
    Columns,
}

#[derive(Clone, Debug, Deserialize)]
struct RawStep {
    name: String,
    #[serde(default)]
    r#for: Map<String, Value>,
    #[serde(flatten)]
    work: Map<String, Value>,
}

/// A step with everything filled in.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: String,
    /// Task and spec; references are paths.
    pub(super) work: Value,
    /// The same with hashes for references: what the result depends on.
    pub(super) hashed: Value,
    pub(super) hash: String,
    /// Steps that it refers to.
    pub(super) needs: Vec<String>,
}

impl Step {
    /// Whether what it writes is a model.
    pub(super) fn makes_a_model(&self) -> bool {
        const MAKERS: [&str; 2] = ["tune", "upcycle"];
        MAKERS.iter().any(|task| self.work.get(task).is_some())
    }

    /// The folder of a model, or the file of strings, in the folder of results: what `@` and its name stand for.
    pub(super) fn output(&self, results: &Path) -> PathBuf {
        results.join(if self.makes_a_model() { self.hash.clone() } else { format!("{}.jsonl", self.hash) })
    }
}

impl ExperimentFile {
    pub(super) fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.into(), source })?;
        toml::from_str(&text).map_err(|error| Error::Spec {
            field: "EXPERIMENT",
            problem: format!("{}: {}", file.display(), error.to_string().trim_end()),
            hint: None,
        })
    }
}

/// What a string of a spec stands for: `(key, string)` to the hash of the content of the model or file that it names, if any.
pub(super) type Contents<'a> = dyn FnMut(&str, &str) -> Result<Option<String>, Error> + 'a;

/// The steps of a file, in order.
pub(super) fn steps(file: &ExperimentFile, path: &Path, contents: &mut Contents<'_>) -> Result<Vec<Step>, Error> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut steps: Vec<Step> = Vec::new();
    for raw in &file.step {
        for values in combinations(&raw.r#for) {
            let name = fill_text(&raw.name, &values);
            let bad = |problem: String| {
                let problem = format!("`{name}` of {}: {problem}", path.display());
                Error::Spec { field: "step", problem, hint: None }
            };
            if steps.iter().any(|step| step.name == name) {
                return Err(bad("there are two of this name; put what differs between them into it".into()));
            }
            let mut work = fill(&Value::Object(raw.work.clone()), &values);
            let mut hashed = work.clone();
            let mut needs = Vec::new();
            resolve(&mut work, &mut |wanted| {
                let (step, rest) = referred(&steps, wanted)?;
                needs.push(step.name.clone());
                let output = step.output(&folder.join("out"));
                let output = if rest.is_empty() { output } else { output.join(rest) };
                Some(output.to_string_lossy().into_owned())
            })
            .map_err(|wanted| bad(format!("no step before it is called `{wanted}`")))?;
            resolve(&mut hashed, &mut |wanted| {
                let (step, rest) = referred(&steps, wanted)?;
                Some(if rest.is_empty() { format!("@{}", step.hash) } else { format!("@{}/{rest}", step.hash) })
            })
            .map_err(|wanted| bad(format!("no step before it is called `{wanted}`")))?;
            let mut named = BTreeMap::new();
            gather("", &hashed, contents, &mut named)?;
            let digest = Sha256::digest(format!("lathe {} {hashed} {named:?}", env!("CARGO_PKG_VERSION")));
            let hash = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            steps.push(Step { name, work, hashed, hash, needs });
        }
    }
    Ok(steps)
}

/// The step of a reference, by its name; what follows a `/` after that is inside of the folder that it writes.
fn referred<'a>(steps: &'a [Step], wanted: &'a str) -> Option<(&'a Step, &'a str)> {
    let named = |name: &str| steps.iter().find(|step| step.name == name);
    if let Some(step) = named(wanted) {
        return Some((step, ""));
    }
    let (name, rest) = wanted.rsplit_once('/')?;
    named(name).filter(|step| step.makes_a_model()).map(|step| (step, rest))
}

/// Label and value of every name.
type Values = BTreeMap<String, (String, Value)>;

/// Every combination of the values of `for`: lists, or tables of labels and values. The last name varies fastest.
fn combinations(of: &Map<String, Value>) -> Vec<Values> {
    let mut all = vec![Values::new()];
    for (name, values) in of {
        let labelled: Vec<(String, Value)> = match values {
            Value::Array(list) => list.iter().map(|value| (label(value), value.clone())).collect(),
            Value::Object(table) => table.iter().map(|(label, value)| (label.clone(), value.clone())).collect(),
            one => vec![(label(one), one.clone())],
        };
        all = all
            .iter()
            .flat_map(|values| {
                labelled.iter().map(|value| {
                    let mut values = values.clone();
                    values.insert(name.clone(), value.clone());
                    values
                })
            })
            .collect();
    }
    all
}

fn label(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Puts labels in the place of `{name}`.
pub(super) fn fill_text(text: &str, values: &Values) -> String {
    values.iter().fold(text.to_owned(), |text, (name, (label, _))| text.replace(&format!("{{{name}}}"), label))
}

/// Puts values in the place of strings that are `{name}` and nothing else, and labels in that of `{name}` inside others.
fn fill(value: &Value, values: &Values) -> Value {
    match value {
        Value::String(text) => {
            let whole = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
            match whole.and_then(|name| values.get(name)) {
                Some((_, value)) => value.clone(),
                None => Value::String(fill_text(text, values)),
            }
        }
        Value::Array(list) => list.iter().map(|value| fill(value, values)).collect(),
        Value::Object(table) => table.iter().map(|(key, value)| (key.clone(), fill(value, values))).collect(),
        other => other.clone(),
    }
}

/// Replaces every string that begins with `@`.
fn resolve(value: &mut Value, find: &mut dyn FnMut(&str) -> Option<String>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix('@') {
                *text = find(name).ok_or_else(|| name.to_owned())?;
            }
            Ok(())
        }
        Value::Array(list) => list.iter_mut().try_for_each(|value| resolve(value, find)),
        Value::Object(table) => table.values_mut().try_for_each(|value| resolve(value, find)),
        _ => Ok(()),
    }
}

/// Gathers the hashes of what the strings of a spec name; references to steps have their own.
fn gather(
    key: &str,
    value: &Value,
    contents: &mut Contents<'_>,
    named: &mut BTreeMap<String, String>,
) -> Result<(), Error> {
    match value {
        Value::String(text) if !text.starts_with('@') && !named.contains_key(text) => {
            if let Some(hash) = contents(key, text)? {
                named.insert(text.clone(), hash);
            }
            Ok(())
        }
        Value::Array(list) => list.iter().try_for_each(|value| gather(key, value, contents, named)),
        Value::Object(table) => table.iter().try_for_each(|(key, value)| gather(key, value, contents, named)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn planned(text: &str) -> Result<Vec<Step>, Error> {
        steps(&toml::from_str(text).unwrap(), Path::new("a/b.toml"), &mut |_, _| Ok(None))
    }

    const TWO: &str = r#"
        title = "t"
        about = "a"
        [[step]]
        name = "local {model} {rule}"
        for = { model = ["m", "n"], rule = { k5 = { top_k = 5 }, p9 = { top_p = 0.9 } } }
        generate = { model = "{model}", decoding = { sampling = "{rule}" } }
        [[step]]
        name = "seen {model}"
        for = { model = ["m", "n"] }
        measure_samples = { sets = ["@local {model} k5"] }
    "#;

    #[test]
    fn steps_are_repeated_and_refer_to_each_other() {
        let steps = planned(TWO).unwrap();
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["local m k5", "local m p9", "local n k5", "local n p9", "seen m", "seen n"]);
        assert_eq!(steps[1].work["generate"]["decoding"]["sampling"]["top_p"], 0.9);
        assert_eq!(steps[5].needs, ["local n k5"]);
        assert_eq!(steps[5].work["measure_samples"]["sets"][0], format!("a/out/{}.jsonl", steps[2].hash));
    }

    #[test]
    fn a_step_that_trains_stands_for_its_model() {
        let text = TWO.replace("generate = { model", "tune = { seed = 1, model");
        let (steps, others) = (planned(&text).unwrap(), planned(&text.replace("seed = 1", "seed = 2")).unwrap());
        assert_eq!(steps[5].work["measure_samples"]["sets"][0], format!("a/out/{}", steps[2].hash));
        assert!(steps.iter().zip(&others).all(|(step, other)| step.hash != other.hash));
    }

    #[test]
    fn a_folder_inside_of_a_model_s_can_be_meant() {
        let text = TWO
            .replace("generate = { model", "tune = { seed = 1, model")
            .replace("@local {model} k5", "@local {model} k5/step-20");
        let (steps, others) = (planned(&text).unwrap(), planned(&text.replace("step-20", "step-30")).unwrap());
        assert_eq!(steps[5].work["measure_samples"]["sets"][0], format!("a/out/{}/step-20", steps[2].hash));
        assert_eq!(steps[5].needs, ["local n k5"]);
        assert!(steps[5].hash != others[5].hash && steps[2].hash == others[2].hash);
        assert!(planned(&TWO.replace("@local {model} k5", "@local {model} k5/step-20")).is_err());
    }

    #[test]
    fn a_change_reaches_what_refers_to_it_and_nothing_else() {
        let (before, after) = (planned(TWO).unwrap(), planned(&TWO.replace("top_k = 5", "top_k = 6")).unwrap());
        let changed: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a.hash != b.hash).collect();
        assert_eq!(changed, [true, false, true, false, true, true]);
    }

    #[test]
    fn another_model_under_the_same_name_is_another_step() {
        let hashes = |of_n: &str| {
            let contents = &mut |key: &str, text: &str| Ok((key == "model" && text == "n").then(|| of_n.to_owned()));
            let steps = steps(&toml::from_str(TWO).unwrap(), Path::new("a/b.toml"), contents).unwrap();
            steps.into_iter().map(|step| step.hash).collect::<Vec<_>>()
        };
        let changed: Vec<bool> = hashes("1").iter().zip(&hashes("2")).map(|(a, b)| a != b).collect();
        assert_eq!(changed, [false, false, true, true, false, true]);
    }

    #[test]
    fn names_must_differ_and_exist() {
        assert!(
            planned(&TWO.replace("{model} {rule}", "{model}")).unwrap_err().to_string().contains("two of this name")
        );
        assert!(planned(&TWO.replace("@local {model} k5", "@gone")).unwrap_err().to_string().contains("`gone`"));
    }
}

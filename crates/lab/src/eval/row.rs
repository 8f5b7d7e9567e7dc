//! From a row of a data file to its options and its right answer, by the expressions and templates of a task.

use std::collections::BTreeMap;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error as JinjaError, ErrorKind, Expression, Template, UndefinedBehavior, Value};
use regex::Regex;
use serde_json::Map;

use super::task::{AnswerIs, Task};

/// An option of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OptionText {
    pub(super) label: String,
    pub(super) text: String,
}

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Which option is right.
    Option(usize),
    /// The texts that are right.
    Texts(Vec<String>),
}

/// The expressions and templates of a task.
pub(super) struct Layout<'a> {
    task: &'a Task,
    options: Option<Expression<'a, 'a>>,
    answer: Expression<'a, 'a>,
    prompt: Template<'a, 'a>,
    target: Template<'a, 'a>,
    leave_out: Vec<Option<Expression<'a, 'a>>>,
}

/// A row with what was found in it.
pub(super) struct Read {
    variables: BTreeMap<String, Value>,
    pub(super) options: Vec<OptionText>,
    pub(super) answer: Answered,
}

/// The names and functions that tasks may use.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("lettered", lettered_value);
    environment.add_function("labelled", labelled_value);
    environment.add_function("regex_replace", regex_replace);
    environment.add_filter("regex_replace", regex_replace);
    environment
}

impl<'a> Layout<'a> {
    /// # Errors
    /// An expression or template does not parse: its key and what is wrong.
    pub(super) fn new(task: &'a Task, environment: &'a Environment<'static>) -> Result<Self, String> {
        let expression = |key: &str, source: &'a str| {
            environment.compile_expression(source).map_err(|error| format!("{key}: {}", what(&error)))
        };
        let template = |key: &str, source: &'a str| {
            environment.template_from_str(source).map_err(|error| format!("{key}: {}", what(&error)))
        };
        let default = if task.options.is_some() { "{{ option.text }}" } else { "{{ answer }}" };
        let rules = task.leave_out.iter().map(|rule| rule.when.as_deref());
        Ok(Self {
            task,
            options: task.options.as_deref().map(|source| expression("options", source)).transpose()?,
            answer: expression("answer", &task.answer)?,
            prompt: template("prompt", &task.prompt)?,
            target: template("target", task.target.as_deref().unwrap_or(default))?,
            leave_out: rules
                .map(|when| when.map(|source| expression("leave_out", source)).transpose())
                .collect::<Result<_, _>>()?,
        })
    }

    /// Which rule leaves the row out, if one does. `record`, from 1, is what rules with numbers are about; in a file that
    /// is not the task's own there is none.
    ///
    /// # Errors
    /// An expression uses what the row does not have.
    pub(super) fn left_out(
        &self,
        record: Option<usize>,
        row: &Map<String, serde_json::Value>,
    ) -> Result<Option<usize>, String> {
        let mut variables = None;
        for (index, (rule, when)) in self.task.leave_out.iter().zip(&self.leave_out).enumerate() {
            let holds = match when {
                None => record.is_some_and(|record| rule.records.contains(&record)),
                Some(when) => evaluate("leave_out", when, variables.get_or_insert_with(|| columns(row)))?.is_true(),
            };
            if holds {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// # Errors
    /// The row does not have what the task needs, or contradicts itself: the key and what is wrong.
    pub(super) fn read(&self, row: &Map<String, serde_json::Value>) -> Result<Read, String> {
        let mut variables = columns(row);
        let options = match &self.options {
            None => Vec::new(),
            Some(expression) => {
                let found = evaluate("options", expression, &variables)?;
                let options = options_of(&found).map_err(|problem| format!("options: {problem}"))?;
                variables.insert("options".into(), options.iter().enumerate().map(as_value).collect());
                options
            }
        };
        let found = evaluate("answer", &self.answer, &variables)?;
        let answer = match self.options {
            Some(_) => right_option(&found, &options, self.task.answer_is).map(Answered::Option),
            None => right_texts(&found).map(Answered::Texts),
        };
        Ok(Read { variables, options, answer: answer.map_err(|problem| format!("answer: {problem}"))? })
    }

    /// The question, with one of its options in view or none.
    ///
    /// # Errors
    /// The template uses what the row does not have, or gives nothing.
    pub(super) fn prompt(&self, row: &Read, option: Option<usize>) -> Result<String, String> {
        render("prompt", &self.prompt, &row.with(option))
    }

    /// An option as the model would write it; without options the first right answer.
    ///
    /// # Errors
    /// As [`Self::prompt`].
    pub(super) fn target(&self, row: &Read, option: usize) -> Result<String, String> {
        let mut variables = row.with(Some(option));
        if let Answered::Texts(texts) = &row.answer {
            variables.insert("answer".into(), texts.first().cloned().into());
        }
        render("target", &self.target, &variables)
    }
}

impl Read {
    fn with(&self, option: Option<usize>) -> BTreeMap<String, Value> {
        let mut variables = self.variables.clone();
        // A column of this name is hidden, so that it is never taken for the option.
        variables.remove("option");
        if let Some((index, of)) = option.and_then(|index| Some((index, self.options.get(index)?))) {
            variables.insert("option".into(), as_value((index, of)));
        }
        variables
    }

    /// Which option is right; of tasks without options the first and only target.
    pub(super) fn right(&self) -> usize {
        match self.answer {
            Answered::Option(index) => index,
            Answered::Texts(_) => 0,
        }
    }
}

fn as_value((index, option): (usize, &OptionText)) -> Value {
    let text = |text: &str| Value::from(text);
    Value::from_iter([("label", text(&option.label)), ("text", text(&option.text)), ("index", Value::from(index))])
}

/// The columns by name, and the row itself.
fn columns(row: &Map<String, serde_json::Value>) -> BTreeMap<String, Value> {
    let mut variables: BTreeMap<String, Value> =
        row.iter().map(|(name, value)| (name.clone(), Value::from_serialize(value))).collect();
    variables.insert("row".into(), Value::from_serialize(row));
    variables
}

fn evaluate(key: &str, expression: &Expression<'_, '_>, variables: &BTreeMap<String, Value>) -> Result<Value, String> {
    let missing = || {
        let wanted = expression.undeclared_variables(false).into_iter();
        absent(key, wanted, variables, |name| FUNCTIONS.contains(&name))
    };
    let value =
        expression.eval(variables).map_err(|error| missing().unwrap_or_else(|| format!("{key}: {}", what(&error))))?;
    if value.is_undefined() || value.is_none() {
        return Err(missing().unwrap_or_else(|| format!("{key}: there is none")));
    }
    Ok(value)
}

fn render(key: &str, template: &Template<'_, '_>, variables: &BTreeMap<String, Value>) -> Result<String, String> {
    let text = template.render(variables).map_err(|error| {
        let wanted = template.undeclared_variables(false).into_iter();
        absent(key, wanted, variables, |name| FUNCTIONS.contains(&name))
            .unwrap_or_else(|| format!("{key}: {}", what(&error)))
    })?;
    // A template that is nothing itself is meant: whole sentences are compared, with nothing before them.
    if text.trim().is_empty() && !template.source().is_empty() { Err(format!("{key}: it is empty")) } else { Ok(text) }
}

const FUNCTIONS: [&str; 9] =
    ["lettered", "labelled", "regex_replace", "range", "dict", "namespace", "debug", "loop", "self"];

/// The first name that is wanted and not there.
fn absent(
    key: &str,
    wanted: impl Iterator<Item = String>,
    variables: &BTreeMap<String, Value>,
    is_function: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut missing: Vec<String> = wanted.filter(|name| !variables.contains_key(name) && !is_function(name)).collect();
    missing.sort();
    let name = missing.into_iter().next()?;
    Some(match (key, name.as_str()) {
        ("prompt", "option") => "prompt: there is no `option` in a question that is answered by generation".into(),
        _ => format!("{key}: the row has no `{name}`"),
    })
}

/// An engine's error in one line.
fn what(error: &JinjaError) -> String {
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => match error.kind() {
            ErrorKind::UndefinedError => "it uses a value that is not there".into(),
            kind => kind.to_string(),
        },
    }
}

/// A text or a number as text.
fn as_text(value: &Value) -> Result<String, String> {
    match value.kind() {
        ValueKind::String | ValueKind::Number => Ok(value.to_string()),
        other => Err(format!("a text or number was expected, found {other}")),
    }
}

fn items_of(value: &Value) -> Result<Vec<Value>, String> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => Ok(value.try_iter().map_err(|error| what(&error))?.collect()),
        other => Err(format!("a list was expected, found {other}")),
    }
}

fn options_of(value: &Value) -> Result<Vec<OptionText>, String> {
    let mut options: Vec<OptionText> = Vec::new();
    for (index, item) in items_of(value)?.iter().enumerate() {
        let option = match item.kind() {
            ValueKind::Map => {
                let part = |name: &str| {
                    let part = item.get_attr(name).ok().filter(|part| !part.is_undefined());
                    as_text(&part.ok_or_else(|| format!("option {} has no {name}", index + 1))?)
                };
                OptionText { label: part("label")?, text: part("text")? }
            }
            _ => OptionText { label: letter(index)?, text: as_text(item)? },
        };
        if option.text.trim().is_empty() {
            return Err(format!("option {} is empty", option.label));
        }
        for other in &options {
            if other.label == option.label {
                return Err(format!("two are labelled {}", option.label));
            }
            if other.text.trim() == option.text.trim() {
                return Err(format!("{} and {} are the same text", other.label, option.label));
            }
        }
        options.push(option);
    }
    if options.len() < 2 {
        return Err(format!("{} of them; a choice needs two", options.len()));
    }
    Ok(options)
}

fn right_option(answer: &Value, options: &[OptionText], how: AnswerIs) -> Result<usize, String> {
    let text = as_text(answer)?;
    let text = text.trim();
    let labels = || options.iter().map(|option| option.label.as_str()).collect::<Vec<_>>().join(", ");
    let with_label = |label: &str| options.iter().position(|option| option.label.trim() == label);
    match how {
        AnswerIs::Index => match text.parse::<usize>() {
            Ok(index) if index < options.len() => Ok(index),
            _ => Err(format!("`{text}` is no place among {} options, from 0", options.len())),
        },
        AnswerIs::Label => with_label(text).ok_or_else(|| format!("`{text}` is none of the labels {}", labels())),
        AnswerIs::Text => options
            .iter()
            .position(|option| option.text.trim() == text)
            .ok_or_else(|| format!("`{text}` is none of the options")),
        AnswerIs::Labelled => {
            let (label, rest) = text.split_once('.').ok_or_else(|| format!("`{text}` does not begin with a label"))?;
            let index =
                with_label(label.trim()).ok_or_else(|| format!("`{label}` is none of the labels {}", labels()))?;
            let of = options[index].text.trim();
            if of == rest.trim() { Ok(index) } else { Err(format!("`{text}`, but option {label} is `{of}`")) }
        }
    }
}

fn right_texts(answer: &Value) -> Result<Vec<String>, String> {
    let texts = match answer.kind() {
        ValueKind::Seq | ValueKind::Iterable => items_of(answer)?.iter().map(as_text).collect::<Result<Vec<_>, _>>()?,
        _ => vec![as_text(answer)?],
    };
    if texts.is_empty() { Err("the list of right answers is empty".into()) } else { Ok(texts) }
}

fn letter(index: usize) -> Result<String, String> {
    let letter = u8::try_from(index).ok().filter(|index| *index < 26).map(|index| char::from(b'A' + index));
    letter.map(String::from).ok_or_else(|| "more than 26 options need labels of their own".into())
}

/// `A. x\nB. y` as options.
fn lettered(text: &str) -> Result<Vec<OptionText>, String> {
    let mut options: Vec<OptionText> = Vec::new();
    for line in text.lines() {
        let next = letter(options.len())?;
        let begins = line.trim_start().strip_prefix(&next).and_then(|rest| rest.strip_prefix('.'));
        match (begins, options.last_mut()) {
            (Some(rest), _) => options.push(OptionText { label: next, text: rest.trim().to_owned() }),
            (None, Some(last)) => {
                last.text.push('\n');
                last.text.push_str(line);
            }
            (None, None) if line.trim().is_empty() => {}
            (None, None) => return Err(format!("`{line}` does not begin with `A.`")),
        }
    }
    options.iter_mut().for_each(|option| option.text.truncate(option.text.trim_end().len()));
    Ok(options)
}

fn lettered_value(text: &str) -> Result<Value, JinjaError> {
    let options = lettered(text).map_err(|problem| JinjaError::new(ErrorKind::InvalidOperation, problem))?;
    Ok(options.iter().enumerate().map(as_value).collect())
}

/// `{text: [..], label: [..]}` as options.
fn labelled_value(columns: Value) -> Result<Value, JinjaError> {
    let bad = |problem: String| JinjaError::new(ErrorKind::InvalidOperation, problem);
    let part = |name: &str| {
        let list = columns.get_attr(name)?;
        items_of(&list).map_err(|problem| bad(format!("labelled(): {name}: {problem}")))
    };
    let (texts, labels) = (part("text")?, part("label")?);
    if texts.len() != labels.len() {
        return Err(bad(format!("labelled(): {} texts and {} labels", texts.len(), labels.len())));
    }
    let option = |(text, label): (Value, Value)| Value::from_iter([("label", label), ("text", text)]);
    Ok(texts.into_iter().zip(labels).map(option).collect())
}

fn regex_replace(text: &str, pattern: &str, by: &str, _: Kwargs) -> Result<String, JinjaError> {
    let pattern =
        Regex::new(pattern).map_err(|error| JinjaError::new(ErrorKind::InvalidOperation, error.to_string()))?;
    Ok(pattern.replace_all(text, by).into_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::task::Notation;
    use super::*;

    fn option(label: &str, text: &str) -> OptionText {
        OptionText { label: label.into(), text: text.into() }
    }

    /// Reads one row by a task with these lines, and renders prompt and every target.
    fn read(task: &str, row: &str) -> Result<(String, Vec<String>, Answered), String> {
        let task = format!(
            "name = \"t\"\ndescription = \"d\"\n{task}\n[score]\nby = \"generation\"\nmax_tokens = 1\nscorers = [{{ kind = \"f1\" }}]"
        );
        let task = Task::parse(&task, Notation::Toml, "t").unwrap();
        let environment = environment();
        let layout = Layout::new(&task, &environment)?;
        let row = layout.read(&serde_json::from_str(row).unwrap())?;
        let prompt = layout.prompt(&row, None)?;
        let targets = (0..row.options.len().max(1)).map(|i| layout.target(&row, i)).collect::<Result<_, _>>()?;
        Ok((prompt, targets, row.answer))
    }

    const LETTERED: &str = "options = \"lettered(options)\"\nanswer = \"answer\"\nanswer_is = \"labelled\"\nprompt = \"Q: {{ question }}\\n\"";

    #[test]
    fn options_of_one_string() {
        assert_eq!(lettered("\nA. bank\nB. library \n").unwrap(), [option("A", "bank"), option("B", "library")]);
        assert_eq!(
            lettered("A. one\n and more\nB. C. two").unwrap(),
            [option("A", "one\n and more"), option("B", "C. two")]
        );
        assert_eq!(lettered("A. $25 $0\nB.9").unwrap(), [option("A", "$25 $0"), option("B", "9")]);
        assert!(lettered("1. bank").is_err());
        let row = r#"{"question": "Where?", "options": "\nA. bank \nB. 9. lines", "answer": "B. 9. lines "}"#;
        let read = read(LETTERED, row).unwrap();
        assert_eq!(read, ("Q: Where?\n".into(), vec!["bank".into(), "9. lines".into()], Answered::Option(1)));
    }

    #[test]
    fn layouts_of_the_usual_files() {
        let arc = "options = \"labelled(choices)\"\nanswer = \"answerKey\"\nanswer_is = \"label\"\nprompt = \"{{ question }}\"";
        let row = r#"{"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}"#;
        assert_eq!(read(arc, row).unwrap().2, Answered::Option(1));
        let list = "options = \"[sol1, sol2]\"\nanswer = \"label\"\nanswer_is = \"index\"\nprompt = \"{{ goal }}\"\ntarget = \"{{ option.label }}\"";
        let row = r#"{"goal": "g", "sol1": "x", "sol2": "y", "label": 1}"#;
        assert_eq!(read(list, row).unwrap(), ("g".into(), vec!["A".into(), "B".into()], Answered::Option(1)));
        let title = "options = \"endings\"\nanswer = \"label\"\nanswer_is = \"index\"\nprompt = \"{{ ctx }}\"\ntarget = \"{{ option.text.replace(' [title]', '. ') | regex_replace('\\\\[.*?\\\\]', '') }}\"";
        let row = r#"{"ctx": "c", "endings": ["a [title] b [x]c", "d"], "label": "0"}"#;
        assert_eq!(read(title, row).unwrap().1, ["a.  b c", "d"]);
        let texts = "answer = \"[answer.value] + answer.aliases\"\nprompt = \"{{ question }}\"";
        let row = r#"{"question": "q", "answer": {"value": "v", "aliases": ["w", 7]}}"#;
        assert_eq!(
            read(texts, row).unwrap(),
            ("q".into(), vec!["v".into()], Answered::Texts(vec!["v".into(), "w".into(), "7".into()]))
        );
        let marked =
            "answer = \"answer.split('####')[1] | trim\"\nprompt = \"{{ question }}\"\ntarget = \"{{ row.answer }}\"";
        let row = r#"{"question": "q", "answer": "3+4 = 7\n#### 7"}"#;
        assert_eq!(
            read(marked, row).unwrap(),
            ("q".into(), vec!["3+4 = 7\n#### 7".into()], Answered::Texts(vec!["7".into()]))
        );
    }

    #[test]
    fn what_a_row_lacks_is_named() {
        let problem = |row: &str| read(LETTERED, row).unwrap_err();
        let row = |question: &str, options: &str, answer: &str| {
            serde_json::json!({"question": question, "options": options, "answer": answer}).to_string()
        };
        assert_eq!(problem(r#"{"question": "q", "answer": "A. a"}"#), "options: the row has no `options`");
        assert_eq!(problem(r#"{"question": "q", "options": "A. a\nB. b"}"#), "answer: the row has no `answer`");
        assert_eq!(problem(r#"{"options": "A. a\nB. b", "answer": "A. a"}"#), "prompt: the row has no `question`");
        assert_eq!(problem(r#"{"question": "q", "options": "A. a\nB. b", "answer": null}"#), "answer: there is none");
        assert_eq!(problem(&row("q", "A. a\nB. b", "C. c")), "answer: `C` is none of the labels A, B");
        assert_eq!(problem(&row("q", "A. a\nB. b", "A. b")), "answer: `A. b`, but option A is `a`");
        assert_eq!(problem(&row("q", "A. a\nB. a", "A. a")), "options: A and B are the same text");
        assert_eq!(problem(&row("q", "A. a\nB. ", "A. a")), "options: option B is empty");
        assert_eq!(problem(&row("q", "A. a", "A. a")), "options: 1 of them; a choice needs two");
        assert!(problem(&row("q", "a", "A. a")).starts_with("options: "));
        // The column is hidden, and a question that is answered by generation sees no option.
        let leak = LETTERED.replace("question }}", "option.text }}");
        let row = r#"{"question": "q", "options": "A. a\nB. b", "answer": "A. a", "option": {"text": "a"}}"#;
        assert!(read(&leak, row).unwrap_err().contains("no `option`"));
        assert!(read(&LETTERED.replace("{{ question }}", "{{ question "), row).unwrap_err().starts_with("prompt: "));
        assert!(read(&LETTERED.replace("lettered(options)", "endings("), row).unwrap_err().starts_with("options: "));
        let empty = r#"{"question": "q", "answer": []}"#;
        assert!(read("answer = \"answer\"\nprompt = \"{{ question }}\"", empty).unwrap_err().contains("empty"));
        assert!(
            read("answer = \"answer\"\nprompt = \"{{ '' }}\"", r#"{"answer": "a"}"#)
                .unwrap_err()
                .contains("prompt: it is empty")
        );
    }
}

use std::path::Path;

use lathe_formats::{GgufMetadata, GgufValue};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::folder::{parse, read_if_there};
use crate::moment::Moment;
use crate::python_json::{Layout, dumps};
use crate::tokenizer::Tokenizer;

/// A Jinja template that writes a conversation the way that a model was trained to read it.
///
/// It runs as in transformers: `trim_blocks` and `lstrip_blocks` are on, values have their Python methods,
/// `raise_exception`, `strftime_now`, `tojson` and the loop controls are there, and `{% generation %}` has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    name: String,
    source: String,
    /// The source in the words of this engine.
    runnable: String,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or another that the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Further fields that the template may read, such as `tool_calls`.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A turn with a role and a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), extra: serde_json::Map::new() }
    }
}

/// Whether the start of the assistant's next turn is written after the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// The model is to answer.
    Add,
    /// The conversation is complete.
    Omit,
}

/// What a template may read beside the messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TemplateVariables {
    /// Text of the BOS token, which many templates write themselves.
    pub bos_token: Option<String>,
    /// Text of the EOS token.
    pub eos_token: Option<String>,
    /// What `strftime_now` calls now. None: the function is not defined, and templates that test for it do without.
    pub now: Option<Moment>,
    /// Other variables: `tools`, `documents`, `enable_thinking`, …
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl TemplateVariables {
    /// The special tokens of a tokenizer; no date and no other variables.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_str(id)).map(str::to_owned);
        let special = tokenizer.special();
        Self { bos_token: text(special.bos), eos_token: text(special.eos.first().copied()), ..Self::default() }
    }
}

impl ChatTemplate {
    /// Takes a template's source; `name` is for error messages and for choosing among several.
    ///
    /// # Errors
    /// The source does not parse.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Result<Self, Error> {
        let source = source.into();
        let template = Self { name: name.into(), runnable: without_generation_tags(&source), source };
        template.environment(None)?;
        Ok(template)
    }

    /// The templates of a model folder, the default one first: `chat_template.jinja`, else `chat_template` of
    /// `tokenizer_config.json` (one template, or a list with names), and `additional_chat_templates/*.jinja`.
    ///
    /// # Errors
    /// A file is malformed, or a template does not parse.
    pub fn from_folder(folder: &Path) -> Result<Vec<Self>, Error> {
        let mut templates = Vec::new();
        let path = folder.join("chat_template.jinja");
        if let Some(bytes) = read_if_there(&path)? {
            templates.push(Self::new(DEFAULT, text(&path, bytes)?)?);
        }
        let path = folder.join("tokenizer_config.json");
        if let (true, Some(bytes)) = (templates.is_empty(), read_if_there(&path)?) {
            let config: TemplateConfig = parse(&path, &bytes)?;
            match config.chat_template {
                Some(Templates::One(source)) => templates.push(Self::new(DEFAULT, source)?),
                Some(Templates::Named(named)) => {
                    for Named { name, template } in named {
                        templates.push(Self::new(name, template)?);
                    }
                }
                None => {}
            }
        }
        for (name, path) in jinja_files(&folder.join("additional_chat_templates"))? {
            if let Some(bytes) = read_if_there(&path)? {
                templates.push(Self::new(name, text(&path, bytes)?)?);
            }
        }
        // The sort is stable: the others keep the order of the file.
        templates.sort_by_key(|template| template.name != DEFAULT);
        Ok(templates)
    }

    /// The templates of a GGUF file, the default one first: `tokenizer.chat_template` and `tokenizer.chat_template.*`.
    ///
    /// # Errors
    /// A template is no string or does not parse.
    pub fn from_gguf(metadata: &GgufMetadata) -> Result<Vec<Self>, Error> {
        let mut templates = Vec::new();
        for (key, value) in metadata.entries() {
            let name = match key.strip_prefix(TEMPLATE_KEY) {
                Some("") => DEFAULT,
                Some(rest) => match rest.strip_prefix('.') {
                    Some(name) => name,
                    None => continue,
                },
                None => continue,
            };
            let GgufValue::Str(source) = value else {
                let origin = metadata.file().display().to_string();
                return Err(Error::Key { origin, key: TEMPLATE_KEY, reason: format!("'{key}' is not a string") });
            };
            templates.push(Self::new(name, source.as_str())?);
        }
        templates.sort_by_key(|template| template.name != DEFAULT);
        Ok(templates)
    }

    /// Its name, `default` for a model's only one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its Jinja source, as it is in the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as one text, to be tokenized with [`crate::Markup::Parse`] and [`crate::BosEos::Omit`].
    ///
    /// # Errors
    /// The template fails, or refuses the conversation with `raise_exception`.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
        variables: &TemplateVariables,
    ) -> Result<String, Error> {
        let environment = self.environment(variables.now)?;
        let template = environment.get_template(TEMPLATE).map_err(|error| self.failed(&error))?;
        let mut context = serde_json::Map::new();
        // transformers passes both, as None where the caller has none.
        context.insert("tools".into(), serde_json::Value::Null);
        context.insert("documents".into(), serde_json::Value::Null);
        for (name, token) in [("bos_token", &variables.bos_token), ("eos_token", &variables.eos_token)] {
            if let Some(token) = token {
                context.insert(name.into(), token.as_str().into());
            }
        }
        context.extend(variables.extra.clone());
        context.insert("add_generation_prompt".into(), (generation_prompt == GenerationPrompt::Add).into());
        let context = minijinja::context! { messages => messages, ..Value::from_serialize(&context) };
        template.render(context).map_err(|error| self.failed(&error))
    }

    fn environment(&self, now: Option<Moment>) -> Result<Environment<'_>, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        if let Some(now) = now {
            environment.add_function("strftime_now", move |pattern: String| {
                now.format(&pattern).ok_or_else(|| {
                    let reason = format!("strftime_now: the format '{pattern}' is not supported");
                    minijinja::Error::new(ErrorKind::InvalidOperation, reason)
                })
            });
        }
        environment.add_template(TEMPLATE, &self.runnable).map_err(|error| self.failed(&error))?;
        Ok(environment)
    }

    fn failed(&self, error: &minijinja::Error) -> Error {
        let reason = match error.detail() {
            // A refusal is the template's own sentence.
            Some(detail) if detail.starts_with(REFUSAL) => detail.to_owned(),
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        Error::Template { name: self.name.clone(), line: error.line().unwrap_or_default(), reason }
    }
}

/// Name of a model's only template, or of the one that is used unless another is asked for.
pub(crate) const DEFAULT: &str = "default";

/// The default template of a GGUF file; others have their name after a dot.
pub(crate) const TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// Name within the environment; without an extension, which could switch on escaping.
const TEMPLATE: &str = "chat_template";

const REFUSAL: &str = "the template says: ";

#[derive(Deserialize)]
struct TemplateConfig {
    chat_template: Option<Templates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| Error::Json { path: path.to_owned(), reason: error.to_string() })
}

/// The `.jinja` files of a folder by name; none where there is no such folder.
fn jinja_files(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
        if let (Some(name), Some("jinja")) = (name, path.extension().and_then(|extension| extension.to_str())) {
            files.push((name, path));
        }
    }
    files.sort();
    Ok(files)
}

/// `{% generation %}` marks the assistant's tokens for training in transformers. It writes nothing, so a block that
/// always runs, with the same control of white space, stands in for it.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else {
            break;
        };
        let inner = &rest[start + 2..start + length];
        let name = inner.trim_matches(['-', '+']).trim();
        let stand_in = match name {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        result.push_str(&rest[..start + 2]);
        result.push_str(&stand_in.map_or_else(|| inner.to_owned(), |tag| inner.replace(name, &format!(" {tag} "))));
        rest = &rest[start + length..];
    }
    result.push_str(rest);
    result
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
}

/// The filter of transformers, which does not escape HTML as Jinja's own does. Options that would change the text and are
/// not implemented are errors: a prompt that is slightly wrong is worse than none.
fn to_json(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    // Deeper than any template asks for, and little enough to write.
    const MOST_SPACES: usize = 16;
    let unsupported = |option: &str| {
        let reason = format!("tojson: this value of '{option}' is not supported");
        minijinja::Error::new(ErrorKind::InvalidOperation, reason)
    };
    for option in ["ensure_ascii", "sort_keys"] {
        if options.get::<Option<bool>>(option)? == Some(true) {
            return Err(unsupported(option));
        }
    }
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?.unwrap_or_default();
    let layout = match (indent, separators.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        (Some(spaces), [] | [",", ": "]) => Layout::Indented(spaces.min(MOST_SPACES)),
        (None, [] | [", ", ": "]) => Layout::OneLine,
        (None, [",", ":"]) => Layout::Compact,
        _ => return Err(unsupported("separators")),
    };
    options.assert_all_used()?;
    dumps(&value, layout)
        .map(Value::from_safe_string)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Templates are written for Python, where constants have capitals.
fn write_as_python(
    output: &mut minijinja::Output<'_>,
    state: &minijinja::State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let constant = match value.kind() {
        ValueKind::None => Some("None"),
        ValueKind::Bool => Some(if value.is_true() { "True" } else { "False" }),
        _ => None,
    };
    match constant {
        Some(constant) => Ok(output.write_str(constant)?),
        None => minijinja::escape_formatter(output, state, value),
    }
}

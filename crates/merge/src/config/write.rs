//! A configuration as YAML: few forms, and every text quoted that some reader could take for something else.

use std::fmt::{self, Write};

use super::tokenizer::{ChatTemplate, TokenName, TokenSource, TokenizerChoice, TokenizerSource};
use super::{Form, Gradient, MergeConfig, ModelRef, Parameters, Scalar, Setting};

/// The whole file.
pub(super) fn config(config: &MergeConfig) -> String {
    let mut out = Lines::default();
    out.pair("merge_method", config.merge_method.name());
    match &config.form {
        Form::Models(models) => {
            out.open("models");
            for entry in models {
                out.item("model", &quoted(&entry.model));
                out.inside(|out| parameters(out, &entry.parameters));
            }
            out.close();
        }
        Form::Slices(slices) => {
            out.open("slices");
            for slice in slices {
                out.item("sources", "");
                out.inside(|out| {
                    out.inside(|out| {
                        for source in &slice.sources {
                            out.item("model", &quoted(&source.model));
                            out.inside(|out| {
                                let layers = &source.layers;
                                out.pair("layer_range", &format!("[{}, {}]", layers.start, layers.end));
                                parameters(out, &source.parameters);
                            });
                        }
                    });
                    if let Some(base) = &slice.base_model {
                        out.pair("base_model", &quoted(base));
                    }
                    parameters(out, &slice.parameters);
                });
            }
            out.close();
        }
    }
    if let Some(base) = &config.base_model {
        out.pair("base_model", &quoted(base));
    }
    parameters(&mut out, &config.parameters);
    for (key, dtype) in [("dtype", config.dtype), ("out_dtype", config.out_dtype)] {
        if let Some(dtype) = dtype {
            out.pair(key, dtype.name());
        }
    }
    if let Some(choice) = &config.tokenizer {
        tokenizer(&mut out, choice);
    }
    match &config.chat_template {
        None => {}
        Some(ChatTemplate::Auto) => out.pair("chat_template", "auto"),
        Some(ChatTemplate::Named(template)) => out.pair("chat_template", template.name()),
        Some(ChatTemplate::Jinja(text)) => out.pair("chat_template", &scalar_text(text)),
    }
    if config.seed != 0 {
        out.pair("seed", &config.seed.to_string());
    }
    out.text
}

fn parameters(out: &mut Lines, parameters: &Parameters) {
    if parameters.0.is_empty() {
        return;
    }
    out.open("parameters");
    for (parameter, setting) in &parameters.0 {
        match setting {
            Setting::Everywhere(value) => out.pair(parameter.name(), &value.to_string()),
            Setting::ByName(conditions) => {
                out.open(parameter.name());
                for condition in conditions {
                    match &condition.filter {
                        None => out.item("value", &condition.value.to_string()),
                        Some(filter) => {
                            out.item("filter", &scalar_text(filter));
                            out.inside(|out| out.pair("value", &condition.value.to_string()));
                        }
                    }
                }
                out.close();
            }
        }
    }
    out.close();
}

fn tokenizer(out: &mut Lines, choice: &TokenizerChoice) {
    out.open("tokenizer");
    match &choice.source {
        TokenizerSource::Base => out.pair("source", "base"),
        TokenizerSource::Union => out.pair("source", "union"),
        TokenizerSource::Model(model) => out.pair("source", &quoted(model)),
    }
    if !choice.tokens.is_empty() {
        out.open("tokens");
        for (token, rule) in &choice.tokens {
            out.open(&scalar_text(token));
            match &rule.source {
                TokenSource::Model(model) => out.pair("source", &quoted(model)),
                TokenSource::Zero => out.pair("source", "{kind: zero}"),
                TokenSource::ModelToken { model, token } => {
                    out.open("source");
                    out.pair("kind", "model_token");
                    out.pair("model", &quoted(model));
                    match token {
                        TokenName::Text(text) => out.pair("token", &scalar_text(text)),
                        TokenName::Id(id) => out.pair("token_id", &id.to_string()),
                    }
                    out.close();
                }
            }
            if rule.force {
                out.pair("force", "true");
            }
            out.close();
        }
        out.close();
    }
    if let Some(multiple) = choice.pad_to_multiple_of {
        out.pair("pad_to_multiple_of", &multiple.to_string());
    }
    out.close();
}

/// Lines with an indentation.
#[derive(Default)]
struct Lines {
    text: String,
    depth: usize,
}

impl Lines {
    fn line(&mut self, start: &str, key: &str, value: &str) {
        let space = if value.is_empty() { "" } else { " " };
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
        for part in [start, key, ":", space, value, "\n"] {
            self.text.push_str(part);
        }
    }

    fn pair(&mut self, key: &str, value: &str) {
        self.line("", key, value);
    }

    /// The first key of an entry of a list.
    fn item(&mut self, key: &str, value: &str) {
        self.line("- ", key, value);
    }

    fn open(&mut self, key: &str) {
        self.pair(key, "");
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
    }

    fn inside(&mut self, write: impl FnOnce(&mut Self)) {
        self.depth += 1;
        write(self);
        self.depth -= 1;
    }
}

impl fmt::Display for Gradient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(scalar) => scalar.fmt(f),
            Self::OverLayers(scalars) => {
                f.write_char('[')?;
                for (index, scalar) in scalars.iter().enumerate() {
                    write!(f, "{}{scalar}", if index == 0 { "" } else { ", " })?;
                }
                f.write_char(']')
            }
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.write_str(&number_text(*number)),
            Self::Truth(truth) => truth.fmt(f),
            Self::Word(word) => f.write_str(&scalar_text(word)),
        }
    }
}

/// Readers of YAML 1.1 take a number for text unless it has a point and its exponent a sign.
fn number_text(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            ".nan"
        } else if number > 0.0 {
            ".inf"
        } else {
            "-.inf"
        }
        .into();
    }
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text,
        Some((mantissa, exponent)) => {
            let point = if mantissa.contains('.') { "" } else { ".0" };
            let sign = if exponent.starts_with('-') { "" } else { "+" };
            format!("{mantissa}{point}e{sign}{exponent}")
        }
    }
}

fn quoted(model: &ModelRef) -> String {
    scalar_text(&model.to_string())
}

/// A text that reads back as the same text: plain where nobody can take it for something else.
fn scalar_text(text: &str) -> String {
    // Words that YAML 1.1 or 1.2 takes for a truth, nothing or a number.
    const WORDS: &[&str] = &["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "infinity"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c if u32::from(c) <= 0xFFFF => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

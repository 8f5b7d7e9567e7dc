//! From the tree of a file to a configuration. What only makes sense together is checked afterwards.

use std::ops::Range;

use super::document::{Entry, Node, Value, join};
use super::error::{ConfigError, Problem};
use super::tokenizer::{
    ChatTemplate, Dtype, NamedTemplate, TokenName, TokenRule, TokenSource, TokenizerChoice, TokenizerSource,
};
use super::{
    Condition, Form, Gradient, MergeConfig, Method, ModelEntry, ModelRef, Parameter, Parameters, Scalar, Setting,
    Slice, Source,
};

const TOP: &[&str] = &[
    "merge_method",
    "models",
    "slices",
    "modules",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "seed",
];

/// A configuration, and the path in front of `models` and `slices` (that of the module, where there is one).
pub(super) fn config(document: &Node) -> Result<(MergeConfig, String), ConfigError> {
    let top = Fields::of(document, "", TOP)?;
    let method = top.required("merge_method")?;
    let name = text(method, "merge_method", "the name of a merge method")?;
    let merge_method = Method::named(name)
        .ok_or_else(|| ConfigError::new("merge_method", Problem::UnknownMethod { name: name.to_owned() }))?;
    let mut parameters = top.parsed("parameters", |node, path| parameters_of(node, path, merge_method))?;
    let (form, module, below) = form(&top, merge_method)?;
    if let Some(of_module) = below {
        parameters = Some(of_module.over(parameters.unwrap_or_default()));
    }
    if top.get("tokenizer").is_some() && top.get("tokenizer_source").is_some() {
        let problem = Problem::Exclusive { first: "tokenizer", second: "tokenizer_source" };
        return Err(ConfigError::new("tokenizer_source", problem));
    }
    let legacy = top.parsed("tokenizer_source", tokenizer_source)?;
    let tokenizer = match legacy {
        Some(source) => Some(TokenizerChoice { source, tokens: Vec::new(), pad_to_multiple_of: None }),
        None => top.parsed("tokenizer", tokenizer)?,
    };
    let config = MergeConfig {
        merge_method,
        form,
        base_model: top.parsed("base_model", model)?,
        parameters: parameters.unwrap_or_default(),
        dtype: top.parsed("dtype", dtype)?,
        out_dtype: top.parsed("out_dtype", dtype)?,
        tokenizer,
        chat_template: top.parsed("chat_template", chat_template)?,
        seed: top.parsed("seed", |node, path| whole(node, path, "a whole number of at least 0"))?.unwrap_or(0),
    };
    Ok((config, module))
}

/// Models or slices, the path in front of them, and the parameters of a module.
fn form(top: &Fields, method: Method) -> Result<(Form, String, Option<Parameters>), ConfigError> {
    let found: Vec<&str> = ["models", "slices", "modules"].into_iter().filter(|key| top.get(key).is_some()).collect();
    match found.as_slice() {
        ["modules"] => {
            let node = top.required("modules")?;
            let modules = map(node, "modules")?;
            let [module] = modules else {
                let names = modules.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>();
                let problem = if names.is_empty() { Problem::Empty } else { Problem::Modules { names } };
                return Err(ConfigError::new("modules", problem));
            };
            let path = join("modules", &module.key);
            let fields = Fields::of(&module.node, &path, &["models", "slices", "parameters"])?;
            let found: Vec<&str> = ["models", "slices"].into_iter().filter(|key| fields.get(key).is_some()).collect();
            let [key] = found.as_slice() else { return Err(wrong_form(&path, &found)) };
            let parameters = fields.parsed("parameters", |node, path| parameters_of(node, path, method))?;
            Ok((models_or_slices(&fields, key, method)?, path, parameters))
        }
        [key] => Ok((models_or_slices(top, key, method)?, String::new(), None)),
        _ => Err(wrong_form("", &found)),
    }
}

fn wrong_form(path: &str, found: &[&str]) -> ConfigError {
    let found = if found.is_empty() { "none".to_owned() } else { found.join(" and ") };
    ConfigError::new(path, Problem::Form { found })
}

fn models_or_slices(fields: &Fields, key: &str, method: Method) -> Result<Form, ConfigError> {
    let node = fields.required(if key == "models" { "models" } else { "slices" })?;
    let path = join(&fields.path, key);
    Ok(if key == "models" {
        Form::Models(each(node, &path, |node, path| model_entry(node, path, method))?)
    } else {
        Form::Slices(each(node, &path, |node, path| slice(node, path, method))?)
    })
}

fn model_entry(node: &Node, path: &str, method: Method) -> Result<ModelEntry, ConfigError> {
    let fields = Fields::of(node, path, &["model", "parameters"])?;
    Ok(ModelEntry {
        model: model(fields.required("model")?, &join(path, "model"))?,
        parameters: fields.parsed("parameters", |node, path| parameters_of(node, path, method))?.unwrap_or_default(),
    })
}

fn slice(node: &Node, path: &str, method: Method) -> Result<Slice, ConfigError> {
    let fields = Fields::of(node, path, &["sources", "base_model", "parameters"])?;
    Ok(Slice {
        sources: each(fields.required("sources")?, &join(path, "sources"), |node, path| source(node, path, method))?,
        base_model: fields.parsed("base_model", model)?,
        parameters: fields.parsed("parameters", |node, path| parameters_of(node, path, method))?.unwrap_or_default(),
    })
}

fn source(node: &Node, path: &str, method: Method) -> Result<Source, ConfigError> {
    let fields = Fields::of(node, path, &["model", "layer_range", "parameters"])?;
    Ok(Source {
        model: model(fields.required("model")?, &join(path, "model"))?,
        layers: layer_range(fields.required("layer_range")?, &join(path, "layer_range"))?,
        parameters: fields.parsed("parameters", |node, path| parameters_of(node, path, method))?.unwrap_or_default(),
    })
}

fn layer_range(node: &Node, path: &str) -> Result<Range<usize>, ConfigError> {
    const EXPECTED: &str = "two whole numbers: the first layer, and the first one that is left out";
    let Value::List(ends) = &node.value else { return Err(wrong_type(node, path, EXPECTED)) };
    let [from, to] = ends.as_slice() else { return Err(wrong_type(node, path, EXPECTED)) };
    let end = |node| whole(node, path, EXPECTED);
    Ok(end(from)?..end(to)?)
}

/// A map of parameters, each known to some method.
fn parameters_of(node: &Node, path: &str, method: Method) -> Result<Parameters, ConfigError> {
    let given = map(node, path)?.iter().map(|entry| {
        let path = join(path, &entry.key);
        let Some(parameter) = Parameter::named(&entry.key) else {
            return Err(ConfigError::new(path, Problem::UnknownParameter { method, name: entry.key.clone() }));
        };
        Ok((parameter, setting(&entry.node, &path)?))
    });
    given.collect::<Result<_, _>>().map(Parameters)
}

fn setting(node: &Node, path: &str) -> Result<Setting, ConfigError> {
    match &node.value {
        Value::Map(_) => Ok(Setting::ByName(vec![condition(node, path)?])),
        Value::List(nodes) if nodes.iter().any(|node| matches!(node.value, Value::Map(_))) => {
            let plain = nodes.iter().position(|node| !matches!(node.value, Value::Map(_)));
            if let Some(index) = plain {
                return Err(ConfigError::new(format!("{path}[{index}]"), Problem::MixedConditions));
            }
            Ok(Setting::ByName(each(node, path, condition)?))
        }
        _ => Ok(Setting::Everywhere(gradient(node, path)?)),
    }
}

fn condition(node: &Node, path: &str) -> Result<Condition, ConfigError> {
    let fields = Fields::of(node, path, &["filter", "value"])?;
    let filter = fields.parsed("filter", |node, path| text(node, path, "a part of tensors' names"))?;
    Ok(Condition {
        filter: filter.filter(|filter| *filter != "*").map(str::to_owned),
        value: gradient(fields.required("value")?, &join(path, "value"))?,
    })
}

fn gradient(node: &Node, path: &str) -> Result<Gradient, ConfigError> {
    match &node.value {
        Value::List(_) => Ok(Gradient::OverLayers(each(node, path, scalar)?)),
        _ => Ok(Gradient::Constant(scalar(node, path)?)),
    }
}

fn scalar(node: &Node, path: &str) -> Result<Scalar, ConfigError> {
    match &node.value {
        Value::Truth(truth) => Ok(Scalar::Truth(*truth)),
        Value::Whole(number) => Ok(Scalar::Number(*number as f64)),
        Value::Number(number) => Ok(Scalar::Number(*number)),
        Value::Text(word) => Ok(Scalar::Word(word.clone())),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(wrong_type(node, path, "a number, true, false, a word, or a list of these"))
        }
    }
}

fn model(node: &Node, path: &str) -> Result<ModelRef, ConfigError> {
    let text = text(node, path, "the name of a model")?;
    text.parse()
        .map_err(|reason| ConfigError::new(path, Problem::Reference { text: text.chars().take(200).collect(), reason }))
}

fn dtype(node: &Node, path: &str) -> Result<Dtype, ConfigError> {
    let name = text(node, path, "the name of an element type")?;
    if name.starts_with("int") || name.starts_with("uint") {
        return Err(ConfigError::new(path, Problem::IntegerDtype { name: name.to_owned() }));
    }
    named(name, path, "element type", Dtype::ALL)
}

fn chat_template(node: &Node, path: &str) -> Result<ChatTemplate, ConfigError> {
    let template = text(node, path, "auto, the name of a template, or a template")?;
    if template == "auto" {
        return Ok(ChatTemplate::Auto);
    }
    if template.contains('{') {
        return Ok(ChatTemplate::Jinja(template.to_owned()));
    }
    named(template, path, "chat template", NamedTemplate::ALL).map(ChatTemplate::Named)
}

fn named<T: Copy>(name: &str, path: &str, what: &'static str, known: &[(&'static str, T)]) -> Result<T, ConfigError> {
    known.iter().find(|(known, _)| *known == name).map(|&(_, value)| value).ok_or_else(|| {
        let known = known.iter().map(|&(name, _)| name).collect();
        ConfigError::new(path, Problem::UnknownName { what, name: name.to_owned(), known })
    })
}

fn tokenizer(node: &Node, path: &str) -> Result<TokenizerChoice, ConfigError> {
    let fields = Fields::of(node, path, &["source", "tokens", "pad_to_multiple_of"])?;
    let pad = fields.parsed("pad_to_multiple_of", |node, path| {
        let multiple = whole(node, path, POSITIVE)?;
        if multiple == 0 { Err(wrong_type(node, path, POSITIVE)) } else { Ok(multiple) }
    })?;
    let tokens = fields.parsed("tokens", |node, path| {
        map(node, path)?
            .iter()
            .map(|entry| Ok((entry.key.clone(), token_rule(&entry.node, &join(path, &entry.key))?)))
            .collect()
    })?;
    Ok(TokenizerChoice {
        source: fields.parsed("source", tokenizer_source)?.unwrap_or(TokenizerSource::Union),
        tokens: tokens.unwrap_or_default(),
        pad_to_multiple_of: pad,
    })
}

const POSITIVE: &str = "a whole number of at least 1";

fn tokenizer_source(node: &Node, path: &str) -> Result<TokenizerSource, ConfigError> {
    match text(node, path, "base, union or the name of a model")? {
        "base" => Ok(TokenizerSource::Base),
        "union" => Ok(TokenizerSource::Union),
        _ => model(node, path).map(TokenizerSource::Model),
    }
}

fn token_rule(node: &Node, path: &str) -> Result<TokenRule, ConfigError> {
    let fields = Fields::of(node, path, &["source", "force"])?;
    let force = fields.parsed("force", |node, path| match node.value {
        Value::Truth(truth) => Ok(truth),
        _ => Err(wrong_type(node, path, "true or false")),
    })?;
    let source = token_source(fields.required("source")?, &join(path, "source"))?;
    Ok(TokenRule { source, force: force.unwrap_or(false) })
}

fn token_source(node: &Node, path: &str) -> Result<TokenSource, ConfigError> {
    if !matches!(node.value, Value::Map(_)) {
        return model(node, path).map(TokenSource::Model);
    }
    let fields = Fields::of(node, path, &["kind", "model", "token", "token_id"])?;
    let kind_path = join(path, "kind");
    let kind = text(fields.required("kind")?, &kind_path, "model_token or zero")?;
    match named(kind, &kind_path, "kind", &[("zero", Kind::Zero), ("model_token", Kind::ModelToken)])? {
        Kind::Zero => Fields::of(node, path, &["kind"]).map(|_| TokenSource::Zero),
        Kind::ModelToken => {
            let token = fields.parsed("token", |node, path| text(node, path, "the text of a token"))?;
            let id = fields.parsed("token_id", |node, path| whole(node, path, "the id of a token"))?;
            let token = match (token, id) {
                (Some(text), None) => TokenName::Text(text.to_owned()),
                (None, Some(id)) => TokenName::Id(id),
                (None, None) => return Err(ConfigError::new(path, Problem::MissingKey { key: "token" })),
                (Some(_), Some(_)) => {
                    return Err(ConfigError::new(path, Problem::Exclusive { first: "token", second: "token_id" }));
                }
            };
            Ok(TokenSource::ModelToken { model: model(fields.required("model")?, &join(path, "model"))?, token })
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Zero,
    ModelToken,
}

/// A map with known keys only. A key without a value counts as absent.
struct Fields<'a> {
    path: String,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    fn of(node: &'a Node, path: &str, known: &[&'static str]) -> Result<Self, ConfigError> {
        let entries = map(node, path)?;
        if let Some(entry) = entries.iter().find(|entry| !known.contains(&entry.key.as_str())) {
            let problem = Problem::UnknownKey { key: entry.key.clone(), known: known.to_vec() };
            return Err(ConfigError::new(join(path, &entry.key), problem));
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    fn get(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    fn required(&self, key: &'static str) -> Result<&'a Node, ConfigError> {
        self.get(key).ok_or_else(|| ConfigError::new(self.path.clone(), Problem::MissingKey { key }))
    }

    fn parsed<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&'a Node, &str) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        self.get(key).map(|node| parse(node, &join(&self.path, key))).transpose()
    }
}

fn map<'a>(node: &'a Node, path: &str) -> Result<&'a [Entry], ConfigError> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        _ => Err(wrong_type(node, path, "a mapping")),
    }
}

fn each<T>(
    node: &Node,
    path: &str,
    parse: impl Fn(&Node, &str) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let Value::List(nodes) = &node.value else { return Err(wrong_type(node, path, "a list")) };
    nodes.iter().enumerate().map(|(index, node)| parse(node, &format!("{path}[{index}]"))).collect()
}

fn text<'a>(node: &'a Node, path: &str, expected: &'static str) -> Result<&'a str, ConfigError> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(wrong_type(node, path, expected)),
    }
}

fn whole<T: TryFrom<i128>>(node: &Node, path: &str, expected: &'static str) -> Result<T, ConfigError> {
    match node.value {
        Value::Whole(number) => T::try_from(number).map_err(|_| wrong_type(node, path, expected)),
        _ => Err(wrong_type(node, path, expected)),
    }
}

fn wrong_type(node: &Node, path: &str, expected: &'static str) -> ConfigError {
    ConfigError::new(path, Problem::WrongType { expected, found: node.described() })
}

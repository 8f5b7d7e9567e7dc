//! `docs/models.md`: prose from `page.md`, with the tables and lists that the code knows in the places for them.

use std::fmt::Write;

use lathe_formats::ElementType;
use lathe_model::family::ACTIVATIONS;
use lathe_model::rotary::SCALINGS;

use super::{Architecture, BuiltIn, ModelList};
use crate::figure::bytes;

const PROSE: &str = include_str!("page.md");

/// The page, as Markdown. It does not depend on what has been fetched.
#[must_use]
pub fn page(list: &ModelList) -> String {
    let kept = ElementType::all().filter(|element| element.integer_layout().is_some());
    PROSE
        .replace("{built_in}", &built_in(&list.built_in))
        .replace("{architectures}", &architectures(&list.architectures))
        .replace("{activations}", &names(ACTIVATIONS.iter().map(|(name, _)| *name)))
        .replace("{scalings}", &names(SCALINGS.iter().copied()))
        .replace("{kept}", &kept.map(|element| element.name()).collect::<Vec<_>>().join(", "))
}

fn built_in(models: &[BuiltIn]) -> String {
    let mut table = String::from("| name | what it is | size | licence |\n|---|---|---|---|");
    for model in models {
        let size = bytes(model.bytes);
        let _ = write!(table, "\n| `{}` | {} | {size} | {} |", model.name, model.description, model.licence);
    }
    table
}

fn architectures(rows: &[Architecture]) -> String {
    let mut table = String::from(
        "| `model_type` | class | GGUF | models | what is different from Llama | compared on |\n|---|---|---|---|---|---|",
    );
    for row in rows {
        let gguf = match &row.gguf {
            None => "none".to_owned(),
            Some(gguf) => match gguf.mark {
                None => format!("`{}`", gguf.architecture),
                Some(key) => format!("`{}` with `{key}`", gguf.architecture),
            },
        };
        let compared = names(row.compared.iter().copied());
        let _ = write!(
            table,
            "\n| `{}` | `{}` | {gguf} | {} | {} | {compared} |",
            row.model_type, row.class, row.models, row.differs
        );
    }
    table
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

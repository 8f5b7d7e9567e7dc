//! Chat templates that a configuration can name.

use lathe_merge::config::NamedTemplate;

/// The Jinja text of a named template.
pub(super) fn named(name: NamedTemplate) -> &'static str {
    match name {
        NamedTemplate::Alpaca => include_str!("templates/alpaca.jinja"),
        NamedTemplate::Chatml => include_str!("templates/chatml.jinja"),
        NamedTemplate::Llama3 => include_str!("templates/llama3.jinja"),
        NamedTemplate::Mistral => include_str!("templates/mistral.jinja"),
        NamedTemplate::Exaone => include_str!("templates/exaone.jinja"),
    }
}

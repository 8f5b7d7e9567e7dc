//! Who voted for what: a page of texts, symbol by symbol.

use super::EnsembleString;

/// The page.
#[must_use]
pub fn explain_page(ensemble: &str, members: &[String], texts: &[EnsembleString]) -> String {
    let _ = (ensemble, members, texts);
    String::new()
}

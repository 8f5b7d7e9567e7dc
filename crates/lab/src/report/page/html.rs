//! The building blocks of the page: panels, figures, tables of numbers.

use std::fmt::Write as _;

use crate::figure::{NARROW, WIDE, escape, number, visible};
use crate::report::data::{ModelReport, Panel, Quantity};

/// Text from outside, safe and visible.
pub(crate) fn text(raw: &str) -> String {
    escape(&visible(raw))
}

/// Safe text in which a line end is visible and also ends the line on the page, where the style keeps white space.
pub(crate) fn running_text(raw: &str) -> String {
    // In running text a lone space is plain enough.
    let shown = if raw.chars().all(|c| c == ' ') { raw.to_owned() } else { visible(raw) };
    escape(&shown).replace('↵', "<span class=\"sign\">↵</span>\n").replace('⇥', "<span class=\"sign\">⇥</span>")
}

/// A panel: its title, how to read it, and its content (HTML).
pub(crate) fn panel(id: &str, title: &str, how: &str, body: &str) -> String {
    format!(
        "<section class=\"panel\" id=\"{id}\">\n<div class=\"side\"><h2>{title}</h2><p class=\"how\">{how}</p></div>\n\
         <div class=\"body\">{body}</div>\n</section>\n",
        title = escape(title),
    )
}

/// A figure that is drawn twice, for a phone and for a wide column; the style sheet shows one of them.
pub(crate) fn full_width(draw: impl Fn(f64) -> String) -> String {
    format!("<div class=\"for-wide\">{}</div><div class=\"for-narrow\">{}</div>", draw(WIDE), draw(NARROW))
}

/// Figures beside each other where there is room; each has a heading and is as wide as a phone.
pub(crate) fn multiples(figures: &[(String, String)]) -> String {
    let mut html = "<div class=\"multiples\">".to_owned();
    for (heading, svg) in figures {
        let _ = write!(html, "<div class=\"multiple\"><p class=\"fig-title\">{}</p>{svg}</div>", text(heading));
    }
    html + "</div>"
}

/// A figure with its caption (HTML).
pub(crate) fn figure(content: &str, caption: &str) -> String {
    format!("<figure>{content}<figcaption>{caption}</figcaption></figure>")
}

/// A table: a header, and rows whose first cell names them. All cells are HTML.
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|cell| escape(cell)).collect(), rows: Vec::new() }
    }

    /// The table with long cells broken into lines instead of scrolled.
    pub(super) fn wrapping(&self) -> String {
        self.html().replacen("class=\"scroll\"", "class=\"scroll wrapping\"", 1)
    }

    pub(crate) fn html(&self) -> String {
        let numeric = |column: usize| self.rows.iter().all(|row| row.get(column).is_some_and(|cell| is_number(cell)));
        let numeric: Vec<bool> = (0..self.head.len()).map(|column| column > 0 && numeric(column)).collect();
        let class = |column: usize| {
            if numeric.get(column) == Some(&true) { " class=\"n\"" } else { "" }
        };
        let mut html = "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>".to_owned();
        for (index, cell) in self.head.iter().enumerate() {
            let _ = write!(html, "<th scope=\"col\"{}>{cell}</th>", class(index));
        }
        html += "</tr></thead><tbody>";
        for row in &self.rows {
            html += "<tr>";
            for (index, cell) in row.iter().enumerate() {
                let _ = match index {
                    0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(html, "<td{}>{cell}</td>", class(index)),
                };
            }
            html += "</tr>";
        }
        html + "</tbody></table></div>"
    }

    /// The table behind a line that opens it; nothing where it has no rows.
    pub(crate) fn folded(&self, summary: &str) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        format!("<details><summary>{}</summary>{}</details>", escape(summary), self.html())
    }
}

/// Whether a cell is a number, an interval or a dash: its column is then set flush right.
fn is_number(cell: &str) -> bool {
    let cell = cell.split_once(" <span class=\"why\"").map_or(cell, |(dash, _)| dash);
    cell.chars().all(|c| c.is_numeric() || ",.–−%× ⁻\u{a0}kMBGT".contains(c) || "to".contains(c))
}

/// A value, or a dash and why there is none.
pub(super) fn value(quantity: &Quantity) -> String {
    match (quantity.finite(), &quantity.reason) {
        (Some(value), _) => number(value),
        (None, Some(reason)) => format!("– <span class=\"why\">{}</span>", text(reason)),
        (None, None) => "–".to_owned(),
    }
}

/// The 95 % interval as two numbers.
pub(super) fn interval(quantity: &Quantity) -> String {
    match quantity.finite_interval() {
        Some([low, high]) => format!("{} to {}", number(low), number(high)),
        None => "–".to_owned(),
    }
}

/// The control value.
pub(super) fn null(quantity: &Quantity) -> String {
    quantity.null.filter(|null| null.is_finite()).map_or("–".to_owned(), number)
}

/// How many items a value rests on.
pub(super) fn items(quantity: &Quantity) -> String {
    quantity.n.map_or("–".to_owned(), crate::figure::count)
}

/// The tip of a mark: whose it is, its value and its interval, as plain text.
pub(super) fn tip(name: &str, quantity: &Quantity) -> String {
    let Some(value) = quantity.finite() else {
        return String::new();
    };
    let mut tip = format!("{name}: {} {}", number(value), quantity.unit);
    if let Some([low, high]) = quantity.finite_interval() {
        let _ = write!(tip, ", 95 % interval {} to {}", number(low), number(high));
    }
    tip
}

/// One line for each model that lacks a panel; nothing where all have it.
pub(super) fn absences(
    models: &[ModelReport],
    names: &[String],
    panel: Panel,
    has: impl Fn(&ModelReport) -> bool,
) -> String {
    let mut html = String::new();
    for (model, name) in models.iter().zip(names).filter(|(model, _)| !has(model)) {
        let _ = write!(html, "<p class=\"absent\">{}: {}.</p>", text(name), text(model.reason(panel)));
    }
    html
}

/// The name of a model as the first cell of a row, with its colour beside it.
pub(crate) fn model_cell(index: usize, name: &str) -> String {
    format!("<span class=\"key k{}\"></span>{}", index % crate::figure::SERIES_STYLES, text(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_shown_and_kept() {
        assert_eq!(running_text("a\n<"), "a<span class=\"sign\">↵</span>\n&lt;");
        assert_eq!(running_text(" "), " ");
    }
}

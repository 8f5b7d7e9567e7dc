//! The page: one HTML file that needs nothing but itself. No script; figures are inline SVG.

mod attention;
mod comparison;
mod fertility;
mod frequency;
mod generations;
pub(crate) mod html;
mod spectrum;
mod speed;
mod texts;
mod what;

use std::fmt::Write as _;

use html::text;

use super::data::{Extent, Report};
use super::{short_names, verdict};
use crate::figure::{self, bytes, count, escape, number};

/// The style sheet of pages.
pub(crate) const STYLE: &str = include_str!("page.css");

/// The report as a self-contained HTML page.
#[must_use]
pub fn page(report: &Report) -> String {
    let names = short_names(&report.models);
    let panels = [
        ("what", "Model", what::panel(report, &names)),
        ("fertility", "Tokenizer", fertility::panel(report, &names)),
        ("texts", "Texts", texts::panel(report, &names)),
        ("frequency", "Rare tokens", frequency::panel(report, &names)),
        ("spectrum", "Spectrum", spectrum::panel(report, &names)),
        ("attention", "Attention", attention::panel(report, &names)),
        ("speed", "Speed", speed::panel(report, &names)),
        ("generations", "Generations", generations::panel(report, &names)),
        ("comparison", "Combining", comparison::panel(report, &names)),
    ];
    let panels: Vec<_> = panels.into_iter().filter(|(_, _, content)| !content.is_empty()).collect();
    let title = text(&names.join(", "));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: lathe report</title>\n\
         <style>\n{STYLE}{figures}</style>\n</head>\n<body>\n",
        figures = figure::STYLE,
    );
    html += &header(report, &names);
    let links = panels.iter().map(|(id, label, _)| format!("<a href=\"#{id}\">{}</a>", escape(label)));
    let _ = write!(html, "<nav aria-label=\"Panels\">{}</nav>\n<main>\n", links.collect::<String>());
    for (_, _, content) in &panels {
        html += content;
    }
    html += "</main>\n";
    html += &footer(report);
    html + "</body>\n</html>\n"
}

fn header(report: &Report, names: &[String]) -> String {
    let shown: Vec<String> = names.iter().map(|name| format!("<span class=\"name\">{}</span>", text(name))).collect();
    let heading = if shown.is_empty() { "No model".to_owned() } else { shown.join("<span class=\"and\"> · </span>") };
    // What it is and how well it predicts come first and larger; the rest follows.
    let sentences = verdict(report);
    let paragraphs = sentences.split_at(sentences.len().min(2));
    let paragraphs: String = [paragraphs.0, paragraphs.1]
        .iter()
        .filter(|sentences| !sentences.is_empty())
        .map(|sentences| {
            format!("<p class=\"verdict\">{}</p>\n", escape(&sentences.join(" ").replace(" %", "\u{a0}%")))
        })
        .collect();
    format!(
        "<header>\n<p class=\"kind\">lathe report</p>\n<h1>{heading}</h1>\n{paragraphs}{}</header>\n",
        what::glance(report, names),
    )
}

fn footer(report: &Report) -> String {
    let settings = &report.settings;
    let machine = &report.machine;
    let extent = match settings.extent {
        Extent::Default => "its default part",
        Extent::Full => "all of it",
    };
    let limit = settings.token_limit.map_or(String::new(), |limit| format!(", at most {} tokens", count(limit)));
    let memory = machine.memory_bytes.map_or(String::new(), |memory| format!(", {} of memory", bytes(memory)));
    format!(
        "<footer>\n<h2>How this was made</h2>\n<p>lathe {version}, {created}, in {seconds} s. Texts: {sample}, \
         {extent}{limit}, scored with at most {context} tokens of context; windows of {window} tokens; seed {seed}; computed in {compute} by {threads} threads on \
         {cpu}, {cores} cores{memory}. Intervals are 95 %. A dash is a value that is missing, never zero. The same \
         numbers, and those that the tables leave out, are in <code>report.json</code> ({schema}).</p>\n</footer>\n",
        version = text(&report.lathe_version),
        created = text(&report.created),
        seconds = number(report.seconds),
        sample = text(&settings.sample),
        context = count(settings.text_window),
        window = count(settings.window),
        seed = settings.seed,
        compute = text(&settings.compute_type),
        threads = count(settings.threads),
        cpu = text(&machine.cpu),
        cores = count(machine.cores),
        schema = text(&report.schema),
    )
}

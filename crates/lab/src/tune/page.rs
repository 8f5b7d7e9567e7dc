//! `report.html` of a run: its curves, rewritten while it runs.

use super::data::TuneAudit;
use super::metrics::StepLine;
use crate::figure::{
    self, Axis, AxisScale, Draw, LineChart, LinePoint, Series, SeriesStyle, Ticks, count, line_chart, number, percent,
};
use crate::report::page::STYLE;
use crate::report::page::html::{Table, figure as framed, full_width, panel, text};

/// Whether a run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Steps are being done: the page reads itself again.
    Running,
    /// All steps were done.
    Finished,
    /// It stopped before, and why.
    Stopped(String),
}

/// What the page shows.
pub(super) struct PageOf<'a> {
    pub(super) model: &'a str,
    pub(super) method: &'a str,
    pub(super) steps: usize,
    pub(super) audit: &'a TuneAudit,
    pub(super) lines: &'a [StepLine],
    pub(super) stage: Stage,
}

/// The page.
pub(super) fn page(of: &PageOf<'_>) -> String {
    let refresh = if of.stage == Stage::Running { "<meta http-equiv=\"refresh\" content=\"5\">\n" } else { "" };
    let model = text(of.model);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n{refresh}\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{model}: lathe tune</title>\n\
         <style>\n{STYLE}{figures}header {{ margin-bottom: 1.6rem; }}\n</style>\n</head>\n<body>\n<header>\n\
         <p class=\"kind\">lathe tune {method}</p>\n<h1><span class=\"name\">{model}</span></h1>\n\
         <p class=\"verdict\">{verdict}</p>\n{glance}</header>\n<main>\n",
        figures = figure::STYLE,
        method = text(of.method),
        verdict = text(&verdict(of)),
        glance = glance(of),
    );
    let steps: Vec<&StepLine> = of.lines.iter().filter(|line| line.loss.is_some()).collect();
    let curve = |title: &str, label: &str, value: &dyn Fn(&StepLine) -> Option<f64>| {
        let points = thinned(&steps, value);
        let series = Series { name: String::new(), style: SeriesStyle::Model(0), draw: Draw::Line, points };
        drawn(title, label, vec![series])
    };
    html += &panel(
        "loss",
        "Loss",
        "Mean negative log-likelihood of each step’s targets before its update. With more steps than the figure has room \
         for, a point is the mean of several.",
        &curve("Loss of each step", "loss (nats per token)", &|line| line.loss),
    );
    html += &watched(of.lines);
    html += &panel(
        "rate",
        "Learning rate and gradient",
        "The gradient is that of all trained parameters, before it is clipped.",
        &[
            curve("Learning rate", "learning rate", &|line| line.learning_rate),
            curve("Length of the gradient", "gradient norm", &|line| line.gradient_norm),
        ]
        .concat(),
    );
    html += &audit(of.audit);
    html + "</main>\n</body>\n</html>\n"
}

fn verdict(of: &PageOf<'_>) -> String {
    let losses: Vec<f64> = of.lines.iter().filter_map(|line| line.loss).collect();
    let went = match (losses.first(), losses.last()) {
        (Some(first), Some(last)) => format!(" The loss went from {} to {}.", number(*first), number(*last)),
        _ => String::new(),
    };
    match &of.stage {
        Stage::Running => format!("Step {} of {}.{went}", count(losses.len() as u64), count(of.steps as u64)),
        Stage::Finished => format!("{} steps, done.{went}", count(of.steps as u64)),
        Stage::Stopped(why) => format!("Stopped after step {}: {why}.{went}", count(losses.len() as u64)),
    }
}

fn glance(of: &PageOf<'_>) -> String {
    let tokens: u64 = of.lines.iter().map(|line| line.tokens).sum();
    let seconds: f64 = of.lines.iter().map(|line| line.seconds).sum();
    let speed = if seconds > 0.0 { number(tokens as f64 / seconds) } else { "–".into() };
    let facts = [
        ("examples", count(of.audit.labels.examples as u64)),
        ("tokens read", count(tokens)),
        ("tokens a second", speed),
        ("masked", percent(of.audit.labels.masked_share)),
    ];
    let facts = facts.map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", text(&value)));
    format!("<dl class=\"glance\">{}</dl>\n", facts.concat())
}

/// Means of equal numbers of neighbours.
fn thinned(steps: &[&StepLine], value: &dyn Fn(&StepLine) -> Option<f64>) -> Vec<LinePoint> {
    const MOST: usize = 400;
    let group = steps.len().div_ceil(MOST).max(1);
    let point = |steps: &[&StepLine]| {
        let values: Vec<f64> = steps.iter().filter_map(|line| value(line)).collect();
        let y = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        let x = steps.iter().map(|line| line.step as f64).sum::<f64>() / steps.len() as f64;
        let tip = y.map_or(String::new(), |y| format!("step {}: {}", number(x), number(y)));
        LinePoint { x, y, interval: None, tip }
    };
    steps.chunks(group).map(point).collect()
}

fn drawn(title: &str, label: &str, series: Vec<Series>) -> String {
    let axis = |label: &str, ticks| Axis { label: label.to_owned(), scale: AxisScale::Linear, ticks };
    let chart = LineChart {
        title: title.to_owned(),
        desc: format!("{label} against the step"),
        x: axis("step", Ticks::Whole),
        y: axis(label, Ticks::Any),
        series,
        references: Vec::new(),
        y_extent: None,
    };
    framed(&full_width(|width| line_chart(&chart, width)), &text(title))
}

/// A figure for each thing that is watched and each of its numbers.
fn watched(lines: &[StepLine]) -> String {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for (what, numbers) in lines.iter().flat_map(|line| &line.watched) {
        for name in numbers.keys() {
            if !names.contains(&(what, name)) {
                names.push((what, name));
            }
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let figure = |(what, name): &(&str, &str)| {
        let point = |line: &StepLine| {
            let y = *line.watched.get(*what)?.get(*name)?;
            let tip = format!("after step {}: {}", line.step, number(y));
            Some(LinePoint { x: line.step as f64, y: Some(y), interval: None, tip })
        };
        let points = lines.iter().filter_map(point).collect();
        let series = Series { name: String::new(), style: SeriesStyle::Model(1), draw: Draw::Points, points };
        drawn(&format!("{what}: {name}"), name, vec![series])
    };
    let figures: String = names.iter().map(figure).collect();
    panel("watched", "Watched", "What the model makes of data that it is not trained on, after a step.", &figures)
}

fn audit(of: &TuneAudit) -> String {
    let mut table = Table::new(&["data", ""]);
    table.rows = audit_rows(of).into_iter().map(|(name, value)| vec![text(&name), text(&value)]).collect();
    let warnings: String = of.warnings.iter().map(|warning| format!("<p>{}.</p>", text(warning))).collect();
    panel("data", "Data", "The audit of labels before the first step.", &(table.html() + &warnings))
}

/// The audit as names and values.
#[must_use]
pub fn audit_rows(of: &TuneAudit) -> Vec<(String, String)> {
    let labels = &of.labels;
    let whole = |value: usize| count(value as u64);
    let mut rows = vec![("records".to_owned(), whole(of.records))];
    for (kind, count) in &of.kinds {
        rows.push((format!("  {kind}"), whole(*count)));
    }
    if !of.bad.is_empty() {
        rows.push(("  left out".into(), whole(of.bad.len())));
    }
    rows.push(("examples".into(), whole(labels.examples)));
    rows.push(("  without a target, left out".into(), whole(labels.empty)));
    rows.push((format!("  longer than {}", whole(of.max_length)), whole(labels.overlong)));
    rows.push(("  repeating an earlier one".into(), whole(labels.duplicates)));
    let without = labels.without_end.map_or("not known".into(), whole);
    rows.push(("  without an end token to predict".into(), without));
    rows.push(("tokens".into(), count(labels.tokens)));
    rows.push(("  to predict".into(), count(labels.targets)));
    rows.push(("  masked".into(), percent(labels.masked_share)));
    rows.push(("  cut off or left out".into(), count(labels.tokens_lost)));
    rows.push(("longest example".into(), whole(labels.longest)));
    if of.units != labels.examples {
        rows.push(("bins".into(), whole(of.units)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_a_run_reads_itself_again_until_it_is_over() {
        let line = |step: usize| {
            let watched = [("held".to_owned(), [("loss".to_owned(), 2.0 / step as f64)].into())].into();
            StepLine { step, loss: Some(3.0 / step as f64), watched, ..StepLine::default() }
        };
        let lines: Vec<StepLine> = (1..=900).map(line).collect();
        let audit = TuneAudit { warnings: vec!["<b>".into()], ..TuneAudit::default() };
        let of = |stage| PageOf { model: "a<b", method: "full", steps: 1000, audit: &audit, lines: &lines, stage };
        let html = page(&of(Stage::Running));
        assert!(html.contains("http-equiv=\"refresh\"") && html.contains("Step 900 of 1,000."), "{html}");
        assert!(html.contains("a&lt;b") && html.contains("&lt;b&gt;.") && html.contains("held: loss"));
        assert!(!page(&of(Stage::Finished)).contains("http-equiv"));
        assert!(page(&of(Stage::Stopped("no room".into()))).contains("Stopped after step 900: no room."));
        let steps: Vec<&StepLine> = lines.iter().collect();
        assert_eq!(thinned(&steps, &|line| line.loss).len(), 300);
        assert!(page(&PageOf { lines: &[], ..of(Stage::Running) }).contains("Step 0 of"));
    }
}

//! The page of an exploration: pictures of two measures at a time, and the table.

use std::fmt::Write as _;

use super::{ExploreResult, MeasureName, Tried};
use crate::figure::{Axis, AxisScale, Draw, LineChart, LinePoint, Series, SeriesStyle, Ticks, line_chart, number};
use crate::report::page::STYLE;
use crate::report::page::html::{Table, figure, full_width, panel, text};

/// The page.
pub(super) fn html(result: &ExploreResult) -> String {
    let candidates = result.tried.iter().filter(|tried| tried.config.is_some()).count();
    let verdict = format!(
        "{candidates} candidates on {} measures; {} of them are beaten by no other on all.",
        result.measures.len(),
        result.front.len()
    );
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>lathe merge explore</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<p class=\"kind\">lathe merge explore</p>\n\
         <h1>What each merge costs</h1>\n<p class=\"verdict\">{}</p>\n</header>\n<main>\n",
        text(&verdict)
    );
    for second in 1..result.measures.len() {
        let pair = [0, second];
        let names = pair.map(|m| result.measures[m].name.as_str());
        let how = "Every mark is a merge or a model; the line joins the merges that no other beats on both measures.";
        let body = figure(&full_width(|width| line_chart(&chart(result, pair), width)), &caption(result, pair));
        let id = format!("pair-{second}");
        let title = format!("{} and {}", names[0], names[1]);
        html += &panel(&id, &title, how, &body);
    }
    html += &panel("table", "All of them", "Best on the first measure first.", &table(result).html());
    html + "</main>\n</body>\n</html>\n"
}

fn caption(result: &ExploreResult, pair: [usize; 2]) -> String {
    let better = pair.map(|m| if result.measures[m].lower_is_better { "lower" } else { "higher" });
    let mut caption =
        format!("Better is {} across and {} up.", side(better[0], "left", "right"), side(better[1], "down", "up"));
    let methods = methods(result);
    if methods.len() > 1 {
        _ = write!(caption, " Methods: {}.", text(&methods.join(", ")));
    }
    caption
}

fn side<'a>(better: &str, lower: &'a str, higher: &'a str) -> &'a str {
    if better == "lower" { lower } else { higher }
}

/// Methods of the candidates, in the order of their first one.
fn methods(result: &ExploreResult) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    for tried in result.tried.iter().filter(|tried| tried.config.is_some()) {
        let method = method(tried);
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    methods
}

fn method(tried: &Tried) -> String {
    tried.name.split(',').next().unwrap_or_default().to_owned()
}

/// Two measures of all that was tried, as a picture.
pub(crate) fn chart(result: &ExploreResult, [across, up]: [usize; 2]) -> LineChart {
    let point = |tried: &Tried| LinePoint {
        x: tried.values[across],
        y: Some(tried.values[up]),
        interval: None,
        tip: format!(
            "{}: {} {}, {} {}",
            tried.name,
            result.measures[across].name,
            number(tried.values[across]),
            result.measures[up].name,
            number(tried.values[up])
        ),
    };
    let front = two_axis_front(result, [across, up]);
    let mut series = vec![Series {
        name: String::new(),
        style: SeriesStyle::Bound,
        draw: Draw::Line,
        points: front.iter().map(|&i| LinePoint { tip: String::new(), ..point(&result.tried[i]) }).collect(),
    }];
    let of = |keep: &dyn Fn(&Tried) -> bool| result.tried.iter().filter(|tried| keep(tried)).map(point).collect();
    for (index, name) in methods(result).into_iter().enumerate() {
        let points = of(&|tried| tried.config.is_some() && method(tried) == name);
        series.push(Series { name, style: SeriesStyle::Model(index), draw: Draw::Marks, points });
    }
    for tried in result.tried.iter().filter(|tried| tried.config.is_none()) {
        let points = vec![point(tried)];
        series.push(Series { name: tried.name.clone(), style: SeriesStyle::Null, draw: Draw::Marks, points });
    }
    let axis = |measure: &MeasureName| Axis {
        label: format!("{} ({})", measure.name, measure.unit),
        scale: AxisScale::Linear,
        ticks: Ticks::Any,
    };
    let names = [across, up].map(|m| result.measures[m].name.as_str());
    LineChart {
        title: format!("{} and {} of every candidate", names[0], names[1]),
        desc: format!("{} marks; the table below has the numbers", result.tried.len()),
        x: axis(&result.measures[across]),
        y: axis(&result.measures[up]),
        series,
        references: Vec::new(),
        y_extent: None,
    }
}

/// The candidates that none beats on these two measures, by the first one.
fn two_axis_front(result: &ExploreResult, pair: [usize; 2]) -> Vec<usize> {
    let measures = pair.map(|m| result.measures[m].clone());
    let narrowed: Vec<Tried> = result
        .tried
        .iter()
        .filter(|tried| tried.config.is_some())
        .map(|tried| Tried { values: pair.map(|m| tried.values[m]).to_vec(), ..tried.clone() })
        .collect();
    super::front(&narrowed, &measures)
}

fn table(result: &ExploreResult) -> Table {
    let mut head = vec!["candidate".to_owned()];
    head.extend(result.measures.iter().map(|measure| format!("{} ({})", measure.name, measure.unit)));
    head.extend(["unbeaten".to_owned(), "seconds".to_owned()]);
    let mut order: Vec<usize> = (0..result.tried.len()).collect();
    let sign = if result.measures[0].lower_is_better { 1.0 } else { -1.0 };
    order.sort_by(|&a, &b| (sign * result.tried[a].values[0]).total_cmp(&(sign * result.tried[b].values[0])));
    let rows = order.into_iter().map(|i| {
        let tried = &result.tried[i];
        let mut cells = vec![text(&tried.name)];
        cells.extend(tried.values.iter().map(|value| number(*value)));
        cells.push(if result.front.contains(&i) { "yes".to_owned() } else { String::new() });
        cells.push(number(tried.seconds));
        cells
    });
    Table { head, rows: rows.collect() }
}

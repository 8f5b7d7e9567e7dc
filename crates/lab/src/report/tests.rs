//! What must hold of every face of a report.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use serde_json::Value;

use super::sample::{Shape, odd_report, report};
use super::*;
use crate::figure::{HeatMap, HeatRows, NARROW, WIDE, heat_map};

const SMOL: Shape = Shape { layers: 30, heads: 9 };

fn reports() -> Vec<Report> {
    let mut empty = report(&[]);
    empty.seconds = f64::NAN;
    let mut bare = report(&[Shape { layers: 1, heads: 1 }]);
    bare.models[0].generations.clear();
    bare.models[0].bins.truncate(1);
    vec![
        report(&[SMOL]),
        report(&[SMOL, Shape { layers: 18, heads: 4 }, Shape { layers: 24, heads: 14 }]),
        report(&[Shape { layers: 80, heads: 64 }]),
        odd_report(),
        bare,
        empty,
    ]
}

#[test]
fn report_json_has_this_shape() {
    let mut report = report(&[Shape { layers: 1, heads: 1 }, Shape { layers: 1, heads: 1 }]);
    report.models[0].attention.as_mut().unwrap().entropy =
        Some(HeadMatrix { unit: "nats".to_owned(), n: 1, null: None, values: vec![vec![Some(1.0)]] });
    let mut optional = report.models[0].texts[0].bits_per_byte.clone();
    optional.null = Some(1.0);
    optional.reason = Some("made up".to_owned());
    report.models[0].texts[0].bits_per_byte = optional;
    report.models[0].not_measured.push(NotMeasured { panel: Panel::Speed, reason: "made up".to_owned() });
    let value: Value = serde_json::from_str(&to_json(&report).unwrap()).unwrap();
    let mut shape = BTreeMap::new();
    collect_types(&value, "", &mut shape);
    let lines: Vec<String> = shape.iter().map(|(path, types)| format!("{path}: {}", types.join(" | "))).collect();
    insta::assert_snapshot!("report_json_shape", lines.join("\n"));
}

/// Types found at each path; the members of an array share a path.
fn collect_types(value: &Value, path: &str, shape: &mut BTreeMap<String, Vec<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = shape.entry(path.to_owned()).or_default();
    if !kinds.contains(&kind) {
        kinds.push(kind);
        kinds.sort_unstable();
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_types(item, &format!("{path}[]"), shape)),
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| collect_types(field, &format!("{path}.{key}"), shape));
        }
        _ => {}
    }
}

#[test]
fn report_json_reads_back() {
    for made in [report(&[SMOL]), report(&[SMOL, SMOL, SMOL])] {
        let read: Report = serde_json::from_str(&to_json(&made).unwrap()).unwrap();
        let [read, made] = [read, made].map(|report| serde_json::to_value(report).unwrap());
        assert_close(&read, &made, "");
        assert_eq!(read["schema"], "lathe.report/1");
    }
}

/// Equal, numbers up to the last digits that reading decimal text may lose.
fn assert_close(read: &Value, made: &Value, path: &str) {
    match (read, made) {
        (Value::Number(a), Value::Number(b)) => {
            let [a, b] = [a, b].map(|number| number.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-12 * b.abs(), "{path}: {a} and {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| assert_close(a, b, &format!("{path}[{i}]")));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{path}");
            a.iter().for_each(|(key, a)| assert_close(a, &b[key], &format!("{path}.{key}")));
        }
        (a, b) => assert_eq!(a, b, "{path}"),
    }
}

#[test]
fn report_json_has_null_where_a_number_is_not_finite() {
    let value: Value = serde_json::from_str(&to_json(&odd_report()).unwrap()).unwrap();
    let missing = &value["models"][0]["texts"][1]["bits_per_byte"];
    assert!(missing["value"].is_null() && missing["reason"].is_string());
}

#[test]
fn pages_are_well_formed_and_need_nothing_else() {
    for report in reports() {
        let html = page(&report);
        assert_balanced(&html);
        assert_self_contained(&html);
    }
}

/// Nothing is loaded or run, and nothing invisible or meant for programmers is shown.
pub(crate) fn assert_self_contained(html: &str) {
    for forbidden in
        ["<script", "<link", "<img", "<iframe", "@import", "url(", "src=", "http:", "https:", "javascript:"]
    {
        assert!(!html.contains(forbidden), "the page holds {forbidden}");
    }
    let words = visible_text(html);
    for forbidden in ["NaN", "inf ", "Infinity", "undefined", "None", "Some("] {
        assert!(!words.contains(forbidden), "the page says {forbidden}");
        assert!(!html.contains(&format!("\"{forbidden}\"")));
    }
    assert!(!html.chars().any(|c| c.is_control() && c != '\n'), "the page holds a control character");
    assert!(!html.contains('\u{202e}'));
}

#[test]
fn a_full_page_has_every_panel_and_at_least_four_figures() {
    let html = page(&report(&[SMOL, SMOL]));
    for id in ["what", "fertility", "texts", "frequency", "spectrum", "attention", "speed", "generations", "comparison"]
    {
        assert_eq!(html.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        assert!(html.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    let single = page(&report(&[SMOL]));
    // Figures that fill the column are drawn for both widths.
    assert!(single.matches("<figure>").count() >= 4 && single.matches("<svg").count() >= 8);
    assert_eq!(single.matches("<svg").count(), single.matches("role=\"img\"").count());
    assert_eq!(single.matches("<svg").count(), single.matches("<desc>").count());
    assert!(!single.contains("id=\"comparison\""));
}

#[test]
fn pages_depend_on_their_report_only() {
    assert_eq!(page(&odd_report()), page(&odd_report()));
}

#[test]
fn missing_panels_say_why() {
    let html = page(&odd_report());
    assert!(html.contains("the runtime gives no probabilities"));
    assert!(html.contains("a window of one token has no spectrum"));
    assert!(html.contains("not a finite number"));
}

#[test]
fn figures_stay_inside_their_view_boxes() {
    for report in reports() {
        let html = page(&report);
        let mut figures = 0;
        for svg in html.split("<svg ").skip(1).map(|rest| rest.split("</svg>").next().unwrap()) {
            assert_inside(svg);
            figures += 1;
        }
        assert!(figures > 0 || report.models.is_empty());
    }
}

#[test]
fn an_empty_heat_map_is_still_a_figure() {
    let mut map = HeatMap {
        title: "t".to_owned(),
        desc: "d".to_owned(),
        x_label: "layer".to_owned(),
        y_label: "head".to_owned(),
        rows: HeatRows::Numbered,
        value_label: "share".to_owned(),
        columns: Vec::new(),
        domain: [0.0, 0.0],
    };
    for width in [NARROW, WIDE] {
        let svg = heat_map(&map, width);
        assert_balanced(&svg);
        assert_inside(&svg);
    }
    // Names take room from the cells.
    map.rows = HeatRows::Named(vec!["query".to_owned(), "a name that is far too long for its place".to_owned()]);
    map.columns = vec![vec![Some(0.0), None]; 100];
    for width in [NARROW, WIDE] {
        let svg = heat_map(&map, width);
        assert_balanced(&svg);
        assert_inside(&svg);
        assert!(svg.contains(">query</text>") && svg.contains("<title>layer 99, query: 0</title>"), "{svg}");
    }
}

#[test]
fn the_verdict_follows_the_numbers() {
    let mut made = report(&[SMOL]);
    let text = verdict(&made).join(" ");
    assert!(text.contains("smollm2 is a llama decoder with 135\u{a0}M parameters in 30 layers"), "{text}");
    assert!(text.contains("1.17 bits per byte (95 % interval 1.03 to 1.31)"), "{text}");
    assert!(text.contains("fewest tokens in English, and 2.56 times as many for the same text in Greek"), "{text}");
    assert!(
        text.contains("occur 1 to 2 times cost 6.10 nats on average, those that occur 729 times or more 1.90"),
        "{text}"
    );
    made.models[0].overall = None;
    made.models[0].speed = None;
    let text = verdict(&made).join(" ");
    assert!(!text.contains("bits per byte") && !text.contains("tokens/s"), "{text}");
}

#[test]
fn the_verdict_of_several_compares_text_by_text() {
    let mut made = report(&[SMOL, SMOL]);
    let text = verdict(&made).join(" ");
    assert!(
        text.contains("smollm2 predicts the texts best") && text.contains("; it is ahead on 9 of the 16 texts."),
        "{text}"
    );
    assert!(text.contains("No two of them can be merged"), "{text}");
    made.models[1].texts[0].bits_per_byte.value = Some(0.1);
    made.models[1].texts[1].bits_per_byte.value = None;
    assert!(verdict(&made).join(" ").contains("it is ahead on 7 of the 15 texts"));
    made.models[1].texts.clear();
    assert!(!verdict(&made).join(" ").contains("ahead"));
}

#[test]
fn the_summary_fits_one_screen() {
    for report in reports() {
        let lines = summary(&report);
        assert!(lines.len() <= 36, "{} lines", lines.len());
        for line in &lines {
            assert!(line.chars().count() <= 80, "{line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(!line.contains("NaN") && !line.contains("inf "), "{line}");
        }
    }
}

#[test]
fn the_summary_of_one_model() {
    insta::assert_snapshot!("summary_of_one_model", summary(&report(&[SMOL])).join("\n"));
}

#[test]
fn short_names_are_distinct() {
    let mut made = report(&[SMOL, SMOL, SMOL]);
    assert_eq!(short_names(&made.models), ["smollm2", "gemma-3-270m@main", "qwen2.5-coder-0.5b-instruct-q8_0"]);
    made.models[2].reference = "elsewhere/smollm2/".to_owned();
    made.models[1].reference = String::new();
    assert_eq!(short_names(&made.models), ["smollm2 (1)", "unnamed model", "smollm2 (2)"]);
}

/// Every element that is opened is closed in order; attributes are quoted; no stray angle bracket.
pub(crate) fn assert_balanced(html: &str) {
    let html = html.strip_prefix("<!DOCTYPE html>").unwrap_or(html);
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>') || open.last() == Some(&"style"), "stray > in {:?}", &rest[..start]);
        let end = start + rest[start..].find('>').expect("an unclosed tag");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "unquoted attribute in {tag}");
        assert!(!tag.contains('<'), "stray < in {tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closing {name}");
        } else if !tag.ends_with('/') && !tag.starts_with("meta") {
            open.push(tag.split([' ', '\n']).next().unwrap());
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

/// The text outside of tags and of the style sheet.
fn visible_text(html: &str) -> String {
    let body = html.split("</style>").nth(1).unwrap_or(html);
    body.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text).collect::<Vec<_>>().join(" ")
}

/// Every coordinate of an SVG lies in its view box; text begins and ends there too, where its width can be guessed.
fn assert_inside(svg: &str) {
    let view = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split('"').next().unwrap();
    let size: Vec<f64> = view.split(' ').map(|part| part.parse().unwrap()).collect();
    let inside = |axis: usize, value: f64, what: &str| {
        assert!(value >= -0.6 && value <= size[axis] + 0.6, "{what}: {value} outside of {size:?}");
    };
    for element in svg.split('<').skip(1) {
        let number = |name: &str| -> Option<f64> {
            let value = element.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
            Some(value.parse().unwrap())
        };
        for (axis, names) in [["x", "x1", "x2", "cx"], ["y", "y1", "y2", "cy"]].iter().enumerate() {
            names.iter().filter_map(|name| number(name)).for_each(|value| inside(axis, value, element));
        }
        if element.starts_with("rect") {
            inside(0, number("x").unwrap() + number("width").unwrap(), element);
            inside(1, number("y").unwrap() + number("height").unwrap(), element);
        }
        for attribute in ["points", "d"] {
            let Some(list) = element.split(&format!(" {attribute}=\"")).nth(1) else {
                continue;
            };
            let list = list.split('"').next().unwrap().replace(['M', 'L', ','], " ");
            let numbers = list.split_whitespace().enumerate();
            numbers.for_each(|(index, value)| inside(index % 2, value.parse().unwrap(), element));
        }
        if let Some((tag, text)) = element.split_once('>').filter(|(tag, _)| tag.starts_with("text")) {
            let half = crate::figure::text_width(&unescaped(text), 12.0) / 2.0;
            let x = number("x").unwrap();
            let (start, end) = match () {
                () if tag.contains("\"middle\"") => (x - half, x + half),
                () if tag.contains("\"end\"") => (x - 2.0 * half, x),
                () => (x, x + 2.0 * half),
            };
            // The guess is generous, and most labels are smaller than 12 pixels.
            assert!(start > -4.0 && end < size[0] + 16.0, "{text:?} leaves {size:?}: {start} to {end}");
        }
    }
}

fn unescaped(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (entity, c)| text.replace(entity, c))
}

/// Writes the made-up pages into the folder named by LATHE_REPORT_PREVIEW, for looking at them.
#[test]
#[ignore = "writes files to look at; run with LATHE_REPORT_PREVIEW=folder"]
fn preview() {
    let Some(folder) = std::env::var_os("LATHE_REPORT_PREVIEW") else {
        return;
    };
    let names = ["one", "three", "large", "odd", "bare", "empty"];
    for (report, name) in reports().iter().zip(names) {
        let path = std::path::Path::new(&folder).join(format!("{name}.html"));
        std::fs::write(path, page(report)).unwrap();
    }
}

//! The page of a comparison: maps of layers and kinds of weights, and every tensor in a table.

use std::fmt::Write as _;

use lathe_measure::Number;
use lathe_measure::weights::Changes;

use super::{CellDiff, DiffResult, DiffSummary, GroupDiff, TensorDiff, WeightKind, summary};
use crate::figure::{
    self, HEAT_STEPS, HeatMap, HeatRows, cosine, count, escape, finite_extent, heat_map, measured, number,
};
use crate::report::page::STYLE;
use crate::report::page::html::{Table, figure as framed, full_width, panel, text};

/// The page.
#[must_use]
pub fn diff_page(result: &DiffResult) -> String {
    let names = [&result.a, &result.b].map(|model| text(&model.reference));
    let heading = names.each_ref().map(|name| format!("<span class=\"name\">{name}</span>"));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: lathe diff</title>\n\
         <style>\n{STYLE}{figures}header {{ margin-bottom: 1.6rem; }}\n</style>\n</head>\n<body>\n<header>\n<p class=\"kind\">lathe diff</p>\n\
         <h1>{heading}</h1>\n",
        title = names.join(", "),
        figures = figure::STYLE,
        heading = heading.join("<span class=\"and\"> → </span>"),
    );
    let DiffSummary { distance, changes: of_base } = summary(result);
    let (first, rest) = distance.split_at(1.min(distance.len()));
    for sentences in [first, rest, &of_base].into_iter().filter(|sentences| !sentences.is_empty()) {
        let _ = writeln!(html, "<p class=\"verdict\">{}</p>", escape(&unbroken(&sentences.join(" "))));
    }
    html += &glance(&result.whole);
    html += "</header>\n<main>\n";
    if !result.whole.distance.is_equal() {
        html += &maps(result);
    }
    html += &tables(result);
    if result.base.is_some() {
        html += &changes(result);
    }
    html += "</main>\n<footer>\n<h2>How this was made</h2>\n";
    for note in notes(result) {
        let _ = writeln!(html, "<p>{}</p>", with_code(&note));
    }
    html + "</footer>\n</body>\n</html>\n"
}

/// What stands between backticks as code.
fn with_code(sentence: &str) -> String {
    let parts = sentence.split('`').map(escape).enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part }).collect()
}

/// Percentages stay in one line.
fn unbroken(sentence: &str) -> String {
    sentence.replace(" %", "\u{a0}%")
}

fn glance(whole: &GroupDiff) -> String {
    let distance = &whole.distance;
    let facts = [
        ("tensors", count(whole.tensors as u64)),
        ("of them equal", count(whole.equal as u64)),
        ("difference, of A’s norm", share(distance.relative)),
        ("cosine", measured(distance.cosine, cosine)),
        ("same sign", share(distance.sign_agreement)),
    ];
    let facts: String =
        facts.map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", text(&value))).concat();
    format!("<dl class=\"glance\">{facts}</dl>\n")
}

/// A map: what the colour is, and how it follows from a cell.
struct Map<'a> {
    title: &'a str,
    value_label: &'a str,
    caption: &'a str,
    domain: Domain,
    value: &'a dyn Fn(&GroupDiff) -> Number,
}

/// Which values the colours span.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Domain {
    /// From 0 to the largest value, or as far below 0 as above where there are values below.
    FromZero,
    /// From 0 to 100.
    Percent,
}

fn maps(result: &DiffResult) -> String {
    let distance = Map {
        title: "Norm of the difference by layer and kind of weight",
        value_label: "‖B − A‖ / ‖A‖, %",
        caption: "Norm of the difference as a percentage of the norm of A’s weights of the cell. An outlined cell has \
                  no value: there is no such tensor, or A’s is all zeros.",
        domain: Domain::FromZero,
        value: &|cell| cell.distance.relative.map(|relative| 100.0 * relative),
    };
    let angle = Map {
        title: "Angle between A and B by layer and kind of weight",
        value_label: "angle, degrees",
        caption: "The angle whose cosine the tables have, because cosines near 1 look alike. Below 1.8 degrees \
                   (a cosine of 0.9995) spherical interpolation is the linear one.",
        domain: Domain::FromZero,
        value: &|cell| cell.distance.cosine.map(|cosine| cosine.acos().to_degrees()),
    };
    let signs = Map {
        title: "Weights with different signs by layer and kind of weight",
        value_label: "different signs, %",
        caption: "Percentage of the weights, of those that are zero in neither, with different signs in A and B. A linear \
                  merge brings these closer to zero than they are in either.",
        domain: Domain::FromZero,
        value: &|cell| cell.distance.sign_agreement.map(|same| 100.0 * (1.0 - same)),
    };
    let rank = Map {
        title: "Effective rank of the difference by layer and kind of weight",
        value_label: "rank, % of noise",
        caption: "Effective rank of B − A as a percentage of that of noise of the same shape. A low-rank \
                  adapter leaves little, rounding close to 100 %. Vectors have none, and matrices that are equal or too large.",
        domain: Domain::Percent,
        value: &|cell| cell.rank_of_noise.map(|of| 100.0 * of),
    };
    let mut html = String::new();
    let panels = [
        (
            "distance",
            "How far apart",
            "Where the two models differ, and how much: a cell for each layer and kind of weight.",
            distance,
        ),
        (
            "angle",
            "Direction",
            "Whether the weights point the same way; a scale that all weights share leaves it at 0.",
            angle,
        ),
        ("signs", "Signs", "Where the two models disagree on whether a weight is positive or negative.", signs),
        ("rank", "Directions of the difference", "In how many directions the difference points.", rank),
    ];
    for (id, title, how, map) in panels {
        if let Some(drawn) = draw(&map, &result.cells) {
            html += &panel(id, title, how, &drawn);
        }
    }
    html
}

/// The maps of what A and B changed of their base.
fn changes(result: &DiffResult) -> String {
    let of = |cell: &GroupDiff, value: &dyn Fn(&Changes) -> Number| match &cell.changes {
        Some(changes) => value(changes),
        None => Number::Undefined(lathe_measure::Reason::NotGiven),
    };
    let maps = [
        Map {
            title: "Cosine of the two changes by layer and kind of weight",
            value_label: "cosine of changes",
            caption: "Cosine of A − C and B − C, where C is the base: 0 is unrelated, 1 the same change, −1 the \
                      opposite one.",
            domain: Domain::FromZero,
            value: &|cell| of(cell, &|changes| changes.cosine),
        },
        Map {
            title: "Sign conflicts by layer and kind of weight",
            value_label: "sign conflicts, %",
            caption: "Percentage of the weights that both changed which were changed in opposite directions: 50 % where the \
                      changes have nothing to do with each other.",
            domain: Domain::FromZero,
            value: &|cell| of(cell, &|changes| changes.sign_conflict.map(|share| 100.0 * share)),
        },
        Map {
            title: "Overlap of the large changes by layer and kind of weight",
            value_label: "overlap, %",
            caption: "Of the tenth of each tensor that one model changed the most, the percentage that is in the other’s \
                      tenth too: about 10 % by chance.",
            domain: Domain::FromZero,
            value: &|cell| of(cell, &|changes| changes.large_overlap.map(|share| 100.0 * share)),
        },
    ];
    let drawn: String = maps.iter().filter_map(|map| draw(map, &result.cells)).collect();
    let kinds = result.kinds.iter().map(|of| change_row(of.kind.name().to_owned(), of.group.changes.as_ref()));
    let kinds = kinds.chain([change_row("all".to_owned(), result.whole.changes.as_ref())]);
    let layers = result.layers.iter().map(|of| change_row(of.layer.to_string(), of.group.changes.as_ref()));
    let tensors = result.tensors.iter().map(|of| change_row(of.name.clone(), of.changes.as_ref()));
    let titles =
        ["A changed", "B changed", "‖A − C‖", "‖B − C‖", "cosine", "conflicts", "overlap", "conflicts of large"];
    let table = |first: &str, rows: Vec<Vec<String>>| table(&[&[first], &titles[..]].concat(), rows);
    let body = [
        drawn,
        table("kind of weight", kinds.collect()).html(),
        table("layer", layers.collect()).folded("By layer"),
        table("tensor", tensors.collect()).folded("Every tensor"),
    ];
    let how = "What A and B changed of the model C that both were made from, and whether the two changes stand in each \
               other’s way. Norms are shares of C’s; large is the tenth of a tensor that was changed the most.";
    panel("changes", "Two changes of one base", how, &body.concat())
}

fn change_row(name: String, changes: Option<&Changes>) -> Vec<String> {
    let Some(changes) = changes else { return [vec![name], vec!["–".to_owned(); 8]].concat() };
    let [changed_a, changed_b] = changes.changed.map(share);
    let [norm_a, norm_b] = changes.relative.map(share);
    let [conflict, overlap, large] = [changes.sign_conflict, changes.large_overlap, changes.large_conflict].map(share);
    vec![name, changed_a, changed_b, norm_a, norm_b, measured(changes.cosine, number), conflict, overlap, large]
}

/// The figure of a map; none where no cell has a value.
fn draw(map: &Map<'_>, cells: &[CellDiff]) -> Option<String> {
    let mut kinds: Vec<WeightKind> = cells.iter().map(|cell| cell.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let layers = cells.iter().map(|cell| cell.layer + 1).max().unwrap_or(0);
    let mut columns = vec![vec![None; kinds.len()]; layers];
    for cell in cells {
        if let Ok(row) = kinds.binary_search(&cell.kind) {
            columns[cell.layer][row] = (map.value)(&cell.group).value();
        }
    }
    // A row without any value says nothing.
    let known: Vec<bool> = (0..kinds.len()).map(|row| columns.iter().any(|column| column[row].is_some())).collect();
    let keep = |row: &usize| known[*row];
    let columns: Vec<Vec<Option<f64>>> =
        columns.iter().map(|column| (0..kinds.len()).filter(keep).map(|row| column[row]).collect()).collect();
    let names = (0..kinds.len()).filter(keep).map(|row| kinds[row].name().to_owned()).collect();
    let [low, high] = finite_extent(columns.iter().flatten().flatten().copied())?;
    let end = round_end(high.max(-low));
    let domain = match map.domain {
        Domain::Percent => [0.0, 100.0],
        // A little below 0 is the first colour.
        Domain::FromZero if low > -end / HEAT_STEPS as f64 => [0.0, end],
        Domain::FromZero => [-end, end],
    };
    let map_of = HeatMap {
        title: map.title.to_owned(),
        desc: "A cell for each layer (from left to right) and kind of weight (from top to bottom).".to_owned(),
        x_label: "layer".to_owned(),
        y_label: String::new(),
        rows: HeatRows::Named(names),
        value_label: map.value_label.to_owned(),
        columns,
        domain,
    };
    Some(framed(&full_width(|width| heat_map(&map_of, width)), map.caption))
}

/// The next number whose half has one digit: the legend has labels at both.
fn round_end(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 4.0, 6.0, 8.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|end| *end >= value)
        .unwrap_or(value)
}

fn tables(result: &DiffResult) -> String {
    let row = |name: String, group: &GroupDiff| {
        vec![
            name,
            count(group.tensors as u64),
            count(group.equal as u64),
            share(group.distance.relative),
            measured(group.distance.cosine, cosine),
            share(group.distance.sign_agreement),
            share(group.rank_of_noise),
        ]
    };
    let titles = ["tensors", "equal", "difference", "cosine", "same sign", "rank, of noise"];
    let group = |first: &str, rows: Vec<Vec<String>>| table(&[&[first], &titles[..]].concat(), rows);
    let kinds = result.kinds.iter().map(|of| row(of.kind.name().to_owned(), &of.group));
    let all = row("all".to_owned(), &result.whole);
    let layers = result.layers.iter().map(|of| row(of.layer.to_string(), &of.group)).collect();
    let titles = ["tensor", "rank", "shape", "difference", "cosine", "same sign"];
    let tensors = |those: Vec<&TensorDiff>| table(&titles, those.into_iter().map(tensor_row).collect());
    let most: Vec<&TensorDiff> = result.changed_most().into_iter().take(10).collect();
    let heading = if most.is_empty() { "" } else { "<p class=\"fig-title\">Tensors that differ the most</p>" };
    let body = [
        group("kind of weight", kinds.chain([all]).collect()).html(),
        group("layer", layers).folded("By layer"),
        heading.to_owned(),
        if most.is_empty() { String::new() } else { tensors(most).html() },
        tensors(result.tensors.iter().collect()).folded("Every tensor"),
    ];
    let how = "The difference is the norm of B − A as a share of A’s norm. Rows of several tensors treat them as one.";
    panel("tables", "Numbers", how, &body.concat())
}

fn tensor_row(tensor: &TensorDiff) -> Vec<String> {
    let distance = &tensor.distance;
    let rank = tensor.rank.and_then(|rank| Some(format!("{} of {}", number(rank.effective.value()?), rank.most)));
    let shape: Vec<String> = tensor.shape.iter().map(|size| count(*size as u64)).collect();
    vec![
        tensor.name.clone(),
        rank.unwrap_or("–".into()),
        shape.join(" × "),
        share(distance.relative),
        measured(distance.cosine, cosine),
        share(distance.sign_agreement),
    ]
}

fn table(titles: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new(titles);
    table.rows = rows.into_iter().map(|row| row.iter().map(|cell| text(cell)).collect()).collect();
    table
}

/// How it was made, and what the reader should know.
fn notes(result: &DiffResult) -> Vec<String> {
    let models = [("A", Some(&result.a)), ("B", Some(&result.b)), ("C, the base,", result.base.as_ref())];
    let models = models.into_iter().filter_map(|(name, model)| Some((name, model?)));
    let models = models
        .map(|(name, of)| format!("{name} is {} ({}, stored as {})", of.reference, of.family, of.elements.join(", ")));
    let mut notes = vec![format!("{}.", models.collect::<Vec<_>>().join("; "))];
    notes.extend(result.notes.iter().cloned());
    notes.push(format!(
        "Weights are compared as f32 and summed in f64. Layers are counted from 0. A dash is a value that does not exist, \
         never zero. Written by lathe {}; `lathe diff --json` prints every number.",
        result.lathe
    ));
    notes
}

fn share(value: Number) -> String {
    measured(value, |value| format!("{} %", number(100.0 * value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legend_ends_at_a_round_number() {
        for (value, end) in
            [(0.0, 1.0), (1.0, 1.0), (1.01, 1.2), (10.6, 12.0), (50.2, 60.0), (99.0, 100.0), (0.031, 0.04)]
        {
            assert!((round_end(value) - end).abs() < 1e-9 * end, "{value}: {}", round_end(value));
        }
        assert_eq!(round_end(f64::NAN), 1.0);
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        assert_eq!(with_code("a <b>: `x --y` does"), "a &lt;b&gt;: <code>x --y</code> does");
        assert_eq!(unbroken("3.00 % of"), "3.00\u{a0}% of");
    }
}

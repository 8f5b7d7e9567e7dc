//! Figures of an experiment, as SVG that stands alone: a number of the steps of a series against a quantity, or several numbers of
//! each step in rows.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Kept, lookup, number_at};
use crate::Error;
use crate::figure::{
    Axis, AxisScale, Draw, LineChart, LinePoint, Row, RowChart, RowMark, RowSeries, RowStyle, STYLE, Series,
    SeriesStyle, Ticks, WIDE, line_chart, number, row_chart,
};
use crate::merge::{ExploreResult, pair_chart};

/// A figure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FigureSpec {
    /// Name of its file.
    pub(super) name: String,
    /// What it shows.
    pub(super) title: String,
    /// An exploration of merges: what the figure shows then are its first two measures, and nothing below is needed.
    #[serde(default)]
    explored: Option<String>,
    /// Horizontal axis.
    #[serde(default)]
    x: String,
    /// Its scale.
    #[serde(default)]
    scale: XScale,
    /// Vertical axis.
    #[serde(default)]
    y: String,
    /// Position of each point on the horizontal axis, by the label that stands for `{point}` in the names of steps.
    #[serde(default)]
    points: BTreeMap<String, f64>,
    /// Rows of dots with their intervals instead of lines: label and path of each. `x` names the axis then, a series is one
    /// step and has no path, and there is nothing else.
    #[serde(default)]
    rows: Vec<(String, String)>,
    /// What is drawn.
    #[serde(default)]
    series: Vec<SeriesSpec>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum XScale {
    #[default]
    Linear,
    Log,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesSpec {
    name: String,
    /// Name of the steps, with `{point}`.
    step: String,
    /// Where the number is in their results.
    #[serde(default)]
    path: String,
    /// Where a list is in the result of the step: a point for each of its entries then, joined in their order, and both paths begin at an
    /// entry. `points` is not used.
    #[serde(default)]
    each: Option<String>,
    /// Where the position on the horizontal axis is in the results, in the place of the number in `points`: the mean of several.
    #[serde(default)]
    at: Vec<String>,
}

/// Draws a figure. Steps without a result are gaps.
pub(super) fn draw(of: &FigureSpec, results: &BTreeMap<String, Kept>) -> Result<String, Error> {
    if let Some(name) = &of.explored {
        return explored(of, name, results);
    }
    if !of.rows.is_empty() {
        return in_rows(of, results);
    }
    let mut series = Vec::new();
    for (index, spec) in of.series.iter().enumerate() {
        let mut points = Vec::new();
        let mut add = |result: Option<&Value>, label: &str, x: Option<f64>| {
            let at = result.filter(|_| !spec.at.is_empty()).map(|result| mean_at(result, &spec.at));
            // Where it belongs is unknown.
            let Some(x) = at.unwrap_or(x) else { return };
            let found = result.and_then(|result| number_at(result, &spec.path));
            points.push(LinePoint {
                x,
                y: found.map(|(value, _)| value),
                interval: found.and_then(|(_, interval)| interval),
                tip: found.map_or(String::new(), |(value, _)| format!("{}, {label}: {}", spec.name, number(value))),
            });
        };
        match &spec.each {
            Some(list) => {
                let result = step(of, &spec.step, results)?.result.as_ref();
                let entries = result.and_then(|result| lookup(result, list)).and_then(Value::as_array);
                for (index, entry) in entries.into_iter().flatten().enumerate() {
                    let label = entry.get("step").and_then(Value::as_u64).map(|step| format!("step {step}"));
                    add(Some(entry), &label.unwrap_or_else(|| format!("{}", index + 1)), None);
                }
            }
            None => {
                for (label, x) in &of.points {
                    let kept = step(of, &spec.step.replace("{point}", label), results)?;
                    add(kept.result.as_ref(), label, Some(*x));
                }
            }
        }
        // A path through results goes where they go.
        if spec.at.is_empty() {
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        series.push(Series { name: spec.name.clone(), style: SeriesStyle::Model(index), draw: Draw::Points, points });
    }
    let scale = match of.scale {
        XScale::Linear => AxisScale::Linear,
        XScale::Log => AxisScale::Log,
    };
    let chart = LineChart {
        title: of.title.clone(),
        desc: format!("{} against {}", of.y, of.x),
        x: Axis { label: of.x.clone(), scale, ticks: Ticks::Any },
        y: Axis { label: of.y.clone(), scale: AxisScale::Linear, ticks: Ticks::Any },
        series,
        references: Vec::new(),
        y_extent: None,
    };
    Ok(alone(&line_chart(&chart, WIDE)))
}

/// Mean of the numbers at several paths; none where one is missing.
fn mean_at(result: &Value, paths: &[String]) -> Option<f64> {
    let numbers = paths.iter().map(|path| number_at(result, path).map(|(value, _)| value));
    let numbers = numbers.collect::<Option<Vec<f64>>>()?;
    Some(numbers.iter().sum::<f64>() / numbers.len() as f64)
}

/// A row for each path, a mark for each step.
fn in_rows(of: &FigureSpec, results: &BTreeMap<String, Kept>) -> Result<String, Error> {
    let steps = of.series.iter().map(|series| step(of, &series.step, results)).collect::<Result<Vec<_>, _>>()?;
    let mark = |name: &str, label: &str, found: Option<(f64, Option<[f64; 2]>)>| RowMark {
        value: found.map(|(value, _)| value),
        interval: found.and_then(|(_, interval)| interval),
        tip: found.map_or(String::new(), |(value, _)| format!("{name}, {label}: {}", number(value))),
    };
    let row = |(label, path): &(String, String)| {
        let of_series = of.series.iter().zip(&steps).map(|(series, kept)| {
            mark(&series.name, label, kept.result.as_ref().and_then(|result| number_at(result, path)))
        });
        Row { label: label.clone(), group: String::new(), marks: of_series.collect() }
    };
    let series = of.series.iter().enumerate();
    let chart = RowChart {
        title: of.title.clone(),
        desc: format!("{} of each row, a mark for each series with its 95 % interval", of.x),
        axis: Axis { label: of.x.clone(), scale: AxisScale::Linear, ticks: Ticks::Any },
        series: series
            .map(|(index, series)| RowSeries { name: series.name.clone(), style: SeriesStyle::Model(index) })
            .collect(),
        rows: of.rows.iter().map(row).collect(),
        style: RowStyle::Dots,
    };
    Ok(alone(&row_chart(&chart, WIDE)))
}

fn step<'a>(of: &FigureSpec, name: &str, results: &'a BTreeMap<String, Kept>) -> Result<&'a Kept, Error> {
    let problem = || format!("`{}`: no step is called `{name}`", of.name);
    results.get(name).ok_or_else(|| Error::Spec { field: "figure", problem: problem(), hint: None })
}

/// The first two measures of an exploration.
fn explored(of: &FigureSpec, name: &str, results: &BTreeMap<String, Kept>) -> Result<String, Error> {
    let result = step(of, name, results)?.result.clone();
    let explored = result.map(serde_json::from_value::<ExploreResult>).transpose()?;
    Ok(explored.map_or(String::new(), |explored| alone(&line_chart(&pair_chart(&explored, [0, 1]), WIDE))))
}

/// A figure of the page as a file of its own: with its name space, its colours and a ground.
fn alone(svg: &str) -> String {
    const COLOURS: &str = ".figure { --sans: system-ui, sans-serif; --paper: #fdfcf9; --ink: #1d1c1a; --muted: #65625b; \
                           --rule: #e2ded5; --m0: #1f5f9e; --m1: #b4420c; --m2: #0d7267; --m3: #8a3aa3; --m4: #7a6000; \
                           --m5: #b01e5e; background: var(--paper); }";
    let svg = svg.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1);
    svg.replacen("</desc>", &format!("</desc><style>{COLOURS}\n{STYLE}</style>"), 1) + "\n"
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_path_through_the_entries_of_a_result() {
        let entry = |step: u64, x: f64, y: f64| serde_json::json!({"step": step, "a": {"value": {"value": x}}, "b": x, "y": {"value": {"value": y}}});
        let result = serde_json::json!({"watched": [entry(10, 0.5, 0.25), entry(20, 0.25, 0.75), {"step": 30}]});
        let kept = Kept { name: "t".into(), spec: Value::Null, seconds: 0.0, result: Some(result), failed: None };
        let results = BTreeMap::from([("t".to_owned(), kept)]);
        let of: FigureSpec = toml::from_str(
            "name = \"n\"\ntitle = \"t\"\nseries = [{ name = \"s\", step = \"t\", each = \"watched\", at = [\"a\", \"b\"], path = \"y\" }]",
        )
        .unwrap();
        let svg = draw(&of, &results).unwrap();
        assert!(svg.contains("step 10") && svg.contains("step 20") && !svg.contains("step 30"), "{svg}");
        let gone: FigureSpec =
            toml::from_str("name = \"n\"\ntitle = \"t\"\nseries = [{ name = \"s\", step = \"u\" , each = \"w\"}]")
                .unwrap();
        assert!(draw(&gone, &results).is_err());
    }
}

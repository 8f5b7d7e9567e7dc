//! Figures of an experiment, as SVG that stands alone: a number of the steps of a series against a quantity, or several numbers of
//! each step in rows.

use std::collections::BTreeMap;

use lathe_measure::Number;
use lathe_measure::statistics::Spread;
use serde::Deserialize;
use serde_json::Value;

use super::{Kept, lookup, number_at};
use crate::Error;
use crate::figure::{
    Axis, AxisScale, Draw, LineChart, LinePoint, Row, RowChart, RowMark, RowSeries, RowStyle, STYLE, Series,
    SeriesStyle, Ticks, WIDE, line_chart, number, row_chart,
};
use crate::measure::{FairnessPanel, FairnessResult, Side, chart_of};
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
    /// A `fairness` step: what the figure shows then is `panel` of its page, and nothing below is needed.
    #[serde(default)]
    fairness: Option<String>,
    /// A figure of the page of a `fairness` step.
    #[serde(default)]
    panel: Option<FairnessPanel>,
    /// The variant that the panel is about, where it shows one.
    #[serde(default)]
    variant: String,
    /// The texts that the panel is about, where it shows one set.
    #[serde(default)]
    side: Side,
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
    /// Labels that stand for `{seed}` in the names of steps and in paths: a value is the mean over them then, with a band from
    /// the smallest to the largest.
    #[serde(default)]
    seeds: Vec<String>,
    /// Markers with intervals, or lines with bands.
    #[serde(default)]
    draw: Drawn,
    /// What is drawn.
    #[serde(default)]
    series: Vec<SeriesSpec>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Drawn {
    #[default]
    Points,
    Lines,
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
    /// Name of the steps, with `{point}`, and with `{seed}` where there are seeds.
    step: String,
    /// Where the number is in their results; both names may stand here too.
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
    if let Some(name) = &of.fairness {
        return fairness(of, name, results);
    }
    if !of.rows.is_empty() {
        return in_rows(of, results);
    }
    let draw = match of.draw {
        Drawn::Points => Draw::Points,
        Drawn::Lines => Draw::Line,
    };
    let mut series = Vec::new();
    for (index, spec) in of.series.iter().enumerate() {
        let mut points = Vec::new();
        let mut add = |label: &str, x: Option<f64>, found: Option<(f64, Option<[f64; 2]>)>| {
            // Where it belongs may be unknown.
            let Some(x) = x else { return };
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
                    let label = label.unwrap_or_else(|| format!("{}", index + 1));
                    add(&label, mean_at(entry, &spec.at), number_at(entry, &spec.path));
                }
            }
            None if spec.at.is_empty() => {
                for (label, x) in &of.points {
                    add(label, Some(*x), value_at(of, spec, label, results)?);
                }
            }
            None => {
                for label in of.points.keys() {
                    let result = step(of, &spec.step.replace("{point}", label), results)?.result.as_ref();
                    let at = result.and_then(|result| mean_at(result, &spec.at));
                    add(label, at, result.and_then(|result| number_at(result, &spec.path)));
                }
            }
        }
        // A path through results goes where they go.
        if spec.at.is_empty() {
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        series.push(Series { name: spec.name.clone(), style: SeriesStyle::Model(index), draw, points });
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

/// A value with the ends of its interval or band.
type Found = (f64, Option<[f64; 2]>);

/// The value of a point.
fn value_at(
    of: &FigureSpec,
    spec: &SeriesSpec,
    label: &str,
    results: &BTreeMap<String, Kept>,
) -> Result<Option<Found>, Error> {
    let at = |seed: &str| {
        let filled = |text: &str| text.replace("{point}", label).replace("{seed}", seed);
        let kept = step(of, &filled(&spec.step), results)?;
        Ok::<_, Error>(kept.result.as_ref().and_then(|result| number_at(result, &filled(&spec.path))))
    };
    if of.seeds.is_empty() {
        return at("{seed}");
    }
    let found = of.seeds.iter().map(|seed| at(seed)).collect::<Result<Vec<_>, _>>()?;
    let values: Vec<Number> = found.into_iter().flatten().map(|(value, _)| Number::from(value)).collect();
    let Spread { mean, least, most, .. } = Spread::of(&values);
    Ok(mean.value().map(|mean| (mean, least.value().zip(most.value()).map(|(least, most)| [least, most]))))
}

/// A panel of a comparison of runs.
fn fairness(of: &FigureSpec, name: &str, results: &BTreeMap<String, Kept>) -> Result<String, Error> {
    let Some(panel) = of.panel else {
        let problem = format!("`{}`: `panel` is missing", of.name);
        let hint = "average, low, high, balanced, ratio, bins, accuracy, speed or theory".into();
        return Err(Error::Spec { field: "figure", problem, hint: Some(hint) });
    };
    let result = step(of, name, results)?.result.clone();
    let result = result.map(serde_json::from_value::<FairnessResult>).transpose()?;
    Ok(result.map_or(String::new(), |result| alone(&line_chart(&chart_of(&result, panel, &of.variant, of.side), WIDE))))
}

/// Mean of the numbers at several paths; none where one is missing or there are no paths.
fn mean_at(result: &Value, paths: &[String]) -> Option<f64> {
    let numbers = paths.iter().map(|path| number_at(result, path).map(|(value, _)| value));
    let numbers = numbers.collect::<Option<Vec<f64>>>()?;
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
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

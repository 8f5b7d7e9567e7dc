//! Loss by how often a token type occurs.

use super::html::{Table, absences, figure, full_width, interval, multiples, panel as frame, text, tip, value};
use crate::figure::{
    Axis, AxisScale, Draw, LineChart, LinePoint, NARROW, Reference, Series, SeriesStyle, Ticks, count, finite_extent,
    line_chart,
};
use crate::report::data::{FrequencyBin, ModelReport, Panel, Report};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    let shared = finite_extent(models.iter().flat_map(extents));
    let measured = models.iter().zip(names).enumerate().filter(|(_, (model, _))| !model.bins.is_empty());
    let charts: Vec<(String, LineChart)> =
        measured.map(|(index, (model, name))| (name.clone(), chart(model, name, index, shared))).collect();
    let figures = match &charts[..] {
        [] => String::new(),
        [(_, only)] => full_width(|width| line_chart(only, width)),
        several => {
            let drawn = several.iter().map(|(name, chart)| (name.clone(), line_chart(chart, NARROW)));
            multiples(&drawn.collect::<Vec<_>>())
        }
    };
    let caption = "Dashed: the means over types and over tokens. Each marker is the mean over the \
                   token types of a bin of each type's mean surprisal, in nats; the bar is its 95 \
                   % interval. It stands at the geometric middle of the bin. The number of types \
                   and tokens of each bin is in the table; a bin without types is left out.";
    let drawn = if charts.is_empty() { String::new() } else { figure(&figures, caption) };
    let absent = absences(models, names, Panel::Frequency, |model| !model.bins.is_empty());
    let several = if models.len() > 1 {
        " Models with different tokenizers count different types: compare the shapes, not the heights."
    } else {
        ""
    };
    let how = format!(
        "From rare token types on the left to frequent ones on the right. The mean over tokens is ruled by the \
         frequent types; the mean over types weighs every type alike and shows what the model knows of rare \
         ones.{several}"
    );
    let body = [drawn, table(models, names).folded("Types, tokens and loss of each bin"), absent];
    frame("frequency", "Loss by token frequency", &how, &body.concat())
}

fn extents(model: &ModelReport) -> Vec<f64> {
    let bins = model.bins.iter().flat_map(|bin| {
        let interval = bin.nll.finite_interval().into_iter().flatten();
        bin.nll.finite().into_iter().chain(interval)
    });
    let means = model.overall.iter().flat_map(|overall| [&overall.nll_micro, &overall.nll_macro]);
    bins.chain(means.filter_map(|mean| mean.finite())).collect()
}

fn chart(model: &ModelReport, name: &str, index: usize, y_extent: Option<[f64; 2]>) -> LineChart {
    let means = model.overall.iter();
    let means = means.flat_map(|overall| [("over types", &overall.nll_macro), ("over tokens", &overall.nll_micro)]);
    let references = means.filter_map(|(name, mean)| {
        Some(Reference { name: name.to_owned(), y: mean.finite()?, style: SeriesStyle::Bound })
    });
    let points = model.bins.iter().map(|bin| LinePoint {
        x: middle(bin),
        y: bin.nll.finite(),
        interval: bin.nll.finite_interval(),
        tip: format!("{}, {} types", tip(&occurrences(bin), &bin.nll), count(bin.types)),
    });
    LineChart {
        title: format!("{name}: loss by token frequency"),
        desc: "Mean surprisal of token types by how often they occur in the sample, on a logarithmic axis.".to_owned(),
        x: Axis { label: "occurrences (log scale)".to_owned(), scale: AxisScale::Log, ticks: Ticks::Any },
        y: Axis { label: "nats per token type".to_owned(), scale: AxisScale::FromZero, ticks: Ticks::Any },
        series: vec![Series {
            name: String::new(),
            style: SeriesStyle::Model(index),
            draw: Draw::Points,
            points: points.collect(),
        }],
        references: references.collect(),
        y_extent,
    }
}

/// Geometric mean of the smallest and the largest count that belong to the bin.
fn middle(bin: &FrequencyBin) -> f64 {
    let last = bin.high.saturating_sub(1).max(bin.low);
    (bin.low as f64 * last as f64).sqrt()
}

fn occurrences(bin: &FrequencyBin) -> String {
    match bin.high.saturating_sub(1) {
        last if last > bin.low => format!("{} to {}", count(bin.low), count(last)),
        _ => count(bin.low),
    }
}

fn table(models: &[ModelReport], names: &[String]) -> Table {
    let mut table = Table::new(&["occurrences", "model", "types", "tokens", "nats per type", "95 % interval"]);
    for (model, name) in models.iter().zip(names) {
        for bin in &model.bins {
            let counts = [count(bin.types), count(bin.tokens)];
            let loss = [value(&bin.nll), interval(&bin.nll)];
            table.rows.push([vec![occurrences(bin), text(name)], counts.to_vec(), loss.to_vec()].concat());
        }
    }
    table
}

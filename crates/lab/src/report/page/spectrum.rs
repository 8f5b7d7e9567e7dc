//! Spectrum of the hidden states by layer, with its Gaussian null.

use super::html::{Table, absences, figure, interval, items, multiples, null, panel as frame, text, tip, value};
use crate::figure::{
    Axis, AxisScale, Draw, LineChart, LinePoint, NARROW, Reference, Series, SeriesStyle, Ticks, count, finite_extent,
    line_chart, number,
};
use crate::report::data::{LayerSpectrum, ModelReport, Panel, Quantity, Report, Spectrum};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    let measured: Vec<(usize, &String, &Spectrum)> = models
        .iter()
        .zip(names)
        .enumerate()
        .filter_map(|(index, (model, name))| Some((index, name, model.spectrum.as_ref()?)))
        .filter(|(_, _, spectrum)| !spectrum.layers.is_empty())
        .collect();
    let caps = measured.iter().map(|(_, _, spectrum)| spectrum.cap);
    let norms = finite_extent(caps.chain(measured.iter().flat_map(|(_, _, spectrum)| values(spectrum, |l| &l.mnn))));
    let entropies = finite_extent(measured.iter().flat_map(|(_, _, spectrum)| values(spectrum, |l| &l.matrix_entropy)));
    let figures: Vec<(String, String)> = measured
        .iter()
        .flat_map(|(index, name, spectrum)| {
            let heading = |alone: &str, beside: &str| match models.len() {
                1 => alone.to_owned(),
                _ => format!("{name}: {beside}"),
            };
            let norm = norm_chart(spectrum, name, *index, norms);
            let entropy = entropy_chart(spectrum, name, *index, entropies);
            [
                (heading("Matrix Nuclear-Norm (MNN)", "MNN"), line_chart(&norm, NARROW)),
                (heading("Matrix entropy", "matrix entropy"), line_chart(&entropy, NARROW)),
            ]
        })
        .collect();
    let drawn = if figures.is_empty() { String::new() } else { figure(&multiples(&figures), &caption(&measured)) };
    let absent = absences(models, names, Panel::Spectrum, |model| {
        model.spectrum.as_ref().is_some_and(|spectrum| !spectrum.layers.is_empty())
    });
    let how = "Matrix entropy says in how many directions the hidden states of a window point: 1 is all, evenly. The \
               Matrix Nuclear-Norm looks at the features instead and is high where the largest ones carry the states \
               together. Only the distance to the grey line says something of the model: Gaussian noise of the same \
               shape gives that line. Layer 0 is the embeddings, the last is after the final norm. A diagnostic, no \
               ranking.";
    let body = [drawn, table(models, names).folded("Values of each layer"), absent];
    frame("spectrum", "Spectrum by layer", how, &body.concat())
}

fn caption(measured: &[(usize, &String, &Spectrum)]) -> String {
    let mut caption = "Means over windows with a band for the 95 % interval, where there is one; neither axis has a \
                       unit, both values lie between 0 and 1."
        .to_owned();
    for (_, name, spectrum) in measured {
        caption += &format!(
            " {}: {} windows of N = {} tokens ({}), d = {}, cap √(min(N, d) / N) = {}; forward {} s, metric {} s.",
            text(name),
            count(spectrum.windows),
            count(spectrum.tokens),
            text(&spectrum.input),
            count(spectrum.hidden_size),
            number(spectrum.cap),
            value(&spectrum.forward),
            value(&spectrum.metric),
        );
    }
    if measured.windows(2).any(|pair| pair[0].2.hidden_size != pair[1].2.hidden_size) {
        caption += " The widths d differ: compare the models by their distance to their own grey line only.";
    }
    caption
}

type Field = fn(&LayerSpectrum) -> &Quantity;

fn values(spectrum: &Spectrum, field: Field) -> Vec<f64> {
    let layers = spectrum.layers.iter().map(field);
    let values = layers.flat_map(|quantity| {
        let interval = quantity.finite_interval().into_iter().flatten();
        quantity.finite().into_iter().chain(quantity.null).chain(interval)
    });
    values.collect()
}

fn norm_chart(spectrum: &Spectrum, name: &str, index: usize, y_extent: Option<[f64; 2]>) -> LineChart {
    let cap = Reference { name: "cap".to_owned(), y: spectrum.cap, style: SeriesStyle::Bound };
    let title = format!("{name}: Matrix Nuclear-Norm by layer");
    let mut chart = layer_chart(spectrum, &title, "MNN (no unit)", |layer| &layer.mnn, index, y_extent);
    chart.references.push(cap);
    chart
}

fn entropy_chart(spectrum: &Spectrum, name: &str, index: usize, y_extent: Option<[f64; 2]>) -> LineChart {
    let title = format!("{name}: matrix entropy by layer");
    layer_chart(spectrum, &title, "entropy / ln d (no unit)", |layer| &layer.matrix_entropy, index, y_extent)
}

fn layer_chart(
    spectrum: &Spectrum,
    title: &str,
    label: &str,
    field: Field,
    index: usize,
    y_extent: Option<[f64; 2]>,
) -> LineChart {
    let control = spectrum.layers.iter().map(|layer| LinePoint {
        x: layer.layer as f64,
        y: field(layer).null.filter(|null| null.is_finite()),
        interval: None,
        tip: String::new(),
    });
    let measured = spectrum.layers.iter().map(|layer| LinePoint {
        x: layer.layer as f64,
        y: field(layer).finite(),
        interval: field(layer).finite_interval(),
        tip: tip(&format!("layer {}", layer.layer), field(layer)),
    });
    LineChart {
        title: title.to_owned(),
        desc: "A line by layer, with the value of Gaussian noise of the same shape as a grey line.".to_owned(),
        x: Axis { label: "layer".to_owned(), scale: AxisScale::Linear, ticks: Ticks::Whole },
        y: Axis { label: label.to_owned(), scale: AxisScale::FromZero, ticks: Ticks::Any },
        series: vec![
            Series { name: "noise".to_owned(), style: SeriesStyle::Null, draw: Draw::Line, points: control.collect() },
            Series {
                name: "model".to_owned(),
                style: SeriesStyle::Model(index),
                draw: Draw::Line,
                points: measured.collect(),
            },
        ],
        references: Vec::new(),
        y_extent,
    }
}

fn table(models: &[ModelReport], names: &[String]) -> Table {
    let mut head = vec!["layer", "model"];
    for measure in ["MNN", "MNN / null", "entropy", "effective rank"] {
        head.extend([measure, "95 % interval", "null"]);
    }
    head.push("windows");
    let mut table = Table::new(&head);
    for (model, name) in models.iter().zip(names) {
        for layer in model.spectrum.iter().flat_map(|spectrum| &spectrum.layers) {
            let mut row = vec![count(layer.layer), text(name)];
            for quantity in [&layer.mnn, &layer.mnn_corrected, &layer.matrix_entropy, &layer.effective_rank] {
                row.extend([value(quantity), interval(quantity), null(quantity)]);
            }
            row.push(items(&layer.mnn));
            table.rows.push(row);
        }
    }
    table
}

//! Attention sinks: the share of attention that goes to the first token.

use super::html::{Table, absences, figure, full_width, multiples, panel as frame, text, tip, value};
use crate::figure::{
    Axis, AxisScale, Draw, HeatMap, HeatRows, LineChart, LinePoint, NARROW, Reference, Series, SeriesStyle, Ticks,
    count, finite_extent, heat_map, line_chart, percent,
};
use crate::report::data::{Attention, ModelReport, Panel, Quantity, Report};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let models = &report.models;
    let measured: Vec<(usize, &String, &Attention)> = models
        .iter()
        .zip(names)
        .enumerate()
        .filter_map(|(index, (model, name))| Some((index, name, model.attention.as_ref()?)))
        .collect();
    let extent = finite_extent(measured.iter().flat_map(|(_, _, attention)| line_values(attention)));
    let lines: Vec<(String, LineChart)> = measured
        .iter()
        .map(|(index, name, attention)| ((*name).clone(), layer_line(attention, name, *index, extent)))
        .collect();
    let maps: Vec<(String, HeatMap)> =
        measured.iter().map(|(_, name, attention)| ((*name).clone(), sink_map(attention, name))).collect();
    let figures = match (&maps[..], &lines[..]) {
        ([], _) => String::new(),
        ([(_, map)], [(_, line)]) => {
            full_width(|width| heat_map(map, width)) + &full_width(|width| line_chart(line, width))
        }
        (maps, lines) => {
            let drawn = maps.iter().zip(lines);
            let drawn = drawn.flat_map(|((name, map), (_, line))| {
                [
                    (format!("{name}: by layer and head"), heat_map(map, NARROW)),
                    (format!("{name}: mean over heads"), line_chart(line, NARROW)),
                ]
            });
            multiples(&drawn.collect::<Vec<_>>())
        }
    };
    let drawn = if measured.is_empty() { String::new() } else { figure(&figures, &caption(&measured)) };
    let absent = absences(models, names, Panel::Attention, |model| model.attention.is_some());
    let how = "Dark cells are heads that park their attention on the first token, as trained decoders do where a head \
               has nothing to say. The line is the mean over the heads of a layer, the dashed line what uniform causal \
               attention would give.";
    let body = [drawn, table(models, names).folded("Sink share of each layer"), absent];
    frame("attention", "Attention sinks", how, &body.concat())
}

fn caption(measured: &[(usize, &String, &Attention)]) -> String {
    let mut caption =
        "Share of the attention mass of all queries that falls on the first token of a window, from 0 to 1; an \
         outlined cell has no value; the band around the line is the 95 % interval over windows. Layers and heads are \
         counted from 0. Every cell is in <code>report.json</code>."
            .to_owned();
    for (_, name, attention) in measured {
        caption += &format!(
            " {}: {} windows of {} tokens ({}), {} queries per head.",
            text(name),
            count(attention.windows),
            count(attention.tokens),
            text(&attention.input),
            count(attention.sink_share.n),
        );
    }
    caption
}

fn sink_map(attention: &Attention, name: &str) -> HeatMap {
    HeatMap {
        title: format!("{name}: attention on the first token by layer and head"),
        desc: "A cell for each layer (from left to right) and head (from top to bottom); darker is a larger share."
            .to_owned(),
        x_label: "layer".to_owned(),
        y_label: "head".to_owned(),
        rows: HeatRows::Numbered,
        value_label: "share on first token".to_owned(),
        columns: attention.sink_share.values.clone(),
        domain: [0.0, 1.0],
    }
}

fn line_values(attention: &Attention) -> Vec<f64> {
    let values = attention.sink_by_layer.iter().flat_map(|share| {
        let interval = share.finite_interval().into_iter().flatten();
        share.finite().into_iter().chain(interval)
    });
    values.chain(attention.sink_share.null).collect()
}

fn layer_line(attention: &Attention, name: &str, index: usize, y_extent: Option<[f64; 2]>) -> LineChart {
    let points = attention.sink_by_layer.iter().enumerate().map(|(layer, share)| LinePoint {
        x: layer as f64,
        y: share.finite(),
        interval: share.finite_interval(),
        tip: tip(&format!("layer {layer}"), share),
    });
    let uniform = attention.sink_share.null.filter(|null| null.is_finite());
    let uniform = uniform.map(|y| Reference { name: "uniform".to_owned(), y, style: SeriesStyle::Bound });
    LineChart {
        title: format!("{name}: attention on the first token by layer"),
        desc: "A line by layer: the mean over heads of the share of attention on the first token.".to_owned(),
        x: Axis { label: "layer".to_owned(), scale: AxisScale::Linear, ticks: Ticks::Whole },
        y: Axis {
            label: "share on first token, mean over heads".to_owned(),
            scale: AxisScale::FromZero,
            ticks: Ticks::Any,
        },
        series: vec![Series {
            name: "model".to_owned(),
            style: SeriesStyle::Model(index),
            draw: Draw::Line,
            points: points.collect(),
        }],
        references: uniform.into_iter().collect(),
        y_extent,
    }
}

fn table(models: &[ModelReport], names: &[String]) -> Table {
    let mut table = Table::new(&["layer", "model", "heads", "mean", "smallest", "largest", "head of the largest"]);
    for (model, name) in models.iter().zip(names) {
        let Some(attention) = &model.attention else {
            continue;
        };
        let missing = Quantity::missing("1", "not measured");
        for (layer, heads) in attention.sink_share.values.iter().enumerate() {
            let known = heads.iter().enumerate().filter_map(|(head, share)| Some((head, (*share)?)));
            let known: Vec<(usize, f64)> = known.filter(|(_, share)| share.is_finite()).collect();
            let most = known.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            let least = known.iter().min_by(|a, b| a.1.total_cmp(&b.1));
            let mean = attention.sink_by_layer.get(layer).unwrap_or(&missing);
            table.rows.push(vec![
                layer.to_string(),
                text(name),
                count(heads.len() as u64),
                mean.finite().map_or_else(|| value(mean), percent),
                least.map_or("–".to_owned(), |(_, share)| percent(*share)),
                most.map_or("–".to_owned(), |(_, share)| percent(*share)),
                most.map_or("–".to_owned(), |(head, _)| head.to_string()),
            ]);
        }
    }
    table
}

//! Whether the models can be merged or ensembled.

use super::html::{Table, figure, full_width, panel as frame, text};
use crate::figure::{
    Axis, AxisScale, Row, RowChart, RowMark, RowSeries, RowStyle, SeriesStyle, Ticks, count, percent, row_chart,
};
use crate::report::data::{Feasibility, ModelPair, Report};

pub(super) fn panel(report: &Report, names: &[String]) -> String {
    let Some(comparison) = &report.comparison else {
        return String::new();
    };
    let named = comparison.pairs.iter().filter_map(|pair| Some((pair, names.get(pair.left)?, names.get(pair.right)?)));
    let pairs: Vec<(&ModelPair, String)> =
        named.map(|(pair, left, right)| (pair, format!("{left} with {right}"))).collect();
    if pairs.is_empty() {
        return String::new();
    }
    let mut verdicts = Table::new(&["models", "merge weights", "ensemble predictions"]);
    let mut overlaps = Table::new(&["models", "left vocabulary", "right vocabulary", "shared by bytes", "share"]);
    overlaps.head.extend(["shared by spelling".to_owned(), "share".to_owned()]);
    for (pair, label) in &pairs {
        verdicts.rows.push(vec![text(label), feasibility(&pair.merge), feasibility(&pair.ensemble)]);
        let vocabulary = &pair.vocabulary;
        let share = |quantity: crate::report::Quantity| quantity.finite().map_or("–".to_owned(), percent);
        overlaps.rows.push(vec![
            text(label),
            count(vocabulary.left),
            count(vocabulary.right),
            count(vocabulary.shared_bytes),
            share(vocabulary.share_by_bytes()),
            count(vocabulary.shared_strings),
            share(vocabulary.share_by_strings()),
        ]);
    }
    let chart = chart(&pairs);
    let caption = "Vocabulary entries that both models can emit, compared as bytes, as a share of the smaller of the \
                   two vocabularies. Counted over all entries, so there is no interval.";
    let body = [
        verdicts.wrapping(),
        figure(&full_width(|width| row_chart(&chart, width)), caption),
        overlaps.folded("Vocabulary overlap"),
    ];
    let how = "Weights can be merged where every tensor has the same shape and the tokenizers agree. Predictions can \
               be ensembled where the vocabularies overlap as bytes: a longer bar means that fewer tokens of one model \
               are unknown to the other.";
    frame("comparison", "Merging and ensembling", how, &body.concat())
}

fn feasibility(feasibility: &Feasibility) -> String {
    let answer = if feasibility.possible { "<b>yes</b>" } else { "<b>no</b>" };
    let reasons: Vec<String> = feasibility.reasons.iter().map(|reason| text(reason)).collect();
    if reasons.is_empty() { answer.to_owned() } else { format!("{answer}: {}", reasons.join("; ")) }
}

fn chart(pairs: &[(&ModelPair, String)]) -> RowChart {
    let rows = pairs.iter().map(|(pair, label)| {
        let share = pair.vocabulary.share_by_bytes().finite().map(|share| share * 100.0);
        let tip = format!("{}: {} shared", label, count(pair.vocabulary.shared_bytes));
        let marks = vec![RowMark { value: share, interval: None, tip }];
        Row { label: label.clone(), group: String::new(), marks }
    });
    RowChart {
        title: "Vocabulary overlap by bytes".to_owned(),
        desc: "One bar for each pair of models: shared entries in per cent of the smaller vocabulary.".to_owned(),
        axis: Axis {
            label: "shared entries (% of the smaller vocabulary)".to_owned(),
            scale: AxisScale::FromZero,
            ticks: Ticks::Any,
        },
        series: vec![RowSeries { name: "shared".to_owned(), style: SeriesStyle::Null }],
        rows: rows.collect(),
        style: RowStyle::Bars,
    }
}

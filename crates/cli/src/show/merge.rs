//! What `lathe merge` prints.

use lathe_lab::ElementCount;
use lathe_lab::figure::{bytes, count, number, share, value};
use lathe_lab::merge::{ExploreResult, ExtractResult, MergeResult, MergeSummary, ResidualLayer, Tried};

use super::lines;
use crate::table::Align;

/// `lathe merge --dry-run`
pub(crate) fn merge_plan(summary: &MergeSummary) -> String {
    format!("{}\nnothing was written: this is a dry run\n", described(summary))
}

/// `lathe merge`
pub(crate) fn merged(result: &MergeResult) -> String {
    let files = result.files.iter().map(|file| vec![file.file.clone(), bytes(file.bytes)]).collect();
    let files = lines(&[("file", Align::Left), ("size", Align::Right)], files);
    let mut text = described(&result.summary);
    if !result.remarks.is_empty() {
        text.push('\n');
    }
    for remark in &result.remarks {
        let tensors = match remark.tensors {
            1 => format!("1 tensor ({})", remark.first),
            n => format!("{} tensors ({} first)", count(n as u64), remark.first),
        };
        text.push_str(&format!("{tensors}: {}\n", remark.remark));
    }
    let resumed = match result.resumed {
        0 => String::new(),
        n => format!("{} tensors were there already; ", count(n as u64)),
    };
    let memory = result.peak_memory.map_or(String::new(), |peak| format!(", {} of memory at most", bytes(peak)));
    format!("{text}\n{files}\n{resumed}{} s{memory}\nwritten to {}\n", number(result.seconds), result.out.display())
}

/// What `lathe merge residual` says beside the merge.
pub(crate) fn residual(layers: &[ResidualLayer]) -> String {
    let columns =
        [("layer", Align::Right), ("residual", Align::Right), ("update", Align::Right), ("cosine", Align::Right)];
    let row = |of: &ResidualLayer| {
        let layer = of.layer.map_or("all".to_owned(), |layer| layer.to_string());
        vec![layer, share(of.residual), share(of.update), value(of.cosine)]
    };
    format!(
        "\n{}\nresidual: norm of instruct − base, and update: of updated − base, as shares of the base's norm. cosine: of the two;\n\
         near 0 they do not interfere, near 1 the update already has what the residual adds.\n",
        lines(&columns, layers.iter().map(row).collect())
    )
}

/// `lathe merge extract`
pub(crate) fn extracted(result: &ExtractResult) -> String {
    let notes: String = result.notes.iter().map(|note| format!("note: {note}\n")).collect();
    format!(
        "{} matrices of rank {}, {} numbers; they hold {} % of the squared difference of the matrices that were adapted\n{notes}\
         written to {}\n",
        count(result.matrices as u64),
        result.rank,
        count(result.parameters),
        number(100.0 * result.kept),
        result.out.display()
    )
}

/// `lathe merge explore`
pub(crate) fn explored(result: &ExploreResult) -> String {
    let mut columns = vec![("candidate".to_owned(), Align::Left)];
    columns.extend(result.measures.iter().map(|measure| (measure.name.clone(), Align::Right)));
    columns.push(("unbeaten".to_owned(), Align::Left));
    let row = |(i, tried): (usize, &Tried)| {
        let mut cells = vec![tried.name.clone()];
        cells.extend(tried.values.iter().map(|value| number(*value)));
        cells.push(if result.front.contains(&i) { "yes".into() } else { String::new() });
        cells
    };
    let rows = result.tried.iter().enumerate().map(row).collect();
    let columns: Vec<(&str, Align)> = columns.iter().map(|(name, align)| (name.as_str(), *align)).collect();
    let units: String = result
        .measures
        .iter()
        .map(|measure| {
            let better = if measure.lower_is_better { "lower" } else { "higher" };
            format!("{}: {}, {better} is better\n", measure.name, measure.unit)
        })
        .collect();
    let written: String = result.written.iter().map(|out| format!("written as a model: {}\n", out.display())).collect();
    let resumed = match result.resumed {
        0 => String::new(),
        n => format!("{} had been measured before\n", count(n as u64)),
    };
    let page = result.out.join("index.html");
    format!(
        "{}\n{units}unbeaten: no other candidate is as good on all of them and better on one\n{resumed}{written}the picture is in {}\n",
        lines(&columns, rows),
        page.display()
    )
}

fn described(summary: &MergeSummary) -> String {
    let inputs = summary.inputs.iter().map(|input| {
        vec![
            input.model.clone(),
            input.format.clone(),
            input.architecture.clone(),
            count(input.layers as u64),
            elements(&input.elements),
            input.licence.clone().unwrap_or_else(|| "not stated".into()),
        ]
    });
    let columns = [
        ("model", Align::Left),
        ("format", Align::Left),
        ("architecture", Align::Left),
        ("layers", Align::Right),
        ("stored as", Align::Left),
        ("licence", Align::Left),
    ];
    let notes: String = summary.notes.iter().map(|note| format!("note: {note}\n")).collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    let rows = summary.vocabulary.map_or(String::new(), |rows| format!(", {} tokens", count(rows as u64)));
    format!(
        "{}\n{}: {} tensors in {} layers{rows}, {} parameters, {} as {}\n{gap}{notes}",
        lines(&columns, inputs.collect()),
        summary.method,
        count(summary.tensors as u64),
        count(summary.layers as u64),
        count(summary.parameters),
        bytes(summary.bytes),
        elements(&summary.elements),
    )
}

fn elements(counts: &[ElementCount]) -> String {
    counts.iter().map(|count| count.element.clone()).collect::<Vec<_>>().join(", ")
}

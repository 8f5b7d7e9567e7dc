//! Two models side by side.

use std::fmt::Write;

use lathe_lab::figure::{cosine, count, number};
use lathe_lab::{DiffResult, GroupDiff, TensorDiff, diff_summary};
use lathe_measure::Number;
use lathe_measure::weights::Changes;

use super::lines;
use crate::table::Align;

/// Tensors that are listed one by one.
const SHOWN: usize = 10;

/// `lathe diff`
pub(crate) fn diff(result: &DiffResult) -> String {
    let mut text = String::new();
    for sentence in diff_summary(result) {
        let _ = writeln!(text, "{sentence}");
    }
    if !result.whole.distance.is_equal() {
        text += &tables(result);
    }
    text.push('\n');
    for note in &result.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if let Some(page) = &result.spec.out {
        let _ = writeln!(text, "The page is {}", page.display());
    }
    text
}

const OF_GROUP: [(&str, Align); 4] =
    [("difference", Align::Right), ("cosine", Align::Right), ("same sign", Align::Right), ("rank", Align::Right)];

const OF_CHANGES: [(&str, Align); 4] = [
    ("cosine of changes", Align::Right),
    ("sign conflicts", Align::Right),
    ("large overlap", Align::Right),
    ("large conflicts", Align::Right),
];

fn tables(result: &DiffResult) -> String {
    let has_base = result.base.is_some();
    let table = |first: &[(&'static str, Align)], rows: Vec<Vec<String>>| {
        let changes = if has_base { &OF_CHANGES[..] } else { &[] };
        format!("\n{}", lines(&[first, &OF_GROUP[..], changes].concat(), rows))
    };
    let row = |name: String, group: &GroupDiff| {
        let equal = format!("{} of {}", group.equal, group.tensors);
        let numbers = [
            share(group.distance.relative),
            of(group.distance.cosine, cosine),
            share(group.distance.sign_agreement),
            share(group.rank_of_noise),
        ];
        [vec![name, equal], numbers.to_vec(), change_cells(group.changes.as_ref(), has_base)].concat()
    };
    let kinds = result.kinds.iter().map(|of| row(of.kind.name().to_owned(), &of.group));
    let kinds = kinds.chain([row("all".to_owned(), &result.whole)]).collect();
    let layers = result.layers.iter().map(|of| row(of.layer.to_string(), &of.group)).collect();
    let most = result.changed_most().into_iter().take(SHOWN).map(|tensor| tensor_row(tensor, has_base)).collect();
    [
        table(&[("weights", Align::Left), ("equal", Align::Right)], kinds),
        table(&[("layer", Align::Right), ("equal", Align::Right)], layers),
        table(&[("most different", Align::Left), ("shape", Align::Right)], most),
        "\ndifference: norm of B − A as a share of A's. rank: effective rank of B − A as a share of that of noise.\n"
            .to_owned(),
    ]
    .concat()
}

fn tensor_row(tensor: &TensorDiff, has_base: bool) -> Vec<String> {
    let shape: Vec<String> = tensor.shape.iter().map(|size| count(*size as u64)).collect();
    let numbers = [
        share(tensor.distance.relative),
        of(tensor.distance.cosine, cosine),
        share(tensor.distance.sign_agreement),
        tensor.rank.map_or("–".into(), |rank| share(rank.of_noise)),
    ];
    let name = vec![tensor.name.clone(), shape.join(" x ")];
    [name, numbers.to_vec(), change_cells(tensor.changes.as_ref(), has_base)].concat()
}

fn change_cells(changes: Option<&Changes>, has_base: bool) -> Vec<String> {
    match changes {
        _ if !has_base => Vec::new(),
        None => vec!["–".to_owned(); OF_CHANGES.len()],
        Some(changes) => vec![
            of(changes.cosine, number),
            share(changes.sign_conflict),
            share(changes.large_overlap),
            share(changes.large_conflict),
        ],
    }
}

fn share(value: Number) -> String {
    of(value, |value| format!("{} %", number(100.0 * value)))
}

fn of(value: Number, write: impl Fn(f64) -> String) -> String {
    value.value().map_or("–".into(), write)
}

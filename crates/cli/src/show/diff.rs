//! Two models side by side.

use std::fmt::Write;

use lathe_lab::figure::{cosine, count, measured, number};
use lathe_lab::{DiffResult, DiffSummary, GroupDiff, TensorDiff, diff_summary};
use lathe_measure::weights::Distance;
use lathe_measure::{Number, Reason};

use super::lines;
use crate::table::Align;

/// Tensors that are listed one by one.
const SHOWN: usize = 10;

/// `lathe diff`
pub(crate) fn diff(result: &DiffResult) -> String {
    let DiffSummary { distance, changes } = diff_summary(result);
    let paragraphs = [distance, changes].into_iter().filter(|sentences| !sentences.is_empty());
    let mut text = paragraphs.map(|sentences| sentences.join("\n") + "\n").collect::<Vec<_>>().join("\n");
    if !result.whole.distance.is_equal() {
        text += &tables(result);
        if result.base.is_some() {
            text += &changes_tables(result);
        }
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

const KIND: (&str, Align) = ("weights", Align::Left);
const LAYER: (&str, Align) = ("layer", Align::Right);

fn tables(result: &DiffResult) -> String {
    const TITLES: [(&str, Align); 5] = [
        ("equal", Align::Right),
        ("difference", Align::Right),
        ("cosine", Align::Right),
        ("same sign", Align::Right),
        ("rank", Align::Right),
    ];
    let row = |name: String, group: &GroupDiff| {
        let equal = format!("{} of {}", group.equal, group.tensors);
        [vec![name, equal], numbers(&group.distance, group.rank_of_noise)].concat()
    };
    let kinds = result.kinds.iter().map(|of| row(of.kind.name().to_owned(), &of.group));
    let kinds = kinds.chain([row("all".to_owned(), &result.whole)]).collect();
    let layers = result.layers.iter().map(|of| row(of.layer.to_string(), &of.group)).collect();
    let most = result.changed_most().into_iter().take(SHOWN).map(tensor_row).collect();
    let tensors = [&[("most different", Align::Left), ("shape", Align::Right)], &TITLES[1..]].concat();
    format!(
        "\n{}\n{}\n{}\ndifference: norm of B − A as a share of A's. rank: effective rank of B − A as a share of that of noise.\n",
        lines(&[&[KIND], &TITLES[..]].concat(), kinds),
        lines(&[&[LAYER], &TITLES[..]].concat(), layers),
        lines(&tensors, most)
    )
}

fn tensor_row(tensor: &TensorDiff) -> Vec<String> {
    let shape: Vec<String> = tensor.shape.iter().map(|size| count(*size as u64)).collect();
    let name = vec![tensor.name.clone(), shape.join(" x ")];
    let rank = tensor.rank.map_or(Number::Undefined(Reason::NotGiven), |rank| rank.of_noise);
    [name, numbers(&tensor.distance, rank)].concat()
}

fn numbers(distance: &Distance, rank: Number) -> Vec<String> {
    vec![share(distance.relative), measured(distance.cosine, cosine), share(distance.sign_agreement), share(rank)]
}

fn changes_tables(result: &DiffResult) -> String {
    const TITLES: [(&str, Align); 8] = [
        ("A changed", Align::Right),
        ("B changed", Align::Right),
        ("A's norm", Align::Right),
        ("B's norm", Align::Right),
        ("cosine", Align::Right),
        ("conflicts", Align::Right),
        ("overlap", Align::Right),
        ("its conflicts", Align::Right),
    ];
    let kinds = result.kinds.iter().map(|of| change_row(of.kind.name().to_owned(), &of.group));
    let kinds = kinds.chain([change_row("all".to_owned(), &result.whole)]).collect();
    let layers = result.layers.iter().map(|of| change_row(of.layer.to_string(), &of.group)).collect();
    format!(
        "\n{}\n{}\nchanged: share of the weights. norm: of the change, as a share of the base's. conflicts: opposite directions, where both\n\
         changed a weight. overlap: of the tenth of a tensor that was changed the most.\n",
        lines(&[&[KIND], &TITLES[..]].concat(), kinds),
        lines(&[&[LAYER], &TITLES[..]].concat(), layers)
    )
}

fn change_row(name: String, group: &GroupDiff) -> Vec<String> {
    let Some(changes) = &group.changes else { return vec![name] };
    let [changed_a, changed_b] = changes.changed.map(share);
    let [norm_a, norm_b] = changes.relative.map(share);
    let [conflict, overlap, large] = [changes.sign_conflict, changes.large_overlap, changes.large_conflict].map(share);
    vec![name, changed_a, changed_b, norm_a, norm_b, measured(changes.cosine, number), conflict, overlap, large]
}

fn share(value: Number) -> String {
    measured(value, |value| format!("{} %", number(100.0 * value)))
}

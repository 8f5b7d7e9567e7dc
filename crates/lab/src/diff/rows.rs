//! From what was summed of every tensor to tensors, kinds, layers and the whole.

use std::collections::BTreeMap;

use lathe_measure::weights::{ChangeSums, LargeSums, PairSums};
use lathe_measure::{Number, Reason};

use super::pairs::Pair;
use super::weights::Sums;
use super::{
    CellDiff, DiffModel, DiffResult, DiffSpec, GroupDiff, KindDiff, LayerDiff, RankDiff, TensorDiff, WeightKind,
};

/// The result; its notes say what was not computed.
pub(super) fn result(
    spec: &DiffSpec,
    [a, b]: [DiffModel; 2],
    base: Option<DiffModel>,
    pairs: &[Pair],
    sums: &[Sums],
    ranks: &[Option<RankDiff>],
) -> DiffResult {
    let mut whole = Group::default();
    let mut kinds: BTreeMap<WeightKind, Group> = BTreeMap::new();
    let mut layers: BTreeMap<usize, Group> = BTreeMap::new();
    let mut cells: BTreeMap<(usize, WeightKind), Group> = BTreeMap::new();
    let mut tensors = Vec::new();
    for ((pair, sums), rank) in pairs.iter().zip(sums).zip(ranks) {
        whole.add(sums, rank.as_ref());
        kinds.entry(pair.kind).or_default().add(sums, rank.as_ref());
        if let Some(layer) = pair.layer {
            layers.entry(layer).or_default().add(sums, rank.as_ref());
            cells.entry((layer, pair.kind)).or_default().add(sums, rank.as_ref());
        }
        tensors.push(TensorDiff {
            name: pair.name.clone(),
            layer: pair.layer,
            kind: pair.kind,
            shape: if pair.is_matrix { vec![pair.rows, pair.columns] } else { vec![pair.columns] },
            distance: sums.pair.distance(),
            changes: sums.changes.map(|(changes, large)| changes.changes(&large)),
            rank: *rank,
        });
    }
    let skipped = ranks.iter().flatten().filter(|rank| rank.effective.reason() == Some(Reason::NotRequested)).count();
    let matrices = if skipped == 1 { "one large matrix was".into() } else { format!("{skipped} large matrices were") };
    let note = format!("The effective rank of {matrices} not computed; --full does.");
    let notes = if skipped == 0 { Vec::new() } else { vec![note] };
    DiffResult {
        lathe: env!("CARGO_PKG_VERSION"),
        spec: spec.clone(),
        a,
        b,
        base,
        whole: whole.finish(),
        kinds: kinds.into_iter().map(|(kind, group)| KindDiff { kind, group: group.finish() }).collect(),
        layers: layers.into_iter().map(|(layer, group)| LayerDiff { layer, group: group.finish() }).collect(),
        cells: cells
            .into_iter()
            .map(|((layer, kind), group)| CellDiff { layer, kind, group: group.finish() })
            .collect(),
        tensors,
        notes,
    }
}

#[derive(Default)]
struct Group {
    tensors: usize,
    equal: usize,
    pair: PairSums,
    changes: Option<(ChangeSums, LargeSums)>,
    ranks: Vec<f64>,
}

impl Group {
    fn add(&mut self, sums: &Sums, rank: Option<&RankDiff>) {
        self.tensors += 1;
        self.equal += usize::from(sums.pair.differing == 0);
        self.pair = self.pair.join(sums.pair);
        if let Some((changes, large)) = sums.changes {
            let (before, large_before) = self.changes.unwrap_or_default();
            self.changes = Some((before.join(changes), large_before.join(large)));
        }
        self.ranks.extend(rank.and_then(|rank| rank.of_noise.value()));
    }

    fn finish(self) -> GroupDiff {
        GroupDiff {
            tensors: self.tensors,
            equal: self.equal,
            distance: self.pair.distance(),
            changes: self.changes.map(|(changes, large)| changes.changes(&large)),
            rank_of_noise: Number::ratio(self.ranks.iter().sum(), self.ranks.len() as f64, Reason::Empty),
        }
    }
}

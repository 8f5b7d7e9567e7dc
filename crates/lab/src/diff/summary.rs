//! What the numbers of a comparison say, in sentences; each follows from numbers alone.

use lathe_measure::weights::Changes;
use lathe_measure::{Number, Reason};

use super::{DiffResult, GroupDiff, TensorDiff};
use crate::figure::{cosine, count, measured, number};

/// Cosine above which slerp interpolates linearly, in lathe as in mergekit.
const SLERP_IS_LINEAR: f64 = 0.9995;

/// A comparison in sentences.
#[derive(Clone, Debug, Default)]
pub struct DiffSummary {
    /// How far B is from A, the most important sentence first.
    pub distance: Vec<String>,
    /// What the changes of the base say of a merge; empty without a base.
    pub changes: Vec<String>,
}

/// The comparison in sentences.
#[must_use]
pub fn summary(result: &DiffResult) -> DiffSummary {
    let [a, b] = [&result.a.reference, &result.b.reference];
    let whole = &result.whole;
    if whole.distance.is_equal() {
        let tensors = count(whole.tensors as u64);
        let equal = format!(
            "All {tensors} tensors of A ({a}) and B ({b}) are equal, bit for bit as f32: there is nothing to merge."
        );
        return DiffSummary { distance: vec![equal], changes: Vec::new() };
    }
    let further = [where_it_is(result), equal(result), cosines(result), ranks(result)];
    let changes = result.base.as_ref().zip(whole.changes.as_ref());
    DiffSummary {
        distance: [Some(opening(a, b, whole))].into_iter().chain(further).flatten().collect(),
        changes: changes.map(|(base, changes)| interference(&base.reference, changes)).unwrap_or_default(),
    }
}

fn opening(a: &str, b: &str, whole: &GroupDiff) -> String {
    let distance = &whole.distance;
    let differ = whole.tensors - whole.equal;
    let weights = distance.differing as f64 / distance.elements as f64;
    let mut sentence = format!(
        "B ({b}) differs from A ({a}) in {} of {} tensors, in {} of the weights.",
        count(differ as u64),
        count(whole.tensors as u64),
        share(weights)
    );
    if let (Some(relative), Some(of)) = (distance.relative.value(), distance.cosine.value()) {
        sentence += &format!(" The norm of the difference is {} of A's, the cosine {}", share(relative), cosine(of));
        if let Some(signs) = distance.sign_agreement.value() {
            sentence += &format!(", and {} of the weights have the same sign in both", share(signs));
        }
        sentence += ".";
    }
    sentence
}

/// Kinds and layers that differ the most, and the least of those that differ.
fn where_it_is(result: &DiffResult) -> Option<String> {
    let kinds = result.kinds.iter().map(|of| (of.kind.name().to_owned(), of.group.distance.relative));
    let layers = result.layers.iter().map(|of| (format!("layer {}", of.layer), of.group.distance.relative));
    let kinds = extremes("kind of weight", kinds);
    let layers = extremes("layer", layers);
    let both: Vec<String> = [kinds, layers].into_iter().flatten().collect();
    (!both.is_empty()).then(|| format!("The difference relative to A is {}.", both.join("; ")))
}

fn extremes(by: &str, of: impl Iterator<Item = (String, Number)>) -> Option<String> {
    let mut of: Vec<(String, f64)> =
        of.filter_map(|(name, value)| Some((name, value.value().filter(|value| *value > 0.0)?))).collect();
    of.sort_by(|x, y| y.1.total_cmp(&x.1));
    let [(most, most_value), .., (least, least_value)] = &of[..] else { return None };
    if *most_value < 1.1 * least_value {
        return Some(format!("about the same in every {by} ({} to {})", share(*least_value), share(*most_value)));
    }
    Some(format!("largest in {most} ({}) and smallest in {least} ({})", share(*most_value), share(*least_value)))
}

fn equal(result: &DiffResult) -> Option<String> {
    let equal = result.kinds.iter().filter(|of| of.group.equal > 0);
    let equal: Vec<String> =
        equal.map(|of| format!("{} ({} of {})", of.kind.name(), of.group.equal, of.group.tensors)).collect();
    (!equal.is_empty()).then(|| format!("Equal, bit for bit as f32: {}.", equal.join(", ")))
}

fn cosines(result: &DiffResult) -> Option<String> {
    let differing = result.tensors.iter().filter(|tensor| !tensor.distance.is_equal());
    let of: Vec<(&TensorDiff, f64)> =
        differing.filter_map(|tensor| Some((tensor, tensor.distance.cosine.value()?))).collect();
    let (lowest, low) = of.iter().min_by(|x, y| x.1.total_cmp(&y.1))?;
    let (_, high) = of.iter().max_by(|x, y| x.1.total_cmp(&y.1))?;
    let linear = match of.iter().filter(|(_, cosine)| *cosine > SLERP_IS_LINEAR).count() {
        0 => "none is".to_owned(),
        1 => "one is".to_owned(),
        all if all == of.len() => "all are".to_owned(),
        some => format!("{} of {} are", count(some as u64), count(of.len() as u64)),
    };
    Some(format!(
        "The cosines of the tensors that differ go from {} ({}) to {}; {linear} above {SLERP_IS_LINEAR}, where \
         spherical interpolation (slerp) is the linear one.",
        cosine(*low),
        lowest.name,
        cosine(*high)
    ))
}

fn ranks(result: &DiffResult) -> Option<String> {
    let mean = result.whole.rank_of_noise.value()?;
    let of_noise = |tensor: &TensorDiff| tensor.rank.and_then(|rank| rank.of_noise.value());
    let ranked = result.tensors.iter().filter_map(|tensor| Some((tensor, of_noise(tensor)?)));
    let (lowest, least) = ranked.min_by(|x, y| x.1.total_cmp(&y.1))?;
    let (effective, most) = lowest.rank.and_then(|rank| Some((rank.effective.value()?, rank.most)))?;
    Some(format!(
        "The differences of matrices have {} of the effective rank of noise on average, least in {} ({}: {} of {}); \
         rounding gives close to 100 %, a low-rank adapter little.",
        share(mean),
        lowest.name,
        share(least),
        number(effective),
        count(most as u64)
    ))
}

/// What the changes of a base say of a merge.
fn interference(base: &str, changes: &Changes) -> Vec<String> {
    let unchanged = |model: usize| changes.norms[model] == Number::Value(0.0);
    if let Some(model) = [0, 1].into_iter().find(|model| unchanged(*model)) {
        let [itself, other] = if model == 0 { ["A", "B"] } else { ["B", "A"] };
        return vec![format!(
            "{itself} is the base ({base}) in every weight, so all changes are {other}'s: nothing interferes."
        )];
    }
    let [Some(changed_a), Some(changed_b)] = changes.changed.map(Number::value) else { return Vec::new() };
    let Some(of) = changes.cosine.value() else { return Vec::new() };
    let relative = changes.relative.map(|relative| measured(relative, share));
    let mut sentences = vec![format!(
        "Of the base ({base}), A changed {} of the weights and B {}; the norms of these changes are {} and {} of the base's. \
         Their cosine is {} (0: \
         unrelated, 1: the same direction, −1: opposite ones).",
        share(changed_a),
        share(changed_b),
        relative[0],
        relative[1],
        number(of)
    )];
    if let Some(conflict) = changes.sign_conflict.value() {
        let mut sentence = format!(
            "Where both changed a weight, they changed it in opposite directions in {} of the cases (50 % if unrelated).",
            share(conflict)
        );
        if let (Some(overlap), Some(chance)) = (changes.large_overlap.value(), changes.overlap_by_chance.value()) {
            sentence += &format!(
                " Of the tenth of each tensor that one changed the most, the other has {} in its own (by chance {})",
                share(overlap),
                share(chance)
            );
            let opposed = changes.large_conflict;
            sentence += &match opposed.value() {
                Some(opposed) => format!(", and {} of these were changed in opposite directions.", share(opposed)),
                None => ".".to_owned(),
            };
        }
        sentences.push(sentence);
    }
    sentences.extend(of_a_sum(changes, of));
    sentences
}

/// (δ_A + δ_B)·δ_A / ‖δ_A‖² = 1 + cos ‖δ_B‖ / ‖δ_A‖, and the same of B.
fn of_a_sum(changes: &Changes, of: f64) -> Option<String> {
    let [norm_a, norm_b] = changes.norms.map(Number::value);
    let ratio = Number::ratio(norm_b?, norm_a?, Reason::AllZero).value()?;
    let [kept_a, kept_b] = [1.0 + of * ratio, 1.0 + of / ratio].map(share);
    let words = match of {
        of if of > 0.3 => "much of what was changed is common, and a sum counts it twice where an average keeps it",
        of if of < -0.1 => "they undo each other in part, in a sum as in an average",
        of if of < 0.1 => "the changes are almost at right angles, so a sum keeps both and an average halves both",
        _ => "a part is common, which a sum counts twice; an average halves the rest",
    };
    Some(format!(
        "The sum of both changes has {kept_a} of A's along A's direction and {kept_b} of B's along B's: {words}."
    ))
}

/// A share as a percentage of three digits.
fn share(share: f64) -> String {
    format!("{} %", number(100.0 * share))
}

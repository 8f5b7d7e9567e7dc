//! The known name that somebody may have meant.

/// The candidate with the fewest edits from `written`, if at most a third of its letters (at least two) differ.
/// Candidates that begin with what was written come first. Earlier candidates win ties.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    if written.is_empty() || written.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let begins = written.len() >= 3 && candidate.starts_with(&written);
            let edits = if begins { 0 } else { edit_distance(&written, candidate) };
            let allowed = (candidate.chars().count() / 3).max(2).min(written.chars().count() - 1);
            (edits <= allowed).then_some((edits, candidate))
        })
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and exchanges of neighbours between two strings (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let replaced = above[j] + usize::from(a[i] != b[j]);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, nearest};

    #[test]
    fn an_exchange_is_one_edit() {
        assert_eq!(edit_distance("wieght", "weight"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("densty", "density"), 1);
    }

    #[test]
    fn what_is_too_far_is_not_suggested() {
        let known = ["weight", "density", "t"];
        assert_eq!(nearest("weigth", known), Some("weight"));
        assert_eq!(nearest("dens", known), Some("density"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest("q", known), None);
        assert_eq!(nearest("", known), None);
    }
}

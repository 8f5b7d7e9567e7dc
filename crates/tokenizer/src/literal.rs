use std::collections::HashMap;

/// Finds the longest of many fixed strings at a place in a text.
#[derive(Debug, Clone)]
pub(crate) struct Literals {
    ids: HashMap<Box<[u8]>, u32>,
    /// By first byte, 256 rows: lengths in bytes of the strings that start with it, longest first.
    lengths: Vec<Vec<usize>>,
}

impl Literals {
    /// Empty strings are left out: they would match everywhere. Of equal strings the last one counts.
    pub(crate) fn new<'a>(strings: impl IntoIterator<Item = (u32, &'a str)>) -> Self {
        let mut literals = Self { ids: HashMap::new(), lengths: vec![Vec::new(); 256] };
        for (id, string) in strings {
            let Some(&first) = string.as_bytes().first() else {
                continue;
            };
            literals.lengths[usize::from(first)].push(string.len());
            literals.ids.insert(string.as_bytes().into(), id);
        }
        for lengths in &mut literals.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        literals
    }

    /// Id and length in bytes of the longest string that `text` starts with.
    pub(crate) fn longest_prefix(&self, text: &str) -> Option<(u32, usize)> {
        let bytes = text.as_bytes();
        let lengths = &self.lengths[usize::from(*bytes.first()?)];
        lengths.iter().find_map(|&length| Some((*self.ids.get(bytes.get(..length)?)?, length)))
    }

    /// Where the first match starts, its id and its length in bytes.
    pub(crate) fn find(&self, text: &str) -> Option<(usize, u32, usize)> {
        if self.ids.is_empty() {
            return None;
        }
        text.char_indices().find_map(|(at, _)| self.longest_prefix(&text[at..]).map(|(id, length)| (at, id, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_string_wins() {
        let literals = Literals::new([(1, "\n"), (2, "\n\n"), (3, "<b>"), (4, "")]);
        assert_eq!(literals.longest_prefix("\n\n\n"), Some((2, 2)));
        assert_eq!(literals.longest_prefix("\nx"), Some((1, 1)));
        assert_eq!(literals.longest_prefix("<bx"), None);
        assert_eq!(literals.longest_prefix(""), None);
        assert_eq!(literals.find("é<b>\n"), Some((2, 3, 3)));
        assert_eq!(literals.find("plain"), None);
    }
}

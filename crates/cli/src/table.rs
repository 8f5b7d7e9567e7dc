//! The one table printer: plain text, columns aligned by display width, no colour.

use std::fmt::Write;

use console::{Term, measure_text_width, pad_str, truncate_str};

/// Between two columns.
const GAP: usize = 2;
/// A column of text is not cut below this width to fit the terminal.
const MIN_WIDTH: usize = 12;

/// Side on which a column's cells begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Titles and cells; a row that is shorter than the titles ends in empty cells.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<(String, Align)>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// The table as lines, each ending in a line break.
///
/// `width` is how many columns the reader's terminal has, `None` where nothing needs to fit. To fit it, the widest
/// columns of text are cut, with `…` where something is missing; numbers are never cut.
/// Control characters are written as escapes: cells hold text from model files, and the terminal would obey it.
pub(crate) fn render(table: &Table, width: Option<usize>) -> String {
    let titles: Vec<String> = table.columns.iter().map(|(title, _)| title.clone()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(&titles)
        .chain(&table.rows)
        .map(|row| row.iter().take(titles.len()).map(|cell| printable(cell)).collect())
        .collect();

    let mut widths = vec![0; titles.len()];
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(measure_text_width(cell));
        }
    }
    if let Some(width) = width {
        fit(&mut widths, &table.columns, width);
    }

    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (widest, (_, align))) in widths.iter().zip(&table.columns).enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let cell = truncate_str(cell, *widest, "…");
            let side = match align {
                Align::Left => console::Alignment::Left,
                Align::Right => console::Alignment::Right,
            };
            line.push_str(&pad_str(&cell, *widest, side, None));
            line.push_str(&" ".repeat(GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
            text.push_str(&rule.join(&" ".repeat(GAP)));
            text.push('\n');
        }
    }
    text
}

/// Columns of the terminal that standard output is; `None` for a file or a pipe.
pub(crate) fn terminal_width() -> Option<usize> {
    let term = Term::stdout();
    term.is_term().then(|| term.size_checked()).flatten().map(|(_, columns)| usize::from(columns))
}

/// Takes columns of text back, always the widest one, until the table fits or none can be cut further.
fn fit(widths: &mut [usize], columns: &[(String, Align)], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    loop {
        let total = widths.iter().sum::<usize>() + gaps;
        let Some(excess) = total.checked_sub(width).filter(|excess| *excess > 0) else {
            return;
        };
        let widest = widths
            .iter_mut()
            .zip(columns)
            .filter(|(width, (_, align))| *align == Align::Left && **width > MIN_WIDTH)
            .max_by_key(|(width, _)| **width);
        let Some((widest, _)) = widest else { return };
        // Half of the excess at a time, so that two columns of one width end with one width.
        *widest -= excess.div_ceil(2).min(*widest - MIN_WIDTH);
    }
}

fn printable(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for c in cell.chars() {
        if c.is_control() {
            let _ = write!(text, "{}", c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[&str; 2]]) -> Table {
        Table {
            columns: vec![("name".to_owned(), Align::Left), ("bytes".to_owned(), Align::Right)],
            rows: rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect(),
        }
    }

    #[test]
    fn columns_are_aligned_by_display_width() {
        let text = render(&table(&[["a", "1"], ["日本語", "1024"], ["é", "7"]]), None);
        assert_eq!(text, "name    bytes\n──────  ─────\na           1\n日本語   1024\né           7\n");
    }

    #[test]
    fn text_is_cut_to_fit_and_numbers_are_not() {
        let long = "blk.0.attn_output_norm.weight";
        let text = render(&table(&[[long, "123456789"]]), Some(30));
        assert!(text.contains("blk.0.attn_output_…  123456789"), "{text}");
        assert!(text.lines().all(|line| measure_text_width(line) <= 30), "{text}");
        let text = render(&table(&[[long, "123456789"]]), Some(3));
        assert!(text.contains("123456789"), "{text}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = render(&table(&[["a\u{1b}[2J\nb", "1"]]), None);
        assert!(text.contains("a\\u{1b}[2J\\nb"), "{text}");
    }

    #[test]
    fn short_rows_and_no_rows() {
        let mut short = table(&[]);
        assert_eq!(render(&short, Some(80)), "name  bytes\n────  ─────\n");
        short.rows = vec![vec![], vec!["a".to_owned()]];
        assert_eq!(render(&short, None), "name  bytes\n────  ─────\n\na\n");
        assert_eq!(render(&Table::default(), Some(0)), "\n\n");
    }
}

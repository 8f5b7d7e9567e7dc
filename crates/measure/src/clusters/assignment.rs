//! The best match of the clusters of two labelings (the assignment problem), by shortest augmenting paths (Jonker and Volgenant
//! 1987).

/// Σ of `gain(row, column)` over the one-to-one match of rows and columns that makes it greatest. Takes rows² · columns
/// steps, rows being the fewer.
pub(super) fn greatest_match(rows: usize, columns: usize, gain: &dyn Fn(usize, usize) -> i64) -> i64 {
    if rows > columns {
        return greatest_match(columns, rows, &|row, column| gain(column, row));
    }
    // Potentials of rows and columns; number 0 is a column that stands for the row being placed.
    let mut of_row = vec![0i64; rows + 1];
    let mut of_column = vec![0i64; columns + 1];
    let mut row_of = vec![0usize; columns + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut shortest = vec![i64::MAX; columns + 1];
        let mut before = vec![0usize; columns + 1];
        let mut is_reached = vec![false; columns + 1];
        let mut at = 0;
        while row_of[at] != 0 {
            is_reached[at] = true;
            let from = row_of[at];
            let (mut step, mut next) = (i64::MAX, 0);
            for column in (1..=columns).filter(|column| !is_reached[*column]) {
                let cost = -gain(from - 1, column - 1) - of_row[from] - of_column[column];
                if cost < shortest[column] {
                    (shortest[column], before[column]) = (cost, at);
                }
                if shortest[column] < step {
                    (step, next) = (shortest[column], column);
                }
            }
            for column in 0..=columns {
                if is_reached[column] {
                    of_row[row_of[column]] += step;
                    of_column[column] -= step;
                } else if shortest[column] != i64::MAX {
                    shortest[column] -= step;
                }
            }
            at = next;
        }
        while at != 0 {
            row_of[at] = row_of[before[at]];
            at = before[at];
        }
    }
    (1..=columns).filter(|column| row_of[*column] != 0).map(|column| gain(row_of[column] - 1, column - 1)).sum()
}

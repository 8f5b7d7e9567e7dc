//! Parquet files, written: a flat table with one column of lists, plain and not packed, so that every reader opens it.
//!
//! Source: the Parquet format (apache/parquet-format), `parquet.thrift`. A row group has one page per column. Lists are in the
//! three-level layout, and neither they nor their elements are ever missing.

use super::MAGIC;

/// Values of a row group's largest column, about: 4 MiB of floats.
const GROUP_VALUES: usize = 1 << 20;

/// A column to write, of as many rows as every other.
pub(crate) enum Column<'a> {
    /// Whole numbers.
    Whole(&'a [i64]),
    /// Text.
    Text(&'a [String]),
    /// Numbers.
    Float(&'a [f32]),
    /// A list of this many numbers in every row, one list after another.
    FloatList(usize, &'a [f32]),
    /// As [`Column::FloatList`], of small whole numbers.
    ByteList(usize, &'a [i8]),
}

/// Writes a table, a row group at a time.
///
/// # Errors
/// The first error of `append`.
///
/// # Panics
/// When the columns have different numbers of rows.
pub(crate) fn write_table<E>(
    columns: &[(&str, Column<'_>)],
    append: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let rows = columns.first().map_or(0, |(_, column)| column.rows());
    assert!(columns.iter().all(|(_, column)| column.rows() == rows), "columns of {rows} rows");
    let widest = columns.iter().map(|(_, column)| column.width()).max().unwrap_or(1);
    let per_group = (GROUP_VALUES / widest.max(1)).max(1);
    append(MAGIC)?;
    let mut at = MAGIC.len();
    let mut groups = Vec::new();
    for first in (0..rows).step_by(per_group) {
        let count = per_group.min(rows - first);
        let mut chunks = Vec::new();
        let mut group_bytes = 0;
        for (name, column) in columns {
            let page = page(column, first, count);
            append(&page)?;
            chunks.push(chunk(name, column, count, at, page.len()));
            at += page.len();
            group_bytes += page.len();
        }
        let mut group = Fields::new();
        group.list(1, STRUCT, &chunks);
        group.long(2, group_bytes);
        group.long(3, count);
        groups.push(group.end());
    }
    let mut footer = Fields::new();
    footer.int(1, 1);
    footer.list(2, STRUCT, &schema(columns));
    footer.long(3, rows);
    footer.list(4, STRUCT, &groups);
    footer.text(6, concat!("lathe version ", env!("CARGO_PKG_VERSION")));
    let footer = footer.end();
    append(&footer)?;
    // A header of 4 GiB would have a hundred million row groups.
    append(&u32::try_from(footer.len()).unwrap_or(u32::MAX).to_le_bytes())?;
    append(MAGIC)
}

impl Column<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::FloatList(width, values) => values.len() / width,
            Self::ByteList(width, values) => values.len() / width,
        }
    }

    /// Values of a row.
    fn width(&self) -> usize {
        match self {
            Self::Whole(_) | Self::Text(_) | Self::Float(_) => 1,
            Self::FloatList(width, _) | Self::ByteList(width, _) => *width,
        }
    }

    fn is_list(&self) -> bool {
        matches!(self, Self::FloatList(..) | Self::ByteList(..))
    }

    /// Number of its physical type.
    fn physical(&self) -> usize {
        match self {
            Self::ByteList(..) => 1,
            Self::Whole(_) => 2,
            Self::Float(_) | Self::FloatList(..) => 4,
            Self::Text(_) => 6,
        }
    }

    /// Number of its converted type.
    fn converted(&self) -> Option<usize> {
        match self {
            Self::Text(_) => Some(0),
            Self::ByteList(..) => Some(15),
            Self::Whole(_) | Self::Float(_) | Self::FloatList(..) => None,
        }
    }

    /// Its values of some rows, in the plain encoding.
    fn plain(&self, first: usize, count: usize, out: &mut Vec<u8>) {
        let rows = first..first + count;
        match self {
            Self::Whole(values) => values[rows].iter().for_each(|value| out.extend(value.to_le_bytes())),
            Self::Float(values) => values[rows].iter().for_each(|value| out.extend(value.to_le_bytes())),
            Self::Text(values) => values[rows].iter().for_each(|text| {
                out.extend((text.len() as u32).to_le_bytes());
                out.extend(text.as_bytes());
            }),
            Self::FloatList(width, values) => {
                values[first * width..(first + count) * width].iter().for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::ByteList(width, values) => values[first * width..(first + count) * width]
                .iter()
                .for_each(|value| out.extend(i32::from(*value).to_le_bytes())),
        }
    }
}

/// A data page with its header.
fn page(column: &Column<'_>, first: usize, count: usize) -> Vec<u8> {
    let values = count * column.width();
    let mut body = Vec::new();
    if column.is_list() {
        // A list begins at level 0 and goes on at level 1; every element is there.
        let mut repetition = Vec::new();
        for _ in 0..count {
            run(1, 0, &mut repetition);
            if column.width() > 1 {
                run(column.width() - 1, 1, &mut repetition);
            }
        }
        let mut definition = Vec::new();
        run(values, 1, &mut definition);
        for levels in [repetition, definition] {
            body.extend((levels.len() as u32).to_le_bytes());
            body.extend(levels);
        }
    }
    column.plain(first, count, &mut body);
    let mut of_data = Fields::new();
    of_data.int(1, values);
    of_data.int(2, PLAIN);
    of_data.int(3, RLE);
    of_data.int(4, RLE);
    let mut header = Fields::new();
    header.int(1, 0);
    header.int(2, body.len());
    header.int(3, body.len());
    header.fields(5, &of_data.end());
    let mut page = header.end();
    page.extend(body);
    page
}

/// Numbers of encodings.
const PLAIN: usize = 0;
const RLE: usize = 3;

/// A run of equal levels of one bit.
fn run(length: usize, level: u8, out: &mut Vec<u8>) {
    varint((length as u64) << 1, out);
    out.push(level);
}

/// The header of a column in a row group.
fn chunk(name: &str, column: &Column<'_>, count: usize, at: usize, bytes: usize) -> Vec<u8> {
    let path = if column.is_list() { vec![name, "list", "element"] } else { vec![name] };
    let path: Vec<Vec<u8>> = path.into_iter().map(bytes_of).collect();
    let encodings = [PLAIN, RLE].map(|encoding| zigzag(encoding as u64)).to_vec();
    let mut meta = Fields::new();
    meta.int(1, column.physical());
    meta.list(2, INT, &encodings);
    meta.list(3, BYTES, &path);
    meta.int(4, 0);
    meta.long(5, count * column.width());
    meta.long(6, bytes);
    meta.long(7, bytes);
    meta.long(9, at);
    let mut chunk = Fields::new();
    chunk.long(2, at);
    chunk.fields(3, &meta.end());
    chunk.end()
}

/// The schema's elements, parents before their children.
fn schema(columns: &[(&str, Column<'_>)]) -> Vec<Vec<u8>> {
    const REQUIRED: usize = 0;
    const REPEATED: usize = 2;
    const LIST: usize = 3;
    let group = |name: &str, repetition: Option<usize>, children: usize, converted: Option<usize>| {
        let mut element = Fields::new();
        if let Some(repetition) = repetition {
            element.int(3, repetition);
        }
        element.text(4, name);
        element.int(5, children);
        if let Some(converted) = converted {
            element.int(6, converted);
        }
        element.end()
    };
    let leaf = |name: &str, column: &Column<'_>| {
        let mut element = Fields::new();
        element.int(1, column.physical());
        element.int(3, REQUIRED);
        element.text(4, name);
        if let Some(converted) = column.converted() {
            element.int(6, converted);
        }
        element.end()
    };
    let mut elements = vec![group("schema", None, columns.len(), None)];
    for (name, column) in columns {
        if column.is_list() {
            elements.push(group(name, Some(REQUIRED), 1, Some(LIST)));
            elements.push(group("list", Some(REPEATED), 1, None));
            elements.push(leaf("element", column));
        } else {
            elements.push(leaf(name, column));
        }
    }
    elements
}

/// Kinds of values in Thrift's compact protocol.
const INT: u8 = 5;
const LONG: u8 = 6;
const BYTES: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// A struct in Thrift's compact protocol; fields come by rising number.
struct Fields {
    bytes: Vec<u8>,
    last: u8,
}

impl Fields {
    fn new() -> Self {
        Self { bytes: Vec::new(), last: 0 }
    }

    /// Parquet's numbers of fields rise by less than 15.
    fn begin(&mut self, number: u8, kind: u8) {
        self.bytes.push((number - self.last) << 4 | kind);
        self.last = number;
    }

    fn int(&mut self, number: u8, value: usize) {
        self.begin(number, INT);
        self.bytes.extend(zigzag(value as u64));
    }

    fn long(&mut self, number: u8, value: usize) {
        self.begin(number, LONG);
        self.bytes.extend(zigzag(value as u64));
    }

    fn text(&mut self, number: u8, text: &str) {
        self.begin(number, BYTES);
        self.bytes.extend(bytes_of(text));
    }

    fn fields(&mut self, number: u8, fields: &[u8]) {
        self.begin(number, STRUCT);
        self.bytes.extend(fields);
    }

    fn list(&mut self, number: u8, kind: u8, items: &[Vec<u8>]) {
        self.begin(number, LIST);
        match items.len() {
            few @ 0..15 => self.bytes.push((few as u8) << 4 | kind),
            many => {
                self.bytes.push(0xf0 | kind);
                varint(many as u64, &mut self.bytes);
            }
        }
        items.iter().for_each(|item| self.bytes.extend(item));
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint(text.len() as u64, &mut bytes);
    bytes.extend(text.as_bytes());
    bytes
}

/// A number that is not negative, with the sign in the lowest bit.
fn zigzag(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint(value << 1, &mut bytes);
    bytes
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::super::rows;
    use super::*;

    fn written(columns: &[(&str, Column<'_>)]) -> Vec<u8> {
        let mut file = Vec::new();
        write_table::<()>(columns, &mut |bytes| {
            file.extend(bytes);
            Ok(())
        })
        .unwrap();
        file
    }

    #[test]
    fn what_is_written_reads_back() {
        let texts = ["".to_owned(), "é\n\"".to_owned()];
        let file = written(&[
            ("index", Column::Whole(&[0, 1])),
            ("text", Column::Text(&texts)),
            ("scale", Column::Float(&[0.5, 2.0])),
            ("vector", Column::FloatList(3, &[1.5, -2.0, 0.0, 1e-20, 3e20, 7.0])),
            ("small", Column::ByteList(1, &[-127, 127])),
        ]);
        let found = serde_json::to_value(rows(&file).unwrap()).unwrap();
        assert_eq!(
            found,
            serde_json::json!([
                {"index": 0, "text": "", "scale": 0.5, "vector": [1.5, -2.0, 0.0], "small": [-127]},
                {"index": 1, "text": "é\n\"", "scale": 2.0, "vector": [f64::from(1e-20f32), f64::from(3e20f32), 7.0],
                 "small": [127]},
            ])
        );
    }

    #[test]
    fn a_table_without_rows_and_one_of_several_groups() {
        assert!(rows(&written(&[("vector", Column::FloatList(3, &[]))])).unwrap().is_empty());
        let width = GROUP_VALUES / 2;
        let values: Vec<f32> = (0..5 * width).map(|i| (i % 251) as f32).collect();
        let file =
            written(&[("index", Column::Whole(&[0, 1, 2, 3, 4])), ("vector", Column::FloatList(width, &values))]);
        let (footer, _) = super::super::read_struct(super::super::footer(&file).unwrap()).unwrap();
        assert_eq!(footer.list(4).unwrap().len(), 3);
        assert_eq!(footer.count(3, "rows").unwrap(), 5);
    }

    proptest! {
        #[test]
        fn any_table_reads_back(width in 1usize..20, count in 0usize..40, seed in any::<u32>()) {
            let values: Vec<f32> =
                (0..width * count).map(|i| f32::from_bits(seed.wrapping_mul(i as u32 + 1) & 0x7eff_ffff)).collect();
            let texts: Vec<String> = (0..count).map(|i| "x".repeat(i * 7 % 300)).collect();
            let file = written(&[("text", Column::Text(&texts)), ("vector", Column::FloatList(width, &values))]);
            let found = rows(&file).unwrap();
            prop_assert_eq!(found.len(), count);
            for (row, record) in found.iter().enumerate() {
                prop_assert_eq!(record["text"].as_str().unwrap(), &texts[row]);
                let vector: Vec<f32> = record["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
                prop_assert_eq!(&vector[..], &values[row * width..(row + 1) * width]);
            }
        }
    }
}

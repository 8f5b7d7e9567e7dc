//! Parquet files as rows of JSON: what data sets of questions are published in. `write.rs` goes the other way, for vectors.
//!
//! Flat and nested columns of flags, whole numbers, floats and text; pages of both versions, plain or packed with Snappy or
//! gzip; every encoding that writers use for these types. The `parquet` crate reads more, but believes what a header claims:
//! it reserves memory for it, unpacks gzip without a bound, and asserts what a schema should be. A file from a stranger must
//! be one clear error here, so each claim is compared with the bytes that stand for it before anything is reserved.
//!
//! Source: the Parquet format (apache/parquet-format).

mod column;
mod encoding;
mod rows;
mod schema;
mod thrift;
mod write;

use serde_json::{Map, Value};

use column::read_column;
use rows::Cursors;
use schema::{Leaf, read_schema};
use thrift::{Item, read_struct};
pub(crate) use write::{Column, write_table};

/// Stands at both ends of a file.
const MAGIC: &[u8; 4] = b"PAR1";

/// What is wrong with a file, in one clause.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

fn fault(problem: impl Into<String>) -> Fault {
    Fault(problem.into())
}

/// Reads all rows, with the columns in the order of the file.
pub(super) fn rows(file: &[u8]) -> Result<Vec<Map<String, Value>>, Fault> {
    let (header, _) = read_struct(footer(file)?)?;
    let elements = header.list(2).ok_or_else(|| fault("it has no schema"))?;
    let (fields, leaves) = read_schema(elements)?;
    // Rows take more memory than their file: packed text several times over, a column of one value without bound.
    let mut budget = Budget::of(file.len().saturating_mul(64).saturating_add(256 << 20));
    let mut rows = Vec::new();
    for (group, header) in header.list(4).unwrap_or_default().iter().enumerate() {
        let in_group = |Fault(problem)| fault(format!("row group {}: {problem}", group + 1));
        let columns = columns(file, header, &leaves, &mut budget).map_err(in_group)?;
        let count = header.count(3, "number of rows").map_err(in_group)?;
        Cursors::new(columns, &leaves).rows(&fields, count, &mut budget, &mut rows).map_err(in_group)?;
    }
    match header.count(3, "number of rows")? {
        count if count == rows.len() => Ok(rows),
        count => Err(fault(format!("it has {} rows instead of {count}", rows.len()))),
    }
}

/// The bytes of the header, which stands before its length at the end of the file.
fn footer(file: &[u8]) -> Result<&[u8], Fault> {
    if !file.starts_with(MAGIC) {
        return Err(fault("it does not begin as Parquet files do"));
    }
    let cut = || fault("it does not end as Parquet files do: it may have been cut off");
    let (rest, end) = file.split_last_chunk::<4>().ok_or_else(cut)?;
    if end == b"PARE" {
        return Err(fault("it is encrypted"));
    }
    let (rest, length) = rest.split_last_chunk().ok_or_else(cut)?;
    if end != MAGIC {
        return Err(cut());
    }
    let start = usize::try_from(u32::from_le_bytes(*length)).ok().and_then(|length| rest.len().checked_sub(length));
    start.and_then(|start| rest.get(start..)).ok_or_else(|| fault("its header is longer than the file"))
}

fn columns(file: &[u8], group: &Item<'_>, leaves: &[Leaf], budget: &mut Budget) -> Result<Vec<column::Column>, Fault> {
    let headers = group.list(1).unwrap_or_default();
    if headers.len() != leaves.len() {
        return Err(fault(format!("it has {} columns and the schema {}", headers.len(), leaves.len())));
    }
    headers
        .iter()
        .zip(leaves)
        .map(|(header, leaf)| {
            read_column(file, header, leaf, budget)
                .map_err(|Fault(problem)| fault(format!("column `{}`: {problem}", leaf.path)))
        })
        .collect()
}

/// Bytes of memory that a file may still ask for.
#[derive(Debug)]
struct Budget(usize);

impl Budget {
    fn of(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Asked before `count` things of `bytes` each are made.
    fn spend(&mut self, count: usize, bytes: usize) -> Result<(), Fault> {
        let wanted = count.checked_mul(bytes).and_then(|wanted| self.0.checked_sub(wanted));
        self.0 = wanted.ok_or_else(|| fault("it claims more values than a file of its size is read for"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

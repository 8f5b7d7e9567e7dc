//! Rows from columns: the entries of all columns, put together along the tree of fields.
//!
//! Source: Melnik et al., "Dremel: Interactive Analysis of Web-Scale Datasets" (2010), section 4.3, as a recursive descent.

use serde_json::{Map, Value};

use super::column::Column;
use super::schema::{Field, Kind, Leaf, Presence};
use super::{Budget, Fault, fault};

/// All columns of a row group, each with the place of its next entry.
pub(super) struct Cursors<'a> {
    columns: Vec<Cursor>,
    leaves: &'a [Leaf],
}

struct Cursor {
    repetition: Vec<u8>,
    definition: Vec<u8>,
    values: std::vec::IntoIter<Value>,
    entries: usize,
    /// Entries that were taken.
    taken: usize,
}

impl<'a> Cursors<'a> {
    pub(super) fn new(columns: Vec<Column>, leaves: &'a [Leaf]) -> Self {
        let cursor = |Column { repetition, definition, values, entries }| Cursor {
            repetition,
            definition,
            values: values.into_iter(),
            entries,
            taken: 0,
        };
        Self { columns: columns.into_iter().map(cursor).collect(), leaves }
    }

    /// Appends `count` rows, which have to be all there are.
    pub(super) fn rows(
        mut self,
        fields: &[Field],
        count: usize,
        budget: &mut Budget,
        rows: &mut Vec<Map<String, Value>>,
    ) -> Result<(), Fault> {
        for _ in 0..count {
            if let Some(leaf) = self.columns.iter().position(|column| column.repetition() != 0) {
                return Err(self.at(leaf, "its rows don't begin where others do"));
            }
            rows.push(self.object(fields, budget)?);
        }
        match self.columns.iter().position(|column| column.taken < column.entries) {
            Some(leaf) => Err(self.at(leaf, &format!("it has values beyond the {count} rows"))),
            None => Ok(()),
        }
    }

    fn object(&mut self, fields: &[Field], budget: &mut Budget) -> Result<Map<String, Value>, Fault> {
        let mut object = Map::new();
        for field in fields {
            // A name is stored again in every object.
            budget.spend(field.name.len() + 2 * size_of::<Value>(), 1)?;
            let value = self.field(field, budget)?;
            object.insert(field.name.clone(), value);
        }
        Ok(object)
    }

    fn field(&mut self, field: &Field, budget: &mut Budget) -> Result<Value, Fault> {
        match field.presence {
            Presence::Once => self.value(field, budget),
            Presence::Optional if self.next(field)?.definition() < field.definition => {
                self.skip(field)?;
                Ok(Value::Null)
            }
            Presence::Optional => self.value(field, budget),
            Presence::Repeated => self.elements(field, budget),
        }
    }

    fn value(&mut self, field: &Field, budget: &mut Budget) -> Result<Value, Fault> {
        match &field.kind {
            Kind::Leaf(leaf) => self.take(*leaf),
            Kind::Group(fields) => self.object(fields, budget).map(Value::Object),
            Kind::List(repeated) => self.elements(repeated, budget),
            Kind::Through(only) => self.field(only, budget),
        }
    }

    fn elements(&mut self, repeated: &Field, budget: &mut Budget) -> Result<Value, Fault> {
        if self.next(repeated)?.definition() < repeated.definition {
            self.skip(repeated)?;
            return Ok(Value::Array(Vec::new()));
        }
        let mut elements = Vec::new();
        loop {
            budget.spend(1, size_of::<Value>())?;
            elements.push(self.value(repeated, budget)?);
            let first = first_leaf(repeated);
            let cursor = &self.columns[first];
            // Past the last entry this is 0, which ends every list.
            match cursor.repetition() {
                level if level < repeated.repetition => return Ok(Value::Array(elements)),
                level if level == repeated.repetition => {}
                _ => return Err(self.at(first, "its levels don't fit its lists")),
            }
        }
    }

    /// The column that says whether a field is there: all columns below it say the same.
    fn next(&self, field: &Field) -> Result<&Cursor, Fault> {
        let leaf = first_leaf(field);
        let cursor = &self.columns[leaf];
        if cursor.taken < cursor.entries { Ok(cursor) } else { Err(self.at(leaf, "it has too few values")) }
    }

    /// Takes a value.
    fn take(&mut self, leaf: usize) -> Result<Value, Fault> {
        let cursor = &mut self.columns[leaf];
        let is_there = cursor.taken < cursor.entries
            && (cursor.definition.is_empty() || cursor.definition() == self.leaves[leaf].definition);
        cursor.taken += 1;
        match cursor.values.next() {
            Some(value) if is_there => Ok(value),
            _ => Err(self.at(leaf, "its values don't fit its levels")),
        }
    }

    /// Takes the entries that say that a field is not there.
    fn skip(&mut self, field: &Field) -> Result<(), Fault> {
        let mut below = vec![field];
        while let Some(inner) = below.pop() {
            match &inner.kind {
                Kind::Leaf(leaf) => {
                    let cursor = &mut self.columns[*leaf];
                    if cursor.taken >= cursor.entries || cursor.definition() >= field.definition {
                        return Err(self.at(*leaf, "its levels don't fit those of its neighbours"));
                    }
                    cursor.taken += 1;
                }
                Kind::Group(fields) => below.extend(fields),
                Kind::List(only) | Kind::Through(only) => below.push(only),
            }
        }
        Ok(())
    }

    fn at(&self, leaf: usize, problem: &str) -> Fault {
        fault(format!("column `{}`: {problem}", self.leaves[leaf].path))
    }
}

impl Cursor {
    /// Level of the next entry; 0 after the last one, and where the column has no levels.
    fn repetition(&self) -> u8 {
        self.repetition.get(self.taken).copied().unwrap_or(0)
    }

    fn definition(&self) -> u8 {
        self.definition.get(self.taken).copied().unwrap_or(0)
    }
}

/// Groups without columns are refused, so there is one.
fn first_leaf(field: &Field) -> usize {
    match &field.kind {
        Kind::Leaf(leaf) => *leaf,
        Kind::Group(fields) => fields.first().map_or(0, first_leaf),
        Kind::List(only) | Kind::Through(only) => first_leaf(only),
    }
}

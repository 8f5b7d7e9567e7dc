//! The columns of a Parquet file: a tree of fields whose leaves are columns of values.
//!
//! Source: the Parquet format, "Nested Encoding" and "Nested Types". A *definition level* counts the optional and repeated
//! fields of a path that are there; a *repetition level* says at which repeated field of the path a value begins.

use super::thrift::Item;
use super::{Fault, fault};

/// Far more than any data set has; levels fit in a byte.
const MOST_NESTED: u8 = 64;

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) presence: Presence,
    /// Definition level of a value that is there.
    pub(super) definition: u8,
    /// Repetition level of a second element, for a repeated field; else that of the field around it.
    pub(super) repetition: u8,
    pub(super) kind: Kind,
}

/// How often a field is there in the one around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Once,
    Optional,
    Repeated,
}

/// What a field is.
#[derive(Debug)]
pub(super) enum Kind {
    /// Values, in the column of this number.
    Leaf(usize),
    /// An object.
    Group(Vec<Field>),
    /// A list, written as a group around one repeated field: the value is the list.
    List(Box<Field>),
    /// A group between a list and its elements, which is no object of its own: the value is its one field's.
    Through(Box<Field>),
}

/// A column of values.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Names from the outermost field, with dots.
    pub(super) path: String,
    pub(super) physical: Physical,
    pub(super) meaning: Meaning,
    /// Definition level of a value.
    pub(super) definition: u8,
    pub(super) repetition: u8,
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Physical {
    Boolean,
    Int32,
    Int64,
    Float,
    Double,
    Bytes,
}

/// What a stored value stands for, as far as JSON can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Itself: text, for bytes.
    Itself,
    Unsigned,
}

/// The fields of a row, and all columns in their order.
pub(super) fn read_schema(elements: &[Item<'_>]) -> Result<(Vec<Field>, Vec<Leaf>), Fault> {
    let (root, rest) = elements.split_first().ok_or_else(|| fault("its schema is empty"))?;
    let mut reader = Reader { rest, leaves: Vec::new(), path: Vec::new() };
    let fields = reader.children(root, Level { definition: 0, repetition: 0, depth: 0 })?;
    if !reader.rest.is_empty() || reader.leaves.is_empty() {
        return Err(fault("its schema does not say which columns it has"));
    }
    Ok((fields, reader.leaves))
}

struct Reader<'a, 'b> {
    /// Elements not yet read, parents before their children.
    rest: &'a [Item<'b>],
    leaves: Vec<Leaf>,
    path: Vec<&'b str>,
}

#[derive(Clone, Copy)]
struct Level {
    definition: u8,
    repetition: u8,
    depth: u8,
}

impl<'b> Reader<'_, 'b> {
    fn children(&mut self, parent: &Item<'b>, level: Level) -> Result<Vec<Field>, Fault> {
        let count = parent.count(5, "number of children")?;
        if count == 0 {
            return Err(fault("its schema has a group without columns"));
        }
        if count > self.rest.len() {
            return Err(fault("its schema ends too early"));
        }
        if level.depth >= MOST_NESTED {
            return Err(fault("its schema is nested too deeply"));
        }
        (0..count).map(|_| self.field(Level { depth: level.depth + 1, ..level })).collect()
    }

    fn field(&mut self, mut level: Level) -> Result<Field, Fault> {
        let (element, rest) = self.rest.split_first().ok_or_else(|| fault("its schema ends too early"))?;
        self.rest = rest;
        let name = element.text(4).ok_or_else(|| fault("a column has no name"))?;
        self.path.push(name);
        let presence = match element.integer(3) {
            Some(0) => Presence::Once,
            Some(1) => Presence::Optional,
            Some(2) => Presence::Repeated,
            _ => return Err(self.at("it is neither required nor optional nor repeated")),
        };
        // At most one for each level of nesting, so neither overflows.
        level.definition += u8::from(presence != Presence::Once);
        level.repetition += u8::from(presence == Presence::Repeated);
        let kind = match element.integer(1) {
            Some(physical) => self.leaf(element, physical, level)?,
            None => {
                let children = self.children(element, level)?;
                nested(element, presence, children, name)
            }
        };
        self.path.pop();
        let Level { definition, repetition, .. } = level;
        Ok(Field { name: name.to_owned(), presence, definition, repetition, kind })
    }

    fn leaf(&mut self, element: &Item<'_>, physical: i64, level: Level) -> Result<Kind, Fault> {
        let is_decimal = element.field(10).is_some_and(|logical| logical.field(5).is_some());
        if element.integer(6) == Some(5) || is_decimal {
            return Err(self.at("decimal numbers are not read"));
        }
        let physical = match physical {
            0 => Physical::Boolean,
            1 => Physical::Int32,
            2 => Physical::Int64,
            4 => Physical::Float,
            5 => Physical::Double,
            6 => Physical::Bytes,
            3 => return Err(self.at("times of 96 bits are not read")),
            7 => return Err(self.at("bytes of a fixed length are not read")),
            other => return Err(self.at(&format!("its type has the unknown number {other}"))),
        };
        let meaning = match (element.integer(6), element.field(10)) {
            (Some(11..=14), _) => Meaning::Unsigned,
            (_, Some(logical)) if logical.field(10).is_some_and(|integer| integer.flag(2) == Some(false)) => {
                Meaning::Unsigned
            }
            _ => Meaning::Itself,
        };
        let Level { definition, repetition, .. } = level;
        self.leaves.push(Leaf { path: self.path.join("."), physical, meaning, definition, repetition });
        Ok(Kind::Leaf(self.leaves.len() - 1))
    }

    fn at(&self, problem: &str) -> Fault {
        fault(format!("column `{}`: {problem}", self.path.join(".")))
    }
}

/// A group with its children: an object, or a list in one of the layouts that writers have used ("Lists", backward
/// compatibility rules). A map is the list of its `{key, value}` pairs.
fn nested(element: &Item<'_>, presence: Presence, mut children: Vec<Field>, name: &str) -> Kind {
    let logical = |number| element.field(10).is_some_and(|logical| logical.field(number).is_some());
    let is_map = matches!(element.integer(6), Some(1 | 2)) || logical(2);
    let is_list = element.integer(6) == Some(3) || logical(3);
    let one_repeated = matches!(children.as_slice(), [only] if only.presence == Presence::Repeated);
    if presence == Presence::Repeated || !one_repeated || !(is_list || is_map) {
        return Kind::Group(children);
    }
    let Some(mut repeated) = children.pop() else { return Kind::Group(children) };
    let between = is_list && repeated.name != "array" && repeated.name != format!("{name}_tuple");
    repeated.kind = match repeated.kind {
        Kind::Group(mut inner) if between && inner.len() == 1 => {
            inner.pop().map_or(Kind::Group(Vec::new()), |element| Kind::Through(Box::new(element)))
        }
        kind => kind,
    };
    Kind::List(Box::new(repeated))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: i64 = 3;
    const MAP: i64 = 1;

    fn group<'a>(name: &'a str, repetition: i64, children: i64, converted: Option<i64>) -> Item<'a> {
        let mut fields =
            vec![(3, Item::Integer(repetition)), (4, Item::Bytes(name.as_bytes())), (5, Item::Integer(children))];
        fields.extend(converted.map(|converted| (6, Item::Integer(converted))));
        Item::Fields(fields)
    }

    fn text<'a>(name: &'a str, repetition: i64) -> Item<'a> {
        Item::Fields(vec![(1, Item::Integer(6)), (3, Item::Integer(repetition)), (4, Item::Bytes(name.as_bytes()))])
    }

    /// `[…]` a list, `{…}` an object, `>` a group that is passed through.
    fn shape(field: &Field) -> String {
        let inner = match &field.kind {
            Kind::Leaf(leaf) => leaf.to_string(),
            Kind::Group(fields) => format!("{{{}}}", fields.iter().map(shape).collect::<Vec<_>>().join(" ")),
            Kind::List(repeated) => format!("[{}]", shape(repeated)),
            Kind::Through(only) => format!(">{}", shape(only)),
        };
        format!("{}:{inner}", field.name)
    }

    fn shapes(elements: &[Item<'_>]) -> Result<String, Fault> {
        let (fields, _) = read_schema(elements)?;
        Ok(fields.iter().map(shape).collect::<Vec<_>>().join(" "))
    }

    /// The examples of the format's page, under "Lists" and "Maps".
    #[test]
    fn every_layout_of_lists() -> Result<(), Fault> {
        let root = || group("schema", 0, 1, None);
        let usual = [root(), group("l", 1, 1, Some(LIST)), group("list", 2, 1, None), text("element", 1)];
        assert_eq!(shapes(&usual)?, "l:[list:>element:0]");
        let two_levels = [root(), group("l", 1, 1, Some(LIST)), text("element", 2)];
        assert_eq!(shapes(&two_levels)?, "l:[element:0]");
        let two_fields =
            [root(), group("l", 1, 1, Some(LIST)), group("element", 2, 2, None), text("a", 0), text("b", 0)];
        assert_eq!(shapes(&two_fields)?, "l:[element:{a:0 b:1}]");
        for name in ["array", "l_tuple"] {
            let one_field = [root(), group("l", 1, 1, Some(LIST)), group(name, 2, 1, None), text("a", 0)];
            assert_eq!(shapes(&one_field)?, format!("l:[{name}:{{a:0}}]"));
        }
        let map =
            [root(), group("m", 1, 1, Some(MAP)), group("key_value", 2, 2, None), text("key", 0), text("value", 1)];
        assert_eq!(shapes(&map)?, "m:[key_value:{key:0 value:1}]");
        // A repeated field without a list around it is one.
        assert_eq!(shapes(&[root(), text("r", 2)])?, "r:0");
        Ok(())
    }

    #[test]
    fn levels_count_what_may_be_missing() -> Result<(), Fault> {
        let elements = [
            group("schema", 0, 2, None),
            group("l", 1, 1, Some(LIST)),
            group("list", 2, 1, None),
            text("element", 1),
            text("t", 0),
        ];
        let (_, leaves) = read_schema(&elements)?;
        assert_eq!((leaves[0].path.as_str(), leaves[0].definition, leaves[0].repetition), ("l.list.element", 3, 1));
        assert_eq!((leaves[1].definition, leaves[1].repetition), (0, 0));
        Ok(())
    }

    #[test]
    fn what_is_no_schema() {
        let problem = |elements: &[Item<'_>]| shapes(elements).err().map(|Fault(problem)| problem).unwrap_or_default();
        assert_eq!(problem(&[]), "its schema is empty");
        assert_eq!(problem(&[group("s", 0, 2, None), text("a", 0)]), "its schema ends too early");
        assert!(problem(&[group("s", 0, 0, None)]).contains("without columns"));
        assert!(problem(&[group("s", 0, 1, None), text("a", 0), text("b", 0)]).contains("which columns"));
        assert!(problem(&[group("s", 0, 1, None), text("a", 7)]).contains("column `a`"));
        let mut deep: Vec<Item<'_>> = (0..1000).map(|_| group("g", 2, 1, None)).collect();
        deep.push(text("a", 0));
        assert_eq!(problem(&deep), "its schema is nested too deeply");
    }
}

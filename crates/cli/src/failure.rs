//! How the program ends when something went wrong: `error:` and `hint:` on standard error, and an exit code.
//!
//! | code | when |
//! |---|---|
//! | 0 | success; also when the reader of the output went away (`lathe inspect … \| head`) |
//! | 1 | the work could not be done: disk, network, memory |
//! | 2 | the input is wrong: a flag, a reference, a file that is not what it should be |

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use lathe_model::reference::ReferenceError;

use crate::fetch::FetchError;

/// Something wrong with what the user wrote that no library noticed: flags that exclude each other, a bad span.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct BadInput {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What an error's type tells about it.
struct Verdict {
    hint: Option<String>,
    code: u8,
}

/// Writes the error and its hint to standard error and returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let verdict = error.chain().find_map(verdict).unwrap_or(Verdict { hint: None, code: 1 });
    let mut lines = format!("error: {}\n", message(error));
    if let Some(hint) = verdict.hint {
        lines.push_str(&format!("hint: {hint}\n"));
    }
    // Nowhere left to say that standard error is closed.
    let _ = io::stderr().write_all(lines.as_bytes());
    ExitCode::from(verdict.code)
}

/// The first error of the chain with a known type decides; one line for each error type of the libraries.
fn verdict(error: &(dyn Error + 'static)) -> Option<Verdict> {
    if let Some(error) = error.downcast_ref::<BadInput>() {
        return Some(Verdict { hint: error.hint.clone(), code: 2 });
    }
    if let Some(error) = error.downcast_ref::<FetchError>() {
        return Some(Verdict { hint: error.hint(), code: if error.is_bad_input() { 2 } else { 1 } });
    }
    if let Some(error) = error.downcast_ref::<lathe_model::Error>() {
        return Some(Verdict { hint: error.hint(), code: if error.is_bad_input() { 2 } else { 1 } });
    }
    if let Some(error) = error.downcast_ref::<lathe_lab::Error>() {
        return Some(Verdict { hint: error.hint(), code: if error.is_bad_input() { 2 } else { 1 } });
    }
    if let Some(error) = error.downcast_ref::<ReferenceError>() {
        return Some(Verdict { hint: error.hint(), code: 2 });
    }
    None
}

/// The chain as one sentence. Many errors repeat their source in their own message; it is said once.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    message
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};
    use lathe_model::reference::ModelReference;

    #[test]
    fn a_chain_is_one_sentence() {
        let error = anyhow!("no space left").context("a.json: no space left").context("report");
        assert_eq!(message(&error), "report: a.json: no space left");
    }

    #[test]
    fn the_first_known_type_decides() {
        let error = "pypi:x".parse::<ModelReference>().context("field model").map(|_| ());
        let error = error.err().unwrap_or_else(|| anyhow!("it parsed"));
        let verdict = error.chain().find_map(verdict);
        let (hint, code) = verdict.map_or((None, 0), |verdict| (verdict.hint, verdict.code));
        assert_eq!(code, 2);
        assert!(hint.is_some_and(|hint| hint.starts_with("write pypi:package==version")));
        assert!(message(&error).starts_with("field model: model reference `pypi:x`: "));
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(report(&anyhow::Error::from(gone).context("writing")), ExitCode::SUCCESS);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(report(&anyhow::Error::from(full)), ExitCode::from(1));
        for (kind, code) in [(io::ErrorKind::StorageFull, 1), (io::ErrorKind::NotADirectory, 2)] {
            let refused = |source| lathe_lab::Error::Write { file: "a".into(), source };
            assert_eq!(report(&refused(kind.into()).into()), ExitCode::from(code));
            let refused = |source| lathe_formats::Error::Io { file: "a".into(), action: "write", source };
            assert_eq!(report(&lathe_lab::Error::from(refused(kind.into())).into()), ExitCode::from(code));
        }
        let bad = BadInput { message: "--span is empty".to_owned(), hint: None };
        assert_eq!(report(&bad.into()), ExitCode::from(2));
    }
}

//! The one progress bar: on standard error, with what is being done, how much of it and the time left.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lathe_lab::Progress;

/// Whether progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// When standard error is a terminal.
    OnTerminal,
    /// Never (`--quiet`).
    Never,
}

/// Shows one bar at a time and leaves nothing on the screen when it is finished.
#[derive(Debug)]
pub(crate) struct TerminalProgress {
    show: Show,
    bar: Mutex<Option<ProgressBar>>,
    /// What is being done.
    what: Mutex<String>,
}

impl TerminalProgress {
    pub(crate) fn new(show: Show) -> Self {
        Self { show, bar: Mutex::new(None), what: Mutex::new(String::new()) }
    }

    /// A thread that panicked while it held the bar left nothing that matters in a bad state.
    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for TerminalProgress {
    /// A total of 0 means that it is not known. The unit `B` is shown as kB, MB, GB.
    fn start(&self, what: &str, total: u64, unit: &str) {
        let target = match self.show {
            // indicatif hides it where standard error is no terminal.
            Show::OnTerminal => ProgressDrawTarget::stderr(),
            Show::Never => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), target)
            .with_style(style(total, unit))
            .with_message(what.to_owned())
            .with_prefix(unit.to_owned());
        what.clone_into(&mut self.what.lock().unwrap_or_else(PoisonError::into_inner));
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Some(before) = self.bar().replace(bar) {
            before.finish_and_clear();
        }
    }

    fn advance(&self, by: u64) {
        if let Some(bar) = self.bar().as_ref() {
            bar.inc(by);
        }
    }

    fn note(&self, text: &str) {
        let what = self.what.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(bar) = self.bar().as_ref() {
            bar.set_message(format!("{what}: {text}"));
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }
}

fn style(total: u64, unit: &str) -> ProgressStyle {
    ProgressStyle::with_template(template(total, unit))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn template(total: u64, unit: &str) -> &'static str {
    match (total, unit) {
        (0, "B") => "{msg}  {spinner} {bytes}  {elapsed}",
        (0, _) => "{msg}  {spinner} {human_pos} {prefix}  {elapsed}",
        (_, "B") => "{msg}  [{bar:30}] {bytes} of {total_bytes}  {eta} left",
        (_, _) => "{msg}  [{bar:30}] {human_pos} of {human_len} {prefix}  {eta} left",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_can_be_started_again() {
        let progress = TerminalProgress::new(Show::Never);
        progress.advance(1);
        progress.finish();
        progress.start("read", 10, "tokens");
        progress.advance(4);
        assert_eq!(progress.bar().as_ref().map(ProgressBar::position), Some(4));
        assert_eq!(progress.bar().as_ref().and_then(ProgressBar::length), Some(10));
        progress.start("download", 0, "B");
        progress.advance(7);
        assert_eq!(progress.bar().as_ref().map(ProgressBar::position), Some(7));
        assert_eq!(progress.bar().as_ref().and_then(ProgressBar::length), None);
        progress.finish();
        assert!(progress.bar().is_none());
    }

    #[test]
    fn every_template_is_valid() {
        for (total, unit) in [(0, "B"), (0, "tokens"), (1, "B"), (1, "tokens")] {
            // One that does not parse would silently become the default one.
            let template = template(total, unit);
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}

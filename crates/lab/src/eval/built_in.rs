//! The tasks that are compiled into the program.

/// Name and file of every built-in task.
pub(crate) fn tasks() -> &'static [(&'static str, &'static str)] {
    &[]
}

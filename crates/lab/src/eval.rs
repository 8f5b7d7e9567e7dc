//! `lathe eval`: how many questions of a task a model answers rightly.

pub mod task;

//! Copies a GGUF checkpoint of one file with every matrix stored as TYPE (rows that do not fill the blocks of TYPE stay
//! as they are), on one thread; says how long encoding took and how far the numbers moved.
//!
//! `cargo run --release -p lathe-formats --example requantise -- MODEL TYPE TARGET`
#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::path::Path;
use std::time::{Duration, Instant};

use lathe_formats::write::{self, TensorSpec};
use lathe_formats::{Checkpoint, ElementType, Error};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, element, target] = &arguments[..] else {
        println!("requantise MODEL TYPE TARGET");
        return Ok(());
    };
    let element: ElementType = element.parse()?;
    let checkpoint = Checkpoint::open(model)?;
    let views: Vec<_> = checkpoint.views().collect();
    let specs: Vec<TensorSpec> = views
        .iter()
        .map(|view| {
            let mut spec = TensorSpec::from(view.info());
            if spec.shape.len() > 1 && view.info().row_len().is_multiple_of(element.block_len()) {
                spec.element = element;
            }
            spec
        })
        .collect();

    let metadata = checkpoint.gguf().map_or(&[][..], |metadata| metadata.entries());
    let mut writer = write::gguf(Path::new(target), metadata, &specs)?;
    let (mut time, mut numbers) = (Duration::ZERO, 0);
    for (view, spec) in views.iter().zip(&specs) {
        if spec.element == view.info().element {
            writer.append(&spec.name, view.bytes())?;
            continue;
        }
        let values = view.to_f32()?;
        let begin = Instant::now();
        writer.append_f32(&spec.name, &values)?;
        time += begin.elapsed();
        numbers += values.len();
    }
    writer.finish()?;

    let written = Checkpoint::open(target)?;
    let (mut moved, mut total) = (0.0, 0.0);
    for (view, spec) in views.iter().zip(&specs).filter(|(view, spec)| spec.element != view.info().element) {
        let (before, after) = (view.to_f32()?, written.require(&spec.name)?.to_f32()?);
        for (x, y) in before.iter().zip(&after) {
            moved += f64::from(x - y).powi(2);
            total += f64::from(*x).powi(2);
        }
    }
    let per_number = time.as_nanos() as f64 / numbers as f64;
    println!("{element}: {numbers} numbers, {per_number:.1} ns each, relative RMS error {:.6}", (moved / total).sqrt());
    Ok(())
}

//! Opens a checkpoint and decodes every tensor, one after the other, on one thread; says how long each type took.
//!
//! `cargo run --release -p lathe-formats --example decode_all -- MODEL`
#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use lathe_formats::{Checkpoint, Error};

#[derive(Default)]
struct Sum {
    tensors: usize,
    elements: usize,
    bytes: usize,
    time: Duration,
}

fn main() -> Result<(), Error> {
    let model = std::env::args().nth(1).unwrap_or_default();
    let begin = Instant::now();
    let checkpoint = Checkpoint::open(&model)?;
    println!("opened in {:?}: {} tensors", begin.elapsed(), checkpoint.tensors().len());

    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    let mut out = Vec::new();
    for view in checkpoint.views() {
        let info = view.info();
        out.resize(info.elements(), 0.0);
        let begin = Instant::now();
        view.decode_rows(0..info.rows(), &mut out)?;
        black_box(&out);
        let sum = sums.entry(info.element.name()).or_default();
        sum.time += begin.elapsed();
        sum.tensors += 1;
        sum.elements += info.elements();
        sum.bytes += info.bytes();
    }
    for (name, sum) in sums {
        println!(
            "{name:6} {:4} tensors {:11} numbers {:11} bytes {:8.1?}  {:.2} ns per number",
            sum.tensors,
            sum.elements,
            sum.bytes,
            sum.time,
            sum.time.as_nanos() as f64 / sum.elements as f64
        );
    }
    Ok(())
}

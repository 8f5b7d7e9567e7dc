//! What mergekit makes of the same files, in float32 (`tests/fixtures/make_merges.py`). Left out is what lathe does
//! otherwise on purpose: random masks, rescaling, tensors too small for a method.

use std::fs;
use std::path::Path;

use super::weights;
use crate::bench::Bench;

#[test]
fn merges_are_those_of_mergekit() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/merges");
    let bench = Bench::new();
    let mut compared = 0;
    for entry in fs::read_dir(&fixtures).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        bench.succeed(&["merge", path.to_str().unwrap(), "--out", name]);
        fs::create_dir(bench.path(&format!("{name}-golden"))).unwrap();
        let golden = format!("{name}-golden/model.safetensors");
        fs::copy(fixtures.join(format!("{name}.safetensors")), bench.path(&golden)).unwrap();
        let (ours, theirs) = (weights(&bench, name), weights(&bench, &format!("{name}-golden")));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
        for (tensor, theirs) in &theirs {
            assert_eq!(ours[tensor].shape, theirs.shape, "{name}: {tensor}");
            for (x, y) in ours[tensor].values().iter().zip(theirs.values()) {
                // mergekit's sums are f32.
                assert!((x - y).abs() <= 3e-6 * y.abs().max(1.0), "{name}: {tensor} has {x}, mergekit {y}");
            }
        }
        compared += 1;
    }
    assert_eq!(compared, 15);
}

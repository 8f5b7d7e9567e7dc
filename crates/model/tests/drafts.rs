//! Models of which there is only a configuration.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use lathe_model::family::FAMILIES;
use lathe_model::{Batch, Draft, NoTap, Weights};

fn draft(fixture: &str) -> Draft {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(fixture).join("config.json");
    let fields = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    Draft::new(&file, fields).unwrap()
}

fn weights(draft: &Draft, seed: u64) -> BTreeMap<String, Vec<f32>> {
    let decoder = draft.initialised(Weights::Frozen, seed).unwrap();
    let flat = |var: &candle_core::Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    decoder.trainable().iter().map(|(name, var)| (name.clone(), flat(var))).collect()
}

/// Matrices have the configuration's standard deviation, norms begin as factors of 1, biases at 0, and no parameter
/// depends on threads or on another one.
#[test]
fn every_architecture_can_begin_at_random() {
    for name in FAMILIES.iter().flat_map(|family| family.compared) {
        let draft = draft(name);
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let parameters = on(1).install(|| weights(&draft, 7));
        assert_eq!(parameters, on(3).install(|| weights(&draft, 7)), "{name}");
        assert_ne!(parameters, weights(&draft, 8), "{name}");
        assert_eq!(parameters.len(), draft.spec.parameters().len(), "{name}");
        let offset = draft.spec.final_norm.map_or(0.0, |norm| norm.offset);
        let range = draft.spec.initializer_range;
        let mut matrices = Vec::new();
        for parameter in draft.spec.parameters() {
            let values = &parameters[&parameter.name];
            assert_eq!(values.len(), parameter.elements(), "{name}: {}", parameter.name);
            if parameter.shape.len() > 1 {
                matrices.extend_from_slice(values);
            } else if parameter.name.ends_with(".bias") {
                assert!(values.iter().all(|x| *x == 0.0), "{name}: {}", parameter.name);
            } else {
                assert!(values.iter().all(|x| *x == 1.0 - offset), "{name}: {}", parameter.name);
            }
        }
        let n = matrices.len() as f32;
        let mean = matrices.iter().sum::<f32>() / n;
        let variance = matrices.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        assert!(mean.abs() < 5.0 * range / n.sqrt(), "{name}: mean {mean}");
        assert!((variance.sqrt() / range - 1.0).abs() < 0.05, "{name}: deviation {} of {range}", variance.sqrt());
        // It runs.
        let hidden = draft
            .initialised(Weights::Frozen, 7)
            .unwrap()
            .forward(&Batch::single(&[1, 2, 3]), None, &mut NoTap)
            .unwrap();
        assert_eq!(hidden.dims()[0], 3, "{name}");
    }
}

//! Gradients of a loss on every architecture: of all parameters, of some, and of factors of low rank beside frozen ones.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use lathe_kernels::matmul::{Matrix, product};
use lathe_model::family::FAMILIES;
use lathe_model::{
    Batch, Coarse, Decoder, Error, LoraScaling, LoraSpec, ModuleFactors, NoTap, Opened, Recompute, Trainable,
    TrainingPass, Weights, open,
};

fn fixture(name: &str) -> Opened {
    open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity").join(name)).unwrap()
}

fn fixtures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.compared.iter().copied())
}

/// Two sequences, and what follows each of their tokens.
fn batch(decoder: &Decoder) -> (Batch, Vec<u32>) {
    let vocab_size = decoder.spec().vocab_size as u32;
    let ids: Vec<u32> = (0..19).map(|i| (i * i * 7 + 3) % vocab_size).collect();
    (Batch::of([&ids[..11], &ids[11..18]]), ids[1..19].to_vec())
}

/// Mean likelihood of the tokens that follow, or, without a head, a weighted sum of the states.
fn loss(decoder: &Decoder, hidden: &Tensor) -> Result<Tensor, Error> {
    if decoder.spec().has_head() {
        return Ok(decoder.negative_log_likelihood(hidden, batch(decoder).1)?.mean_all()?);
    }
    let weights: Vec<f32> = (0..hidden.elem_count()).map(|i| (i * 7 % 13) as f32 * 0.1 - 0.6).collect();
    Ok((hidden * Tensor::from_vec(weights, hidden.shape(), hidden.device())?)?.sum_all()?)
}

fn gradients(decoder: &Decoder, recompute: Recompute, draw: u64) -> BTreeMap<String, Vec<f32>> {
    let pass = TrainingPass { recompute, draw };
    let gradients = decoder.gradients(&batch(decoder).0, pass, &mut |hidden| loss(decoder, hidden)).unwrap();
    gradients.by_name.into_iter().map(|(name, gradient)| (name, flat(&gradient))).collect()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(gradients: &BTreeMap<String, Vec<f32>>) -> BTreeMap<&str, Vec<u32>> {
    gradients.iter().map(|(name, values)| (name.as_str(), values.iter().map(|x| x.to_bits()).collect())).collect()
}

fn states(decoder: &Decoder) -> Vec<f32> {
    flat(&decoder.forward(&batch(decoder).0, None, &mut NoTap).unwrap())
}

fn on<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6f32, |max, x| max.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance * scale, "{what}, value {i}: {found} {expected} of {scale}");
    }
}

fn spec(targets: &[&str], dropout: f32) -> LoraSpec {
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    LoraSpec { rank: 3, alpha: 12.0, scaling: LoraScaling::Classic, dropout, targets, seed: 5 }
}

/// Numbers that are no zeros for every factor.
fn fill(decoder: &Decoder) -> Vec<ModuleFactors> {
    let mut factors = decoder.factors().unwrap();
    for (m, module) in factors.iter_mut().enumerate() {
        let b = module.b.iter_mut().enumerate();
        b.for_each(|(i, b)| *b = ((i * 31 + m * 17) % 23) as f32 * 0.004 - 0.04);
    }
    decoder.set_factors(&factors).unwrap();
    factors
}

/// Linear layers of a fixture, `all-linear` where there are no experts.
fn targets(name: &str) -> Vec<&'static str> {
    let opened = fixture(name);
    let has_experts = opened.spec.layers.iter().any(|layer| layer.feed_forward.experts().is_some());
    if has_experts { vec!["q_proj", "k_proj", "v_proj", "o_proj"] } else { vec!["all-linear"] }
}

/// Layer by layer and in one tape, computed again or kept, on any number of threads.
#[test]
fn gradients_are_those_of_one_tape() {
    for name in fixtures() {
        let decoder = fixture(name).decoder(Weights::Trainable).unwrap();
        let kept = gradients(&decoder, Recompute::Nothing, 0);
        let hidden = decoder.forward(&batch(&decoder).0, None, &mut NoTap).unwrap();
        let store = loss(&decoder, &hidden).unwrap().backward().unwrap();
        for (parameter, var) in decoder.trainable() {
            let Some(expected) = store.get(var) else {
                assert!(parameter.contains(".experts.") && !kept.contains_key(parameter), "{name}: {parameter}");
                continue;
            };
            assert!(kept.contains_key(parameter), "{name}: {parameter} has no gradient");
            assert_close(&kept[parameter], &flat(expected), 1e-5, &format!("{name}: {parameter}"));
        }
        let again = gradients(&decoder, Recompute::Layers, 0);
        assert_eq!(bits(&kept), bits(&again), "{name}");
        assert_eq!(bits(&kept), bits(&on(1, || gradients(&decoder, Recompute::Nothing, 0))), "{name}");
        assert_eq!(bits(&kept), bits(&on(3, || gradients(&decoder, Recompute::Layers, 0))), "{name}");
    }
}

/// In bf16 every parameter gets the gradient that it has in f32 up to rounding, with the same bits on any number of threads
/// and when layers are computed again: whether everything is trained, or factors beside frozen weights.
#[test]
fn gradients_in_bf16_are_near() {
    let coarse = Weights::Coarse(Coarse::Bf16);
    for name in fixtures() {
        let opened = fixture(name);
        let full = |weights| opened.decoder_training(weights, &Trainable::All).unwrap();
        let adapted = |weights| {
            let decoder = opened.decoder_with_adapter(weights, &spec(&targets(name), 0.0)).ok()?;
            fill(&decoder);
            Some(decoder)
        };
        let pairs = [(Some(full(Weights::Frozen)), Some(full(coarse))), (adapted(Weights::Frozen), adapted(coarse))];
        for (exact, rounded) in pairs {
            let (Some(exact), Some(rounded)) = (exact, rounded) else { continue };
            let expected = gradients(&exact, Recompute::Nothing, 0);
            let found = gradients(&rounded, Recompute::Nothing, 0);
            assert!(found.keys().eq(expected.keys()), "{name}");
            let norm = |of: &BTreeMap<String, Vec<f32>>| of.values().flatten().map(|x| x * x).sum::<f32>().sqrt();
            let differences = found.iter().map(|(parameter, found)| {
                let pairs = found.iter().zip(&expected[parameter]);
                (parameter.clone(), pairs.map(|(a, b)| a - b).collect())
            });
            let difference = norm(&differences.collect()) / norm(&expected);
            assert!(difference > 0.0 && difference < 0.2, "{name}: {difference}");
            assert_eq!(bits(&found), bits(&gradients(&rounded, Recompute::Layers, 0)), "{name}");
            assert_eq!(bits(&found), bits(&on(1, || gradients(&rounded, Recompute::Nothing, 0))), "{name}");
            assert_eq!(bits(&found), bits(&on(3, || gradients(&rounded, Recompute::Nothing, 0))), "{name}");
        }
    }
}

/// What is trained gets the gradient that it has when all is trained; the rest is no variable.
#[test]
fn some_parameters_are_trained_as_among_all() {
    /// A fixture, patterns, and the names that they mean.
    type Case = (&'static str, &'static [&'static str], fn(&str) -> bool);
    let cases: [Case; 6] = [
        ("llama", &["q_proj", "k_proj"], |name| name.contains("attention.query") || name.contains("attention.key")),
        ("qwen2", &["q_proj.bias"], |name| name.ends_with("attention.query.bias")),
        ("phi3", &["layers.1.*.query.weight"], |name| name.ends_with("layers.1.attention.query.weight")),
        ("gpt2", &["*norm*", "ln_2"], |name| name.contains("norm") || name.contains("before_feed_forward")),
        ("llama_tied_scaled", &["embed_tokens"], |name| name == "embedding.weight"),
        ("gpt_neox", &["embed_out"], |name| name == "head.weight"),
    ];
    for (name, patterns, expected) in cases {
        let opened = fixture(name);
        let which = Trainable::Matching(patterns.iter().map(|pattern| (*pattern).to_owned()).collect());
        let some = opened.decoder_training(Weights::Frozen, &which).unwrap();
        let all = opened.decoder_training(Weights::Frozen, &Trainable::All).unwrap();
        let names: Vec<&String> = some.trainable().keys().collect();
        let all_names: Vec<&String> = all.trainable().keys().filter(|name| expected(name)).collect();
        assert_eq!(names, all_names, "{name}");
        assert!(!names.is_empty());
        // A trained bias is added after the sum, a frozen one before it.
        assert_close(&states(&some), &states(&all), 1e-5, name);
        let (found, reference) = (gradients(&some, Recompute::Layers, 0), gradients(&all, Recompute::Nothing, 0));
        assert_eq!(found.len(), names.len(), "{name}");
        for (parameter, gradient) in &found {
            assert_close(gradient, &reference[parameter], 1e-5, &format!("{name}: {parameter}"));
        }
    }
}

/// Factors beside a frozen base get what follows from the gradient of the merged weights: `dB = s · dW Aᵀ` and
/// `dA = s · Bᵀ dW`, summed over the parts of a fused module.
#[test]
fn factors_get_the_gradient_of_the_merged_weights() {
    for name in fixtures() {
        let opened = fixture(name);
        let spec = spec(&targets(name), 0.0);
        let adapted = match opened.decoder_with_adapter(Weights::Frozen, &spec) {
            Ok(adapted) => adapted,
            // Names of its own for the four projections.
            Err(error) if targets(name).len() > 1 => {
                assert!(matches!(error, Error::Training { .. }), "{name}: {error}");
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        // With B at zero the adapter says nothing yet.
        assert_eq!(states(&adapted), states(&opened.decoder(Weights::Frozen).unwrap()), "{name}");
        fill(&adapted);
        let found = gradients(&adapted, Recompute::Nothing, 0);
        assert_eq!(found.len(), adapted.trainable().len(), "{name}");
        assert!(found.values().all(|gradient| gradient.iter().any(|x| *x != 0.0)), "{name}");
        assert_eq!(bits(&found), bits(&gradients(&adapted, Recompute::Layers, 0)), "{name}");
        assert_eq!(bits(&found), bits(&on(1, || gradients(&adapted, Recompute::Layers, 0))), "{name}");

        let whole = opened.decoder(Weights::Trainable).unwrap();
        let scale = spec.scale();
        let factor = |name: &str| adapted.trainable().get(name).map(|var| flat(var));
        let parameters: Vec<&String> = adapted.trainable().keys().filter(|name| name.ends_with(".lora_B")).collect();
        // Parts of one module share A, which stands beside the first one of them.
        let a_of = |parameter: &str| {
            let fused = [("key", "query"), ("value", "query"), ("up", "gate")];
            let mut name = parameter.to_owned();
            for (part, first) in fused {
                if factor(&format!("{name}.lora_A")).is_none() {
                    name = name.replace(&format!(".{part}."), &format!(".{first}."));
                }
            }
            format!("{name}.lora_A")
        };
        for b_name in &parameters {
            let parameter = b_name.strip_suffix(".lora_B").unwrap();
            let var = &whole.trainable()[parameter];
            let (n, k) = var.dims2().unwrap();
            let (a, b) = (factor(&a_of(parameter)).unwrap(), factor(b_name).unwrap());
            let delta = product(&[(Matrix::new(&b, n, 3), Matrix::new(&a, 3, k))]);
            let merged = flat(var).iter().zip(&delta).map(|(w, d)| w + scale * d).collect();
            var.set(&Tensor::from_vec(merged, (n, k), var.device()).unwrap()).unwrap();
        }
        assert_close(&states(&adapted), &states(&whole), 1e-5, name);
        let reference = gradients(&whole, Recompute::Nothing, 0);
        let mut of_a: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for b_name in &parameters {
            let parameter = b_name.strip_suffix(".lora_B").unwrap();
            let (n, k) = whole.trainable()[parameter].dims2().unwrap();
            let (a, b) = (factor(&a_of(parameter)).unwrap(), factor(b_name).unwrap());
            let dw = Matrix::new(&reference[parameter], n, k);
            let scaled = |values: Vec<f32>| values.into_iter().map(|x| scale * x).collect::<Vec<f32>>();
            let db = scaled(product(&[(dw, Matrix::new(&a, 3, k).transposed())]));
            assert_close(&found[*b_name], &db, 2e-4, &format!("{name}: {b_name}"));
            let da = scaled(product(&[(Matrix::new(&b, n, 3).transposed(), dw)]));
            let sum = of_a.entry(a_of(parameter)).or_insert_with(|| vec![0.0; da.len()]);
            sum.iter_mut().zip(&da).for_each(|(sum, x)| *sum += x);
        }
        for (a_name, da) in &of_a {
            assert_close(&found[a_name], da, 2e-4, &format!("{name}: {a_name}"));
        }
    }
}

#[test]
fn merged_weights_say_the_same_and_go_away_without_a_trace() {
    for (name, target) in
        [("llama", "all-linear"), ("phi3", "qkv_proj"), ("gpt2", "c_attn"), ("gpt_neox", "all-linear")]
    {
        let mut decoder = fixture(name).decoder_with_adapter(Weights::Frozen, &spec(&[target], 0.3)).unwrap();
        let without = states(&decoder);
        let factors = fill(&decoder);
        assert_eq!(decoder.factors().unwrap(), factors, "{name}");
        let before = states(&decoder);
        assert_ne!(before, without, "{name}");
        decoder.merge().unwrap();
        assert_close(&states(&decoder), &before, 1e-5, name);
        decoder.unmerge().unwrap();
        assert_eq!(states(&decoder), before, "{name}");
        assert_eq!(decoder.factors().unwrap(), factors, "{name}");
        // Frozen weights are what they were, also after gradients went through them.
        gradients(&decoder, Recompute::Nothing, 0);
        let silent = factors.into_iter().map(|module| ModuleFactors { b: vec![0.0; module.b.len()], ..module });
        decoder.set_factors(&silent.collect::<Vec<_>>()).unwrap();
        assert_eq!(states(&decoder), without, "{name}");
    }
}

/// Dropout is drawn from the seed, the pass and the layer: the same again in what is computed again, another in the next
/// pass, and none outside of training.
#[test]
fn dropout_is_repeated_and_ends_with_training() {
    let opened = fixture("llama");
    let decoder = |dropout| {
        let decoder = opened.decoder_with_adapter(Weights::Frozen, &spec(&["all-linear"], dropout)).unwrap();
        fill(&decoder);
        decoder
    };
    let (dropping, plain) = (decoder(0.25), decoder(0.0));
    assert_eq!(states(&dropping), states(&plain));
    let first = gradients(&dropping, Recompute::Nothing, 1);
    assert_eq!(bits(&first), bits(&gradients(&dropping, Recompute::Layers, 1)));
    assert_eq!(bits(&first), bits(&on(3, || gradients(&dropping, Recompute::Layers, 1))));
    assert_ne!(first, gradients(&dropping, Recompute::Nothing, 2));
    assert_ne!(first, gradients(&plain, Recompute::Nothing, 1));
    assert_eq!(gradients(&plain, Recompute::Nothing, 1), gradients(&plain, Recompute::Nothing, 2));
}

/// The likelihood of a frozen head, piece by piece, is that of a trained one.
#[test]
fn a_frozen_head_gives_the_gradient_of_a_trained_one() {
    for name in ["llama", "gemma2", "granite", "phi", "opt_350m"] {
        let opened = fixture(name);
        let head_of = |decoder: &Decoder| {
            let hidden = states(decoder);
            let width = hidden.len() / 18;
            let var = candle_core::Var::from_vec(hidden, (18, width), &candle_core::Device::Cpu).unwrap();
            let losses = decoder.negative_log_likelihood(&var, batch(decoder).1).unwrap();
            let weights = Tensor::arange(1f32, 19f32, var.device()).unwrap();
            let dx = (&losses * weights).unwrap().sum_all().unwrap().backward().unwrap().remove(&var).unwrap();
            (flat(&losses), flat(&dx))
        };
        let (frozen, trained) =
            (head_of(&opened.decoder(Weights::Frozen).unwrap()), head_of(&opened.decoder(Weights::Trainable).unwrap()));
        assert_close(&frozen.0, &trained.0, 1e-6, name);
        assert_close(&frozen.1, &trained.1, 1e-5, name);
    }
}

#[test]
fn adapters_that_cannot_be_are_refused() {
    let refused = |name: &str, spec: LoraSpec| match fixture(name).decoder_with_adapter(Weights::Frozen, &spec) {
        Err(error) => {
            assert!(error.is_bad_input() && error.hint().is_some(), "{error}");
            error.to_string()
        }
        Ok(_) => panic!("{name}: {spec:?}"),
    };
    assert_eq!(refused("llama", spec(&["q_porj"], 0.0)), "targets: llama has no module `q_porj`");
    assert!(refused("llama", spec(&["embed_tokens"], 0.0)).contains("no linear layer"));
    assert!(refused("llama", spec(&["input_layernorm"], 0.0)).contains("no linear layer"));
    assert!(refused("olmoe", spec(&["all-linear"], 0.0)).contains("mixture of experts"));
    assert!(refused("llama", spec(&["q_proj"], 1.0)).starts_with("dropout: "));
    assert!(refused("llama", LoraSpec { rank: 0, ..spec(&["q_proj"], 0.0) }).starts_with("rank: "));
    assert!(refused("llama", LoraSpec { alpha: f64::NAN, ..spec(&["q_proj"], 0.0) }).starts_with("alpha: "));
    assert!(refused("llama", spec(&[], 0.0)).starts_with("targets: "));
    let opened = fixture("llama");
    assert!(opened.decoder_with_adapter(Weights::Streamed, &spec(&["q_proj"], 0.0)).is_err());
    let which = Trainable::Matching(vec!["q_porj".into()]);
    assert!(matches!(opened.decoder_training(Weights::Frozen, &which), Err(Error::Training { field: "train", .. })));
    let two = opened.decoder_with_adapter(Weights::Frozen, &spec(&["q_proj"], 0.0)).unwrap();
    let other = opened.decoder_with_adapter(Weights::Frozen, &spec(&["v_proj"], 0.0)).unwrap();
    assert!(two.set_factors(&other.factors().unwrap()).is_err());
}

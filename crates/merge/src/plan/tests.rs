//! Plans of small models that are nothing but headers.

mod any_headers;

use std::path::Path;

use super::*;
use crate::config::{Method, ModelEntry, ModelRef, Parameter, Parameters};
use crate::rule::{Consensus, Deltas, Over, Rescale, Sparsify};

const ROWS: usize = 10;
const WIDTH: usize = 4;

fn float(name: &str, shape: &[usize]) -> TensorHeader {
    TensorHeader { name: name.into(), shape: shape.to_vec(), kind: Kind::Float }
}

/// A model with an embedding, layers, a norm, and no head.
fn tied(name: &str, layers: usize) -> ModelHeader {
    let mut tensors = vec![float("model.embed_tokens.weight", &[ROWS, WIDTH])];
    for layer in 0..layers {
        for (part, shape) in [
            ("input_layernorm.weight", vec![WIDTH]),
            ("self_attn.q_proj.weight", vec![WIDTH, WIDTH]),
            ("self_attn.o_proj.weight", vec![WIDTH, WIDTH]),
            ("mlp.up_proj.weight", vec![8, WIDTH]),
            ("mlp.down_proj.weight", vec![WIDTH, 8]),
        ] {
            tensors.push(float(&format!("model.layers.{layer}.{part}"), &shape));
        }
    }
    tensors.push(float("model.norm.weight", &[WIDTH]));
    ModelHeader { name: name.into(), layers, tied: true, tensors }
}

/// The same with a head of its own.
fn untied(name: &str, layers: usize) -> ModelHeader {
    let mut header = tied(name, layers);
    header.tied = false;
    header.tensors.push(float("lm_head.weight", &[ROWS, WIDTH]));
    header
}

/// Headers for the inputs of a configuration.
fn headers(config: &MergeConfig, make: impl Fn(&str) -> ModelHeader) -> Vec<ModelHeader> {
    config.inputs().iter().map(|model| make(&model.to_string())).collect()
}

fn parse(text: &str) -> MergeConfig {
    MergeConfig::parse(text, Path::new("m.yaml")).expect("the configuration is right")
}

fn planned(text: &str, make: impl Fn(&str) -> ModelHeader) -> Plan {
    let config = parse(text);
    plan(&config, &headers(&config, make), None).expect("it can be planned")
}

fn refused(text: &str, make: impl Fn(&str) -> ModelHeader) -> String {
    let config = parse(text);
    let error = plan(&config, &headers(&config, make), None).expect_err("it cannot be planned");
    format!("{error} | {}", error.hint().unwrap_or_default())
}

fn tensor<'a>(plan: &'a Plan, name: &str) -> &'a OutputTensor {
    plan.tensors.iter().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("`{name}` is planned"))
}

fn from(tensor: &OutputTensor) -> Vec<(usize, &str)> {
    tensor.inputs.iter().map(|(input, name)| (*input, name.as_str())).collect()
}

fn deltas(plan: &Plan, name: &str) -> Deltas {
    match &tensor(plan, name).rule {
        Rule::Deltas(deltas) => deltas.clone(),
        other => panic!("no deltas: {other:?}"),
    }
}

const LINEAR: &str = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 0.5}\n";
const FIVE: &str = "model.layers.4.";

#[test]
fn a_linear_merge_has_every_tensor_once_in_the_order_of_the_first_model() {
    let plan = planned(LINEAR, |name| untied(name, 2));
    let names: Vec<&str> = plan.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let expected: Vec<String> = untied("a", 2).tensors.iter().map(|tensor| tensor.name.clone()).collect();
    assert_eq!(names, expected);
    assert!(plan.tensors.iter().all(|tensor| tensor.rule == Rule::Linear { weights: vec![0.5, 0.5], normalize: true }));
    assert!(plan.tensors.iter().all(|tensor| from(tensor) == [(0, &*tensor.name), (1, &*tensor.name)]));
    assert_eq!((plan.layers, plan.tied, plan.config_donor, &plan.layer_map), (2, false, 0, &None));
    assert_eq!(tensor(&plan, "model.embed_tokens.weight").role, Role::Embedding);
    assert_eq!(tensor(&plan, "lm_head.weight").role, Role::Head);
    assert_eq!(tensor(&plan, "model.layers.1.mlp.up_proj.weight").role, Role::Layer(1));
    assert_eq!(tensor(&plan, "model.norm.weight").role, Role::Other);
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
}

#[test]
fn a_slerp_takes_t_by_name_and_depth() {
    let plan = planned(include_str!("../../tests/data/slerp.yaml"), |name| untied(name, 4));
    let t = |name: &str| match tensor(&plan, name).rule {
        Rule::Slerp { t } => t,
        ref other => panic!("no slerp: {other:?}"),
    };
    for layer in 0..4 {
        let tau = layer as f64 / 3.0;
        let nodes = [0.0, 0.5, 0.3, 0.7, 1.0];
        let place = tau * 4.0;
        let (before, share) = (place.floor() as usize, place.fract());
        let expected = nodes[before] * (1.0 - share) + nodes[(before + 1).min(4)] * share;
        assert!((t(&format!("model.layers.{layer}.self_attn.q_proj.weight")) - expected).abs() < 1e-12);
        assert!((t(&format!("model.layers.{layer}.mlp.up_proj.weight")) - (1.0 - expected)).abs() < 1e-12);
        assert_eq!(t(&format!("model.layers.{layer}.input_layernorm.weight")), 0.5);
    }
    assert_eq!(t("lm_head.weight"), 0.5);
    assert_eq!(plan.layer_map, Some((0..4).map(|layer| (0, layer)).collect()));
    assert!(plan.notes.iter().any(|note| note.starts_with("t varies over the layers")), "{:?}", plan.notes);
}

#[test]
fn the_base_of_a_slerp_comes_first_whatever_the_order_of_the_list() {
    let text = "merge_method: slerp\nbase_model: b\nmodels: [{model: a}, {model: b}]\nparameters: {t: [0.2, 1.2]}\n";
    let plan = planned(text, |name| tied(name, 5));
    assert_eq!(from(tensor(&plan, "model.norm.weight")), [(1, "model.norm.weight"), (0, "model.norm.weight")]);
    // Outside the layers the first value counts, at the end of the network too.
    assert_eq!(tensor(&plan, "model.norm.weight").rule, Rule::Slerp { t: 0.2 });
    assert_eq!(tensor(&plan, &format!("{FIVE}mlp.up_proj.weight")).rule, Rule::Slerp { t: 1.2 });
    assert_eq!(plan.config_donor, 1);
    assert!(plan.notes.contains(&"t goes outside 0 to 1: slerp extrapolates there".into()), "{:?}", plan.notes);
}

#[test]
fn ties_resolves_density_and_weight_for_each_model() {
    let plan = planned(include_str!("../../tests/data/ties.yaml"), |name| untied(name, 5));
    let largest = |density| Sparsify::Largest { density };
    let expected = Deltas {
        weights: vec![0.6, 0.5],
        sparsify: vec![largest(0.5), largest(0.1)],
        rescale: Rescale::None,
        consensus: Consensus::Sign,
        normalize: true,
        lambda: 1.0,
    };
    assert_eq!(deltas(&plan, &format!("{FIVE}mlp.up_proj.weight")), expected);
    let outside = deltas(&plan, "model.norm.weight");
    assert_eq!((outside.weights, outside.sparsify), (vec![0.6, 0.4], vec![largest(0.5), Sparsify::All]));
    // math and code are inputs 1 and 2, the base is listed first.
    assert_eq!(from(tensor(&plan, "lm_head.weight")), [0, 1, 2].map(|input| (input, "lm_head.weight")));
    assert!(plan.notes.iter().any(|note| note.starts_with("int8_mask has no effect")));
}

#[test]
fn parameters_are_asked_for_at_the_model_then_the_file() {
    let plan = planned(include_str!("../../tests/data/dare_ties.yaml"), |name| tied(name, 1));
    let found = deltas(&plan, "model.norm.weight");
    assert_eq!(found.weights, [0.3, 0.4]);
    assert_eq!(found.sparsify, [Sparsify::Random { density: 0.53 }, Sparsify::Random { density: 0.6 }]);
    assert_eq!((found.rescale, found.normalize), (Rescale::InverseDensity, false));
}

#[test]
fn a_condition_without_match_falls_through_and_the_base_needs_nothing() {
    let text = |more: &str| {
        format!(
            "merge_method: task_arithmetic\nbase_model: base\nmodels:\n  - model: base\n  - model: a\n    parameters: {{weight: {{filter: mlp, value: 2}}}}\n{more}"
        )
    };
    let plan = planned(&text("parameters: {weight: 3}\n"), |name| tied(name, 1));
    assert_eq!(deltas(&plan, "model.layers.0.mlp.up_proj.weight").weights, [2.0]);
    assert_eq!(deltas(&plan, "model.norm.weight").weights, [3.0]);
    assert_eq!(
        refused(&text(""), |name| tied(name, 1)),
        "task_arithmetic has no value of `weight` for tensor `model.embed_tokens.weight` of `a` | end the list with \
         `- value: …`, which is for all tensors"
    );
}

#[test]
fn rescaling_has_a_kind_of_its_own_for_each_method() {
    let kind = |method: &str, rescale: &str| {
        let text = format!(
            "merge_method: {method}\nbase_model: base\nmodels: [{{model: a}}]\nparameters: {{weight: 1{rescale}}}\n"
        );
        deltas(&planned(&text, |name| tied(name, 1)), "model.norm.weight").rescale
    };
    for (method, default, when_true) in [
        ("task_arithmetic", Rescale::None, Rescale::L1),
        ("ties", Rescale::None, Rescale::L1),
        ("breadcrumbs", Rescale::None, Rescale::L1),
        ("dare_linear", Rescale::InverseDensity, Rescale::InverseDensity),
        ("dare_ties", Rescale::InverseDensity, Rescale::InverseDensity),
        ("della", Rescale::L1, Rescale::L1),
        ("della_linear", Rescale::L1, Rescale::L1),
    ] {
        assert_eq!(kind(method, ""), default, "{method}");
        assert_eq!(kind(method, ", rescale: true"), when_true, "{method}");
        assert_eq!(kind(method, ", rescale: false"), Rescale::None, "{method}");
        assert_eq!(kind(method, ", rescale: inverse_density"), Rescale::InverseDensity, "{method}");
    }
}

#[test]
fn every_method_gives_its_rule() {
    let rule = |method: &str, models: &str, parameters: &str| {
        let text =
            format!("merge_method: {method}\nbase_model: base\nmodels: [{models}]\nparameters: {{{parameters}}}\n");
        tensor(&planned(&text, |name| tied(name, 1)), "model.layers.0.mlp.up_proj.weight").rule.clone()
    };
    let (one, two) = ("{model: a}", "{model: a}, {model: b}");
    let nuslerp = |over| Rule::Nuslerp { weights: [1.0, 1.0], has_base: true, over };
    assert_eq!(rule("nuslerp", two, "weight: 1"), nuslerp(Over::Tensor));
    assert_eq!(rule("nuslerp", two, "weight: 1, nuslerp_flatten: false"), nuslerp(Over::Rows));
    assert_eq!(rule("nuslerp", two, "weight: 1, nuslerp_flatten: 0, nuslerp_row_wise: true"), nuslerp(Over::Columns));
    assert_eq!(rule("nuslerp", two, "weight: 1, axis: out"), nuslerp(Over::Rows));
    assert_eq!(rule("nuslerp", two, "weight: 1, axis: in"), nuslerp(Over::Columns));
    assert_eq!(
        rule("multislerp", two, "weight: 1"),
        Rule::Multislerp { weights: vec![1.0, 1.0], normalize: true, has_base: true, eps: 1e-8 }
    );
    assert_eq!(rule("karcher", two, ""), Rule::Karcher { max_iter: 10, tol: 1e-5 });
    assert_eq!(rule("model_stock", two, ""), Rule::ModelStock { by_rows: false });
    assert_eq!(rule("model_stock", two, "filter_wise: true"), Rule::ModelStock { by_rows: true });
    assert_eq!(rule("sce", one, "select_topk: 0.5"), Rule::Sce { select_topk: 0.5 });
    assert_eq!(rule("nearswap", one, "t: 0.001"), Rule::Nearswap { t: 0.001 });
    assert_eq!(rule("passthrough", one, "scale: 0.5"), Rule::Passthrough { scale: 0.5 });
    let Rule::Deltas(found) = rule("protect", two, "density: 0.5, slack: 0.3") else { panic!("deltas") };
    assert_eq!((found.consensus, found.weights), (Consensus::Protect { slack: 0.3 }, vec![1.0, 1.0]));
    let sparse = |method: &str, parameters: &str| match rule(method, one, &format!("weight: 1, {parameters}")) {
        Rule::Deltas(found) => (found.sparsify[0], found.consensus, found.normalize),
        other => panic!("no deltas: {other:?}"),
    };
    let by_rank = Sparsify::RandomByRank { density: 0.5, epsilon: 0.15 };
    let middle = Sparsify::Middle { density: 0.5, gamma: 0.01 };
    assert_eq!(sparse("della", "density: 0.5"), (by_rank, Consensus::Sign, true));
    assert_eq!(sparse("della_linear", "density: 0.5"), (by_rank, Consensus::Sum, false));
    assert_eq!(sparse("breadcrumbs", "density: 0.5"), (middle, Consensus::Sum, false));
    assert_eq!(sparse("breadcrumbs_ties", "density: 0.5"), (middle, Consensus::Sign, false));
    assert_eq!(sparse("dare_linear", "density: 0.5").1, Consensus::Sum);
}

#[test]
fn slices_are_stacked_with_embedding_first_and_norm_and_head_last() {
    let plan = planned(include_str!("../../tests/data/frankenmerge.yaml"), |name| untied(name, 4));
    assert_eq!(plan.layers, 6);
    assert_eq!(plan.layer_map, Some(vec![(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3)]));
    assert_eq!(plan.tensors.len(), 6 * 5 + 3);
    assert_eq!(from(tensor(&plan, "model.embed_tokens.weight")), [(0, "model.embed_tokens.weight")]);
    assert_eq!(from(tensor(&plan, "model.norm.weight")), [(1, "model.norm.weight")]);
    assert_eq!(from(tensor(&plan, "lm_head.weight")), [(1, "lm_head.weight")]);
    let o = tensor(&plan, "model.layers.3.self_attn.o_proj.weight");
    assert_eq!(
        (from(o), &o.rule),
        (vec![(1, "model.layers.1.self_attn.o_proj.weight")], &Rule::Passthrough { scale: 0.0 })
    );
    assert_eq!(tensor(&plan, "model.layers.2.self_attn.o_proj.weight").rule, Rule::Passthrough { scale: 1.0 });
    assert_eq!(tensor(&plan, "model.layers.5.self_attn.q_proj.weight").role, Role::Layer(5));
}

#[test]
fn a_slice_has_its_own_gradient() {
    let text = "merge_method: slerp\nbase_model: a\nparameters: {t: [0, 1]}\nslices:\n  - sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n  - sources: [{model: a, layer_range: [3, 4]}, {model: b, layer_range: [2, 3]}]\n    parameters: {t: [0.5, 0.25]}\n";
    let plan = planned(text, |name| tied(name, 4));
    let t = |layer: usize| tensor(&plan, &format!("model.layers.{layer}.mlp.up_proj.weight"));
    assert_eq!(t(0).rule, Rule::Slerp { t: 0.0 });
    assert_eq!(t(1).rule, Rule::Slerp { t: 1.0 });
    // A slice of one layer is at its end; the last norm takes the first value of the last slice.
    assert_eq!(t(2).rule, Rule::Slerp { t: 0.25 });
    assert_eq!(tensor(&plan, "model.norm.weight").rule, Rule::Slerp { t: 0.5 });
    assert_eq!(from(t(2)), [(0, "model.layers.3.mlp.up_proj.weight"), (1, "model.layers.2.mlp.up_proj.weight")]);
}

#[test]
fn tied_heads_stay_tied_if_all_are() {
    let all = planned(LINEAR, |name| tied(name, 1));
    assert!(all.tied && all.tensors.iter().all(|tensor| tensor.role != Role::Head));
    // A head that the configuration says does not count is left out.
    let stored = planned(LINEAR, |name| ModelHeader { tied: true, ..untied(name, 1) });
    assert!(stored.tied && stored.tensors.iter().all(|tensor| tensor.role != Role::Head));
    assert_eq!(stored.notes.len(), 1);
}

#[test]
fn one_untied_model_gives_the_result_a_head() {
    for (text, sources) in [
        (LINEAR, vec![(0, "model.embed_tokens.weight"), (1, "lm_head.weight")]),
        (
            "merge_method: linear\nmodels: [{model: b}, {model: a}]\nparameters: {weight: 0.5}\n",
            vec![(0, "lm_head.weight"), (1, "model.embed_tokens.weight")],
        ),
    ] {
        let plan = planned(text, |name| if name == "a" { tied(name, 1) } else { untied(name, 1) });
        assert!(!plan.tied);
        assert_eq!(from(tensor(&plan, "lm_head.weight")), sources);
        assert_eq!(plan.notes.len(), 1);
    }
}

#[test]
fn rows_are_the_callers_with_a_vocabulary_and_an_error_without() {
    let config = parse(LINEAR);
    let mut inputs = headers(&config, |name| untied(name, 1));
    for tensor in &mut inputs[1].tensors {
        if tensor.shape[0] == ROWS {
            tensor.shape[0] = ROWS + 2;
        }
    }
    let plan = plan(&config, &inputs, Some(11)).expect("rows are matched by token");
    assert_eq!(tensor(&plan, "model.embed_tokens.weight").shape, [11, WIDTH]);
    assert_eq!(tensor(&plan, "lm_head.weight").shape, [11, WIDTH]);
    let error = super::plan(&config, &inputs, None).expect_err("no tokenizer");
    assert_eq!(
        error.to_string(),
        "tensor `model.embed_tokens.weight` has 10 rows in `a` and 12 in `b`: different vocabularies"
    );
    assert!(error.hint().expect("advice").contains("tokenizer: {source: union}"));
}

#[test]
fn stacked_models_need_one_vocabulary_and_one_width() {
    let franken = include_str!("../../tests/data/frankenmerge.yaml");
    let grown = |name: &str, dimension: usize| {
        let mut header = untied(name, 4);
        if name == "second" {
            for tensor in header.tensors.iter_mut().filter(|tensor| tensor.shape[0] == ROWS) {
                tensor.shape[dimension] += 2;
            }
        }
        header
    };
    let rows = refused(franken, |name| grown(name, 0));
    assert!(rows.starts_with("tensor `lm_head.weight` has 10 rows in `first` and 12 in `second`"), "{rows}");
    let width = refused(franken, |name| grown(name, 1));
    assert!(
        width.starts_with("tensor `model.embed_tokens.weight` is [10, 4] in `first` and [10, 6] in `second`"),
        "{width}"
    );
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let ties = "merge_method: ties\nbase_model: base\nmodels: [{model: a}]\nparameters: {weight: 1}\n";
    let changed = |who: &'static str, change: fn(&mut ModelHeader)| {
        move |name: &str| {
            let mut header = untied(name, 2);
            if name == who {
                change(&mut header);
            }
            header
        }
    };
    for (text, who, change, expected) in [
        (
            LINEAR,
            "b",
            (|header| header.tensors[4].shape = vec![9, 4]) as fn(&mut ModelHeader),
            "tensor `model.layers.0.mlp.up_proj.weight` is [8, 4] in `a` and [9, 4] in `b` | only models of one architecture and size can be merged",
        ),
        (
            LINEAR,
            "b",
            |header| drop(header.tensors.remove(4)),
            "`b` has no tensor `model.layers.0.mlp.up_proj.weight`, which `a` has | ",
        ),
        (
            LINEAR,
            "a",
            |header| drop(header.tensors.remove(4)),
            "`a` has no tensor `model.layers.0.mlp.up_proj.weight`, which `b` has | ",
        ),
        (
            ties,
            "base",
            |header| drop(header.tensors.remove(4)),
            "the base `base` has no tensor `model.layers.0.mlp.up_proj.weight`, which `a` has | take the model as base that the others were made from",
        ),
        (
            LINEAR,
            "b",
            |header| header.layers = 3,
            "`a` has 2 layers and `b` has 3 | models of different depth are stacked with `slices`",
        ),
        (
            LINEAR,
            "b",
            |header| header.tensors[4].kind = Kind::Other,
            "tensor `model.layers.0.mlp.up_proj.weight` holds floats in one of `a` and `b` and something else in the other | ",
        ),
        (
            include_str!("../../tests/data/frankenmerge.yaml"),
            "second",
            |header| header.layers = 2,
            "layer_range [0, 3] of `first`, which has 2 layers | layers count from 0, and the second number is left out",
        ),
        (
            "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n",
            "a",
            |header| header.tensors.push(float("vision.blocks.0.x", &[1])),
            "`slices` need a model with one stack of layers; `a` has `model.layers.0` and `vision.blocks.0` | ",
        ),
    ] {
        assert_eq!(refused(text, changed(who, change)), expected);
    }
}

#[test]
fn buffers_that_follow_from_the_configuration_may_be_missing() {
    let plan = planned(LINEAR, |name| {
        let mut header = tied(name, 1);
        if name == "b" {
            header.tensors.push(float("model.layers.0.self_attn.rotary_emb.inv_freq", &[2]));
        }
        header
    });
    assert!(plan.tensors.iter().all(|tensor| !tensor.name.ends_with("inv_freq")));
    assert_eq!(plan.notes.len(), 1);
}

#[test]
fn integers_are_copied() {
    let plan = planned(LINEAR, |name| {
        let mut header = tied(name, 1);
        header.tensors.push(TensorHeader { name: "steps".into(), shape: vec![1], kind: Kind::Other });
        header
    });
    let steps = tensor(&plan, "steps");
    assert_eq!((steps.copied, steps.inputs.len()), (true, 2));
    assert!(!tensor(&plan, "model.norm.weight").copied);
}

#[test]
fn numbers_that_make_no_merge_are_refused() {
    let weights = |normalize: bool| {
        format!(
            "merge_method: linear\nmodels:\n  - {{model: a, parameters: {{weight: 1}}}}\n  - {{model: b, parameters: {{weight: -1}}}}\nparameters: {{normalize: {normalize}}}\n"
        )
    };
    assert_eq!(
        refused(&weights(true), |name| tied(name, 1)),
        "the weights for tensor `model.embed_tokens.weight` sum to 0, and the sum is divided by that | change a weight, \
         or set `normalize: false`"
    );
    planned(&weights(false), |name| tied(name, 1));
    let della = "merge_method: della\nbase_model: base\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1, density: 0.9}\n";
    assert!(refused(della, |name| tied(name, 1)).starts_with(
        "tensor `model.embed_tokens.weight`: density 0.9 and epsilon 0.15 give probabilities from 0.75 to 1.05"
    ));
}

#[test]
fn what_probably_is_not_meant_is_noted() {
    let notes = |method: &str, models: &str, parameters: &str| {
        let text =
            format!("merge_method: {method}\nbase_model: base\nmodels: [{models}]\nparameters: {{{parameters}}}\n");
        planned(&text, |name| tied(name, 2)).notes.join("\n")
    };
    assert!(notes("ties", "{model: a}", "weight: 0.5").contains("the only model, has no effect"));
    assert_eq!(notes("ties", "{model: a}", "weight: 0.5, normalize: false"), "");
    assert!(
        notes("ties", "{model: a}, {model: b}", "weight: [-0.5, 1]").contains("cancels the sign of a negative weight")
    );
    assert!(notes("dare_ties", "{model: a}", "weight: 0.5").contains("drops nothing of `a`"));
    assert!(notes("della", "{model: a}, {model: b}", "weight: 0.5").contains("drops nothing of `b`"));
    assert!(
        notes("linear", "{model: a}", "weight: 1").contains("only config and tokenizer come from base_model `base`")
    );
    assert!(
        notes("nuslerp", "{model: a}, {model: b}", "weight: 1, nuslerp_flatten: false").contains("interpolates rows")
    );
    assert!(notes("nuslerp", "{model: a}, {model: b}", "weight: 1, nuslerp_row_wise: true").contains("has no effect"));
}

#[test]
fn a_model_may_be_merged_with_itself() {
    let text = "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: a}]\nparameters: {t: 0.5}\n";
    let plan = planned(text, |name| tied(name, 1));
    assert_eq!(from(tensor(&plan, "model.norm.weight")), [(0, "model.norm.weight"), (0, "model.norm.weight")]);
}

#[test]
fn configurations_made_by_code_are_checked_too() {
    let config = MergeConfig {
        parameters: Parameters::none().with(Parameter::Density, 0.5),
        ..MergeConfig::of_models(Method::Linear, vec![ModelEntry::plain(ModelRef::plain("a"))])
    };
    let error = plan(&config, &[tied("a", 1)], None).expect_err("linear needs weights");
    assert_eq!(error.to_string(), "merge configuration, models[0]: linear needs the parameter `weight` for `a`");
    let fine = MergeConfig { parameters: config.parameters.clone().with(Parameter::Weight, 1.0), ..config };
    let notes = plan(&fine, &[tied("a", 1)], None).expect("a plan").notes;
    assert!(notes.contains(&"density has no effect: linear has no such parameter".to_owned()), "{notes:?}");
    assert_eq!(plan(&fine, &[], None), Err(PlanError::Headers { expected: 1, found: 0 }));
    assert_eq!(plan(&fine, &[tied("a", 1)], None).map(|plan| plan.tensors.len()), Ok(7));
}

#[test]
fn layers_behind_the_last_one_are_as_deep_as_it() {
    let text = "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: [0, 1]}\n";
    let plan = planned(text, |name| {
        let mut header = tied(name, 3);
        header.tensors.push(float("model.layers.3.eh_proj.weight", &[WIDTH, WIDTH]));
        header.tensors.push(float("vision.blocks.0.x", &[WIDTH]));
        header.tensors.push(float("vision.blocks.1.x", &[WIDTH]));
        header
    });
    let t = |name: &str| tensor(&plan, name).rule.clone();
    assert_eq!(t("model.layers.1.mlp.up_proj.weight"), Rule::Slerp { t: 0.5 });
    assert_eq!(t("model.layers.3.eh_proj.weight"), Rule::Slerp { t: 1.0 });
    // Another stack has a depth of its own.
    assert_eq!(t("vision.blocks.0.x"), Rule::Slerp { t: 0.0 });
    assert_eq!(t("vision.blocks.1.x"), Rule::Slerp { t: 1.0 });
}

#[test]
fn biases_of_heads_have_a_row_for_each_token() {
    let config = parse(LINEAR);
    let inputs = headers(&config, |name| {
        let mut header = untied(name, 1);
        header.tensors.push(float("lm_head.bias", &[ROWS + name.len()]));
        header
    });
    let plan = plan(&config, &inputs, Some(64)).expect("rows are matched by token");
    let bias = tensor(&plan, "lm_head.bias");
    assert_eq!((bias.role, bias.shape.as_slice()), (Role::Head, [64].as_slice()));
}

#[test]
fn slices_of_one_result_name_their_layers_alike() {
    let text = include_str!("../../tests/data/frankenmerge.yaml");
    let renamed = |name: &str| {
        let mut header = untied(name, 4);
        if name == "second" {
            for tensor in &mut header.tensors {
                tensor.name = tensor.name.replace("model.layers", "layers");
            }
        }
        header
    };
    assert_eq!(refused(text, renamed), "layers are named `model.layers.0` in `first` and `layers.0` in `second` | ");
}

#[test]
fn a_result_has_a_limit_of_layers() {
    let slice = "  - sources: [{model: a, layer_range: [0, 100]}]\n";
    let text = format!("merge_method: passthrough\nslices:\n{}", slice.repeat(41));
    assert_eq!(refused(&text, |name| tied(name, 100)), "the slices add up to 4100 layers; at most 4096 are written | ");
}

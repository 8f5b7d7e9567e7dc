//! Headers that no model has.

use proptest::prelude::*;

use super::*;

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "model.embed_tokens.weight",
        "wte.weight",
        "lm_head.weight",
        "lm_head.bias",
        "model.norm.weight",
        "h.0.attn.bias",
        "model.layers.0.a",
        "model.layers.1.a",
        "model.layers.2.b",
        "model.layers.18446744073709551615.a",
        "vision.blocks.0.a",
        "",
    ])
    .prop_map(str::to_owned)
}

fn models() -> impl Strategy<Value = ModelHeader> {
    let kind = prop::sample::select(vec![Kind::Float, Kind::Float, Kind::Other]);
    let tensor = (names(), prop::collection::vec(0..3usize, 0..3), kind).prop_map(|(name, shape, kind)| TensorHeader {
        name,
        shape,
        kind,
    });
    (0..4usize, any::<bool>(), prop::collection::vec(tensor, 0..6)).prop_map(|(layers, tied, tensors)| ModelHeader {
        name: "m".into(),
        layers,
        tied,
        tensors,
    })
}

proptest! {
    /// Headers come from files: whatever they say, there is a plan or an error, and inputs of a plan exist.
    #[test]
    fn make_a_plan_or_an_error(
        headers in prop::collection::vec(models(), 2),
        vocabulary in prop::option::of(1..9usize),
        which in 0..4usize,
    ) {
        let text = [
            LINEAR,
            "merge_method: ties\nbase_model: b\nmodels: [{model: a}]\nparameters: {weight: 1}\n",
            "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}, {sources: [{model: b, layer_range: [1, 2]}]}]\n",
            "merge_method: linear\nparameters: {weight: [0, 1], normalize: false}\nslices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [1, 3]}]}]\n",
        ][which];
        let Ok(plan) = plan(&parse(text), &headers, vocabulary) else { return Ok(()) };
        let mut seen = HashSet::new();
        for tensor in &plan.tensors {
            prop_assert!(seen.insert(&tensor.name), "`{}` is there twice", tensor.name);
            for (input, name) in &tensor.inputs {
                prop_assert!(headers[*input].tensors.iter().any(|tensor| tensor.name == *name));
            }
        }
    }
}

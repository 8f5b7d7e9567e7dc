//! Reading, checking, and what a value is for a tensor.

use super::*;

fn parse(text: &str) -> Result<MergeConfig, ConfigError> {
    MergeConfig::parse(text, Path::new("m.yaml"))
}

fn error(text: &str) -> ConfigError {
    parse(text).expect_err("the configuration is wrong")
}

/// What the error says, and its hint behind a bar.
fn message(text: &str) -> String {
    let error = error(text);
    format!("{error} | {}", error.hint().unwrap_or_default())
}

/// Parameters of a slerp, two spaces deep.
fn slerp(parameters: &str) -> String {
    format!("merge_method: slerp\nbase_model: a\nmodels:\n  - model: a\n  - model: b\nparameters:\n{parameters}")
}

fn numbers(values: &[f64]) -> Setting {
    Setting::Everywhere(Gradient::OverLayers(values.iter().map(|x| Scalar::Number(*x)).collect()))
}

fn number(setting: &Setting, tensor: &str, tau: f64) -> f64 {
    match setting.value(tensor, tau) {
        Some(Scalar::Number(number)) => number,
        other => panic!("not a number: {other:?}"),
    }
}

fn over_layers(setting: &Setting, layers: usize) -> Vec<f64> {
    (0..layers).map(|layer| number(setting, "model.layers.x", depth(layer, layers))).collect()
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-6, "{found:?} and {expected:?}");
    }
}

/// The table of values that mergekit gave (its schema, "value forms").
#[test]
fn gradients_are_interpolated_over_layers() {
    let five = numbers(&[0.0, 0.5, 0.3, 0.7, 1.0]);
    close(&over_layers(&five, 9), &[0.0, 0.25, 0.5, 0.4, 0.3, 0.5, 0.7, 0.85, 1.0]);
    close(&over_layers(&five, 2), &[0.0, 1.0]);
    close(&over_layers(&five, 1), &[1.0]);
    close(&[number(&five, "model.norm.weight", 0.0)], &[0.0]);
    close(&over_layers(&numbers(&[0.0, 0.5, 1.0]), 4), &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
    close(&over_layers(&numbers(&[0.2]), 3), &[0.2, 0.2, 0.2]);
}

#[test]
fn the_first_condition_that_holds_counts() {
    let config = parse(&slerp(
        "  t:\n    - {filter: self_attn, value: [0, 1]}\n    - {filter: mlp, value: 0.25}\n    - value: 0.5\n",
    ))
    .expect("it is right");
    let t = config.parameters.get(Parameter::T).expect("given");
    close(
        &[
            number(t, "model.layers.1.self_attn.q_proj.weight", 0.5),
            number(t, "model.layers.1.mlp.up_proj.weight", 0.5),
            number(t, "model.norm.weight", 0.5),
        ],
        &[0.5, 0.25, 0.5],
    );
    let Setting::ByName(mut conditions) = t.clone() else { panic!("conditions") };
    conditions.pop();
    assert_eq!(Setting::ByName(conditions).value("model.norm.weight", 0.5), None);
}

#[test]
fn a_star_is_for_every_tensor_and_words_are_picked() {
    let config = parse(&slerp("  t: {filter: '*', value: 0.5}\n")).expect("it is right");
    close(&[number(config.parameters.get(Parameter::T).expect("given"), "x", 0.3)], &[0.5]);
    let words = Gradient::OverLayers([true, false, true].map(Scalar::Truth).to_vec());
    let picked = [0.0, 0.49, 0.5, 0.99, 1.0].map(|tau| words.value(tau));
    assert_eq!(picked, [true, true, false, false, true].map(Scalar::Truth));
}

#[test]
fn references_have_one_revision_and_one_adapter() {
    let lora = |path: &str, revision: Option<&str>| LoraRef { path: path.into(), revision: revision.map(Into::into) };
    for (text, path, revision, adapter) in [
        ("a", "a", None, None),
        ("../x/y.b", "../x/y.b", None, None),
        ("a@r", "a", Some("r"), None),
        ("a+l", "a", None, Some(lora("l", None))),
        ("hf:o/n@r+l@s", "hf:o/n", Some("r"), Some(lora("l", Some("s")))),
    ] {
        let expected = ModelRef { path: path.into(), revision: revision.map(Into::into), lora: adapter };
        assert_eq!(text.parse(), Ok(expected.clone()));
        assert_eq!(expected.to_string(), text);
    }
    for (text, expected) in [
        ("a@b@c", ReferenceError::TwoRevisions),
        ("a+b+c", ReferenceError::TwoAdapters),
        ("a+b@c@d", ReferenceError::TwoRevisions),
        ("", ReferenceError::EmptyPart),
        ("a@", ReferenceError::EmptyPart),
        ("+b", ReferenceError::EmptyPart),
    ] {
        assert_eq!(text.parse::<ModelRef>(), Err(expected), "{text}");
    }
}

#[test]
fn unknown_keys_are_errors_wherever_they_are() {
    for (text, expected) in [
        (
            slerp("  t: [{name: self_attn, value: 0.9}, {value: 0.1}]\n"),
            "m.yaml, line 7, parameters.t[0].name: unknown key `name` | did you mean `filter`?",
        ),
        (
            slerp("  t: 0.5\nbasemodel: a\n"),
            "m.yaml, line 8, basemodel: unknown key `basemodel` | did you mean `base_model`?",
        ),
        (
            slerp("  t: 0.5\n").replace("model: b", "model: b\n    weights: 1"),
            "m.yaml, line 6, models[1].weights: unknown key `weights` | known here: model, parameters",
        ),
        (
            slerp("  t: 0.5\ntokenizer: {sorce: union}\n"),
            "m.yaml, line 8, tokenizer.sorce: unknown key `sorce` | did you mean `source`?",
        ),
        (
            slerp("  t: 0.5\n  densty: 0.5\n"),
            "m.yaml, line 8, parameters.densty: slerp has no parameter `densty` | known here: t, int8_mask",
        ),
    ] {
        assert_eq!(message(&text), expected);
    }
}

#[test]
fn every_other_mistake_is_named_with_its_place() {
    let ties = "merge_method: ties\nbase_model: a\nmodels:\n  - model: b\n";
    for (text, expected) in [
        (slerp("  t: 0.5\n").replace("slerp", "slurp"), "m.yaml, line 1, merge_method: unknown merge method `slurp` | did you mean `slerp`?"),
        (slerp("  t: yes\n"), "m.yaml, line 7, parameters.t: `t` is a finite number, not true | "),
        (slerp("  t: .nan\n"), "m.yaml, line 7, parameters.t: `t` is a finite number, not .nan | "),
        (slerp("  t: []\n"), "m.yaml, line 7, parameters.t: the list is empty | "),
        (slerp("  t: [0, yes]\n"), "m.yaml, line 7, parameters.t: a gradient has either numbers only or no numbers | "),
        (
            slerp("  t:\n  - {filter: x, value: 1}\n  - 0.5\n"),
            "m.yaml, line 9, parameters.t[1]: a list of conditions has an entry without `value` | a condition for all tensors is `- value: 0.5`",
        ),
        (
            slerp("  int8_mask: true\n"),
            "m.yaml, line 1: slerp needs the parameter `t` | give `t` in the `parameters` of the whole file",
        ),
        (
            slerp("  t: 0.5\n").replace("- model: b", "- {model: b, parameters: {t: 1}}"),
            "m.yaml, line 5, models[1].parameters.t: `t` of slerp is one value for the whole merge, not one for each model | give it in the `parameters` of the slice or of the whole file",
        ),
        (slerp("  t: 0.5\n").replace("base_model: a\n", ""), "m.yaml, line 1: slerp needs a base_model | add `base_model: …`, the model that the others were made from"),
        (slerp("  t: 0.5\n").replace("- model: b", "- model: b\n  - model: c"), "m.yaml, line 3, models: slerp takes one model beside the base, found 2 | "),
        (slerp("  t: 0.5\n").replace("model: b", "model: b@1@2"), "m.yaml, line 5, models[1].model: `b@1@2` names no model: more than one `@` | a model is written path, path@revision, path+adapter or path@revision+adapter@revision"),
        (slerp("  t: 0.5\n").replace("model: b", "model: 7"), "m.yaml, line 5, models[1].model: expected the name of a model, found 7 | "),
        (slerp("  t: 0.5\nslices: []\n"), "m.yaml, line 1: a configuration has exactly one of `models`, `slices` and `modules`, this one has models and slices | "),
        (slerp("  t: 0.5\ntokenizer_source: base\ntokenizer: {source: base}\n"), "m.yaml, line 8, tokenizer_source: `tokenizer` and `tokenizer_source` exclude each other | "),
        (slerp("  t: 0.5\ndtype: int64\n"), "m.yaml, line 8, dtype: weights cannot be stored as int64 | use float32, float16 or bfloat16"),
        (slerp("  t: 0.5\ndtype: bfloat\n"), "m.yaml, line 8, dtype: unknown element type `bfloat` | did you mean `bfloat16`?"),
        (slerp("  t: 0.5\nchat_template: chatlm\n"), "m.yaml, line 8, chat_template: unknown chat template `chatlm` | did you mean `chatml`?"),
        (slerp("  t: 0.5\nseed: -1\n"), "m.yaml, line 8, seed: expected a whole number of at least 0, found -1 | "),
        ("merge_method: linear\nmodels: []\n".into(), "m.yaml, line 2, models: the list is empty | "),
        (
            ties.into(),
            "m.yaml, line 4, models[0]: ties needs the parameter `weight` for `b` | give `weight` in the `parameters` of the model, or in those of the whole file for all",
        ),
        (format!("{ties}parameters: {{weight: 1, density: 0}}\n"), "m.yaml, line 5, parameters.density: `density` is a number above 0, at most 1, not 0.0 | "),
        (format!("{ties}parameters: {{weight: 1, density: [0.5, 1.5]}}\n"), "m.yaml, line 5, parameters.density: `density` is a number above 0, at most 1, not 1.5 | "),
        (format!("{ties}parameters: {{weight: 1, rescale: l2}}\n"), "m.yaml, line 5, parameters.rescale: `rescale` is inverse_density, l1, none, true or false, not l2 | "),
        ("[1, 2]".into(), "m.yaml, line 1: expected a mapping, found a list | "),
        ("".into(), "m.yaml, line 1: expected a mapping, found nothing | "),
        (
            "merge_method: linear\nmodules: {text: {}, vision: {}}\n".into(),
            "m.yaml, line 2, modules: several modules (text, vision): lathe merges models of one module | keep the text model's module only",
        ),
        (
            "merge_method: nuslerp\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1, axis: out, nuslerp_flatten: false}\n".into(),
            "m.yaml, line 3, parameters: `axis` and `nuslerp_flatten` exclude each other | ",
        ),
    ] {
        assert_eq!(message(&text), expected);
    }
}

#[test]
fn slices_have_layers_and_as_many_in_each_source() {
    let slices = |first: &str, second: &str| {
        format!(
            "merge_method: linear\nparameters: {{weight: 1}}\nslices:\n  - sources:\n      - model: a\n        layer_range: {first}\n      - model: b\n        layer_range: {second}\n"
        )
    };
    assert!(parse(&slices("[0, 4]", "[2, 6]")).is_ok());
    for (first, second, expected) in [
        ("[4, 4]", "[0, 4]", "m.yaml, line 6, slices[0].sources[0].layer_range: layer_range [4, 4] holds no layer"),
        ("[0, 4]", "[4, 1]", "m.yaml, line 8, slices[0].sources[1].layer_range: layer_range [4, 1] holds no layer"),
        (
            "[0, 4]",
            "[0, 3]",
            "m.yaml, line 4, slices[0].sources: the sources of one slice have 4, 3 layers: they need the same number",
        ),
        (
            "[0, 4]",
            "[0]",
            "m.yaml, line 8, slices[0].sources[1].layer_range: expected two whole numbers: the first layer, and the first one that is left out, found a list",
        ),
        (
            "[-1, 4]",
            "[0, 4]",
            "m.yaml, line 6, slices[0].sources[0].layer_range: expected two whole numbers: the first layer, and the first one that is left out, found -1",
        ),
    ] {
        assert_eq!(error(&slices(first, second)).to_string(), expected);
    }
    let delta = slices("[0, 4]", "[1, 5]").replace("linear", "ties") + "base_model: c\n";
    assert_eq!(
        error(&delta).to_string(),
        "m.yaml, line 4, slices[0].sources: the sources have different layers, and base_model `c` is not among them"
    );
}

#[test]
fn files_that_are_no_yaml_or_too_much_of_it_are_refused() {
    let bomb = ["b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]", "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]"].join("\n")
        + "\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e]\n";
    for (text, expected) in [
        ("merge_method: linear\nmerge_method: ties\n", "m.yaml, line 2: `merge_method` is given twice"),
        (
            "a: 1\n---\nb: 2\n",
            "m.yaml, line 2: the file has several documents, or more values than a configuration has",
        ),
        ("models: [", "m.yaml, line 1: unclosed bracket '['"),
    ] {
        assert_eq!(error(text).to_string(), expected);
    }
    for text in [&*format!("a: &a [x, x, x, x, x, x, x, x, x]\n{bomb}"), &"- ".repeat(200), &"[".repeat(100_000)] {
        assert!(matches!(*error(text).problem, Problem::TooMuch | Problem::Syntax { .. }), "{:?}", error(text));
    }
    assert!(matches!(*error("a: b: c").problem, Problem::Syntax { .. }));
    let long = format!("merge_method: linear\n# {}", "x".repeat(1 << 20));
    assert!(matches!(*error(&long).problem, Problem::TooLarge { .. }));
}

#[test]
fn a_single_module_is_the_model() {
    let config = parse(
        "merge_method: linear\nparameters: {weight: 2}\nmodules:\n  default:\n    models:\n      - model: a\n      - model: b\n    parameters:\n      weight:\n        - filter: mlp\n          value: 1\n",
    )
    .expect("it is right");
    let weight = config.parameters.get(Parameter::Weight).expect("given");
    close(&[number(weight, "mlp", 0.0), number(weight, "norm", 0.0)], &[1.0, 2.0]);
    let wrong = "merge_method: slerp\nbase_model: a\nparameters: {t: 1}\nmodules:\n  text:\n    models:\n      - model: a\n      - model: b\n        parameters: {t: 1}\n";
    assert_eq!(error(wrong).at.to_string(), "m.yaml, line 9, modules.text.models[1].parameters.t");
}

#[test]
fn inputs_are_distinct_and_the_base_comes_last_unless_it_is_listed() {
    let names = |config: &MergeConfig| config.inputs().iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut config = MergeConfig::of_models(
        Method::Ties,
        ["b", "a", "b"].map(|name| ModelEntry::plain(ModelRef::plain(name))).to_vec(),
    );
    assert_eq!(names(&config), ["b", "a"]);
    config.base_model = Some(ModelRef::plain("base"));
    assert_eq!(names(&config), ["b", "a", "base"]);
    config.base_model = Some(ModelRef::plain("a"));
    assert_eq!(names(&config), ["b", "a"]);
}

#[test]
fn tokenizer_sections_are_typed() {
    let config = parse(include_str!("../../tests/data/union.yaml")).expect("it is right");
    let choice = config.tokenizer.expect("given");
    assert_eq!((&choice.source, choice.pad_to_multiple_of), (&TokenizerSource::Union, Some(64)));
    let model = ModelRef::plain;
    let token = |source, force| TokenRule { source, force };
    assert_eq!(
        choice.tokens,
        [
            ("<|im_start|>".into(), token(TokenSource::Model(model("second")), false)),
            (
                "<|im_end|>".into(),
                token(TokenSource::ModelToken { model: model("first"), token: TokenName::Text("</s>".into()) }, true)
            ),
            ("<|pad|>".into(), token(TokenSource::Zero, false)),
            ("three".into(), token(TokenSource::ModelToken { model: model("second"), token: TokenName::Id(3) }, false)),
        ]
    );
    assert_eq!(config.chat_template, Some(ChatTemplate::Named(NamedTemplate::Chatml)));
    let with = |tokenizer: &str| {
        format!("merge_method: linear\nmodels: [{{model: a}}]\nparameters: {{weight: 1}}\ntokenizer: {tokenizer}\n")
    };
    for (tokenizer, expected) in [
        ("{tokens: {x: {force: true}}}", "m.yaml, line 4, tokenizer.tokens.x: `source` is missing"),
        (
            "{tokens: {x: {source: {kind: model_token, model: a}}}}",
            "m.yaml, line 4, tokenizer.tokens.x.source: `token` is missing",
        ),
        (
            "{tokens: {x: {source: {kind: zero, token: a}}}}",
            "m.yaml, line 4, tokenizer.tokens.x.source.token: unknown key `token`",
        ),
        (
            "{pad_to_multiple_of: 0}",
            "m.yaml, line 4, tokenizer.pad_to_multiple_of: expected a whole number of at least 1, found 0",
        ),
    ] {
        assert_eq!(error(&with(tokenizer)).to_string(), expected);
    }
}

#[test]
fn files_as_people_have_them_are_read_and_written() {
    for text in [
        include_str!("../../tests/data/slerp.yaml"),
        include_str!("../../tests/data/ties.yaml"),
        include_str!("../../tests/data/dare_ties.yaml"),
        include_str!("../../tests/data/frankenmerge.yaml"),
        include_str!("../../tests/data/model_stock.yaml"),
        include_str!("../../tests/data/union.yaml"),
    ] {
        let config = parse(text).expect("it is right");
        assert_eq!(parse(&config.to_yaml()), Ok(config));
    }
    let json = r#"{"merge_method": "linear", "models": [{"model": "a", "parameters": {"weight": 1e-3}}]}"#;
    let config = parse(json).expect("JSON is YAML");
    assert_eq!(config.to_yaml(), "merge_method: linear\nmodels:\n  - model: a\n    parameters:\n      weight: 0.001\n");
}

mod written {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back_equal(config in configs()) {
            let text = config.to_yaml();
            let read = parse(&text);
            prop_assert_eq!(read, Ok(config), "{}", text);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[ \\[\\]{}:,\\-a-z0-9\n&*!'\"#|>]{0,200}") {
            let _ = parse(&text);
        }
    }

    /// Texts that are easily taken for something else.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-z0-9_./-]{0,8}",
            "\\PC{1,12}",
            any::<String>().prop_filter("not empty", |text| !text.is_empty()),
            prop::sample::select(vec![
                "yes",
                "null",
                "~",
                "1",
                "1e3",
                ".inf",
                "- a",
                "a: b",
                "# x",
                "'",
                "\u{85}\u{2028}",
                "0x1",
                "nan",
                "*"
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn references() -> impl Strategy<Value = ModelRef> {
        let part = || texts().prop_filter("no signs", |t| !t.contains(['@', '+']) && t.trim() == t && !t.is_empty());
        let lora = (part(), prop::option::of(part())).prop_map(|(path, revision)| LoraRef { path, revision });
        (part(), prop::option::of(part()), prop::option::of(lora))
            .prop_map(|(path, revision, lora)| ModelRef { path, revision, lora })
            .prop_filter("words of their own", |model| !["base", "union"].contains(&model.path.as_str()))
    }

    fn gradients() -> impl Strategy<Value = Gradient> {
        let number = || prop_oneof![-2.0..2.0f64, any::<f64>().prop_filter("finite", |x| x.is_finite())];
        prop_oneof![
            number().prop_map(|x| Gradient::Constant(Scalar::Number(x))),
            prop::collection::vec(number().prop_map(Scalar::Number), 1..4).prop_map(Gradient::OverLayers),
        ]
    }

    fn settings() -> impl Strategy<Value = Setting> {
        let filter = prop::option::of(texts().prop_filter("a sign of its own", |text| text != "*"));
        let condition = (filter, gradients()).prop_map(|(filter, value)| Condition { filter, value });
        prop_oneof![
            gradients().prop_map(Setting::Everywhere),
            prop::collection::vec(condition, 1..4).prop_map(Setting::ByName),
        ]
    }

    fn sets(required: bool) -> impl Strategy<Value = Parameters> {
        (settings(), any::<bool>())
            .prop_map(move |(setting, given)| (given || required).then_some(setting))
            .prop_map(|weight| Parameters(weight.map(|weight| (Parameter::Weight, weight)).into_iter().collect()))
    }

    fn tokenizers() -> impl Strategy<Value = TokenizerChoice> {
        let source = prop_oneof![
            Just(TokenizerSource::Base),
            Just(TokenizerSource::Union),
            references().prop_map(TokenizerSource::Model)
        ];
        let name = prop_oneof![texts().prop_map(TokenName::Text), any::<u32>().prop_map(TokenName::Id)];
        let token = prop_oneof![
            references().prop_map(TokenSource::Model),
            Just(TokenSource::Zero),
            (references(), name).prop_map(|(model, token)| TokenSource::ModelToken { model, token }),
        ];
        let rule = (token, any::<bool>()).prop_map(|(source, force)| TokenRule { source, force });
        let tokens = prop::collection::btree_map(texts(), rule, 0..4).prop_map(|tokens| tokens.into_iter().collect());
        (source, tokens, prop::option::of(1..999usize))
            .prop_map(|(source, tokens, pad_to_multiple_of)| TokenizerChoice { source, tokens, pad_to_multiple_of })
    }

    fn forms() -> impl Strategy<Value = Form> {
        let entry = (references(), sets(false)).prop_map(|(model, parameters)| ModelEntry { model, parameters });
        let slice = (0..9usize, 1..9usize).prop_flat_map(|(from, layers)| {
            let source = (references(), sets(false)).prop_map(move |(model, parameters)| Source {
                model,
                layers: from..from + layers,
                parameters,
            });
            (prop::collection::vec(source, 1..3), prop::option::of(references()), sets(false))
                .prop_map(|(sources, base_model, parameters)| Slice { sources, base_model, parameters })
        });
        prop_oneof![
            prop::collection::vec(entry, 1..4).prop_map(Form::Models),
            prop::collection::vec(slice, 1..3).prop_map(Form::Slices),
        ]
    }

    fn configs() -> impl Strategy<Value = MergeConfig> {
        let template = prop_oneof![
            Just(ChatTemplate::Auto),
            Just(ChatTemplate::Named(NamedTemplate::Llama3)),
            any::<String>().prop_map(|text| ChatTemplate::Jinja(format!("{{{text}"))),
        ];
        let dtypes = || prop::option::of(prop::sample::select(Dtype::ALL).prop_map(|(_, dtype)| dtype));
        (
            forms(),
            prop::option::of(references()),
            sets(true),
            (dtypes(), dtypes()),
            prop::option::of(tokenizers()),
            prop::option::of(template),
            any::<u64>(),
        )
            .prop_map(|(form, base_model, parameters, (dtype, out_dtype), tokenizer, chat_template, seed)| {
                MergeConfig {
                    merge_method: Method::Linear,
                    form,
                    base_model,
                    parameters,
                    dtype,
                    out_dtype,
                    tokenizer,
                    chat_template,
                    seed,
                }
            })
    }
}

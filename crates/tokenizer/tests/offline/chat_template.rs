//! Chat templates against what Python's Jinja makes of them.

use lathe_tokenizer::{ChatTemplate, GenerationPrompt, Message, Moment, TemplateVariables};
use serde_json::json;

/// SmolLM2's, from its GGUF file.
const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The parts of Qwen2.5's that tools use, from its GGUF file.
const QWEN_TOOLS: &str = r#"{%- if tools %}
    {{- "<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}' }}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
"#;

fn render(source: &str, messages: &[Message], prompt: GenerationPrompt, variables: &TemplateVariables) -> String {
    ChatTemplate::new("default", source).unwrap().render(messages, prompt, variables).unwrap()
}

fn alone(source: &str) -> String {
    render(source, &[], GenerationPrompt::Omit, &TemplateVariables::default())
}

#[test]
fn chatml() {
    let messages = [Message::new("user", "Hi <b>&\"'"), Message::new("assistant", "Yes?\n")];
    let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
        <|im_start|>user\nHi <b>&\"'<|im_end|>\n<|im_start|>assistant\nYes?\n<|im_end|>\n";
    let variables = TemplateVariables::default();
    assert_eq!(render(SMOLLM2, &messages, GenerationPrompt::Omit, &variables), expected);
    let asked = render(SMOLLM2, &messages, GenerationPrompt::Add, &variables);
    assert_eq!(asked, format!("{expected}<|im_start|>assistant\n"));
    let with_system = [Message::new("system", "Be brief."), Message::new("user", "Hi")];
    assert_eq!(
        render(SMOLLM2, &with_system, GenerationPrompt::Omit, &variables),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    );
}

#[test]
fn tools_are_written_as_python_writes_json() {
    let mut variables = TemplateVariables::default();
    let tool =
        json!({"type": "function", "function": {"name": "überall", "tags": ["<a>", 1, 2.5, null, true], "none": {}}});
    variables.extra.insert("tools".into(), json!([tool]));
    let mut call = Message::new("assistant", "");
    call.extra.insert("tool_calls".into(), json!([{"function": {"name": "f", "arguments": {"x": [1, 2]}}}]));
    let text = render(QWEN_TOOLS, &[Message::new("user", "Hi"), call], GenerationPrompt::Omit, &variables);
    let expected = concat!(
        "<tools>\n",
        r#"{"type": "function", "function": {"name": "überall", "tags": ["<a>", 1, 2.5, null, true], "none": {}}}"#,
        "\n</tools>\n<|im_start|>user\nHi<|im_end|>\n",
        r#"{"name": "f", "arguments": {"x": [1, 2]}}"#
    );
    assert_eq!(text, expected);
    assert_eq!(alone("{{ {'a': [1]} | tojson(indent=2) }}"), "{\n  \"a\": [\n    1\n  ]\n}");
}

#[test]
fn options_of_tojson() {
    assert_eq!(alone("{{ {'a': [1, 2]} | tojson(separators=(',', ':'), ensure_ascii=False) }}"), r#"{"a":[1,2]}"#);
    for option in ["sort_keys=True", "ensure_ascii=True", "separators=(';', ':')", "nonsense=1"] {
        let source = format!("{{{{ [1] | tojson({option}) }}}}");
        let template = ChatTemplate::new("default", source).unwrap();
        let result = template.render(&[], GenerationPrompt::Omit, &TemplateVariables::default());
        assert!(result.is_err(), "{option}");
    }
}

#[test]
fn blocks_take_their_line_with_them() {
    assert_eq!(alone("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
}

#[test]
fn python_methods_slices_and_loop_controls() {
    assert_eq!(alone("{{ ' a-b '.strip().split('-')[-1] }}"), "b");
    assert_eq!(alone("{{ 'x'.startswith('x') }} {{ none }}"), "True None");
    assert_eq!(alone("{% for i in [1, 2, 3, 4][1:] %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}"), "23");
    assert_eq!(
        alone("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"),
        "3"
    );
    assert_eq!(alone("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}"), "b1a2");
}

#[test]
fn generation_marks_write_nothing() {
    let source = "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration %}|{% endfor %}";
    let messages = [Message::new("assistant", "a"), Message::new("assistant", "b")];
    assert_eq!(render(source, &messages, GenerationPrompt::Omit, &TemplateVariables::default()), "a|b|");
}

#[test]
fn variables() {
    let source = "{{ bos_token }}{{ eos_token }}{% if tools is none %}-{% endif %}{% if enable_thinking is defined %}t{% endif %}";
    assert_eq!(alone(source), "-");
    let mut variables = TemplateVariables {
        bos_token: Some("<s>".into()),
        eos_token: Some("</s>".into()),
        ..TemplateVariables::default()
    };
    variables.extra.insert("enable_thinking".into(), json!(false));
    assert_eq!(render(source, &[], GenerationPrompt::Omit, &variables), "<s></s>-t");
}

#[test]
fn the_date_is_the_callers() {
    let source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}no date{% endif %}";
    assert_eq!(alone(source), "no date");
    let now = Moment { year: 2024, month: 7, day: 26, hour: 0, minute: 0, second: 0 };
    let variables = TemplateVariables { now: Some(now), ..TemplateVariables::default() };
    assert_eq!(render(source, &[], GenerationPrompt::Omit, &variables), "26 Jul 2024");
}

#[test]
fn errors_name_the_template_and_the_line() {
    let refusing =
        ChatTemplate::new("tool_use", "{% if true %}\n\n{{ raise_exception('roles must alternate') }}{% endif %}");
    let error = refusing.unwrap().render(&[], GenerationPrompt::Omit, &TemplateVariables::default()).unwrap_err();
    assert_eq!(error.to_string(), "chat template 'tool_use', line 3: the template says: roles must alternate");
    let undefined = ChatTemplate::new("default", "\n{{ messages[0].content.x }}").unwrap();
    let error = undefined.render(&[], GenerationPrompt::Omit, &TemplateVariables::default()).unwrap_err();
    assert!(error.to_string().starts_with("chat template 'default', line 2: "), "{error}");
    assert!(ChatTemplate::new("default", "{% for %}").is_err());
}

#[test]
fn folders_name_their_templates() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap(), []);
    let config = folder.path().join("tokenizer_config.json");
    std::fs::write(&config, r#"{"chat_template": "one"}"#).unwrap();
    assert_eq!(names_and_sources(folder.path()), [("default".into(), "one".into())]);
    let named = json!({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]});
    std::fs::write(&config, named.to_string()).unwrap();
    assert_eq!(names_and_sources(folder.path()), [("default".into(), "d".into()), ("rag".into(), "r".into())]);
    std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    std::fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    std::fs::write(folder.path().join("additional_chat_templates/tool_use.jinja"), "t").unwrap();
    assert_eq!(names_and_sources(folder.path()), [("default".into(), "file".into()), ("tool_use".into(), "t".into())]);
}

fn names_and_sources(folder: &std::path::Path) -> Vec<(String, String)> {
    let templates = ChatTemplate::from_folder(folder).unwrap();
    templates.iter().map(|template| (template.name().to_owned(), template.source().to_owned())).collect()
}

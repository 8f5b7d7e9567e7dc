//! What stands around a text when a model reads it for its vector.
//!
//! The first ten templates are those of MoEE's code (arXiv 2410.10814), spelling and clean-up included: PromptEOL's and eight
//! others of the same kind, and quotes alone. MetaEOL (arXiv 2402.18458) takes the mean over eight; its descriptions of tasks
//! are worded here, the clauses are the paper's. Echo (arXiv 2402.15449) reads a text twice and pools over the second copy.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Where the text goes in a template.
pub const SLOT: &str = "{text}";

/// What stands around a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// PromptEOL for a decoder, the bare text for a sentence encoder.
    #[default]
    Usual,
    /// Nothing: the text as it is.
    Plain,
    /// The cleaned text in quotes: MoEE's "no prompt".
    None,
    /// PromptEOL.
    Prompteol,
    /// Asks for the style.
    Style,
    /// Asks for the sentiment.
    Sentiment,
    /// Asks for the tone.
    Tone,
    /// Asks for the intent.
    Intent,
    /// Asks for the complexity.
    Complexity,
    /// Asks whether it is subjective.
    Subjectivity,
    /// Asks for the language style.
    LanguageStyle,
    /// Asks for the grammatical structure.
    GrammarStructure,
    /// The mean over eight prompts: eight times the tokens.
    Metaeol,
    /// The text twice, pooled over the second copy: twice the tokens. With an instruction it is a query, without one a
    /// document.
    Echo,
    /// One of the user's own.
    Template {
        /// With [`SLOT`] where the text goes.
        template: String,
        /// Whether the text is cleaned first.
        #[serde(default)]
        cleaning: Cleaning,
    },
}

/// Whether a text is changed before it goes into a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleaning {
    /// It is taken as it is.
    #[default]
    AsItIs,
    /// MoEE's way: a full stop where no `.`, `?`, `!` or quote ends it, `"` becomes `'`, `_` becomes a blank, and white space
    /// at the ends of the prompt goes. An empty text becomes a full stop.
    Moee,
}

/// Names of the prompts that have one, in the order of help.
const NAMED: [(&str, Prompt); 13] = [
    ("plain", Prompt::Plain),
    ("none", Prompt::None),
    ("prompteol", Prompt::Prompteol),
    ("style", Prompt::Style),
    ("sentiment", Prompt::Sentiment),
    ("tone", Prompt::Tone),
    ("intent", Prompt::Intent),
    ("complexity", Prompt::Complexity),
    ("subjectivity", Prompt::Subjectivity),
    ("language_style", Prompt::LanguageStyle),
    ("grammar_structure", Prompt::GrammarStructure),
    ("metaeol", Prompt::Metaeol),
    ("echo", Prompt::Echo),
];

/// The nine prompts whose similarity lists the paper compares (Table 2): all but `none`.
pub const NINE: [Prompt; 9] = [
    Prompt::Prompteol,
    Prompt::Style,
    Prompt::Sentiment,
    Prompt::Tone,
    Prompt::Intent,
    Prompt::Complexity,
    Prompt::Subjectivity,
    Prompt::LanguageStyle,
    Prompt::GrammarStructure,
];

/// MetaEOL's four kinds of tasks, two prompts each: classification, sentiment, paraphrase, extraction.
const METAEOL: [&str; 8] = [
    "A library sorts what it receives by subject, such as politics, sport, science or business. For the library, this \
     sentence : \"{text}\" should be classified under one general category in one word:\"",
    "A reader wants to know which statements can be checked and which express a view. For the reader, this sentence : \
     \"{text}\" discriminates between opinion and fact in one word:\"",
    "A shop reads what its customers write and sorts it into positive, neutral and negative. For the shop, this sentence : \
     \"{text}\" reflects the sentiment in one word:\"",
    "A listener wants to know what a speaker feels, such as joy, anger, fear or sadness. For the listener, this sentence : \
     \"{text}\" conveys the emotion in one word:\"",
    "A writer looks for another way of saying the same. For the writer, this sentence : \"{text}\" means in one word:\"",
    "An editor asks whether two sentences say the same. For the editor, this sentence : \"{text}\" means in one word:\"",
    "A journalist notes what a report is about. For the journalist, this sentence : \"{text}\" encapsulates the key fact in \
     one word:\"",
    "An archivist notes who or what a record names and how they are related. For the archivist, this sentence : \"{text}\" \
     highlights the primary entity or relation in one word:\"",
];

impl Prompt {
    /// What it says, for this instruction.
    ///
    /// # Errors
    /// A template of the user's own has no place for the text.
    pub(super) fn wording(&self, instruction: &str) -> Result<Wording, Error> {
        let one = |template: &str| vec![template.to_owned()];
        let of_paper = |template: &str| Wording {
            templates: one(template),
            cleaning: Cleaning::Moee,
            pooled: Pooled::Whole,
            instruction: instruction.to_owned(),
        };
        Ok(match self {
            Self::Usual | Self::Prompteol => of_paper("This sentence : \"{text}\" means in one word:\""),
            Self::Plain => Wording { cleaning: Cleaning::AsItIs, ..of_paper(SLOT) },
            Self::None => of_paper("\"{text}\""),
            Self::Style => of_paper("In one word, describe the style of the following sentence - \"{text}\" :\""),
            Self::Sentiment => of_paper(
                "In one word, describe the sentiment of the following sentence (positive, neutral, or negative) - \"{text}\" :",
            ),
            Self::Tone => of_paper(
                "In one word, describe the tone of the following sentence - \"{text}\" (e.g., formal, informal, humorous, \
                 serious):",
            ),
            Self::Intent => of_paper(
                "In one word, describe the intent behind the following sentence (e.g., request, suggestion, command) - \
                 \"{text}\" :",
            ),
            Self::Complexity => of_paper(
                "In one word, rate the complexity of the following sentence (simple, moderate, complex) - \"{text}\" :",
            ),
            Self::Subjectivity => of_paper(
                "In one word, describe whether the following sentence is subjective or objective - \"{text}\" :",
            ),
            Self::LanguageStyle => of_paper(
                "In one word, describe the language style of the following sentence (e.g., academic, conversational, \
                 literary) - \"{text}\" :",
            ),
            Self::GrammarStructure => of_paper(
                "In one word, describe the grammatical structure of the following sentence (simple, compound, complex) - \
                 \"{text}\" :",
            ),
            Self::Metaeol => Wording { templates: METAEOL.map(str::to_owned).to_vec(), ..of_paper(SLOT) },
            Self::Echo => {
                let template = match instruction {
                    "" => "Document:{text}\nDocument again:{text}".to_owned(),
                    // What the user wrote is no place for the text.
                    _ => format!(
                        "Instruct:{},\nQuery:{{text}}\nQuery again:{{text}}",
                        instruction.replace(SLOT, "{ text }")
                    ),
                };
                Wording {
                    templates: vec![template],
                    cleaning: Cleaning::AsItIs,
                    pooled: Pooled::SecondCopy,
                    instruction: String::new(),
                }
            }
            Self::Template { template, cleaning } => {
                if !template.contains(SLOT) {
                    return Err(Error::Spec {
                        field: "--template",
                        problem: format!("`{template}` has no place for the text"),
                        hint: Some(format!("write {SLOT} where the text goes")),
                    });
                }
                let template = match cleaning {
                    Cleaning::AsItIs => template.clone(),
                    Cleaning::Moee => template.replace('_', " "),
                };
                Wording { cleaning: *cleaning, ..of_paper(&template) }
            }
        })
    }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMED.iter().find(|(_, prompt)| prompt == self), self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Self::Template { template, .. }) => write!(f, "`{template}`"),
            (None, _) => f.write_str("usual"),
        }
    }
}

impl FromStr for Prompt {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = NAMED.iter().find(|(known, _)| *known == name).map(|(_, prompt)| prompt.clone());
        found.ok_or_else(|| {
            let names = NAMED.map(|(name, _)| name).join(", ");
            format!("there is no prompt of this name\nhint: {names}; --template takes one of your own")
        })
    }
}

/// The templates of a prompt and what they do with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wording {
    /// A vector is the mean over all of them.
    pub(super) templates: Vec<String>,
    pub(super) cleaning: Cleaning,
    pub(super) pooled: Pooled,
    /// Stands before every text, inside of what the template puts around it.
    instruction: String,
}

/// Which tokens are pooled over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooled {
    /// All of the prompt's.
    Whole,
    /// Those of the text's second copy.
    SecondCopy,
}

/// A text in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// Where the text lies in it, in bytes.
    pub(super) slots: Vec<Range<usize>>,
}

impl Wording {
    /// The text as it goes into a template, the instruction before it.
    pub(super) fn sentence(&self, text: &str) -> String {
        let sentence = format!("{}{text}", self.instruction);
        match self.cleaning {
            Cleaning::AsItIs => sentence,
            Cleaning::Moee => cleaned(&sentence),
        }
    }

    /// Each template around a sentence.
    pub(super) fn render(&self, template: &str, sentence: &str) -> Rendered {
        let mut rendered = Rendered { text: String::new(), slots: Vec::new() };
        for (index, fixed) in template.split(SLOT).enumerate() {
            if index > 0 {
                let start = rendered.text.len();
                rendered.text += sentence;
                rendered.slots.push(start..rendered.text.len());
            }
            rendered.text += fixed;
        }
        match self.cleaning {
            Cleaning::AsItIs => rendered,
            Cleaning::Moee => rendered.trimmed(),
        }
    }
}

impl Rendered {
    fn trimmed(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        let end = self.text.trim_end().len().max(start);
        let inside = |at: usize| at.clamp(start, end) - start;
        Self {
            text: self.text[start..end].to_owned(),
            slots: self.slots.iter().map(|slot| inside(slot.start)..inside(slot.end)).collect(),
        }
    }
}

/// MoEE's clean-up of a sentence (steps 1 and 2 of its code).
fn cleaned(sentence: &str) -> String {
    let ended = match sentence.chars().last() {
        None => ".".to_owned(),
        Some('.' | '?' | '!' | '"' | '\'') => sentence.to_owned(),
        Some(_) => format!("{sentence}."),
    };
    ended.replace('"', "'").replace('_', " ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn prompt_of(prompt: &Prompt, instruction: &str, text: &str) -> String {
        let wording = prompt.wording(instruction).unwrap();
        wording.render(&wording.templates[0], &wording.sentence(text)).text
    }

    #[test]
    fn the_paper_s_templates_and_clean_up() {
        let of = |prompt: Prompt, text: &str| prompt_of(&prompt, "", text);
        assert_eq!(of(Prompt::Prompteol, "A cat"), "This sentence : \"A cat.\" means in one word:\"");
        assert_eq!(of(Prompt::None, "Really?"), "\"Really?\"");
        assert_eq!(of(Prompt::None, "She said \"no\""), "\"She said 'no'\"");
        assert_eq!(of(Prompt::None, "snake_case"), "\"snake case.\"");
        assert_eq!(of(Prompt::None, ""), "\".\"");
        assert_eq!(of(Prompt::None, " "), "\" .\"");
        assert_eq!(of(Prompt::None, "_"), "\" .\"");
        assert_eq!(
            of(Prompt::Tone, "Go!"),
            "In one word, describe the tone of the following sentence - \"Go!\" (e.g., formal, informal, humorous, serious):"
        );
        assert_eq!(of(Prompt::Plain, " a_\"b\""), " a_\"b\"");
        // The instruction stands inside of the quotes, as in MoEE's code.
        assert_eq!(prompt_of(&Prompt::None, "Topic: ", "A cat"), "\"Topic: A cat.\"");
    }

    #[test]
    fn only_two_of_the_ten_end_with_an_opening_quote() {
        let open: Vec<String> =
            NINE.iter().filter(|prompt| prompt_of(prompt, "", "x").ends_with(":\"")).map(ToString::to_string).collect();
        assert_eq!(open, ["prompteol", "style"]);
    }

    #[test]
    fn echo_is_pooled_over_the_second_copy() {
        let wording = Prompt::Echo.wording("").unwrap();
        let rendered = wording.render(&wording.templates[0], "A cat");
        assert_eq!(rendered.text, "Document:A cat\nDocument again:A cat");
        assert_eq!(rendered.slots, [9..14, 30..35]);
        assert_eq!(wording.pooled, Pooled::SecondCopy);
        assert_eq!(prompt_of(&Prompt::Echo, "Find {text}", "x"), "Instruct:Find { text },\nQuery:x\nQuery again:x");
    }

    #[test]
    fn a_template_of_one_s_own() {
        let own = |template: &str, cleaning| Prompt::Template { template: template.into(), cleaning };
        assert_eq!(prompt_of(&own(" q_: {text} ", Cleaning::AsItIs), "", "a_b"), " q_: a_b ");
        assert_eq!(prompt_of(&own(" q_: {text} ", Cleaning::Moee), "", "a_b"), "q : a b.");
        let error = own("no place", Cleaning::AsItIs).wording("").unwrap_err();
        assert_eq!(error.to_string(), "--template: `no place` has no place for the text");
    }

    #[test]
    fn names_read_back() {
        for (name, prompt) in NAMED {
            assert_eq!(name.parse::<Prompt>().unwrap(), prompt);
            assert_eq!(serde_json::to_value(&prompt).unwrap(), name);
        }
        assert!("eol".parse::<Prompt>().unwrap_err().contains("prompteol"));
        assert_eq!(Prompt::Metaeol.wording("").unwrap().templates.len(), 8);
    }

    proptest! {
        #[test]
        fn slots_hold_the_sentence(text in "[ -~éü]{0,12}", cleaning in any::<bool>()) {
            let cleaning = if cleaning { Cleaning::Moee } else { Cleaning::AsItIs };
            let prompt = Prompt::Template { template: " a {text}{text} b".into(), cleaning };
            let wording = prompt.wording("").unwrap();
            let sentence = wording.sentence(&text);
            let rendered = wording.render(&wording.templates[0], &sentence);
            for slot in &rendered.slots {
                prop_assert_eq!(&rendered.text[slot.clone()], &sentence);
            }
        }
    }
}

//! What can go wrong while decoding.

/// An error of decoding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] lathe_model::Error),
    /// An option that cannot be used.
    #[error("{field}: {problem}")]
    Option {
        /// The option, as the command line calls it.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// The model gave NaN or an infinite logit.
    #[error("item {item}, token {step}: the model's logits are not finite")]
    NotFinite {
        /// The item.
        item: u64,
        /// Tokens that it had already.
        step: usize,
    },
    /// No token has a probability: all are masked.
    #[error("item {item}, token {step}: no token is possible")]
    NothingPossible {
        /// The item.
        item: u64,
        /// Tokens that it had already.
        step: usize,
    },
    /// A prompt without tokens.
    #[error("item {item}: the prompt has no tokens")]
    EmptyPrompt {
        /// The item.
        item: u64,
    },
    /// A prompt that leaves no room for a token.
    #[error("item {item}: the prompt has {tokens} tokens and the model's context is {context}")]
    PromptFillsContext {
        /// The item.
        item: u64,
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions of the model.
        context: usize,
    },
    /// A member of an ensemble cannot read what another one wrote.
    #[error("item {item}: the vocabulary of member {} cannot spell the text", member + 1)]
    CannotSpell {
        /// The item.
        item: u64,
        /// The member, from 0.
        member: usize,
    },
    /// A text to be scored without tokens.
    #[error("item {item}: a text to be scored has no tokens")]
    EmptyTarget {
        /// The item.
        item: u64,
    },
    /// A text that the model cannot read.
    #[error("item {item}: the text has {tokens} tokens and the model's context is {context}")]
    TextExceedsContext {
        /// The item.
        item: u64,
        /// Tokens that would be read.
        tokens: usize,
        /// Positions of the model.
        context: usize,
    },
    /// Random draws did not give as many strings as were asked for.
    #[error("{drawn} draws gave {accepted} of {wanted} strings")]
    TooFewAccepted {
        /// Strings drawn.
        drawn: usize,
        /// Strings accepted.
        accepted: usize,
        /// Strings wanted.
        wanted: usize,
    },
}

impl DecodeError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Option { hint, .. } => hint.map(str::to_owned),
            Self::NothingPossible { .. } => Some("lower the minimum length or name fewer stop ids".into()),
            Self::EmptyPrompt { .. } => Some("the model has no start token: give a prompt, or its ids".into()),
            Self::PromptFillsContext { .. } | Self::TextExceedsContext { .. } => Some("shorten the prompt".into()),
            Self::TooFewAccepted { .. } => {
                Some("the kept sets hold too little mass for rejection: `--sampler smc` works there".into())
            }
            Self::CannotSpell { .. } => Some("leave the model out, or give it weight 0".into()),
            Self::NotFinite { .. } | Self::EmptyTarget { .. } => None,
        }
    }

    /// Whether the user's input is wrong, as opposed to the machine or the model failing.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Model(error) => error.is_bad_input(),
            Self::NotFinite { .. } | Self::TooFewAccepted { .. } => false,
            _ => true,
        }
    }
}

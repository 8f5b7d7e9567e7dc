//! Which tensors a target has, and how each is stored.

use std::cmp::Reverse;

use lathe_formats::write::TensorSpec;
use lathe_formats::{ElementType, Format};
use lathe_model::{Opened, Target, TargetTensor};

use crate::Error;
use crate::inspect::ElementCount;

/// Types that hold single numbers; safetensors folders have no others.
pub(crate) const FLOATS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::BF16];

/// A target that is about to be written.
pub(crate) struct Plan {
    /// Its tensors, and the keys of a GGUF header that describe the architecture.
    pub(super) target: Target,
    /// How they are stored: the target's tensors in their order, then its constants.
    pub(super) stored: Vec<TensorSpec>,
    /// What the reader of the target should know.
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// Plans a target whose matrices are `wanted`, or as they are in the source.
    pub(super) fn new(opened: &Opened, format: Format, wanted: Option<ElementType>) -> Result<Self, Error> {
        let mut target = opened.target(format)?;
        let choice = |tensor: &TargetTensor| Choice::of(tensor, opened, format, wanted);
        if format == Format::Safetensors {
            // Without padding between tensors, wider types first keep every number at a multiple of its size.
            target.tensors.sort_by_cached_key(|tensor| Reverse(choice(tensor).stored.block_bytes()));
        }
        let choices: Vec<Choice> = target.tensors.iter().map(choice).collect();
        let notes = notes(&target, &choices, opened);
        let tensors = target.tensors.iter().zip(&choices).map(|(tensor, choice)| TensorSpec {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            element: choice.stored,
        });
        let constants = target.constants.iter().map(|(name, values)| TensorSpec {
            name: name.clone(),
            shape: vec![values.len()],
            element: ElementType::F32,
        });
        let stored = tensors.chain(constants).collect();
        Ok(Self { target, stored, notes })
    }

    /// Plans safetensors of one element type.
    pub(super) fn of_one_type(target: Target, element: ElementType) -> Self {
        let tensors = target.tensors.iter();
        let stored = tensors.map(|t| TensorSpec { name: t.name.clone(), shape: t.shape.clone(), element }).collect();
        Self { target, stored, notes: Vec::new() }
    }

    /// Tensors and bytes of each element type, the most bytes first.
    pub(super) fn elements(&self) -> Vec<ElementCount> {
        ElementCount::of(self.stored.iter().map(|tensor| (tensor.element, bytes_of(tensor))))
    }

    /// The type that holds most of the matrices, by bytes.
    pub(super) fn main_element(&self) -> Option<ElementType> {
        let matrices = || self.stored.iter().filter(|tensor| tensor.shape.len() > 1);
        let bytes = |element| matrices().filter(|tensor| tensor.element == element).map(bytes_of).sum::<u64>();
        matrices().map(|tensor| tensor.element).max_by_key(|element| bytes(*element))
    }
}

/// Bytes of a tensor in the file.
pub(super) fn bytes_of(tensor: &TensorSpec) -> u64 {
    let blocks = tensor.shape.iter().product::<usize>() / tensor.element.block_len();
    (blocks * tensor.element.block_bytes()) as u64
}

/// How a tensor is stored.
struct Choice {
    /// What the user wants, or what the source has.
    asked: ElementType,
    /// What it becomes.
    stored: ElementType,
}

impl Choice {
    fn of(tensor: &TargetTensor, opened: &Opened, format: Format, wanted: Option<ElementType>) -> Self {
        let asked = match wanted {
            _ if format == Format::Gguf && is_always_f32(tensor) => ElementType::F32,
            Some(wanted) => wanted,
            None => stored_in_source(tensor, opened),
        };
        let stored = match format {
            Format::Safetensors if FLOATS.contains(&asked) => asked,
            Format::Safetensors => ElementType::F32,
            Format::Gguf if is_copied(tensor, asked, opened) => asked,
            // What lathe cannot encode came from the source: wide floats, integers, rarer blocks.
            Format::Gguf if !asked.is_writable() => ElementType::F32,
            Format::Gguf => fitting(asked, tensor.row_len()),
        };
        Self { asked, stored }
    }
}

/// Tensors that llama.cpp's converter keeps in F32 whatever the rest is: its kernels read them as that.
fn is_always_f32(tensor: &TargetTensor) -> bool {
    let name = &tensor.name;
    tensor.shape.len() < 2
        || name.ends_with("_norm.weight")
        || name.contains(".ffn_gate_inp")
        || name == "position_embd.weight"
}

/// The type that the parameters of a tensor have in the source; F32 where they differ.
fn stored_in_source(tensor: &TargetTensor, opened: &Opened) -> ElementType {
    let element = |name: &str| Some(opened.checkpoint.tensor(opened.tensor_name(name)?)?.info().element);
    let mut elements = tensor.parameters().map(|parameter| element(&parameter.name));
    let first = elements.next().flatten().unwrap_or(ElementType::F32);
    if elements.all(|element| element == Some(first)) { first } else { ElementType::F32 }
}

/// Whether the source has the very same tensor.
pub(super) fn is_copied(tensor: &TargetTensor, element: ElementType, opened: &Opened) -> bool {
    let is_own = opened.checkpoint.gguf().is_some() && !opened.parameters().is_changed();
    let view = opened.checkpoint.tensor(&tensor.name).filter(|_| is_own);
    view.is_some_and(|view| view.info().element == element && view.info().shape == tensor.shape)
}

/// The type, or where rows are no whole number of its blocks the one that llama.cpp takes instead.
fn fitting(asked: ElementType, row_len: usize) -> ElementType {
    let smaller_blocks = match asked {
        ElementType::Q4_K => ElementType::Q5_0,
        ElementType::Q5_K => ElementType::Q5_1,
        ElementType::Q6_K => ElementType::Q8_0,
        other => other,
    };
    let fits = |element: &ElementType| row_len.is_multiple_of(element.block_len());
    [asked, smaller_blocks].into_iter().find(fits).unwrap_or(ElementType::F16)
}

fn notes(target: &Target, choices: &[Choice], opened: &Opened) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    let mut fallbacks: Vec<(ElementType, ElementType, usize)> = Vec::new();
    for choice in choices.iter().filter(|choice| choice.asked.is_quantised() && choice.asked != choice.stored) {
        match fallbacks.iter_mut().find(|(asked, stored, _)| (*asked, *stored) == (choice.asked, choice.stored)) {
            Some((_, _, count)) => *count += 1,
            None => fallbacks.push((choice.asked, choice.stored, 1)),
        }
    }
    let is_gguf = !target.metadata.is_empty();
    for (asked, stored, count) in fallbacks.into_iter().filter(|_| is_gguf) {
        let (tensors, block) = (counted(count, "tensor is", "tensors are"), asked.block_len());
        let why = if asked.is_writable() {
            format!("rows are no whole number of its blocks of {block}")
        } else {
            "lathe does not write that type".to_owned()
        };
        notes.push(format!("{tensors} stored as {stored} instead of {asked}: {why}"));
    }
    let again = target.tensors.iter().zip(choices).filter(|(tensor, choice)| {
        let source = stored_in_source(tensor, opened);
        choice.stored.is_quantised() && source.is_quantised() && !is_copied(tensor, choice.stored, opened)
    });
    let again = again.count();
    if again > 0 {
        let tensors = counted(again, "tensor was", "tensors were");
        notes.push(format!("{tensors} quantised in the source already: the errors of two quantisations add up"));
    }
    if !target.unread.is_empty() {
        let keys = target.unread.join(", ");
        notes.push(format!("llama.cpp does not read {keys}, without which it computes something else; lathe does"));
    }
    if let Some(part) = target.unopened {
        notes.push(format!("llama.cpp does not open this file: it has no {part} in this architecture; lathe does"));
    }
    notes
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

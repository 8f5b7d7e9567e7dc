//! A weight matrix in the form in which it is kept.

use std::borrow::Cow;

use super::{Arithmetic, Coded, Packed, Right};

/// A weight matrix `W`, `[n, k]`, as the right operand `B = Wᵀ` of a product.
#[derive(Clone)]
pub enum Weight {
    /// As `f32`.
    Floats(Packed),
    /// Coded, and how it is multiplied.
    Coded(Coded, Arithmetic),
}

impl Weight {
    /// Inputs of the linear layer: the depth of the sum.
    #[must_use]
    pub fn k(&self) -> usize {
        self.view().k()
    }

    /// Outputs of the linear layer.
    #[must_use]
    pub fn n(&self) -> usize {
        self.view().n()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Floats(packed) => packed.bytes(),
            Self::Coded(coded, _) => coded.bytes(),
        }
    }

    /// As the right operand of a product.
    #[must_use]
    pub fn view(&self) -> Right<'_> {
        match self {
            Self::Floats(packed) => packed.view().into(),
            Self::Coded(coded, arithmetic) => Right::Coded(coded, *arithmetic),
        }
    }

    /// The matrix as `f32`.
    #[must_use]
    pub fn to_packed(&self) -> Cow<'_, Packed> {
        match self {
            Self::Floats(packed) => Cow::Borrowed(packed),
            Self::Coded(coded, _) => Cow::Owned(coded.to_packed()),
        }
    }
}

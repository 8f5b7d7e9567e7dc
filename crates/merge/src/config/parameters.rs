//! Values of parameters that may depend on the tensor: on its name, and on the depth of its layer.

use super::methods::Parameter;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A number.
    Number(f64),
    /// Yes or no.
    Truth(bool),
    /// A word, such as `l1`.
    Word(String),
}

/// A value, or several over the depth of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Gradient {
    /// The same everywhere.
    Constant(Scalar),
    /// Evenly spaced over the layers and interpolated between; not empty, either all numbers or none.
    OverLayers(Vec<Scalar>),
}

/// A value for the tensors with a certain text in their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The text; `None`, which files may write as `*`, for every tensor.
    pub filter: Option<String>,
    /// The value.
    pub value: Gradient,
}

/// What a file gives for a parameter in one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// For every tensor.
    Everywhere(Gradient),
    /// The first condition that holds for a tensor; where none does, the next place is asked.
    ByName(Vec<Condition>),
}

/// Parameters given in one place, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(pub Vec<(Parameter, Setting)>);

impl Parameters {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, parameter: Parameter, setting: impl Into<Setting>) -> Self {
        self.0.push((parameter, setting.into()));
        self
    }

    /// Gives a parameter a value, in the place of any other.
    pub fn set(&mut self, parameter: Parameter, setting: impl Into<Setting>) {
        self.remove(parameter);
        self.0.push((parameter, setting.into()));
    }

    /// Takes a parameter out.
    pub fn remove(&mut self, parameter: Parameter) {
        self.0.retain(|(given, _)| *given != parameter);
    }

    /// What is given for a parameter here.
    #[must_use]
    pub fn get(&self, parameter: Parameter) -> Option<&Setting> {
        self.0.iter().find(|(given, _)| *given == parameter).map(|(_, setting)| setting)
    }

    /// Both in one place: what `self` does not say for a tensor, `below` says.
    #[must_use]
    pub fn over(mut self, below: Self) -> Self {
        for (parameter, lower) in below.0 {
            match self.0.iter_mut().find(|(given, _)| *given == parameter) {
                None => self.0.push((parameter, lower)),
                Some((_, Setting::Everywhere(_))) => {}
                Some((_, Setting::ByName(conditions))) => match lower {
                    Setting::Everywhere(value) => conditions.push(Condition { filter: None, value }),
                    Setting::ByName(more) => conditions.extend(more),
                },
            }
        }
        self
    }
}

impl From<f64> for Setting {
    fn from(value: f64) -> Self {
        Self::Everywhere(Gradient::Constant(Scalar::Number(value)))
    }
}

impl From<bool> for Setting {
    fn from(value: bool) -> Self {
        Self::Everywhere(Gradient::Constant(Scalar::Truth(value)))
    }
}

impl Setting {
    /// The value for a tensor at depth `tau`, 0 (first layer, and everything outside the layers) to 1 (last layer).
    /// `None` where no condition holds.
    #[must_use]
    pub fn value(&self, tensor: &str, tau: f64) -> Option<Scalar> {
        match self {
            Self::Everywhere(gradient) => Some(gradient.value(tau)),
            Self::ByName(conditions) => conditions
                .iter()
                .find(|condition| {
                    condition.filter.as_ref().is_none_or(|text| text == "*" || tensor.contains(text.as_str()))
                })
                .map(|condition| condition.value.value(tau)),
        }
    }

    /// All values that it can take at the nodes of its gradients.
    pub fn scalars(&self) -> impl Iterator<Item = &Scalar> {
        self.gradients().flat_map(|gradient| match gradient {
            Gradient::Constant(scalar) => std::slice::from_ref(scalar),
            Gradient::OverLayers(scalars) => scalars.as_slice(),
        })
    }

    /// Whether it depends on depth.
    #[must_use]
    pub fn varies_over_layers(&self) -> bool {
        self.gradients().any(|gradient| match gradient {
            Gradient::Constant(_) => false,
            Gradient::OverLayers(scalars) => scalars.iter().any(|scalar| *scalar != scalars[0]),
        })
    }

    fn gradients(&self) -> impl Iterator<Item = &Gradient> {
        let (one, many) = match self {
            Self::Everywhere(gradient) => (Some(gradient), [].as_slice()),
            Self::ByName(conditions) => (None, conditions.as_slice()),
        };
        one.into_iter().chain(many.iter().map(|condition| &condition.value))
    }
}

impl Gradient {
    /// The value at depth `tau`, 0 to 1: numbers are interpolated between the two nodes beside `tau · (K − 1)`, of
    /// other values the node before it counts.
    #[must_use]
    pub fn value(&self, tau: f64) -> Scalar {
        match self {
            Self::Constant(scalar) => scalar.clone(),
            Self::OverLayers(scalars) => {
                let last = scalars.len() - 1;
                let place = tau.clamp(0.0, 1.0) * last as f64;
                let before = (place.floor() as usize).min(last);
                let share = place - before as f64;
                match (&scalars[before], &scalars[(before + 1).min(last)]) {
                    (Scalar::Number(a), Scalar::Number(b)) => Scalar::Number((1.0 - share) * a + share * b),
                    (node, _) => node.clone(),
                }
            }
        }
    }
}

/// Depth of layer `index` of `layers`: 0 for the first, 1 for the last, and 1 for the only one.
#[must_use]
pub fn depth(index: usize, layers: usize) -> f64 {
    if layers <= 1 { 1.0 } else { (index as f64 / (layers - 1) as f64).min(1.0) }
}

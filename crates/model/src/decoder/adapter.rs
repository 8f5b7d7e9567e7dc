//! The factors of a decoder that has some: taken out, put in, merged into the weights and out of them again.

use candle_core::{Tensor, Var};

use super::{Decoder, FeedForward, Linear, ops};
use crate::Error;
use crate::adapter::{AdaptedModule, ModuleFactors, refuse};

/// Names of the factors beside a parameter.
pub(super) fn name_of(parameter: &str, factor: char) -> String {
    format!("{parameter}.lora_{factor}")
}

impl Decoder {
    /// The factors as they are now, module by module; none without an adapter.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn factors(&self) -> Result<Vec<ModuleFactors>, Error> {
        self.adapter.iter().map(|module| self.factors_of(module)).collect()
    }

    fn factors_of(&self, module: &AdaptedModule) -> Result<ModuleFactors, Error> {
        let a = values(self.factor(module, 0, 'A')?)?;
        let rank = a.len() / module.inputs.max(1);
        let mut b = vec![0.0; module.outputs * rank];
        for (i, part) in module.parts.iter().enumerate() {
            let own = values(self.factor(module, i, 'B')?)?;
            for (row, own) in part.rows.iter().zip(own.chunks_exact(rank.max(1))) {
                b[row * rank..][..rank].copy_from_slice(own);
            }
        }
        Ok(ModuleFactors { tensor: module.tensor.clone(), a, b })
    }

    /// The variable of a factor. Parts of one module share `A`, which is called after the first of them.
    fn factor(&self, module: &AdaptedModule, part: usize, factor: char) -> Result<&Var, Error> {
        let name = name_of(&module.parts[part].parameter, factor);
        let missing = || candle_core::Error::Msg(format!("no variable `{name}`")).into();
        self.trainable.get(&name).ok_or_else(missing)
    }

    /// Sets the factors, each of which must be given once: training goes on from an adapter.
    ///
    /// # Errors
    /// Modules or sizes are not those of the decoder's adapter.
    pub fn set_factors(&self, factors: &[ModuleFactors]) -> Result<(), Error> {
        let differs = |problem: String| refuse("adapter", problem, "give the rank and the targets of the adapter");
        for module in &self.adapter {
            let mut of_module = factors.iter().filter(|given| given.tensor == module.tensor);
            let (Some(given), None) = (of_module.next(), of_module.next()) else {
                return Err(differs(format!("it has no factors of `{}`, or has them twice", module.tensor)));
            };
            let a = self.factor(module, 0, 'A')?;
            let rank = a.dim(0)?;
            if given.a.len() != rank * module.inputs || given.b.len() != rank * module.outputs {
                let problem = format!("its factors of `{}` are not of rank {rank}", module.tensor);
                return Err(differs(problem));
            }
            set(a, given.a.clone())?;
            for (i, part) in module.parts.iter().enumerate() {
                let rows = part.rows.iter().flat_map(|row| &given.b[row * rank..][..rank]);
                set(self.factor(module, i, 'B')?, rows.copied().collect())?;
            }
        }
        let known = |given: &&ModuleFactors| self.adapter.iter().any(|module| module.tensor == given.tensor);
        if let Some(given) = factors.iter().find(|given| !known(given)) {
            return Err(differs(format!("it has factors of `{}`, which is not adapted here", given.tensor)));
        }
        Ok(())
    }

    /// Adds the factors to the weights: `W + s · B A` takes the place of `W`, and passes cost what they cost without an
    /// adapter. The factors get no gradients until [`unmerge`](Self::unmerge), and later changes of them have no effect.
    /// Each adapted matrix takes memory twice, the second time as `f32`.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn merge(&mut self) -> Result<(), Error> {
        self.set_merged(true)
    }

    /// Takes the factors out of the weights again. The weights were kept, so that every bit is what it was.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn unmerge(&mut self) -> Result<(), Error> {
        self.set_merged(false)
    }

    fn set_merged(&mut self, merged: bool) -> Result<(), Error> {
        for layer in &mut self.layers {
            let attention = [&mut layer.query, &mut layer.key, &mut layer.value, &mut layer.output];
            let feed_forward: Vec<&mut Linear> = match &mut layer.feed_forward {
                FeedForward::Dense(mlp) => mlp.gate.iter_mut().chain([&mut mlp.up, &mut mlp.down]).collect(),
                FeedForward::Experts(_) => Vec::new(),
            };
            attention.into_iter().chain(feed_forward).try_for_each(|linear| linear.set_merged(merged))?;
        }
        Ok(())
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(ops::with_values(&tensor.contiguous()?, |values| Ok(values.to_vec()))?)
}

fn set(variable: &Var, values: Vec<f32>) -> Result<(), Error> {
    Ok(variable.set(&ops::tensor(values, variable.shape())?)?)
}

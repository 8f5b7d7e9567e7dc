//! The variables of a decoder as a source of numbers.

use std::ops::Range;

use lathe_model::{Decoder, Error, Parameter, ParameterSource};

/// What the parameters of a trainable decoder have become.
pub(super) struct Trained<'a>(pub(super) &'a Decoder);

impl ParameterSource for Trained<'_> {
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let variable = self.0.trainable().get(&parameter.name);
        let missing = || candle_core::Error::Msg(format!("`{}` was not trained", parameter.name));
        let values = variable.ok_or_else(missing)?.as_tensor();
        let values =
            if parameter.shape.len() < 2 { values.clone() } else { values.narrow(0, rows.start, rows.len())? };
        out.copy_from_slice(&values.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

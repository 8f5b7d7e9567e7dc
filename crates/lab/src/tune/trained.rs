//! The variables of a decoder as a source of numbers.

use std::ops::Range;

use lathe_model::{CheckpointSource, Decoder, Error, Parameter, ParameterSource};

/// What the parameters of a decoder have become; those that are not trained are `others`.
pub(super) struct Trained<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) others: Option<&'a CheckpointSource>,
}

impl ParameterSource for Trained<'_> {
    fn rows(&self, parameter: &Parameter, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let Some(variable) = self.decoder.trainable().get(&parameter.name) else {
            let missing = || candle_core::Error::Msg(format!("`{}` was not trained", parameter.name));
            return self.others.ok_or_else(missing)?.rows(parameter, rows, out);
        };
        let values = variable.as_tensor();
        let values =
            if parameter.shape.len() < 2 { values.clone() } else { values.narrow(0, rows.start, rows.len())? };
        out.copy_from_slice(&values.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

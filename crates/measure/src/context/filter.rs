//! Which records need their context the least.

use crate::MeasureError;

/// Indices of the lowest `share` of the values, rounded down, in rising order; of equal values the earlier ones.
///
/// With the mean negative log-likelihood of a response without its context (nats per token) these are the records that the
/// paper leaves out, with a share of a quarter (arXiv 2410.10796, §4.3): their responses need no context.
///
/// # Errors
/// A share outside 0..=1; a value that is not finite.
pub fn lowest(values: &[f64], share: f64) -> Result<Vec<usize>, MeasureError> {
    if !(0.0..=1.0).contains(&share) {
        return Err(MeasureError::Parameter { name: "share", value: share, wanted: "a number from 0 to 1" });
    }
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(MeasureError::Parameter { name: "value", value: *value, wanted: "a finite number" });
    }
    // A quarter of 8 is 2; 0.3 of 10 is 3, which the product of two floats may miss by its last bit.
    let product = share * values.len() as f64;
    let wanted = if (product - product.round()).abs() < 1e-9 { product.round() } else { product.floor() };
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    order.truncate(wanted as usize);
    order.sort_unstable();
    Ok(order)
}

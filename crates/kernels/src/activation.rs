//! Activations of the feed-forward part, plain and gated, forward and backward.

use rayon::prelude::*;

use crate::isa::dispatch;
use crate::vector::sigmoid;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// `x · sigmoid(1.702 x)`.
    GeluSigmoid,
    /// `max(x, 0)`.
    Relu,
}

/// Values of one task.
const CHUNK: usize = 1 << 13;

/// `sqrt(2/π)` and the cubic coefficient of the tanh approximation.
const GELU_LINEAR: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// `out = f(gate) · up`, value by value.
pub fn gated(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && up.len() == out.len(), "gate, up and out of one length");
    out.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK)).zip(up.par_chunks(CHUNK)).for_each(|((out, gate), up)| {
        gated_chunk(f, gate, up, out);
    });
}

/// `gate = f(gate) · up`, value by value.
pub fn gate_in_place(f: Activation, gate: &mut [f32], up: &[f32]) {
    assert!(gate.len() == up.len(), "gate and up of one length");
    let chunks = gate.par_chunks_mut(CHUNK).zip(up.par_chunks(CHUNK));
    chunks.with_max_len(1).for_each(|(gate, up)| gate_chunk(f, gate, up));
}

/// `out = f(x)`, value by value.
pub fn plain(f: Activation, x: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len(), "x and out of one length");
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| plain_chunk(f, x, out));
}

/// `x = f(x)`, value by value.
pub fn in_place(f: Activation, x: &mut [f32]) {
    x.par_chunks_mut(CHUNK).with_max_len(1).for_each(|x| in_place_chunk(f, x));
}

/// `out = f'(x) · dy`, value by value.
pub fn plain_backward(f: Activation, x: &[f32], dy: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && dy.len() == out.len(), "x, dy and out of one length");
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK)).for_each(|((out, x), dy)| {
        derivative_chunk(f, x, dy, out);
    });
}

/// Runs `$body` with `$value` as the function `f`: one loop per function, so that the compiler vectorises each.
macro_rules! each_function {
    ($f:expr, $value:ident => $body:expr) => {
        match $f {
            Activation::Silu => {
                let $value = |x: f32| x * sigmoid(x);
                $body
            }
            Activation::GeluSigmoid => {
                let $value = |x: f32| x * sigmoid(1.702 * x);
                $body
            }
            Activation::GeluTanh => {
                // (1 + tanh u) / 2 = sigmoid(2 u)
                let $value = |x: f32| x * sigmoid(2.0 * GELU_LINEAR * (x + GELU_CUBIC * x * x * x));
                $body
            }
            Activation::GeluErf => {
                let $value = |x: f32| x * normal_cdf(x);
                $body
            }
            Activation::Relu => {
                let $value = |x: f32| x.max(0.0);
                $body
            }
        }
    };
}

/// Gradients of [`gated`]: `dgate = f'(gate) · up · dy` and `dup = f(gate) · dy`, value by value.
pub fn gated_backward(f: Activation, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let len = gate.len();
    assert!([up.len(), dy.len(), dgate.len(), dup.len()] == [len; 4], "gate, up and gradients of one length");
    let outputs = dgate.par_chunks_mut(CHUNK).zip(dup.par_chunks_mut(CHUNK));
    let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK));
    outputs.zip(inputs).for_each(|((dgate, dup), ((gate, up), dy))| gated_backward_chunk(f, gate, up, dy, dgate, dup));
}

dispatch! {
    fn gated_backward_chunk(f: Activation, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        each_function!(f, value => {
            for ((dup, gate), dy) in dup.iter_mut().zip(gate).zip(dy) {
                *dup = value(*gate) * dy;
            }
        });
        let mut scaled = [0.0; CHUNK];
        scaled.iter_mut().zip(dy.iter().zip(up)).for_each(|(scaled, (dy, up))| *scaled = dy * up);
        derivative(f, gate, &scaled, dgate);
    }
}

dispatch! {
    fn gated_chunk(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        each_function!(f, value => {
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = value(*gate) * up;
            }
        });
    }
}

dispatch! {
    fn gate_chunk(f: Activation, gate: &mut [f32], up: &[f32]) {
        each_function!(f, value => {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = value(*gate) * up;
            }
        });
    }
}

dispatch! {
    fn plain_chunk(f: Activation, x: &[f32], out: &mut [f32]) {
        each_function!(f, value => {
            for (out, x) in out.iter_mut().zip(x) {
                *out = value(*x);
            }
        });
    }
}

dispatch! {
    fn in_place_chunk(f: Activation, x: &mut [f32]) {
        each_function!(f, value => {
            for x in x {
                *x = value(*x);
            }
        });
    }
}

dispatch! {
    fn derivative_chunk(f: Activation, x: &[f32], dy: &[f32], out: &mut [f32]) {
        derivative(f, x, dy, out);
    }
}

/// `out = f'(x) · dy`, value by value; `dy` may be longer than `x`.
#[inline(always)]
fn derivative(f: Activation, x: &[f32], dy: &[f32], out: &mut [f32]) {
    match f {
        Activation::Silu => x.iter().enumerate().for_each(|(i, x)| {
            let s = sigmoid(*x);
            out[i] = dy[i] * s * (1.0 + x * (1.0 - s));
        }),
        Activation::GeluSigmoid => x.iter().enumerate().for_each(|(i, x)| {
            let s = sigmoid(1.702 * x);
            out[i] = dy[i] * s * (1.0 + 1.702 * x * (1.0 - s));
        }),
        Activation::GeluTanh => x.iter().enumerate().for_each(|(i, x)| {
            let inner = GELU_LINEAR * (x + GELU_CUBIC * x * x * x);
            let slope = GELU_LINEAR * (1.0 + 3.0 * GELU_CUBIC * x * x);
            let s = sigmoid(2.0 * inner);
            out[i] = dy[i] * (s + x * 2.0 * slope * s * (1.0 - s));
        }),
        Activation::GeluErf => x.iter().enumerate().for_each(|(i, x)| {
            let density = 0.398_942_3 * crate::vector::exp(-0.5 * x * x);
            out[i] = dy[i] * (normal_cdf(*x) + x * density);
        }),
        Activation::Relu => x.iter().enumerate().for_each(|(i, x)| out[i] = if *x > 0.0 { dy[i] } else { 0.0 }),
    }
}

/// Standard normal distribution function to 1e-7: the tail is `exp(-q(|x|))`, where `q = -ln Φ(-x)` is a smooth function of
/// `x ≥ 0`, here a polynomial of degree 10 fitted on 0 to 6. Its leading coefficient is positive, so that beyond 6 the
/// tail falls to 0 by itself. There is no division and no branch: the compiler makes vectors of it.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    const Q: [f32; 11] = [
        1.578_493_4e-8,
        -4.888_607e-7,
        6.474_414_5e-6,
        -4.651_223e-5,
        1.718_655_4e-4,
        4.468_777_5e-5,
        -4.868_275e-3,
        3.638_377_4e-2,
        3.182_972_4e-1,
        7.978_856_6e-1,
        std::f32::consts::LN_2,
    ];
    let a = x.abs();
    let mut q = Q[0];
    for coefficient in &Q[1..] {
        q = q.mul_add(a, *coefficient);
    }
    let tail = crate::vector::exp(-q);
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 5] =
        [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::GeluSigmoid, Activation::Relu];

    #[test]
    fn known_values() {
        let mut out = [0.0; 3];
        for (f, expected) in [
            (Activation::Silu, [-0.268_941_42, 0.0, 1.761_594_2]),
            (Activation::GeluTanh, [-0.158_808, 0.0, 1.954_597_7]),
            (Activation::GeluErf, [-0.158_655_25, 0.0, 1.954_499_7]),
            (Activation::GeluSigmoid, [-0.154_202_3, 0.0, 1.935_658_9]),
            (Activation::Relu, [0.0, 0.0, 2.0]),
        ] {
            plain(f, &[-1.0, 0.0, 2.0], &mut out);
            for (out, expected) in out.iter().zip(expected) {
                assert!((out - expected).abs() < 2e-6, "{f:?}: {out} {expected}");
            }
        }
    }

    #[test]
    fn gated_is_plain_times_up() {
        let x: Vec<f32> = (0..101).map(|i| i as f32 * 0.1 - 5.0).collect();
        let up: Vec<f32> = (0..101).map(|i| (i % 7) as f32 - 3.0).collect();
        for f in ALL {
            let (mut a, mut b) = (vec![0.0; 101], vec![0.0; 101]);
            gated(f, &x, &up, &mut a);
            plain(f, &x, &mut b);
            b.iter_mut().zip(&up).for_each(|(b, up)| *b *= up);
            assert_eq!(a, b, "{f:?}");
            let mut in_place = x.clone();
            gate_in_place(f, &mut in_place, &up);
            assert_eq!(in_place, b, "{f:?}");
            let (mut alone, mut plain_values) = (x.clone(), vec![0.0; 101]);
            super::in_place(f, &mut alone);
            plain(f, &x, &mut plain_values);
            assert_eq!(alone, plain_values, "{f:?}");
        }
    }

    /// Against the series of the error function, and its continued fraction in the tail, in f64.
    #[test]
    fn the_normal_distribution_function_is_right_everywhere() {
        let expected = |x: f64| {
            let a = x.abs();
            let density = (-0.5 * a * a).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let tail = if a < 3.0 {
                // Φ(a) = 1/2 + φ(a) (a + a³/3 + a⁵/(3·5) + …)
                let (mut term, mut sum) = (a, 0.0);
                for k in 1..200 {
                    sum += term;
                    term *= a * a / f64::from(2 * k + 1);
                }
                0.5 - density * sum
            } else {
                density / (1..200).rev().fold(a, |below, k| a + f64::from(k) / below)
            };
            if x < 0.0 { tail } else { 1.0 - tail }
        };
        assert!((expected(-1.0) - 0.158_655_253_931_457).abs() < 1e-14);
        assert!((expected(-4.0) - 3.167_124_183_311_998e-5).abs() < 1e-18);
        for i in -90_000..=90_000 {
            let x = i as f32 * 1e-4;
            let (found, expected) = (f64::from(normal_cdf(x)), expected(f64::from(x)));
            assert!((found - expected).abs() < 1.3e-7, "{x}: {found} {expected}");
            assert!(x < -5.0 || (found - expected).abs() < 1e-5 * expected, "{x}: {found} {expected}");
        }
        for (x, expected) in [(0.0, 0.5), (-30.0, 0.0), (30.0, 1.0), (-1e30, 0.0), (f32::MAX, 1.0)] {
            assert!((normal_cdf(x) - expected).abs() < 1e-7, "{x}");
        }
        assert!(normal_cdf(f32::NAN).is_nan());
    }

    /// The slopes themselves are compared with finite differences below.
    #[test]
    fn gated_gradients_are_those_of_the_plain_function() {
        let wave = |step: usize| (0..101).map(|i| ((i * step + 3) % 17) as f32 * 0.4 - 3.0).collect::<Vec<_>>();
        let (gate, up, dy) = (wave(7), wave(5), wave(3));
        for f in ALL {
            let (mut dgate, mut dup) = (vec![0.0; 101], vec![0.0; 101]);
            gated_backward(f, &gate, &up, &dy, &mut dgate, &mut dup);
            let (mut slope, mut value) = (vec![0.0; 101], vec![0.0; 101]);
            let scaled: Vec<f32> = dy.iter().zip(&up).map(|(dy, up)| dy * up).collect();
            plain_backward(f, &gate, &scaled, &mut slope);
            gated(f, &gate, &dy, &mut value);
            assert_eq!((dgate, dup), (slope, value), "{f:?}");
        }
    }

    #[test]
    fn slopes_equal_finite_differences() {
        let x: Vec<f32> = (0..61).map(|i| i as f32 * 0.15 - 4.51).collect();
        let h = 1e-2f32;
        for f in ALL {
            let (mut up, mut down, mut slope) = (vec![0.0; 61], vec![0.0; 61], vec![0.0; 61]);
            plain(f, &x.iter().map(|x| x + h).collect::<Vec<_>>(), &mut up);
            plain(f, &x.iter().map(|x| x - h).collect::<Vec<_>>(), &mut down);
            plain_backward(f, &x, &[1.0; 61], &mut slope);
            for i in 0..61 {
                let expected = (up[i] - down[i]) / (2.0 * h);
                assert!((slope[i] - expected).abs() < 1e-3, "{f:?} at {}: {} {expected}", x[i], slope[i]);
            }
        }
    }
}

//! Token losses, spectra and attention.

use std::fmt::Write;

use lathe_lab::figure::{count, number, share, value};
use lathe_lab::measure::{AttentionResult, SpanResult, SpectrumResult, TokensResult};
use lathe_measure::attention::ControlKind;
use lathe_measure::{Estimate, Number};

use super::{interval, lines};
use crate::table::Align;

/// `lathe measure tokens`
pub(crate) fn tokens(result: &TokensResult) -> String {
    let report = &result.report;
    let text = &report.text;
    let types = &report.types;
    let estimate = |name: &str, e: &Estimate, unit: &str, n: &str| {
        vec![name.to_owned(), value(e.value), interval(e), unit.to_owned(), format!("{} {n}", count(e.n as u64))]
    };
    let rows = vec![
        estimate("NLL", &text.nll, "nats per token", "documents"),
        estimate("perplexity", &text.perplexity, "", "documents"),
        estimate("bits per byte", &text.bits_per_byte, "bits per byte", "documents"),
        estimate("accuracy", &text.accuracy, "share of tokens", "documents"),
        estimate("entropy", &text.entropy, "nats per token", "documents"),
        estimate("NLL by type (macro)", &types.macro_nll, "nats per token type", "documents"),
        estimate("perplexity by type", &types.macro_perplexity, "", "documents"),
    ];
    let mut out = format!(
        "{}: {} documents, {} tokens of {} bytes, windows of {} tokens, {}\n\n",
        result.model,
        count(report.documents as u64),
        count(text.tokens as u64),
        count(text.bytes),
        count(result.window as u64),
        result.compute_type,
    );
    out += &lines(
        &[
            ("measure", Align::Left),
            ("value", Align::Right),
            ("95 % interval", Align::Left),
            ("unit", Align::Left),
            ("resampled", Align::Left),
        ],
        rows,
    );
    out += "\nLoss by frequency of the target in these texts (bins by powers of 3):\n\n";
    let rows = types.bins.iter().map(|bin| {
        let range = if bin.count_least == bin.count_most {
            count(bin.count_least)
        } else {
            format!("{}–{}", count(bin.count_least), count(bin.count_most))
        };
        vec![
            range,
            count(bin.types as u64),
            count(bin.tokens as u64),
            value(bin.nll.value),
            interval(&bin.nll),
            value(bin.frequency_weighted_nll.value),
            share(bin.accuracy.value),
        ]
    });
    out += &lines(
        &[
            ("count", Align::Right),
            ("types", Align::Right),
            ("tokens", Align::Right),
            ("NLL over types", Align::Right),
            ("95 % interval", Align::Left),
            ("over tokens", Align::Right),
            ("accuracy", Align::Right),
        ],
        rows.collect(),
    );
    let _ = writeln!(
        out,
        "\n{} token types seen, {} of them once. Byte-fallback targets: {}. Special targets, in no number above: {}.",
        count(types.types as u64),
        share(types.singleton_share),
        count(report.byte_fallback.tokens as u64),
        count(report.special.tokens as u64),
    );
    let _ = writeln!(out, "Forward passes took {} s.", number(result.forward_seconds));
    out
}

/// `lathe measure spectrum`
pub(crate) fn spectrum(result: &SpectrumResult) -> String {
    let mut out = format!(
        "{}: {} windows of N = {} tokens, d = {}, {}; means over windows\n\n",
        result.model,
        count(result.windows as u64),
        count(result.window as u64),
        count(result.hidden_size as u64),
        result.compute_type,
    );
    let rows = result.layers.iter().map(|layer| {
        let s = &layer.summary;
        vec![
            layer.layer.to_string(),
            value(s.mnn.mean.value),
            interval(&s.mnn.mean),
            value(s.mnn_null.mean.value),
            value(s.mnn_corrected.mean.value),
            value(s.mnn_cap.mean.value),
            value(s.matrix_entropy.mean.value),
            value(s.matrix_entropy_null.mean.value),
            value(s.erank.mean.value),
            value(s.nuclear_norm.mean.value),
            value(s.nuclear_norm_null.mean.value),
        ]
    });
    out += &lines(
        &[
            ("layer", Align::Right),
            ("MNN", Align::Right),
            ("95 % interval", Align::Left),
            ("null", Align::Right),
            ("MNN/null", Align::Right),
            ("cap", Align::Right),
            ("entropy", Align::Right),
            ("null", Align::Right),
            ("eRank", Align::Right),
            ("nuclear/N", Align::Right),
            ("null", Align::Right),
        ],
        rows.collect(),
    );
    out += "\nnull: Gaussian states of the same N and d, 8 seeded draws. cap: sqrt(D / N), the largest possible MNN; D is min(N, d) unless\n\
            `--columns` says otherwise. entropy: matrix entropy / ln d. nuclear/N: with `--metrics mnn,entropy,nuclear`. –: not asked for or undefined;\n\
            `--json` says why.\n";
    if let Some(diff) = &result.diff_erank {
        let _ = writeln!(
            out,
            "Diff-eRank {} = {} (random weights, seed {}: {}) − {} (this model), {} windows.",
            value(diff.value.diff_erank),
            value(diff.value.untrained_erank),
            diff.seed,
            diff.initialisation,
            value(diff.value.trained_erank),
            diff.value.n,
        );
    }
    let _ = writeln!(
        out,
        "Forward passes took {} s, the metrics and their nulls {} s.",
        number(result.forward_seconds),
        number(result.metric_seconds)
    );
    out
}

/// `lathe measure attention`
pub(crate) fn attention(result: &AttentionResult) -> String {
    let mut out = String::new();
    for span in &result.spans {
        let _ = writeln!(
            out,
            "{}: {}, {} tokens, span of {} tokens, {} tokens left out, {}",
            result.model,
            span.name,
            span.tokens,
            span.positions.len(),
            span.excluded.len(),
            result.compute_type,
        );
        let _ = writeln!(
            out,
            "share of attention on the span: mean over {} heads {}, under uniform causal attention {}\n",
            span.distribution.n,
            value(span.distribution.mean),
            value(span.baseline.share),
        );
        out += match span.baseline.control_kind {
            ControlKind::Consecutive => "",
            ControlKind::Scattered => {
                "control spans are scattered tokens: the text is too short for 100 consecutive ones\n\n"
            }
            ControlKind::None => "no percentiles: the text is too short for 100 control spans\n\n",
        };
        out += &by_layer(span);
        out += "\nHeads with the largest lift:\n\n";
        out += &top_heads(span);
        if let (Some(comparison), Some(against)) = (&span.comparison, &result.against) {
            let c = &comparison.share;
            let d = &c.distribution;
            let _ = writeln!(
                out,
                "\n{against} minus {}: mean difference per head {}, skewness {}, kurtosis {}, histogram entropy {} nats, {} of heads up; row-renormalised: mean {}, {} up.",
                result.model,
                value(d.mean),
                value(d.skewness),
                value(d.kurtosis),
                value(d.histogram_entropy_nats),
                share(c.share_up),
                value(comparison.renormalised.distribution.mean),
                share(comparison.renormalised.share_up),
            );
        }
        out.push('\n');
    }
    out += "share: attention on the span / attention outside punctuation and start tokens, summed over all queries. renormalised: mean over rows.\n\
            lift: share / uniform share. percentile: among 100 control spans of equal length nearby. –: undefined; `--json` says why.\n";
    out
}

fn by_layer(span: &SpanResult) -> String {
    let mean = |layer: usize, of: &dyn Fn(&lathe_lab::measure::HeadRow) -> Number| {
        let values: Vec<f64> = span.heads.iter().filter(|h| h.layer == layer).filter_map(|h| of(h).value()).collect();
        if values.is_empty() { "–".to_owned() } else { number(values.iter().sum::<f64>() / values.len() as f64) }
    };
    let rows = span.layers.iter().map(|layer| {
        vec![
            layer.layer.to_string(),
            value(layer.mean),
            mean(layer.layer, &|h| h.span.renormalised_share),
            mean(layer.layer, &|h| h.span.lift),
            mean(layer.layer, &|h| h.span.control_percentile),
            mean(layer.layer, &|h| h.sink_share),
            layer.n.to_string(),
        ]
    });
    lines(
        &[
            ("layer", Align::Right),
            ("share", Align::Right),
            ("renormalised", Align::Right),
            ("lift", Align::Right),
            ("percentile", Align::Right),
            ("sink share", Align::Right),
            ("heads", Align::Right),
        ],
        rows.collect(),
    )
}

fn top_heads(span: &SpanResult) -> String {
    const SHOWN: usize = 5;
    let mut heads: Vec<_> = span.heads.iter().filter(|head| head.span.lift.value().is_some()).collect();
    heads.sort_by(|a, b| b.span.lift.value().unwrap_or(0.0).total_cmp(&a.span.lift.value().unwrap_or(0.0)));
    let rows = heads.into_iter().take(SHOWN).map(|head| {
        vec![
            head.layer.to_string(),
            head.head.to_string(),
            value(head.span.share),
            value(head.span.lift),
            value(head.span.control_percentile),
            value(head.sink_share),
        ]
    });
    lines(
        &[
            ("layer", Align::Right),
            ("head", Align::Right),
            ("share", Align::Right),
            ("lift", Align::Right),
            ("percentile", Align::Right),
            ("sink share", Align::Right),
        ],
        rows.collect(),
    )
}

//! The page of runs beside each other: losses against weight decay, by frequency of the type, learning speed, theory.

use std::fmt::Write as _;

use lathe_measure::Number;
use lathe_measure::statistics::Spread;
use lathe_measure::tokens::{Concentration, TheoryPoint};
use serde::{Deserialize, Serialize};

use super::{DecayBin, DecayFairness, DecaySplit, FairnessResult, RunFairness, RunSplit};
use crate::figure::{
    self, Axis, AxisScale, Draw, LineChart, LinePoint, NARROW, Series, SeriesStyle, Ticks, count, line_chart,
    mean_and_sd, number, percent, share, value,
};
use crate::report::page::STYLE;
use crate::report::page::html::{Table, figure as framed, full_width, multiples, panel, text};

/// A figure of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FairnessPanel {
    /// (a) Mean loss over tokens against λ.
    Average,
    /// (b) Mean loss of low-frequency types against λ.
    Low,
    /// (c) Mean loss of high-frequency types against λ.
    High,
    /// (d) Token-balanced loss against λ.
    Balanced,
    /// (d) over (a) against λ.
    Ratio,
    /// Loss by frequency of the type, a line for each λ.
    Bins,
    /// Accuracy by frequency of the type, a line for each λ.
    Accuracy,
    /// Learning speed by frequency of the type, a line for each λ.
    Speed,
    /// The curves of the theory.
    Theory,
}

/// Which texts a figure is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// Those that models were trained on.
    #[default]
    Training,
    /// Those that they were not.
    HeldOut,
}

const FOUR: [FairnessPanel; 4] =
    [FairnessPanel::Average, FairnessPanel::Low, FairnessPanel::High, FairnessPanel::Balanced];

/// What bands are, said under every figure that has them.
const BANDS: &str = "Lines are means over seeds; bands go from the smallest to the largest of them.";

/// The page.
#[must_use]
pub fn fairness_page(result: &FairnessResult) -> String {
    let variants = variants(result);
    let named: Vec<String> = variants.iter().filter(|name| !name.is_empty()).map(|name| text(name)).collect();
    let heading = if named.is_empty() { "Weight decay and rare tokens".to_owned() } else { named.join(" · ") };
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{heading}: lathe measure tokens</title>\n\
         <style>\n{STYLE}{figures}header {{ margin-bottom: 1.6rem; }}\n</style>\n</head>\n<body>\n<header>\n\
         <p class=\"kind\">lathe measure tokens</p>\n<h1>{heading}</h1>\n<p class=\"verdict\">{verdict}</p>\n</header>\n<main>\n",
        figures = figure::STYLE,
        verdict = text(&verdict(result)),
    );
    html += &by_decay_panel(result);
    html += &by_bin_panel(result, &variants);
    html += &speed_panel(result, &variants);
    html += &theory_panel(result);
    html += &counts_panel(&result.counts, result);
    html += &runs_panel(result);
    html += "</main>\n<footer>\n<h2>How this was made</h2>\n";
    for note in &result.notes {
        let _ = writeln!(html, "<p>{}</p>", text(note));
    }
    let _ = writeln!(html, "<p>{}</p>", text(&how_made(result)));
    html + "</footer>\n</body>\n</html>\n"
}

fn verdict(result: &FairnessResult) -> String {
    let runs = result.runs.len();
    let mut sentence = format!(
        "{} of {} weight decays; {} of training texts scored",
        if runs == 1 { "1 run".into() } else { format!("{runs} runs") },
        weight_decays(result).len(),
        tokens_of(result.training.tokens),
    );
    if let Some(held_out) = result.held_out {
        let _ = write!(sentence, ", and {} of held-out texts", tokens_of(held_out.tokens));
    }
    sentence + "."
}

fn tokens_of(tokens: usize) -> String {
    format!("{} tokens", count(tokens as u64))
}

fn how_made(result: &FairnessResult) -> String {
    format!(
        "Types are sorted by {} targets of {} types counted on the training texts, for all runs and both sets of texts. Low \
         frequency is below the {}th percentile of the counts, {} here. Windows of {} tokens; seed {}; computed in {}. \
         Written by lathe {}; --json prints every number. A dash is a value that is missing, never zero.",
        count(result.counts.tokens),
        count(result.counts.types as u64),
        result.split_percentile,
        count(result.split_count),
        count(result.window as u64),
        result.seed,
        result.compute_type,
        env!("CARGO_PKG_VERSION"),
    )
}

/// One figure of a result: of the variant of that name, or of all where the figure shows several.
pub(crate) fn chart_of(result: &FairnessResult, panel: FairnessPanel, variant: &str, side: Side) -> LineChart {
    match panel {
        FairnessPanel::Average => by_decay(result, panel, &|split| split.micro_nll),
        FairnessPanel::Low => by_decay(result, panel, &|split| split.low_nll),
        FairnessPanel::High => by_decay(result, panel, &|split| split.high_nll),
        FairnessPanel::Balanced => by_decay(result, panel, &|split| split.macro_nll),
        FairnessPanel::Ratio => by_decay(result, panel, &|split| split.macro_over_micro),
        FairnessPanel::Bins => by_bin(result, panel, variant, side, &|bin| bin.nll),
        FairnessPanel::Accuracy => by_bin(result, panel, variant, side, &|bin| bin.accuracy),
        FairnessPanel::Speed => by_bin(result, panel, variant, side, &|bin| bin.speed),
        FairnessPanel::Theory => theory(&result.theory),
    }
}

impl FairnessPanel {
    fn title(self) -> &'static str {
        match self {
            Self::Average => "(a) average loss",
            Self::Low => "(b) low-frequency types",
            Self::High => "(c) high-frequency types",
            Self::Balanced => "(d) token-balanced loss",
            Self::Ratio => "token-balanced over average loss",
            Self::Bins => "loss by frequency",
            Self::Accuracy => "accuracy by frequency",
            Self::Speed => "learning speed by frequency",
            Self::Theory => "theory",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Average => "nats per token",
            Self::Low | Self::High | Self::Balanced | Self::Bins | Self::Theory => "nats per token type",
            Self::Ratio => "ratio",
            Self::Accuracy => "share of hits, mean over types",
            Self::Speed => "learning speed (1 is at once)",
        }
    }
}

fn variants(result: &FairnessResult) -> Vec<&str> {
    let mut variants: Vec<&str> = result.decays.iter().map(|decay| decay.variant.as_str()).collect();
    variants.dedup();
    variants
}

fn weight_decays(result: &FairnessResult) -> Vec<f64> {
    let mut all: Vec<f64> = result.decays.iter().map(|decay| decay.weight_decay).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

fn side_of(decay: &DecayFairness, side: Side) -> Option<&DecaySplit> {
    match side {
        Side::Training => Some(&decay.training),
        Side::HeldOut => decay.held_out.as_ref(),
    }
}

fn point(x: f64, spread: Spread, name: &str) -> LinePoint {
    let y = spread.mean.value();
    let ends = spread.least.value().zip(spread.most.value()).filter(|_| spread.n > 1);
    let tip = y.map_or(String::new(), |y| match ends {
        Some((least, most)) => {
            format!("{name}: {}, {} to {} over {} seeds", number(y), number(least), number(most), spread.n)
        }
        None => format!("{name}: {}", number(y)),
    });
    LinePoint { x, y, interval: ends.map(|(least, most)| [least, most]), tip }
}

fn axis(label: &str, scale: AxisScale) -> Axis {
    Axis { label: label.to_owned(), scale, ticks: Ticks::Any }
}

/// A number of each weight decay: a line for each variant on each set of texts.
fn by_decay(result: &FairnessResult, panel: FairnessPanel, value: &dyn Fn(&DecaySplit) -> Spread) -> LineChart {
    let mut series = Vec::new();
    for (index, variant) in variants(result).into_iter().enumerate() {
        for (place, side) in [Side::Training, Side::HeldOut].into_iter().enumerate() {
            let of_variant = result.decays.iter().filter(|decay| decay.variant == variant);
            let name = match (variant, side) {
                ("", Side::Training) => "training".to_owned(),
                ("", Side::HeldOut) => "held-out".to_owned(),
                (_, Side::Training) => variant.to_owned(),
                (_, Side::HeldOut) => format!("{variant}, held-out"),
            };
            let points: Vec<LinePoint> = of_variant
                .filter_map(|decay| {
                    let at = format!("{name}, λ = {}", decay.weight_decay);
                    Some(point(decay.weight_decay, value(side_of(decay, side)?), &at))
                })
                .collect();
            if !points.is_empty() {
                series.push(Series { name, style: SeriesStyle::Model(2 * index + place), draw: Draw::Line, points });
            }
        }
    }
    LineChart {
        title: panel.title().to_owned(),
        desc: "A value for each weight decay, with a band over seeds".to_owned(),
        x: axis("weight decay λ", AxisScale::Linear),
        y: axis(panel.unit(), AxisScale::Linear),
        series,
        references: Vec::new(),
        y_extent: None,
    }
}

/// A number of each bin: a line for each weight decay of one variant.
fn by_bin(
    result: &FairnessResult,
    panel: FairnessPanel,
    variant: &str,
    side: Side,
    value: &dyn Fn(&DecayBin) -> Spread,
) -> LineChart {
    let all = weight_decays(result);
    let of_variant = result.decays.iter().filter(|decay| decay.variant == variant);
    let series = of_variant.filter_map(|decay| {
        let name = format!("λ = {}", decay.weight_decay);
        let bins = side_of(decay, side)?.bins.iter();
        let points = bins.map(|bin| {
            let middle = (bin.count_least as f64 * bin.count_most as f64).sqrt();
            point(middle, value(bin), &format!("{name}, {} occurrences", range(bin)))
        });
        let index = all.iter().position(|other| *other == decay.weight_decay).unwrap_or(0);
        Some(Series { style: SeriesStyle::Model(index), draw: Draw::Line, points: points.collect(), name })
    });
    LineChart {
        title: panel.title().to_owned(),
        desc: "A value for each bin of token types, from rare to frequent, a line with a band over seeds for each weight decay"
            .to_owned(),
        x: axis("occurrences in training (log scale)", AxisScale::Log),
        y: axis(panel.unit(), AxisScale::Linear),
        series: series.collect(),
        references: Vec::new(),
        y_extent: None,
    }
}

fn theory(points: &[TheoryPoint]) -> LineChart {
    type Pick = fn(&TheoryPoint) -> Number;
    let lines: [(&str, Pick); 4] = [
        ("average", |point| point.micro_nll),
        ("low frequency", |point| point.low_nll),
        ("high frequency", |point| point.high_nll),
        ("balanced", |point| point.macro_nll),
    ];
    let series = lines.iter().enumerate().map(|(index, (name, value))| {
        let points = points.iter().map(|at| LinePoint {
            x: at.weight_decay,
            y: value(at).value(),
            interval: None,
            tip: String::new(),
        });
        Series {
            name: (*name).to_owned(),
            style: SeriesStyle::Model(index),
            draw: Draw::Line,
            points: points.collect(),
        }
    });
    LineChart {
        title: FairnessPanel::Theory.title().to_owned(),
        desc: "Loss of classes against the weight decay of the unconstrained-features model".to_owned(),
        x: axis("λ of the model (log scale)", AxisScale::Log),
        y: axis(FairnessPanel::Theory.unit(), AxisScale::FromZero),
        series: series.collect(),
        references: Vec::new(),
        y_extent: None,
    }
}

fn by_decay_panel(result: &FairnessResult) -> String {
    let panels = FOUR.into_iter().chain([FairnessPanel::Ratio]);
    let charts: Vec<LineChart> = panels.map(|of| chart_of(result, of, "", Side::Training)).collect();
    let drawn = if variants(result).len() == 1 {
        let small = charts.iter().map(|chart| (chart.title.clone(), line_chart(chart, NARROW)));
        multiples(&small.collect::<Vec<_>>())
    } else {
        // The names of many lines need room.
        let large = charts.iter().map(|chart| {
            let drawn = full_width(|width| line_chart(chart, width));
            format!("<p class=\"fig-title\">{}</p>{drawn}", text(&chart.title))
        });
        large.collect()
    };
    let caption =
        format!("{BANDS} The axes differ: compare shapes, and (d) over (a) for the damage that the average hides.");
    let how = "Losses of the last checkpoints. The average is ruled by frequent types; the balanced loss counts every type \
               once. Low and high frequency are the two sides of the 95th percentile of the training counts.";
    let body = [framed(&drawn, &caption), decay_table(result).html()].concat();
    panel("decay", "Loss by weight decay", how, &body)
}

fn decay_table(result: &FairnessResult) -> Table {
    let titles = [
        "variant and λ",
        "texts",
        "seeds",
        "average",
        "low",
        "high",
        "balanced",
        "balanced / average",
        "perplexity",
        "balanced perplexity",
        "accuracy",
        "accuracy over types",
    ];
    let mut table = Table::new(&titles);
    for decay in &result.decays {
        let sides = [("training", Some(&decay.training)), ("held-out", decay.held_out.as_ref())];
        for (name, split) in sides.into_iter().filter_map(|(name, split)| Some((name, split?))) {
            let losses = [split.micro_nll, split.low_nll, split.high_nll, split.macro_nll, split.macro_over_micro];
            let rest = [split.perplexity, split.macro_perplexity].map(mean_and_sd);
            let shares = [split.accuracy, split.macro_accuracy].map(|spread| share(spread.mean));
            let first = vec![text(&decay.name), name.to_owned(), count(decay.seeds.len() as u64)];
            table.rows.push([first, losses.map(mean_and_sd).to_vec(), rest.to_vec(), shares.to_vec()].concat());
        }
    }
    table
}

fn by_bin_panel(result: &FairnessResult, variants: &[&str]) -> String {
    let mut drawn = Vec::new();
    for (variant, side, name) in sides(result, variants) {
        for of in [FairnessPanel::Bins, FairnessPanel::Accuracy] {
            drawn.push((format!("{} {name}", of.title()), line_chart(&chart_of(result, of, variant, side), NARROW)));
        }
    }
    let caption =
        format!("{BANDS} A value stands at the geometric middle of its bin; a bin without types is left out.");
    let how = "Bins of powers of 3 of a type’s occurrences in training, the same for all runs and both sets of texts. Means \
               over types.";
    let mut table = Table::new(&[
        "occurrences",
        "variant and λ",
        "texts",
        "types",
        "tokens",
        "over types",
        "over tokens",
        "accuracy",
        "speed",
    ]);
    for decay in &result.decays {
        let sides = [("training", Some(&decay.training)), ("held-out", decay.held_out.as_ref())];
        for (name, bin) in sides.into_iter().flat_map(|(name, split)| {
            split.into_iter().flat_map(move |split| split.bins.iter().map(move |bin| (name, bin)))
        }) {
            table.rows.push(vec![
                range(bin),
                text(&decay.name),
                name.to_owned(),
                count(bin.types as u64),
                count(bin.tokens as u64),
                mean_and_sd(bin.nll),
                mean_and_sd(bin.frequency_weighted_nll),
                share(bin.accuracy.mean),
                mean_and_sd(bin.speed),
            ]);
        }
    }
    let body = [framed(&multiples(&drawn), &caption), table.folded("Types, tokens and losses of every bin")].concat();
    panel("bins", "By frequency of the type", how, &body)
}

/// Variants on sets of texts, with the end of their headings.
fn sides<'a>(result: &FairnessResult, variants: &[&'a str]) -> Vec<(&'a str, Side, String)> {
    let mut all = Vec::new();
    for variant in variants {
        let of = if variant.is_empty() { String::new() } else { format!(", {variant}") };
        all.push((*variant, Side::Training, format!("(training{of})")));
        if result.held_out.is_some() {
            all.push((*variant, Side::HeldOut, format!("(held-out{of})")));
        }
    }
    all
}

fn speed_panel(result: &FairnessResult, variants: &[&str]) -> String {
    let how = "Speed of a type: 1 less the area under (L − min L) / (max L − min L) over its losses L at the checkpoints, with \
               training from 0 to 1, by trapezoids. A type whose loss never changes has none. The formula hides the level that is \
               reached, so the last loss stands beside it.";
    if result.runs.iter().all(|run| run.training.speed.is_none()) {
        let body = "<p class=\"absent\">No run has a checkpoint of step 0 and a later one.</p>";
        return panel("speed", "Learning speed", how, body);
    }
    let drawn: Vec<(String, String)> = sides(result, variants)
        .into_iter()
        .map(|(variant, side, name)| {
            let chart = chart_of(result, FairnessPanel::Speed, variant, side);
            (format!("learning speed {name}"), line_chart(&chart, NARROW))
        })
        .collect();
    let mut table = Table::new(&["variant and λ", "speed, low", "speed, high", "last loss, low", "last loss, high"]);
    for decay in &result.decays {
        let split = &decay.training;
        let cells = [split.low_speed, split.high_speed, split.low_nll, split.high_nll].map(mean_and_sd);
        table.rows.push([vec![text(&decay.name)], cells.to_vec()].concat());
    }
    let mut body = framed(&multiples(&drawn), BANDS) + &table.html();
    for gap in &result.gaps {
        let [low, high] = gap.weight_decays;
        let of = if gap.variant.is_empty() { String::new() } else { format!("{}: ", text(&gap.variant)) };
        let _ = write!(
            body,
            "<p>{of}speed at λ = {low} less that at λ = {high}: {} for low-frequency types, {} for high-frequency ones.</p>",
            value(gap.low),
            value(gap.high),
        );
    }
    panel("speed", "Learning speed", how, &body)
}

fn theory_panel(result: &FairnessResult) -> String {
    if result.theory.is_empty() {
        return String::new();
    }
    let chart = theory(&result.theory);
    let caption = "The optimum of the unconstrained-features model with non-negative features for classes with these training \
                   counts. Its λ is not that of AdamW: only shapes can be compared. A class at ln K has collapsed. The model needs a \
                   width of at least the number of types, which no language model has.";
    let how = "What a theory predicts that knows nothing but the counts: a higher decay raises the loss of rare classes first.";
    panel("theory", "Theory", how, &framed(&full_width(|width| line_chart(&chart, width)), caption))
}

fn counts_panel(counts: &Concentration, result: &FairnessResult) -> String {
    let chart = |title: &str, x: &str, y: &str, points: Vec<(f64, Option<f64>)>| {
        let points = points.into_iter().map(|(x, y)| LinePoint {
            x,
            y,
            interval: None,
            tip: y.map_or(String::new(), |y| format!("{}: {}", percent(x), percent(y))),
        });
        let chart = LineChart {
            title: title.to_owned(),
            desc: format!("{y} against {x}"),
            x: axis(x, AxisScale::Log),
            y: axis(y, AxisScale::FromZero),
            series: vec![Series {
                name: String::new(),
                style: SeriesStyle::Model(0),
                draw: Draw::Points,
                points: points.collect(),
            }],
            references: Vec::new(),
            y_extent: Some([0.0, 1.0]),
        };
        (title.to_owned(), line_chart(&chart, NARROW))
    };
    let mass = counts.mass_of_top.iter().map(|point| (point.share_of_types, Some(point.mass))).collect();
    let under =
        counts.types_under.iter().map(|point| (point.relative_frequency, point.share_of_types.value())).collect();
    let drawn = [
        chart("Mass of the most frequent types", "share of types (log scale)", "share of tokens", mass),
        chart("Types below a frequency", "relative frequency (log scale)", "share of types", under),
    ];
    let how = format!(
        "{} targets of {} types in the training texts.",
        count(result.counts.tokens),
        count(result.counts.types as u64)
    );
    panel("counts", "How uneven the counts are", &how, &framed(&multiples(&drawn), "Points are exact counts."))
}

fn runs_panel(result: &FairnessResult) -> String {
    let mut table = Table::new(&[
        "run",
        "texts",
        "step",
        "average",
        "95 % interval",
        "balanced",
        "95 % interval",
        "low",
        "high",
        "accuracy",
        "accuracy over types",
    ]);
    for (run, name, split) in splits(result) {
        let types = &split.report.types;
        let interval = |of: &lathe_measure::Estimate| match of.interval.value() {
            Some(interval) => format!("{} to {}", number(interval.low), number(interval.high)),
            None => "–".into(),
        };
        table.rows.push(vec![
            text(&run.name),
            name.to_owned(),
            run.step.map_or("–".into(), count),
            value(types.micro_nll.value),
            interval(&types.micro_nll),
            value(types.macro_nll.value),
            interval(&types.macro_nll),
            value(types.split.low_nll.value),
            value(types.split.high_nll.value),
            share(types.micro_accuracy.value),
            share(types.macro_accuracy.value),
        ]);
    }
    let how = "The last checkpoint of each run. Intervals resample texts.";
    panel("runs", "Every run", how, &table.html())
}

/// Every run on every set of texts.
fn splits(result: &FairnessResult) -> impl Iterator<Item = (&RunFairness, &'static str, &RunSplit)> {
    result.runs.iter().flat_map(|run| {
        let held_out = run.held_out.as_ref().map(|split| (run, "held-out", split));
        std::iter::once((run, "training", &run.training)).chain(held_out)
    })
}

fn range(bin: &DecayBin) -> String {
    format!("{} to {}", count(bin.count_least), count(bin.count_most))
}

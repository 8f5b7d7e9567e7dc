//! The report in plain words: sentences computed from its numbers, none for a number that is missing.

use super::data::{ModelReport, Quantity, Report};
use super::short_names;
use crate::figure::{bytes, compact, count, number, percent, visible};

/// The verdict, one sentence per entry. A single model is described; several are ranked and paired.
#[must_use]
pub fn verdict(report: &Report) -> Vec<String> {
    let names: Vec<String> = short_names(&report.models).iter().map(|name| visible(name)).collect();
    match &report.models[..] {
        [] => vec!["No model was examined.".to_owned()],
        [model] => one(&names[0], model),
        models => many(&names, models, report),
    }
}

fn one(name: &str, model: &ModelReport) -> Vec<String> {
    let sentences = [
        Some(identity(name, model)),
        losses(model),
        tokenizer(model),
        rare_tokens(model),
        sinks(model),
        spread_of_states(model),
        speed(model),
    ];
    sentences.into_iter().flatten().collect()
}

fn identity(name: &str, model: &ModelReport) -> String {
    let what = &model.what;
    format!(
        "{name} is a {} decoder with {} parameters in {} layers ({} of weights) and a vocabulary of {} tokens.",
        visible(&what.family),
        compact(what.parameters),
        count(what.layers),
        bytes(what.file_bytes),
        count(what.vocabulary),
    )
}

fn losses(model: &ModelReport) -> Option<String> {
    let overall = model.overall.as_ref()?;
    let bits = overall.bits_per_byte.finite()?;
    let mut sentence = format!(
        "Over {} it needs {} bits per byte{}",
        plural(overall.documents, "text"),
        number(bits),
        interval(&overall.bits_per_byte),
    );
    let texts = model.texts.iter().filter_map(|text| Some((&text.name, text.bits_per_byte.finite()?)));
    if let Some(((easiest, low), (hardest, high))) = extremes(texts) {
        let (easiest, hardest) = (visible(easiest), visible(hardest));
        sentence += &format!(", from {} on “{easiest}” to {} on “{hardest}”", number(low), number(high));
    }
    Some(sentence + ".")
}

fn tokenizer(model: &ModelReport) -> Option<String> {
    let rows = model.fertility.iter().map(|row| (&row.language, row.tokens as f64));
    let ((fewest, low), (most, high)) = extremes(rows)?;
    let times = ratio(high, low)?;
    let (fewest, most) = (visible(fewest), visible(most));
    Some(format!(
        "Its tokenizer needs the fewest tokens in {fewest}, and {times} times as many for the same text in {most}."
    ))
}

fn rare_tokens(model: &ModelReport) -> Option<String> {
    let rare = model.bins.first()?;
    let frequent = model.bins.last().filter(|last| last.low > rare.low)?;
    let (rare_loss, frequent_loss) = (rare.nll.finite()?, frequent.nll.finite()?);
    let times = match rare.high - rare.low {
        1 if rare.low == 1 => "once".to_owned(),
        1 => format!("{} times", count(rare.low)),
        _ => format!("{} to {} times", count(rare.low), count(rare.high - 1)),
    };
    Some(format!(
        "Token types that occur {times} cost {} nats on average, those that occur {} times or more {}.",
        number(rare_loss),
        count(frequent.low),
        number(frequent_loss),
    ))
}

fn sinks(model: &ModelReport) -> Option<String> {
    let attention = model.attention.as_ref()?;
    let by_layer = attention.sink_by_layer.iter().enumerate();
    let by_layer: Vec<(usize, f64)> = by_layer.filter_map(|(layer, share)| Some((layer, share.finite()?))).collect();
    let strongest = by_layer.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let mean = by_layer.iter().map(|(_, share)| share).sum::<f64>() / by_layer.len() as f64;
    let null = attention.sink_share.null.filter(|null| null.is_finite());
    let uniform = null.map_or(String::new(), |null| format!(" (uniform attention would give {})", percent(null)));
    Some(format!(
        "On average {} of its attention goes to the first token{uniform}, most in layer {} with {}.",
        percent(mean),
        strongest.0,
        percent(strongest.1),
    ))
}

fn spread_of_states(model: &ModelReport) -> Option<String> {
    let layers = &model.spectrum.as_ref()?.layers;
    let ranks = layers.iter().filter_map(|layer| Some((layer, layer.effective_rank.finite()?)));
    let ((lowest, low), (highest, high)) = extremes(ranks)?;
    let null = highest.effective_rank.null.filter(|null| null.is_finite());
    let noise =
        null.map_or(String::new(), |null| format!(", where Gaussian noise of the same shape has {}", number(null)));
    Some(format!(
        "Its hidden states fill most directions in layer {} (effective rank {}{noise}) and fewest in layer {} ({}).",
        highest.layer,
        number(high),
        lowest.layer,
        number(low),
    ))
}

fn speed(model: &ModelReport) -> Option<String> {
    let speed = model.speed.as_ref()?;
    let decode = speed.decode.finite()?;
    let prefill = speed.prefill.finite().map(|rate| format!("reads {} tokens/s and ", number(rate)));
    let memory = speed.peak_memory.finite().filter(|size| *size >= 0.0);
    let memory = memory.map(|size| format!(" within {} of memory", bytes(size as u64)));
    Some(format!(
        "On this machine it {}writes {} tokens/s{}.",
        prefill.unwrap_or_default(),
        number(decode),
        memory.unwrap_or_default(),
    ))
}

fn many(names: &[String], models: &[ModelReport], report: &Report) -> Vec<String> {
    let sizes = names.iter().zip(models);
    let sizes: Vec<String> =
        sizes.map(|(name, model)| format!("{name} ({})", compact(model.what.parameters))).collect();
    let mut sentences = vec![format!("Examined: {}.", listed(&sizes))];
    sentences.extend(ranking(names, models));
    sentences.extend(thriftiest(names, models));
    sentences.extend(fastest(names, models));
    sentences.extend(pairs(names, report));
    sentences
}

fn ranking(names: &[String], models: &[ModelReport]) -> Option<String> {
    let bits = names.iter().zip(models).filter_map(|(name, model)| {
        let quantity = &model.overall.as_ref()?.bits_per_byte;
        Some((name, quantity.finite()?, quantity, model))
    });
    let mut bits: Vec<_> = bits.collect();
    bits.sort_by(|a, b| a.1.total_cmp(&b.1));
    let [first, second, ..] = bits[..] else {
        return None;
    };
    // Both read the same texts, so text by text says more than whether two intervals over texts overlap.
    let ahead = match ahead(first.3, second.3) {
        (_, 0) => String::new(),
        (wins, texts) => format!("; it is ahead on {} of the {}", count(wins), plural(texts, "text")),
    };
    Some(format!(
        "{} predicts the texts best with {} bits per byte{}, then {} with {}{}{ahead}.",
        first.0,
        number(first.1),
        interval(first.2),
        second.0,
        number(second.1),
        interval(second.2),
    ))
}

/// On how many texts the first model needs fewer bits per byte than the second, and how many texts both have.
fn ahead(first: &ModelReport, second: &ModelReport) -> (u64, u64) {
    let pairs = first.texts.iter().filter_map(|text| {
        let same = second.texts.iter().find(|other| other.name == text.name)?;
        Some((text.bits_per_byte.finite()?, same.bits_per_byte.finite()?))
    });
    pairs.fold((0, 0), |(wins, texts), (first, second)| (wins + u64::from(first < second), texts + 1))
}

fn thriftiest(names: &[String], models: &[ModelReport]) -> Option<String> {
    let mut wins = vec![0_u64; models.len()];
    let mut languages = 0;
    for row in &models.first()?.fertility {
        let rates = models.iter().map(|model| {
            let same = model.fertility.iter().find(|other| other.language == row.language)?;
            same.tokens_per_character.finite()
        });
        let Some(rates) = rates.collect::<Option<Vec<f64>>>() else {
            continue;
        };
        let fewest = rates.iter().copied().fold(f64::INFINITY, f64::min);
        languages += 1;
        for (index, _) in rates.iter().enumerate().filter(|(_, rate)| **rate <= fewest) {
            wins[index] += 1;
        }
    }
    let most = wins.iter().max().filter(|most| **most > 0)?;
    let winners: Vec<String> =
        names.iter().zip(&wins).filter(|(_, won)| *won == most).map(|(n, _)| n.clone()).collect();
    let verb = if winners.len() == 1 { "needs" } else { "each need" };
    Some(format!(
        "{} {verb} the fewest tokens per character in {} of {}.",
        listed(&winners),
        count(*most),
        plural(languages, "language"),
    ))
}

fn fastest(names: &[String], models: &[ModelReport]) -> Option<String> {
    let rates = names.iter().zip(models);
    let rates = rates.filter_map(|(name, model)| Some((name, model.speed.as_ref()?.decode.finite()?)));
    let ((slowest, low), (fastest, high)) = extremes(rates)?;
    Some(format!(
        "On this machine {fastest} writes fastest ({} tokens/s) and {slowest} slowest ({}).",
        number(high),
        number(low)
    ))
}

fn pairs(names: &[String], report: &Report) -> Vec<String> {
    let Some(comparison) = &report.comparison else {
        return Vec::new();
    };
    let named = comparison.pairs.iter().filter_map(|pair| Some((pair, names.get(pair.left)?, names.get(pair.right)?)));
    let mut sentences = Vec::new();
    let mut mergeable = Vec::new();
    let mut ensembles = Vec::new();
    let mut considered = 0;
    for (pair, left, right) in named {
        considered += 1;
        if pair.merge.possible {
            mergeable.push(format!("{left} with {right}"));
        }
        if pair.ensemble.possible {
            let share = pair.vocabulary.share_by_bytes().finite();
            let share = share.map_or(String::new(), |share| format!(" ({} shared vocabulary)", percent(share)));
            ensembles.push(format!("{left} with {right}{share}"));
        }
    }
    if considered == 0 {
        return sentences;
    }
    sentences.push(match mergeable.len() {
        0 => "No two of them can be merged weight by weight.".to_owned(),
        _ => format!("Weights can be merged: {}.", listed(&mergeable)),
    });
    sentences.push(match ensembles.len() {
        0 => "No two of them can be ensembled token by token.".to_owned(),
        _ => format!("Predictions can be ensembled: {}.", listed(&ensembles)),
    });
    sentences
}

fn interval(quantity: &Quantity) -> String {
    let interval = quantity.finite_interval();
    interval.map_or(String::new(), |[low, high]| format!(" (95 % interval {} to {})", number(low), number(high)))
}

/// The items of the smallest and the largest value, where there are two items or more.
fn extremes<T: Copy>(items: impl Iterator<Item = (T, f64)>) -> Option<((T, f64), (T, f64))> {
    let items: Vec<(T, f64)> = items.collect();
    if items.len() < 2 {
        return None;
    }
    let low = items.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let high = items.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((*low, *high))
}

fn ratio(high: f64, low: f64) -> Option<String> {
    let ratio = high / low;
    (ratio.is_finite() && ratio > 0.0).then(|| number(ratio))
}

fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

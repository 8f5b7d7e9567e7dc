//! The page of an analysis.

use std::fmt::Write as _;

use super::{Analysis, ClusterReport, ExpertUsage, FailureReport, LayerUsage, PromptReport, Spread};
use crate::figure::{
    self, Axis, AxisScale, HeatMap, HeatRows, Row, RowChart, RowMark, RowSeries, RowStyle, SeriesStyle, Ticks, count,
    heat_map, number, row_chart, share, value,
};
use crate::report::page::STYLE;
use crate::report::page::html::{Table, figure as framed, full_width, panel, text};

/// The page.
#[must_use]
pub fn analysis_page(of: &Analysis) -> String {
    let model = text(&of.spec.model.to_string());
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{model}: lathe embed analyse</title>\n\
         <style>\n{STYLE}{figures}header {{ margin-bottom: 1.6rem; }}\n</style>\n</head>\n<body>\n<header>\n\
         <p class=\"kind\">lathe embed analyse</p>\n<h1><span class=\"name\">{model}</span></h1>\n\
         <p class=\"verdict\">{verdict}</p>\n</header>\n<main>\n",
        figures = figure::STYLE,
        verdict = text(&verdict(of)),
    );
    html += &clusters(&of.clusters);
    html += &prompts(&of.prompts);
    html += &of.failures.as_ref().map(failures).unwrap_or_default();
    html += &usage(&of.usage);
    html += "</main>\n<footer>\n<h2>How this was made</h2>\n";
    for note in notes(of) {
        let _ = writeln!(html, "<p>{}</p>", text(&note));
    }
    html + "</footer>\n</body>\n</html>\n"
}

/// What a reader in a hurry takes along.
fn verdict(of: &Analysis) -> String {
    let ami = |name: &str| {
        let row = of.clusters.rows.iter().find(|row| row.name == name);
        row.map_or("–".to_owned(), |row| value(row.ami.mean))
    };
    format!(
        "Clusters of hidden states (HS) and of router weights (RW) agree with an AMI of {}; those of HS with themselves under \
         another seed with {}, of RW with {}. Similarities under two different prompts correlate by {} in HS, {} in RW, and {} \
         across the two.",
        ami("HS and RW"),
        ami("HS and HS, another seed"),
        ami("RW and RW, another seed"),
        value(of.prompts.within_hidden),
        value(of.prompts.within_router),
        value(of.prompts.between),
    )
}

fn clusters(of: &ClusterReport) -> String {
    let row = |row: &super::AgreementRow| Row {
        label: row.name.clone(),
        group: if row.is_control { "controls" } else { "found" }.to_owned(),
        marks: vec![RowMark {
            value: row.ami.mean.value(),
            interval: row.ami.least.value().zip(row.ami.most.value()).map(|(least, most)| [least, most]),
            tip: format!("{}: AMI {}", row.name, spread(&row.ami)),
        }],
    };
    let mut rows: Vec<Row> = of.rows.iter().map(row).collect();
    rows.sort_by_key(|row| row.group == "controls");
    let chart = RowChart {
        title: "Agreement of clusters".to_owned(),
        desc: "A dot for the mean over seeds, a line from the smallest to the largest.".to_owned(),
        axis: Axis { label: "adjusted mutual information".to_owned(), scale: AxisScale::FromZero, ticks: Ticks::Any },
        series: vec![RowSeries { name: "AMI".to_owned(), style: SeriesStyle::Model(0) }],
        rows,
        style: RowStyle::Dots,
    };
    let mut table = Table::new(&["compared", "AMI", "NMI", "Jaccard of pairs", "matched"]);
    table.rows = of
        .rows
        .iter()
        .map(|row| {
            let means = [&row.nmi, &row.jaccard, &row.matched].map(|of| value(of.mean));
            [vec![text(&row.name), text(&spread(&row.ami))], means.to_vec()].concat()
        })
        .collect();
    let caption = format!(
        "{} clusters of k-means on vectors of length 1, with {} seeds: the mean, and the smallest and largest AMI. AMI is 0 for \
         labels that have nothing to do with each other and 1 for equal ones; NMI is not corrected for chance.",
        count(of.clusters as u64),
        count(of.seeds as u64)
    );
    let body = [framed(&full_width(|width| row_chart(&chart, width)), &text(&caption)), table.html()].concat();
    let how = "Whether texts that are together by their hidden states are together by their router weights. HS with HS under \
               another seed says how much of a disagreement is k-means itself.";
    panel("clusters", "Clusters", how, &body)
}

fn prompts(of: &PromptReport) -> String {
    let names = of.lists.iter().enumerate();
    let names: Vec<String> = names.map(|(index, list)| format!("{} {} {index}", list.of, list.prompt)).collect();
    let values = of.correlations.iter().flatten().filter_map(|number| number.value());
    let least = values.fold(0.0f64, f64::min);
    let map = HeatMap {
        title: "Correlation of similarities under two prompts".to_owned(),
        desc: "A cell for every two lists of similarities; the rows are numbered as the columns.".to_owned(),
        x_label: "list".to_owned(),
        y_label: String::new(),
        rows: HeatRows::Named(names),
        value_label: "Spearman’s ρ".to_owned(),
        columns: of.correlations.iter().map(|column| column.iter().map(|number| number.value()).collect()).collect(),
        domain: if least < -0.05 { [-1.0, 1.0] } else { [0.0, 1.0] },
    };
    let mut table = Table::new(&["lists under two different prompts", "mean ρ", "in the paper"]);
    let rows = [
        ("HS and HS", of.within_hidden, "0.52"),
        ("RW and RW", of.within_router, "0.63"),
        ("HS and RW, any two prompts", of.between, "0.51"),
    ];
    table.rows = rows.map(|(name, of, paper)| vec![name.to_owned(), value(of), paper.to_owned()]).to_vec();
    let caption = format!(
        "Rank correlation over {} pairs of texts. The numbers of the columns are those of the rows. The paper’s numbers are of \
         STS12 and another model.",
        count(of.pairs as u64)
    );
    let body = [framed(&full_width(|width| heat_map(&map, width)), &text(&caption)), table.html()].concat();
    let how = "How much the similarity of two texts depends on the prompt, and whether hidden states or router weights depend \
               on it more.";
    panel("prompts", "Prompts", how, &body)
}

fn failures(of: &FailureReport) -> String {
    let mut table = Table::new(&["", "RW fails", "RW is right"]);
    let cell = |n: usize| count(n as u64);
    table.rows = vec![
        vec!["HS fails".into(), cell(of.both), cell(of.only_hidden)],
        vec!["HS is right".into(), cell(of.only_router), cell(of.neither)],
    ];
    let mut shares = Table::new(&["failures", "how many", "the other is right", "by chance"]);
    shares.rows = [("of HS", of.of_hidden), ("of RW", of.of_router)]
        .map(|(name, of)| {
            vec![name.to_owned(), cell(of.failures), share(of.other_right), share(of.other_right_by_chance)]
        })
        .to_vec();
    let note = format!(
        "<p>Of {} items. Failing: {}. By chance is the share of all items on which the other is right: what the column before it \
         would be if the failures had nothing to do with each other.</p>",
        cell(of.items),
        text(&of.definition)
    );
    let how = "Whether one of the two is right where the other fails. Only a share above the one by chance says that they \
               complement each other.";
    panel("failures", "Failures", how, &[table.html(), shares.html(), note].concat())
}

fn usage(of: &ExpertUsage) -> String {
    let body: String = of.layers.iter().map(|layer| layer_map(layer, of)).collect();
    let mut table = Table::new(&["group", "tokens"]);
    table.rows = of.groups.iter().zip(&of.tokens).map(|(name, tokens)| vec![text(name), count(*tokens)]).collect();
    let how = format!(
        "Which experts work on which texts. Groups are {}; a text is read as it is, without a prompt.",
        of.groups_are
    );
    panel("experts", "Experts", &text(&how), &[body, table.folded("Tokens of every group")].concat())
}

fn layer_map(layer: &LayerUsage, of: &ExpertUsage) -> String {
    let experts = layer.shares.first().map_or(0, Vec::len);
    let known = |group: usize| of.tokens.get(group).is_some_and(|tokens| *tokens > 0);
    let column = |expert: usize| {
        let shares = layer.shares.iter().enumerate();
        shares.map(|(group, shares)| known(group).then(|| 100.0 * shares[expert])).collect::<Vec<Option<f64>>>()
    };
    let columns: Vec<Vec<Option<f64>>> = (0..experts).map(column).collect();
    let most = columns.iter().flatten().flatten().copied().fold(0.0f64, f64::max);
    let alike = 100.0 * layer.top_k as f64 / experts.max(1) as f64;
    let map = HeatMap {
        title: format!("Experts of layer {} by group of texts", layer.layer),
        desc: "A cell for each expert (from left to right) and group of texts (from top to bottom).".to_owned(),
        x_label: "expert".to_owned(),
        y_label: String::new(),
        rows: HeatRows::Named(of.groups.clone()),
        value_label: "tokens, %".to_owned(),
        columns,
        domain: [0.0, (most / 10.0).ceil().max(1.0) * 10.0],
    };
    let caption = format!(
        "Layer {}: percentage of a group’s tokens that use the expert. {} % each if all were used alike.",
        layer.layer,
        number(alike)
    );
    framed(&full_width(|width| heat_map(&map, width)), &text(&caption))
}

fn notes(of: &Analysis) -> Vec<String> {
    let router = &of.features.router;
    vec![
        format!(
            "{} texts, read with the prompt {} by {} ({}). Router numbers are {}.",
            count(of.texts as u64),
            of.features.prompt,
            of.spec.model,
            of.family,
            match router.source {
                super::super::RouterSource::Probabilities => "probabilities over all experts, before the best are chosen",
                super::super::RouterSource::Logits => "logits",
                super::super::RouterSource::Weights => "the weights of the experts in use",
            }
        ),
        "Similarities are cosines. Vectors are not scaled by feature. The paper gives neither the data nor the number of \
         clusters, nor its threshold of failing; what stands here is defined above."
            .to_owned(),
        format!("Written by lathe {}; `lathe embed analyse --json` prints every number.", of.lathe),
    ]
}

fn spread(of: &Spread) -> String {
    match (of.mean.value(), of.least.value(), of.most.value()) {
        (Some(mean), Some(least), Some(most)) => {
            format!("{} ({} to {})", number(mean), number(least), number(most))
        }
        _ => "–".to_owned(),
    }
}

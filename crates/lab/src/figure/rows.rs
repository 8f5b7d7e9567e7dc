//! One row per category, one mark per series: bars from zero, or dots with their intervals.

use super::SeriesStyle;
use super::axis::{Area, Axis, LABEL_SIZE, Rounding, draw_horizontal, draw_nothing, ticks_for};
use super::number::number;
use super::scale::{Scale, finite_extent};
use super::svg::{Anchor, Svg, fitted, text_width};

/// A chart with a row per category.
#[derive(Clone, Debug)]
pub struct RowChart {
    /// What it shows, said by a screen reader.
    pub title: String,
    /// How to read it, said by a screen reader.
    pub desc: String,
    /// The value axis; bars ignore its scale and start at zero.
    pub axis: Axis,
    /// The series; a legend is drawn where there are two or more.
    pub series: Vec<RowSeries>,
    /// From top to bottom; a heading is drawn where the group changes.
    pub rows: Vec<Row>,
    /// Bars or dots.
    pub style: RowStyle,
}

/// One series of a row chart.
#[derive(Clone, Debug)]
pub struct RowSeries {
    /// Its name in the legend.
    pub name: String,
    /// Its colour and marker.
    pub style: SeriesStyle,
}

/// The marks of a row chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStyle {
    /// A bar from zero: for amounts whose length can be compared.
    Bars,
    /// A marker with its interval: for estimates.
    Dots,
}

/// One category.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub label: String,
    /// The heading that it stands under; rows of one group are neighbours.
    pub group: String,
    /// One mark per series, in their order.
    pub marks: Vec<RowMark>,
}

/// The value of one series in one row.
#[derive(Clone, Debug, Default)]
pub struct RowMark {
    /// The value; nothing is drawn where it is missing, and a row without any says so.
    pub value: Option<f64>,
    /// 95 % interval of the value.
    pub interval: Option<[f64; 2]>,
    /// What a pointer shows.
    pub tip: String,
}

/// Height per series within a row.
const LANE: f64 = 10.0;

/// Draws the chart at a width in CSS pixels; its height follows from the rows.
#[must_use]
pub fn row_chart(chart: &RowChart, width: f64) -> String {
    let lanes = chart.series.len().max(1);
    let row_height = 10.0 + LANE * lanes as f64;
    let groups = 1 + chart.rows.windows(2).filter(|pair| pair[0].group != pair[1].group).count();
    let headings = if chart.rows.iter().any(|row| !row.group.is_empty()) { groups } else { 0 };
    let legend = Legend::new(&chart.series, width);
    let top = legend.height + 4.0;
    let bottom = top + row_height * chart.rows.len().max(1) as f64 + HEADING * headings as f64;
    let height = bottom + 34.0;

    let label_width = chart.rows.iter().map(|row| text_width(&row.label, LABEL_SIZE + 1.0)).fold(20.0, f64::max);
    let label_width = label_width.min(width * 0.36) + 8.0;
    // One series has its value written beside its mark; the widest of them needs its room.
    let value_width = if lanes == 1 { 40.0 } else { 8.0 };
    let area = Area { left: label_width, right: width - value_width, top, bottom };
    let wanted = ticks_for(area.right - area.left, 44.0);
    let mut axis = chart.axis.clone();
    if chart.style == RowStyle::Bars {
        axis.scale = super::AxisScale::FromZero;
    }
    let extent = extent(chart);
    let x = axis.scaled(axis.domain(extent, wanted, Rounding::ToTicks), [area.left, area.right]);

    let mut svg = Svg::new(width, height, &chart.title, &chart.desc);
    legend.draw(&mut svg);
    for tick in axis.tick_values(&x, wanted) {
        if let Some(at) = x.at(tick) {
            svg.line("grid", [at, area.top], [at, area.bottom]);
        }
    }
    let mut y = top;
    let mut group: Option<&str> = None;
    for row in &chart.rows {
        if group != Some(row.group.as_str()) && headings > 0 {
            svg.label("group", [0.0, y + HEADING - 5.0], Anchor::Start, &row.group);
            y += HEADING;
        }
        group = Some(&row.group);
        let label = fitted(&row.label, LABEL_SIZE + 1.0, label_width - 8.0);
        svg.label("category", [area.left - 8.0, y + row_height / 2.0 + 4.0], Anchor::End, &label);
        if row.marks.iter().all(|mark| mark.value.is_none()) {
            svg.label("tick", [area.left + 4.0, y + row_height / 2.0 + 3.8], Anchor::Start, "no value");
        }
        for (index, (mark, series)) in row.marks.iter().zip(&chart.series).enumerate() {
            let middle = y + 5.0 + LANE * (index as f64 + 0.5);
            draw_mark(&mut svg, chart.style, series.style, mark, &x, middle);
            if lanes == 1 {
                draw_value(&mut svg, mark, &x, middle);
            }
        }
        y += row_height;
    }
    draw_horizontal(&mut svg, &axis, &x, area, wanted);
    if extent.is_none() {
        draw_nothing(&mut svg, area);
    }
    svg.finish()
}

/// Height of a group heading.
const HEADING: f64 = 22.0;

fn extent(chart: &RowChart) -> Option<[f64; 2]> {
    let marks = chart.rows.iter().flat_map(|row| &row.marks).filter(|mark| mark.value.is_some());
    finite_extent(marks.flat_map(|mark| mark.value.into_iter().chain(mark.interval.into_iter().flatten())))
}

fn draw_mark(svg: &mut Svg, style: RowStyle, series: SeriesStyle, mark: &RowMark, x: &Scale, middle: f64) {
    let class = series.class();
    let Some((value, at)) = mark.value.and_then(|value| Some((value, x.at(value)?))) else { return };
    if style == RowStyle::Bars {
        let zero = x.at(0.0).unwrap_or(x.range()[0]);
        let half = LANE / 2.0 - 0.8;
        svg.rect(
            &format!("bar {class}"),
            [zero.min(at), middle - half],
            [if value == 0.0 { 0.0 } else { (at - zero).abs().max(1.0) }, 2.0 * half],
            &mark.tip,
        );
    }
    if let Some((Some(low), Some(high))) = mark.interval.map(|[low, high]| (x.at(low), x.at(high))) {
        svg.line(&format!("interval {class}"), [low, middle], [high, middle]);
    }
    if style == RowStyle::Dots {
        svg.marker(series.marker(), &format!("mark {class}"), [at, middle], 4.0, &mark.tip);
    }
}

fn draw_value(svg: &mut Svg, mark: &RowMark, x: &Scale, middle: f64) {
    let Some(value) = mark.value.filter(|value| value.is_finite()) else {
        return;
    };
    let furthest = mark.interval.map_or(value, |[_, high]| high.max(value));
    if let Some(at) = x.at(furthest) {
        svg.label("value", [at + 6.0, middle + 3.8], Anchor::Start, &number(value));
    }
}

/// Names of the series beside their markers, in as many lines as they need.
struct Legend {
    entries: Vec<(SeriesStyle, String, [f64; 2])>,
    height: f64,
}

impl Legend {
    fn new(series: &[RowSeries], width: f64) -> Self {
        if series.len() < 2 {
            return Self { entries: Vec::new(), height: 0.0 };
        }
        let mut at = [0.0, 12.0];
        let mut entries = Vec::new();
        for RowSeries { name, style } in series {
            let name = fitted(name, LABEL_SIZE + 1.0, width - 24.0);
            let needed = 16.0 + text_width(&name, LABEL_SIZE + 1.0);
            if at[0] > 0.0 && at[0] + needed > width {
                at = [0.0, at[1] + 18.0];
            }
            entries.push((*style, name, at));
            at[0] += needed + 18.0;
        }
        Self { entries, height: at[1] + 10.0 }
    }

    fn draw(&self, svg: &mut Svg) {
        for (style, name, [x, y]) in &self.entries {
            let class = style.class();
            svg.marker(style.marker(), &format!("mark {class}"), [x + 6.0, y - 4.0], 4.0, "");
            svg.label("category", [x + 16.0, *y], Anchor::Start, name);
        }
    }
}

//! Lines and points over two axes: a value by layer, a loss by frequency.

use super::SeriesStyle;
use super::axis::{Area, Axis, LABEL_SIZE, Rounding, draw_horizontal, draw_nothing, draw_vertical, ticks_for};
use super::scale::{Scale, finite_extent};
use super::svg::{Anchor, Svg, fitted, text_width};

/// A chart of series over a horizontal and a vertical axis.
#[derive(Clone, Debug)]
pub struct LineChart {
    /// What it shows, said by a screen reader.
    pub title: String,
    /// How to read it, said by a screen reader.
    pub desc: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// Horizontal lines with a name, such as a cap or a mean.
    pub references: Vec<Reference>,
    /// The vertical extent that charts beside each other share; the data's own where `None`.
    pub y_extent: Option<[f64; 2]>,
}

/// One named sequence of points.
#[derive(Clone, Debug)]
pub struct Series {
    /// The label at its right end.
    pub name: String,
    /// Its colour and marker.
    pub style: SeriesStyle,
    /// Whether neighbours are joined.
    pub draw: Draw,
    /// In the order of x.
    pub points: Vec<LinePoint>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// A line through the values, broken where one is missing; intervals form a band.
    Line,
    /// A marker for each value with its interval as a bar, and a faint line to guide the eye.
    Points,
    /// A marker for each value and nothing between them: values whose order means nothing.
    Marks,
}

/// One point.
#[derive(Clone, Debug)]
pub struct LinePoint {
    /// Position on the horizontal axis.
    pub x: f64,
    /// Value; a missing one is a gap.
    pub y: Option<f64>,
    /// 95 % interval of the value.
    pub interval: Option<[f64; 2]>,
    /// What a pointer shows; empty for nothing.
    pub tip: String,
}

/// A horizontal line with a name.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its label at the right end.
    pub name: String,
    /// Where it lies on the vertical axis.
    pub y: f64,
    /// Its colour and dash.
    pub style: SeriesStyle,
}

/// Draws the chart at a width in CSS pixels.
#[must_use]
pub fn line_chart(chart: &LineChart, width: f64) -> String {
    let height = (width * 0.62).clamp(180.0, 280.0);
    let labels = right_labels_width(chart, width);
    let mut area = Area { left: 0.0, right: width - labels, top: 24.0, bottom: height - 34.0 };
    let y_ticks = ticks_for(area.bottom - area.top, 30.0);
    let y_domain = chart.y.domain(chart.y_extent.or_else(|| y_extent(chart)), y_ticks, Rounding::ToTicks);
    area.left = chart.y.gutter(y_domain, y_ticks);
    let x_values = chart.series.iter().flat_map(|series| series.points.iter().map(|point| point.x));
    let x_domain = chart.x.domain(finite_extent(x_values), 8, Rounding::Exact);
    // Markers at the ends stay clear of the axis.
    let x = chart.x.scaled(x_domain, [area.left + 5.0, area.right - 5.0]);
    let y = chart.y.scaled(y_domain, [area.bottom, area.top]);

    let mut svg = Svg::new(width, height, &chart.title, &chart.desc);
    draw_vertical(&mut svg, &chart.y, &y, area, y_ticks);
    draw_horizontal(&mut svg, &chart.x, &x, area, ticks_for(area.right - area.left, 44.0));
    if y_extent(chart).is_none() {
        draw_nothing(&mut svg, area);
        return svg.finish();
    }
    for reference in &chart.references {
        if let Some(at) = y.at(reference.y) {
            svg.line(&format!("line {}", reference.style.class()), [area.left, at], [area.right, at]);
        }
    }
    for series in &chart.series {
        match series.draw {
            Draw::Line => draw_line(&mut svg, series, &x, &y),
            Draw::Points => {
                draw_guides(&mut svg, series, &x, &y);
                draw_marks(&mut svg, series, &x, &y);
            }
            Draw::Marks => draw_marks(&mut svg, series, &x, &y),
        }
    }
    draw_right_labels(&mut svg, chart, &y, area, width);
    svg.finish()
}

fn y_extent(chart: &LineChart) -> Option<[f64; 2]> {
    let values = chart.series.iter().flat_map(|series| {
        series.points.iter().flat_map(|point| {
            let interval = point.interval.filter(|_| point.y.is_some());
            point.y.into_iter().chain(interval.into_iter().flatten())
        })
    });
    let values = finite_extent(values)?;
    finite_extent(values.into_iter().chain(chart.references.iter().map(|reference| reference.y)))
}

fn right_labels_width(chart: &LineChart, width: f64) -> f64 {
    let names = chart.series.iter().map(|series| &series.name);
    let names = names.chain(chart.references.iter().map(|reference| &reference.name));
    let widest = names.map(|name| text_width(name, LABEL_SIZE)).fold(0.0, f64::max);
    (widest + 10.0).min(width * 0.3)
}

/// Runs of points whose values are present, in pixels.
fn runs(series: &Series, x: &Scale, y: &Scale) -> Vec<Vec<[f64; 2]>> {
    let mut runs = vec![Vec::new()];
    for point in &series.points {
        match (x.at(point.x), point.y.and_then(|value| y.at(value))) {
            (Some(at), Some(value)) => runs.last_mut().into_iter().for_each(|run| run.push([at, value])),
            _ => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

fn draw_line(svg: &mut Svg, series: &Series, x: &Scale, y: &Scale) {
    let class = series.style.class();
    let mut upper = Vec::new();
    let mut lower = Vec::new();
    for point in &series.points {
        let ends = point.interval.map(|[low, high]| (y.at(low), y.at(high)));
        if let (Some(at), Some((Some(low), Some(high)))) = (x.at(point.x), ends) {
            upper.push([at, high]);
            lower.push([at, low]);
        }
    }
    if upper.len() > 1 {
        upper.extend(lower.into_iter().rev());
        svg.path(&format!("band {class}"), &upper);
    }
    for run in runs(series, x, y) {
        if let [only] = run[..] {
            svg.marker(series.style.marker(), &format!("mark {class}"), only, 3.0, "");
        } else {
            svg.path(&format!("line {class}"), &run);
        }
    }
    // Invisible, wide targets: the numbers of a line are reachable by pointer.
    for point in series.points.iter().filter(|point| !point.tip.is_empty()) {
        if let (Some(at), Some(value)) = (x.at(point.x), point.y.and_then(|value| y.at(value))) {
            svg.rect("target", [at - 3.0, value - 8.0], [6.0, 16.0], &point.tip);
        }
    }
}

fn draw_guides(svg: &mut Svg, series: &Series, x: &Scale, y: &Scale) {
    for run in runs(series, x, y) {
        if run.len() > 1 {
            svg.path(&format!("guide {}", series.style.class()), &run);
        }
    }
}

fn draw_marks(svg: &mut Svg, series: &Series, x: &Scale, y: &Scale) {
    let class = series.style.class();
    for point in &series.points {
        let (Some(at), Some(value)) = (x.at(point.x), point.y.and_then(|value| y.at(value))) else {
            continue;
        };
        if let Some((Some(low), Some(high))) = point.interval.map(|[low, high]| (y.at(low), y.at(high))) {
            svg.line(&format!("interval {class}"), [at, low], [at, high]);
        }
        svg.marker(series.style.marker(), &format!("mark {class}"), [at, value], 3.6, &point.tip);
    }
}

/// Names at the right ends of lines, pushed apart where they would overlap.
fn draw_right_labels(svg: &mut Svg, chart: &LineChart, y: &Scale, area: Area, width: f64) {
    let last = |series: &Series| series.points.iter().rev().find_map(|point| y.at(point.y?));
    let series = chart.series.iter().filter_map(|series| Some((last(series)?, &series.name, series.style)));
    let references = chart.references.iter();
    let references = references.filter_map(|line| Some((y.at(line.y)?, &line.name, line.style)));
    let mut labels: Vec<_> = series.chain(references).filter(|(_, name, _)| !name.is_empty()).collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted: Vec<f64> = labels.iter().map(|label| label.0 + 3.8).collect();
    let room = width - area.right - 6.0;
    for ((_, name, style), at) in labels.iter().zip(spread(&wanted, LABEL_SIZE + 2.0, [area.top, area.bottom])) {
        let class = format!("direct {}", style.class());
        svg.label(&class, [area.right + 6.0, at], Anchor::Start, &fitted(name, LABEL_SIZE, room));
    }
}

/// Positions near the wanted ones, ascending, at least `gap` apart, within `bounds` where they fit.
fn spread(wanted: &[f64], gap: f64, bounds: [f64; 2]) -> Vec<f64> {
    let mut placed: Vec<f64> = Vec::with_capacity(wanted.len());
    for position in wanted {
        let free = placed.last().map_or(bounds[0], |last| last + gap);
        placed.push(position.max(free));
    }
    let mut ceiling = bounds[1].max(bounds[0] + gap * wanted.len() as f64);
    for position in placed.iter_mut().rev() {
        *position = position.min(ceiling);
        ceiling = *position - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pushed_apart_and_stay_inside() {
        let placed = spread(&[50.0, 51.0, 99.0, 100.0], 12.0, [0.0, 100.0]);
        assert!(placed.windows(2).all(|pair| pair[1] - pair[0] >= 11.999), "{placed:?}");
        assert!(placed.iter().all(|at| (0.0..=100.0).contains(at)), "{placed:?}");
        assert!(spread(&[], 12.0, [0.0, 1.0]).is_empty());
    }
}

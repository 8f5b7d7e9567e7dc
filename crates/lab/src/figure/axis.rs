//! The frame of a chart: its plot area, its two axes with ticks, and the unit of each.

use super::number::{count, number, tick_labels};
use super::scale::{Scale, nice_domain};
use super::svg::{Anchor, Svg, text_width};

/// Font size of tick labels and direct labels, in CSS pixels; the style sheet says the same.
pub(crate) const LABEL_SIZE: f64 = 11.0;

/// One axis of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows and in which unit: `surprisal (nats per token)`.
    pub label: String,
    /// How data become distances.
    pub scale: AxisScale,
    /// Where ticks may lie.
    pub ticks: Ticks,
}

/// How data become distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisScale {
    /// Equal differences are equal distances; the axis spans the data.
    Linear,
    /// As `Linear`, and zero is always on the axis.
    FromZero,
    /// Equal ratios are equal distances; only positive values can be drawn.
    Log,
}

/// Where ticks may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// At any round number.
    Any,
    /// At whole numbers only: layers, heads.
    Whole,
}

/// The rectangle that data are drawn in, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
}

impl Axis {
    /// Data at the ends of the axis: the extent of the data, to round numbers where the axis is a vertical one.
    pub(crate) fn domain(&self, extent: Option<[f64; 2]>, wanted: usize, round: Rounding) -> [f64; 2] {
        let Some([low, high]) = extent else {
            return if self.scale == AxisScale::Log { [1.0, 10.0] } else { [0.0, 1.0] };
        };
        match (self.scale, round) {
            (AxisScale::Log, _) => [low, high],
            (AxisScale::Linear, Rounding::ToTicks) => nice_domain([low, high], wanted),
            (AxisScale::Linear, Rounding::Exact) => [low, high],
            (AxisScale::FromZero, Rounding::ToTicks) => nice_domain([low.min(0.0), high.max(0.0)], wanted),
            (AxisScale::FromZero, Rounding::Exact) => [low.min(0.0), high.max(0.0)],
        }
    }

    pub(crate) fn scaled(&self, domain: [f64; 2], range: [f64; 2]) -> Scale {
        if self.scale == AxisScale::Log { Scale::log(domain, range) } else { Scale::linear(domain, range) }
    }

    pub(crate) fn tick_values(&self, scale: &Scale, wanted: usize) -> Vec<f64> {
        let ticks = scale.ticks(wanted);
        match self.ticks {
            Ticks::Any => ticks,
            Ticks::Whole => ticks.into_iter().filter(|tick| tick.fract().abs() < 1e-6).map(f64::round).collect(),
        }
    }

    fn labels(&self, ticks: &[f64]) -> Vec<String> {
        match (self.ticks, self.scale) {
            (Ticks::Whole, _) => ticks.iter().map(|tick| whole(*tick)).collect(),
            (Ticks::Any, AxisScale::Log) => ticks.iter().map(|tick| whole(*tick)).collect(),
            (Ticks::Any, _) => tick_labels(ticks),
        }
    }

    /// Room that the tick labels of a vertical axis need, in pixels.
    pub(crate) fn gutter(&self, domain: [f64; 2], wanted: usize) -> f64 {
        let ticks = self.tick_values(&self.scaled(domain, [0.0, 1.0]), wanted);
        self.labels(&ticks).iter().map(|label| text_width(label, LABEL_SIZE)).fold(10.0, f64::max) + 6.0
    }
}

/// Whether the ends of an axis move outwards to ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    ToTicks,
    Exact,
}

/// Draws the horizontal axis below the area: ticks, their labels, the axis label beneath.
pub(crate) fn draw_horizontal(svg: &mut Svg, axis: &Axis, scale: &Scale, area: Area, wanted: usize) {
    svg.line("axis", [area.left, area.bottom], [area.right, area.bottom]);
    let ticks = axis.tick_values(scale, wanted);
    let mut free_from = f64::NEG_INFINITY;
    for (tick, label) in ticks.iter().zip(axis.labels(&ticks)) {
        let Some(x) = scale.at(*tick) else { continue };
        svg.line("axis", [x, area.bottom], [x, area.bottom + 4.0]);
        let half = text_width(&label, LABEL_SIZE) / 2.0;
        if x - half >= free_from {
            svg.label("tick", [x, area.bottom + 15.0], Anchor::Middle, &label);
            free_from = x + half + 4.0;
        }
    }
    svg.label("axis-label", [area.right, area.bottom + 29.0], Anchor::End, &axis.label);
}

/// Draws the vertical axis left of the area: a faint line per tick, labels outside, the axis label above.
pub(crate) fn draw_vertical(svg: &mut Svg, axis: &Axis, scale: &Scale, area: Area, wanted: usize) {
    let ticks = axis.tick_values(scale, wanted);
    for (tick, label) in ticks.iter().zip(axis.labels(&ticks)) {
        let Some(y) = scale.at(*tick) else { continue };
        svg.line("grid", [area.left, y], [area.right, y]);
        svg.label("tick", [area.left - 6.0, y + 3.8], Anchor::End, &label);
    }
    svg.label("axis-label", [0.0, 11.0], Anchor::Start, &axis.label);
}

/// Says inside the area that there is nothing to draw.
pub(crate) fn draw_nothing(svg: &mut Svg, area: Area) {
    let middle = [(area.left + area.right) / 2.0, (area.top + area.bottom) / 2.0];
    svg.label("tick", middle, Anchor::Middle, "no values");
}

/// Ticks that fit a length without crowding.
pub(crate) fn ticks_for(length: f64, each: f64) -> usize {
    ((length / each) as usize).clamp(3, 10)
}

fn whole(tick: f64) -> String {
    if tick.fract() == 0.0 && (0.0..1e9).contains(&tick) { count(tick as u64) } else { number(tick) }
}

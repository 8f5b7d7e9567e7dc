//! A heat map in a few colour steps with a legend: a value for each layer and head.

use std::fmt::Write as _;

use super::axis::{Area, Axis, AxisScale, LABEL_SIZE, Ticks, draw_horizontal, ticks_for};
use super::number::{number, tick_labels};
use super::scale::Scale;
use super::svg::{Anchor, Svg, fitted, text_width};

/// Colour steps of a heat map. Few enough that a reader can match a cell to the legend.
pub const HEAT_STEPS: usize = 8;

/// Font size that the names of rows have room for: a little more than they have, because fonts differ.
const NAME_SIZE: f64 = LABEL_SIZE + 1.0;

/// A matrix shown as coloured cells.
#[derive(Clone, Debug)]
pub struct HeatMap {
    /// What it shows, said by a screen reader.
    pub title: String,
    /// How to read it, said by a screen reader.
    pub desc: String,
    /// What the columns are.
    pub x_label: String,
    /// What the rows are.
    pub y_label: String,
    /// What stands beside each of them.
    pub rows: HeatRows,
    /// What the colour is and its unit.
    pub value_label: String,
    /// `[columns][rows]`; columns may differ in length, and missing values are outlined.
    pub columns: Vec<Vec<Option<f64>>>,
    /// The values of the first and the last colour; values beyond take the end colours.
    pub domain: [f64; 2],
}

/// What stands beside the rows of a heat map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeatRows {
    /// Their numbers, from 0, where there is room.
    Numbered,
    /// A name for each.
    Named(Vec<String>),
}

/// Draws the heat map at a width in CSS pixels; its height follows from the rows.
#[must_use]
pub fn heat_map(map: &HeatMap, width: f64) -> String {
    let columns = map.columns.len();
    let rows = map.columns.iter().map(Vec::len).max().unwrap_or(0);
    let left = match &map.rows {
        HeatRows::Numbered => 26.0,
        HeatRows::Named(names) => {
            names.iter().map(|name| text_width(name, NAME_SIZE)).fold(20.0, f64::max).min(width / 3.0) + 6.0
        }
    };
    let cell_width = ((width - left - 4.0) / columns.max(1) as f64).min(36.0);
    let cell_height = match &map.rows {
        HeatRows::Numbered => (340.0 / rows.max(1) as f64).clamp(3.0, 16.0),
        // A name needs the height of its letters.
        HeatRows::Named(_) => 17.0,
    };
    let top = if map.y_label.is_empty() { 34.0 } else { 50.0 };
    let right = left + cell_width * columns.max(1) as f64;
    let area = Area { left, right, top, bottom: top + cell_height * rows.max(1) as f64 };
    let height = area.bottom + 34.0;

    let mut svg = Svg::new(width, height, &map.title, &map.desc);
    draw_legend(&mut svg, map, width);
    svg.label("axis-label", [0.0, top - 6.0], Anchor::Start, &map.y_label);
    for (column, values) in map.columns.iter().enumerate() {
        for (row, value) in values.iter().enumerate() {
            let at = [left + cell_width * column as f64, top + cell_height * row as f64];
            // Cells that are large enough have a hairline between them.
            let gap = if cell_width.min(cell_height) >= 6.0 { 0.8 } else { 0.0 };
            let size = [cell_width - gap, cell_height - gap];
            let mut tip = match &map.rows {
                HeatRows::Numbered => format!("{} {column}, {} {row}: ", map.x_label, map.y_label),
                HeatRows::Named(names) => {
                    format!("{} {column}, {}: ", map.x_label, names.get(row).map_or("", String::as_str))
                }
            };
            match value.filter(|value| value.is_finite()) {
                Some(value) => {
                    let _ = write!(tip, "{}", number(value));
                    svg.rect(&format!("h{}", step(map.domain, value)), at, size, &tip);
                }
                None => {
                    tip.push_str("no value");
                    svg.rect("hole", at, size, &tip);
                }
            }
        }
    }
    // Ticks lie in the middle of their cells.
    let x = Axis { label: map.x_label.clone(), scale: AxisScale::Linear, ticks: Ticks::Whole };
    let x_scale = centred(columns, [area.left, area.right]);
    draw_horizontal(&mut svg, &x, &x_scale, area, ticks_for(area.right - area.left, 44.0));
    draw_row_labels(&mut svg, map, &centred(rows, [area.top, area.bottom]), area);
    svg.finish()
}

fn draw_row_labels(svg: &mut Svg, map: &HeatMap, y_scale: &Scale, area: Area) {
    let labels: Vec<(f64, String)> = match &map.rows {
        HeatRows::Numbered => {
            let y = Axis { label: map.y_label.clone(), scale: AxisScale::Linear, ticks: Ticks::Whole };
            let ticks = y.tick_values(y_scale, ticks_for(area.bottom - area.top, 30.0));
            ticks.into_iter().map(|tick| (tick, number_of(tick))).collect()
        }
        HeatRows::Named(names) => {
            let fit = |name: &String| fitted(name, NAME_SIZE, area.left - 5.0);
            names.iter().enumerate().map(|(row, name)| (row as f64, fit(name))).collect()
        }
    };
    for (row, label) in labels {
        if let Some(at) = y_scale.at(row) {
            svg.label("tick", [area.left - 5.0, at + 3.8], Anchor::End, &label);
        }
    }
}

/// Which of the colour steps a value falls into.
fn step([low, high]: [f64; 2], value: f64) -> usize {
    let share = (value - low) / (high - low);
    if share.is_finite() { ((share * HEAT_STEPS as f64) as usize).min(HEAT_STEPS - 1) } else { 0 }
}

fn centred(cells: usize, [from, to]: [f64; 2]) -> Scale {
    let last = cells.max(1) as f64;
    Scale::linear([-0.5, last - 0.5], [from, to])
}

fn number_of(tick: f64) -> String {
    format!("{}", tick.max(0.0) as u64)
}

fn draw_legend(svg: &mut Svg, map: &HeatMap, width: f64) {
    let [low, high] = map.domain;
    let left = text_width(&map.value_label, LABEL_SIZE) + 12.0;
    let cell = ((width - left - 14.0) / HEAT_STEPS as f64).clamp(4.0, 26.0);
    svg.label("axis-label", [0.0, 11.0], Anchor::Start, &map.value_label);
    for index in 0..HEAT_STEPS {
        svg.rect(&format!("h{index}"), [left + cell * index as f64, 2.0], [cell, 10.0], "");
    }
    let shares = [0.0, 0.5, 1.0];
    for (share, label) in shares.into_iter().zip(tick_labels(&shares.map(|share| low + (high - low) * share))) {
        svg.label("tick", [left + cell * HEAT_STEPS as f64 * share, 12.0 + LABEL_SIZE], Anchor::Middle, &label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_the_domain() {
        assert_eq!(step([0.0, 1.0], 0.0), 0);
        assert_eq!(step([0.0, 1.0], 0.13), 1);
        assert_eq!(step([0.0, 1.0], 1.0), HEAT_STEPS - 1);
        assert_eq!(step([0.0, 1.0], 7.0), HEAT_STEPS - 1);
        assert_eq!(step([0.0, 1.0], -7.0), 0);
        assert_eq!(step([0.0, 0.0], 0.0), 0);
    }
}

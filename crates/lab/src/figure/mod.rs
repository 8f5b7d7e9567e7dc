//! Figures as SVG text: three charts over one set of scales, axes and number formats.
//!
//! A figure is a pure function of its data and a width in CSS pixels: no clock, no random draw, no font metrics of the
//! machine, so the same report gives the same bytes everywhere. Colours are CSS classes ([`STYLE`]), so that one figure
//! serves light, dark and print. A missing or non-finite value is a gap, never a zero.

mod axis;
mod heat;
mod lines;
mod number;
mod rows;
mod scale;
mod svg;

pub use axis::{Axis, AxisScale, Ticks};
pub use heat::{HEAT_STEPS, HeatMap, HeatRows, heat_map};
pub use lines::{Draw, LineChart, LinePoint, Reference, Series, line_chart};
pub use number::{bytes, compact, cosine, count, mean_and_sd, measured, number, percent, share, tick_labels, value};
pub use rows::{Row, RowChart, RowMark, RowSeries, RowStyle, row_chart};
pub use scale::{Scale, finite_extent, linear_ticks, log_ticks};
pub use svg::{escape, text_width, visible};

/// The style sheet that figures need: classes of marks, text and colour steps over the page's custom properties.
pub const STYLE: &str = include_str!("figure.css");

/// Width of a figure that fills a phone, or half of a wide column, in CSS pixels.
pub const NARROW: f64 = 336.0;

/// Width of a figure that fills a wide column: two narrow ones and the gap between them, in CSS pixels.
pub const WIDE: f64 = 688.0;

/// How many series colours and markers the style sheet has; further series repeat them.
pub const SERIES_STYLES: usize = 6;

/// The look of a series: its colour class, its marker and its dash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesStyle {
    /// The n-th measured series, counted from 0; the same model has the same number in every figure.
    Model(usize),
    /// A control or null value: grey.
    Null,
    /// A bound that no value can pass: grey and dashed.
    Bound,
}

impl SeriesStyle {
    fn class(self) -> String {
        match self {
            Self::Model(index) => format!("m{}", index % SERIES_STYLES),
            Self::Null => "null".to_owned(),
            Self::Bound => "bound".to_owned(),
        }
    }

    /// Which marker shape it has.
    fn marker(self) -> usize {
        match self {
            Self::Model(index) => index,
            Self::Null | Self::Bound => 0,
        }
    }
}

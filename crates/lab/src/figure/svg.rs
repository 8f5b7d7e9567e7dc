//! Writing SVG text: escaping, coordinates and the elements that the charts use.

use std::fmt::Write as _;

/// Text that is safe in HTML and SVG, as element content and inside double quotes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

/// Text with every character that would be invisible, or would reorder its neighbours, replaced by a visible sign.
/// Spaces stay, except that a text of nothing but spaces shows each as ␣. Signs are ones that most fonts have.
#[must_use]
pub fn visible(text: &str) -> String {
    let only_spaces = !text.is_empty() && text.chars().all(|c| c == ' ');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' if only_spaces => shown.push('␣'),
            '\n' => shown.push('↵'),
            '\t' => shown.push('⇥'),
            // Format characters: soft hyphen, zero widths, directional marks and overrides, byte-order mark.
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => name(c, &mut shown),
            '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => name(c, &mut shown),
            c if c.is_control() => name(c, &mut shown),
            c => shown.push(c),
        }
    }
    shown
}

fn name(c: char, shown: &mut String) {
    let _ = write!(shown, "⟨U+{:04X}⟩", c as u32);
}

/// About how wide a text is at a font size, in the unit of the size; generous for Latin, one em for wide scripts.
#[must_use]
pub fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' | '.' | ',' | ':' | ';' | '|' | '\'' | ' ' | '(' | ')' => 0.4,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.92,
            c if c.is_ascii_uppercase() => 0.7,
            c if (c as u32) < 0x1100 => 0.62,
            _ => 1.0,
        })
        .sum();
    ems * size
}

/// The text cut to a width, with an ellipsis where something was cut.
pub(crate) fn fitted(text: &str, size: f64, width: f64) -> String {
    let text = visible(text);
    if text_width(&text, size) <= width {
        return text;
    }
    let mut cut = String::new();
    for c in text.chars() {
        cut.push(c);
        if text_width(&cut, size) > width - size {
            cut.pop();
            break;
        }
    }
    format!("{}…", cut.trim_end())
}

/// Which end of a text lies at its position.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// An SVG document under construction.
#[derive(Debug)]
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    /// `title` and `desc` are what a screen reader says of the figure.
    pub(crate) fn new(width: f64, height: f64, title: &str, desc: &str) -> Self {
        let [width, height] = [coordinate(width), coordinate(height)];
        let [title, desc] = [title, desc].map(|text| escape(&visible(text)));
        let text = format!(
            "<svg class=\"figure\" role=\"img\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             aria-label=\"{title}\"><title>{title}</title><desc>{desc}</desc>"
        );
        Self { text }
    }

    pub(crate) fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2]) {
        let [x1, y1, x2, y2] = [from[0], from[1], to[0], to[1]].map(coordinate);
        let _ = write!(self.text, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    pub(crate) fn label(&mut self, class: &str, at: [f64; 2], anchor: Anchor, label: &str) {
        let [x, y] = at.map(coordinate);
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let label = escape(&visible(label));
        let _ = write!(self.text, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}>{label}</text>");
    }

    /// A rectangle; a tip is what a pointer shows and a screen reader says.
    pub(crate) fn rect(&mut self, class: &str, at: [f64; 2], size: [f64; 2], tip: &str) {
        let [x, y, width, height] = [at[0], at[1], size[0].max(0.0), size[1].max(0.0)].map(coordinate);
        let _ = write!(
            self.text,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"{}",
            closing("rect", tip)
        );
    }

    /// An open line through points, or a filled area when the class fills it.
    pub(crate) fn path(&mut self, class: &str, points: &[[f64; 2]]) {
        let mut d = String::new();
        for (index, point) in points.iter().enumerate() {
            let [x, y] = point.map(coordinate);
            let _ = write!(d, "{}{x} {y}", if index == 0 { "M" } else { "L" });
        }
        let _ = write!(self.text, "<path class=\"{class}\" d=\"{d}\"/>");
    }

    /// The marker of a series: six shapes, so that colour is never the only difference.
    pub(crate) fn marker(&mut self, index: usize, class: &str, [x, y]: [f64; 2], radius: f64, tip: &str) {
        let r = radius;
        let polygon: &[[f64; 2]] = match index % super::SERIES_STYLES {
            0 => {
                let [cx, cy, r] = [x, y, r].map(coordinate);
                let tip = closing("circle", tip);
                let _ = write!(self.text, "<circle class=\"{class}\" cx=\"{cx}\" cy=\"{cy}\" r=\"{r}\"{tip}");
                return;
            }
            1 => &[[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]],
            2 => &[[0.0, -1.15], [1.1, 0.85], [-1.1, 0.85]],
            3 => &[[0.0, -1.25], [1.25, 0.0], [0.0, 1.25], [-1.25, 0.0]],
            4 => &[[0.0, 1.15], [1.1, -0.85], [-1.1, -0.85]],
            _ => &[[-1.2, -0.55], [1.2, -0.55], [1.2, 0.55], [-1.2, 0.55]],
        };
        let points: Vec<String> =
            polygon.iter().map(|[dx, dy]| format!("{},{}", coordinate(x + dx * r), coordinate(y + dy * r))).collect();
        let tip = closing("polygon", tip);
        let _ = write!(self.text, "<polygon class=\"{class}\" points=\"{}\"{tip}", points.join(" "));
    }

    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

fn closing(element: &str, tip: &str) -> String {
    if tip.is_empty() { "/>".to_owned() } else { format!("><title>{}</title></{element}>", escape(&visible(tip))) }
}

/// Tenths of a pixel without trailing zeros.
fn coordinate(value: f64) -> String {
    let tenths = (value * 10.0).round() + 0.0;
    if tenths % 10.0 == 0.0 { format!("{:.0}", tenths / 10.0) } else { format!("{:.1}", tenths / 10.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_covers_markup_and_quotes() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }

    #[test]
    fn invisible_characters_become_visible() {
        assert_eq!(visible(" a\n\tb\u{0}\u{202e}"), " a↵⇥b⟨U+0000⟩⟨U+202E⟩");
        assert_eq!(visible("  "), "␣␣");
        assert_eq!(visible(""), "");
    }

    #[test]
    fn a_long_label_is_cut_to_its_width() {
        let cut = fitted("a-very-long-model-name-indeed", 10.0, 80.0);
        assert!(cut.ends_with('…') && text_width(&cut, 10.0) <= 80.0, "{cut}");
        assert_eq!(fitted("short", 10.0, 80.0), "short");
    }

    #[test]
    fn coordinates_have_no_negative_zero() {
        assert_eq!(coordinate(-0.01), "0");
        assert_eq!(coordinate(12.34), "12.3");
        assert_eq!(coordinate(12.0), "12");
    }
}

//! Picture of how the time for each child grows with the number of children, as SVG.

use std::fmt::Write;

use crate::report::short;

/// One workload: its name, and the microseconds for each child, ours and bare, for each number of
/// children.
pub(crate) struct Panel<'a> {
    pub(crate) name: &'a str,
    pub(crate) ours: Vec<f64>,
    pub(crate) bare: Vec<f64>,
}

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 170.0;
/// What stands beside the plot in each panel: left, above, right and below.
const MARGINS: [f64; 4] = [44.0, 30.0, 56.0, 26.0];

/// Draws the panels two in a row. There are no blank lines: in Markdown, one would end the picture.
pub(crate) fn draw(sizes: &[usize], panels: &[Panel<'_>]) -> String {
    let rows = panels.len().div_ceil(2);
    let (width, height) = (2.0 * WIDTH, rows as f64 * HEIGHT + 24.0);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"100%\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"currentColor\">\n\
         <title>Time for each child against the number of children, ours and bare</title>\n"
    );
    for (place, panel) in panels.iter().enumerate() {
        let (column, row) = (place % 2, place / 2);
        let (x, y) = (column as f64 * WIDTH, row as f64 * HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        draw_panel(&mut svg, sizes, panel);
        svg.push_str("</g>\n");
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">children; µs for each child: <tspan \
         fill=\"{OURS}\">ours</tspan>, <tspan fill=\"{BARE}\">bare threads</tspan></text>",
        width / 2.0,
        height - 8.0
    );
    svg.push_str("</svg>\n");
    svg
}

/// Both can be told from one another and read on light and on dark ground.
const OURS: &str = "#d9480f";
const BARE: &str = "#1c7ed6";

fn draw_panel(svg: &mut String, sizes: &[usize], panel: &Panel<'_>) {
    let Panel { name, ours, bare } = panel;
    let [left, above, right, below] = MARGINS;
    let (width, height) = (WIDTH - left - right, HEIGHT - above - below);
    let most = ours.iter().chain(bare).copied().fold(f64::MIN_POSITIVE, f64::max);
    let at = |place: usize| left + width * place as f64 / (sizes.len() - 1).max(1) as f64;
    let up = |value: f64| above + height * (1.0 - value / most);
    let bottom = above + height;
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"16\" font-weight=\"bold\">{name}</text>");
    let _ = writeln!(
        svg,
        "<path d=\"M{left} {above}V{bottom}H{}\" fill=\"none\" stroke=\"currentColor\" \
         stroke-opacity=\"0.5\"/>",
        left + width
    );
    for (value, y) in [(most, above + 4.0), (0.0, bottom + 4.0)] {
        let (x, value) = (left - 6.0, short(value));
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{value}</text>");
    }
    for (place, size) in sizes.iter().enumerate() {
        let (x, y) = (at(place), bottom + 15.0);
        let _ = writeln!(svg, "<text x=\"{x:.0}\" y=\"{y}\" text-anchor=\"middle\">{size}</text>");
    }
    // So that the last values do not cover one another.
    let (last_ours, last_bare) = (ours.last().copied(), bare.last().copied());
    let is_close = |y: f64, other: f64| (y - other).abs() < 12.0;
    for (values, colour, last, other) in
        [(ours, OURS, last_ours, last_bare), (bare, BARE, last_bare, last_ours)]
    {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(place, value)| format!("{:.1},{:.1}", at(place), up(*value)))
            .collect();
        let points = points.join(" ");
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let (Some(last), Some(other)) = (last, other) else { continue };
        let aside = match is_close(up(last), up(other)) {
            true if last >= other => -4.0,
            true => 8.0,
            false => 0.0,
        };
        let (x, y) = (left + width + 6.0, up(last) + 4.0 + aside);
        let _ =
            writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>", short(last));
    }
}

//! Curves as pictures: one SVG file for each, a small panel for each figure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::scale::FIGURES;

const FOLDER: &str = "docs/performance";
const WIDTH: f64 = 210.0;
const HEIGHT: f64 = 130.0;
const MARGIN: f64 = 30.0;

/// Draws each figure over the logarithm of what was varied, from zero up, into `docs/performance/{name}.svg`.
pub fn draw(name: &str, axis: &str, points: &[(u64, BTreeMap<&'static str, f64>)]) -> Result<()> {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" font-family=\"sans-serif\" \
         font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        FIGURES.len() as f64 * (WIDTH + MARGIN) + MARGIN,
        HEIGHT + 3.0 * MARGIN
    );
    for (number, (key, title)) in FIGURES.into_iter().enumerate() {
        let values: Vec<(u64, f64)> =
            points.iter().filter_map(|(at, figures)| Some((*at, *figures.get(key)?))).collect();
        panel(&mut svg, MARGIN + number as f64 * (WIDTH + MARGIN), title, axis, &values);
    }
    svg.push_str("</svg>\n");
    fs::create_dir_all(FOLDER)?;
    let path = Path::new(FOLDER).join(format!("{name}.svg"));
    fs::write(&path, svg).with_context(|| path.display().to_string())
}

fn panel(svg: &mut String, left: f64, title: &str, axis: &str, values: &[(u64, f64)]) {
    let logs: Vec<f64> = values.iter().map(|(at, _)| (*at as f64).ln()).collect();
    let (least, most) = (logs.first().copied().unwrap_or(0.0), logs.last().copied().unwrap_or(1.0));
    let top = values.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    let (roof, floor) = (MARGIN, MARGIN + HEIGHT);
    let x = |log: f64| left + 10.0 + (log - least) / (most - least).max(1e-9) * (WIDTH - 40.0);
    let y = |value: f64| floor - value / top * HEIGHT;
    _ = writeln!(svg, "<text x=\"{left:.0}\" y=\"{:.0}\" font-weight=\"bold\">{title}</text>", roof - 10.0);
    _ = writeln!(
        svg,
        "<path d=\"M{left:.0} {roof:.0}V{floor:.0}H{:.0}\" fill=\"none\" stroke=\"#999\"/>",
        left + WIDTH
    );
    let line: Vec<String> =
        logs.iter().zip(values).map(|(log, (_, value))| format!("{:.1},{:.1}", x(*log), y(*value))).collect();
    _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1664c0\" stroke-width=\"2\"/>", line.join(" "));
    for (log, (at, value)) in logs.iter().zip(values) {
        let (x, y) = (x(*log), y(*value));
        _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1664c0\"/>");
        let digits = match *value {
            small if small < 0.1 => 4,
            middling if middling < 20.0 => 2,
            _ => 0,
        };
        _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.digits$}</text>", y - 7.0);
        _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at}</text>", floor + 14.0);
    }
    _ = writeln!(svg, "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{axis}</text>", left + WIDTH, floor + 28.0);
}

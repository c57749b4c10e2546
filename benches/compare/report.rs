//! What was found: medians with their spread, as a table, as JSON and as a plot.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What one subject took for one shape, round by round, in microseconds.
pub struct Series {
    pub shape: &'static str,
    pub subject: String,
    pub rounds: Vec<f64>,
}

/// The value below which this share of all values lies.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The middle half of the values, as a share of their median.
fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / median(values)
}

/// The first subject's time over another's, round by round: both ran within seconds of each other.
fn ratios(first: &Series, other: &Series) -> Vec<f64> {
    first.rounds.iter().zip(&other.rounds).map(|(first, other)| first / other).collect()
}

/// The series of each shape; the first one of each is what the others are compared with.
fn by_shape(series: &[Series]) -> Vec<&[Series]> {
    series.chunk_by(|a, b| a.shape == b.shape).collect()
}

/// A table in Markdown: microseconds and their spread, and in brackets the first subject's share of it.
pub fn table(series: &[Series]) -> String {
    let shapes = by_shape(series);
    let names: Vec<&str> = shapes[0].iter().map(|series| series.subject.as_str()).collect();
    let mut text = format!("| µs | {} |\n|{}\n", names.join(" | "), "---|".repeat(names.len() + 1));
    for shape in shapes {
        write!(text, "| {} |", shape[0].shape).unwrap();
        for series in shape {
            let half = spread(&series.rounds) * 50.0;
            write!(text, " {:.1} ±{half:.0} %", median(&series.rounds)).unwrap();
            if series.subject != shape[0].subject {
                write!(text, " (**{:.2}**)", median(&ratios(&shape[0], series))).unwrap();
            }
            text.push_str(" |");
        }
        text.push('\n');
    }
    text
}

pub fn json(series: &[Series]) -> Value {
    let shapes = by_shape(series).into_iter().map(|shape| {
        let subjects = shape.iter().map(|series| {
            let ratios = ratios(&shape[0], series);
            json!({
                "subject": series.subject,
                "microseconds": series.rounds,
                "median": median(&series.rounds),
                "ratio": { "median": median(&ratios), "quartiles": [quantile(&ratios, 0.25), quantile(&ratios, 0.75)] },
            })
        });
        json!({ "shape": shape[0].shape, "subjects": subjects.collect::<Vec<_>>() })
    });
    shapes.collect()
}

/// Bars of processor time, relative to the first subject's; what is longer than the page is cut.
pub fn plot(series: &[Series]) -> String {
    const COLOURS: [&str; 6] = ["#1b7f5c", "#8c6bb1", "#4a90c2", "#d08a2e", "#9b9b9b", "#c2574a"];
    const UNIT: f64 = 150.0;
    const LIMIT: f64 = 4.0;
    let mut bars = String::new();
    let mut y = 34.0;
    for shape in by_shape(series) {
        writeln!(bars, "<text x=\"150\" y=\"{:.0}\" text-anchor=\"end\">{}</text>", y + 10.0, shape[0].shape).unwrap();
        for (series, colour) in shape.iter().zip(COLOURS) {
            let times = 1.0 / median(&ratios(&shape[0], series));
            let width = times.min(LIMIT) * UNIT;
            writeln!(bars, "<rect x=\"160\" y=\"{y:.0}\" width=\"{width:.0}\" height=\"12\" fill=\"{colour}\"/>")
                .unwrap();
            let label = format!("{} {:.1} µs", series.subject, median(&series.rounds));
            writeln!(bars, "<text x=\"{:.0}\" y=\"{:.0}\" class=\"small\">{label}</text>", 166.0 + width, y + 10.0)
                .unwrap();
            y += 14.0;
        }
        y += 12.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"920\" height=\"{y:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<style>.small {{ font-size: 10px }}</style>\n\
         <text x=\"160\" y=\"20\">Processor time for each request, relative to patgate's (less is better)</text>\n{bars}</svg>\n"
    )
}

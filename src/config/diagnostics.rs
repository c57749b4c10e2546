//! What the program says of itself on standard error, and how.

use tracing_subscriber::EnvFilter;

/// The settings of the diagnostics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// Which events are written: a level, and other levels for parts of the program.
    pub filter: String,
    /// In which form.
    pub format: Format,
}

/// The form of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people if standard error is a terminal, else for programs.
    Auto,
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a filter: levels, and `target=level` for parts, separated by commas alone.
pub(super) fn filter(text: &str) -> Result<String, String> {
    let advice =
        "write error, warn, info, debug, trace or off, and `target=level` for parts, as in info,patgate::source=debug";
    // the library takes any other word for a target, and would then say nothing of all others
    let unknown = text.split(',').find(|part| !part.contains(['=', '[']) && !LEVELS.contains(part));
    if let Some(unknown) = unknown {
        return Err(format!("`{unknown}` is not a level: {advice}"));
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("not a filter ({error}): {advice}")),
    }
}

pub(super) fn format(text: &str) -> Result<Format, String> {
    match text {
        "auto" => Ok(Format::Auto),
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("`{text}` is not a form: write auto, text or json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_as_people_write_them() {
        for good in [
            "info",
            "off",
            "warn,patgate=debug",
            "debug,h2=off",
            "info,patgate::source=trace",
            "info,[span{x=1}]=trace",
        ] {
            assert_eq!(filter(good).as_deref(), Ok(good));
        }
        for bad in ["", "inof", "INFO", "info,patgate", "patgate=loud", "info;debug", "info, debug", "5"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}

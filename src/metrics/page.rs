//! The page that a scrape gets, in the text format of Prometheus (version 0.0.4), which everything reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Histogram;

/// The media type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What all names begin with.
const PREFIX: &str = "patgate";

/// One page in the making. A metric is written whole, with all its labels, before the next one.
#[derive(Debug)]
pub struct Page<'p>(DescriptorEncoder<'p>);

/// Writes the page that `tell` fills.
///
/// # Errors
/// What `tell` returns; writing itself does not fail.
pub fn write(tell: impl Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Told(tell)));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    Ok(text)
}

struct Told<T>(T);

impl<T> fmt::Debug for Told<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl<T: Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static> Collector for Told<T> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Page(encoder))
    }
}

impl Page<'_> {
    /// A number that only grows; its name ends in `_total`.
    ///
    /// # Errors
    /// None in practice, as with all that follow.
    pub fn counter(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue + Copy) -> fmt::Result {
        self.family(name, help, MetricType::Counter)?.encode_gauge(&value)
    }

    /// The same with labels.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.values(name, help, MetricType::Counter, values)
    }

    /// A number that goes up and down.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue + Copy) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// The same with labels.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.values(name, help, MetricType::Gauge, values)
    }

    /// How long things took, in seconds.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        encode(&mut self.family(name, help, MetricType::Histogram)?, histogram)
    }

    /// The same with labels.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn histograms<'h, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        histograms: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        histograms
            .into_iter()
            .try_for_each(|(labels, histogram)| encode(&mut family.encode_family(&labels)?, histogram))
    }

    fn values<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, kind)?;
        values.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// The library writes OpenMetrics, where the name of a counter's family lacks the `_total` of its
    /// samples; in the text format of Prometheus both have it. So the family is named in full here, and
    /// its samples are written under just that name, as those of a gauge are.
    fn family<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

fn encode(metric: &mut MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let (buckets, seconds) = histogram.read();
    // counted from the buckets that are shown, so that a page never contradicts itself
    let count = buckets.iter().map(|(_, count)| count).sum();
    metric.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_is_in_the_text_format_of_prometheus() {
        const BOUNDS: &[Duration] = &[Duration::from_millis(500)];
        let text = write(|page| {
            page.counter("losses_total", "What is lost.", 3_u64)?;
            page.counters("requests_total", "Requests.", [([("reason", "ok")], 7), ([("reason", "a \"b\"\\\n")], 0)])?;
            page.gauge("age_seconds", "Its age.", 0.25)?;
            let histogram = Histogram::new(BOUNDS);
            histogram.observe(Duration::from_millis(250));
            histogram.observe(Duration::from_secs(1));
            page.histograms("wait_seconds", "Waiting.", [([("outcome", "allowed")], &histogram)])
        });
        let expected = "\
# HELP patgate_losses_total What is lost.
# TYPE patgate_losses_total counter
patgate_losses_total 3
# HELP patgate_requests_total Requests.
# TYPE patgate_requests_total counter
patgate_requests_total{reason=\"ok\"} 7
patgate_requests_total{reason=\"a \\\"b\\\"\\\\\\n\"} 0
# HELP patgate_age_seconds Its age.
# TYPE patgate_age_seconds gauge
patgate_age_seconds 0.25
# HELP patgate_wait_seconds Waiting.
# TYPE patgate_wait_seconds histogram
patgate_wait_seconds_sum{outcome=\"allowed\"} 1.25
patgate_wait_seconds_count{outcome=\"allowed\"} 2
patgate_wait_seconds_bucket{le=\"0.5\",outcome=\"allowed\"} 1
patgate_wait_seconds_bucket{le=\"+Inf\",outcome=\"allowed\"} 2
";
        assert_eq!(text.unwrap(), expected);
    }
}

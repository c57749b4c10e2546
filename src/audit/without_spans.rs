//! In the place of `spans` where the program is built without the feature `otlp`: nothing is exported.
#![expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the same functions as there")]

use std::io;

use http::HeaderMap;

use super::record::AuditRecord;
use crate::token::Prefix;
use crate::trace::TraceContext;

/// There are no settings.
#[derive(Clone, Debug)]
pub enum Params {}

#[derive(Debug)]
pub(super) struct Spans;

#[derive(Debug)]
pub(super) struct Exporter;

pub(super) fn open(_: Option<&Params>, _: &Prefix) -> io::Result<(Spans, Exporter)> {
    Ok((Spans, Exporter))
}

impl Spans {
    pub(super) fn offer(&self, _: &AuditRecord) {}

    pub(super) fn state(&self, _: TraceContext, _: &HeaderMap) -> Option<Box<str>> {
        None
    }

    pub(super) fn dropped(&self) -> Option<u64> {
        None
    }
}

impl Exporter {
    pub(super) fn stop(self) -> Self {
        self
    }

    pub(super) fn wait(self) {}
}

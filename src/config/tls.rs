//! `[tls]` and `[upstream_tls]`: who we are to clients and to the upstream, and whom we trust.

use std::path::{Path, PathBuf};

use rustls::ServerConfig;
use rustls::pki_types::ServerName;

use crate::document::Table;
use crate::proxy::{Address, UpstreamTls};
use crate::server::ListenAddress;
use crate::tls::{self, ClientAuth, Identity, Live};

/// TLS for what comes in at `listen`. Paths in the file are relative to `base`.
pub(super) fn listener(root: &Table<'_>, base: &Path, listen: Option<&ListenAddress>) -> Option<Live<ServerConfig>> {
    let table = root.table("tls")?;
    if let Some(ListenAddress::Unix(path)) = listen {
        let path = path.display();
        table.problem(
            "",
            format!("is not spoken on a Unix socket (unix:{path}): listen at an address, or leave it out"),
        );
    }
    let (certificate, key) = (table.required("cert"), table.required("key"));
    let ca = table.string("client_ca").map(|text| base.join(text));
    let optional = table.parsed("client_auth", |text| match text {
        "required" => Ok(false),
        "optional" => Ok(true),
        _ => Err(format!("`{text}` is neither \"required\" nor \"optional\"")),
    });
    table.done();
    if ca.is_none() && optional.is_some() {
        table.problem("client_auth", "of no use without client_ca: name the authorities, or leave this out");
    }
    let identity = Identity { certificate: base.join(certificate?), key: base.join(key?) };
    let client_auth = ca.map(|ca| ClientAuth { ca, optional: optional.unwrap_or(false) });
    let files = files(Some(&identity), client_auth.as_ref().map(|auth| &auth.ca));
    let live = Live::open(files, move || tls::server(&identity, client_auth.as_ref()));
    live.map_err(|error| table.problem("cert", error.to_string())).ok()
}

/// It is read in any case and of use on the way to an `https` upstream only.
pub(super) fn upstream(root: &Table<'_>, base: &Path, upstream: Option<&Address>) -> Option<UpstreamTls> {
    let table = root.table("upstream_tls");
    let path = |key| table.as_ref().and_then(|table| table.string(key)).map(|text| base.join(text));
    let (ca, certificate, key) = (path("ca"), path("cert"), path("key"));
    let name = table.as_ref().and_then(|table| {
        table.parsed("name", |text| {
            ServerName::try_from(text.to_owned()).map_err(|_| format!("`{text}` is neither a host name nor an address"))
        })
    });
    if let Some(table) = &table {
        table.done();
        if certificate.is_some() != key.is_some() {
            table.problem("", "a client certificate needs both cert and key");
        }
    }
    if !upstream?.is_secure() {
        return None;
    }
    let identity = certificate.zip(key).map(|(certificate, key)| Identity { certificate, key });
    let opened = UpstreamTls::open(files(identity.as_ref(), ca.as_ref()), ca, identity, name);
    opened
        .map_err(|error| match &table {
            Some(table) => table.problem("ca", error.to_string()),
            None => root.problem("upstream", error.to_string()),
        })
        .ok()
}

fn files(identity: Option<&Identity>, ca: Option<&PathBuf>) -> Vec<PathBuf> {
    let pair = identity.into_iter().flat_map(|Identity { certificate, key }| [certificate, key]);
    pair.chain(ca).cloned().collect()
}

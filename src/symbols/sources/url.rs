//! Addresses of servers, and how they are shown.

use super::key::Key;
use super::path::Layout;

/// A server of symbols.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Server {
    scheme: String,
    /// `user:password`, never shown.
    credentials: Option<String>,
    /// Host and port.
    host: String,
    /// Path without a slash at its end.
    path: String,
    layout: Layout,
}

impl Server {
    /// `None` when the text is no address of a web server.
    pub(crate) fn new(text: &str, layout: Layout) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https")
            || text.chars().any(|it| it.is_control() || it.is_whitespace())
        {
            return None;
        }
        // What follows `?` or `#` cannot be part of a store's root.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials.to_owned()), host),
            None => (None, authority),
        };
        let host = host.to_ascii_lowercase();
        let path = path.trim_end_matches('/').to_owned();
        (!host.is_empty()).then_some(Self { scheme, credentials, host, path, layout })
    }

    /// How files are named on it.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// `user:password`.
    pub(super) fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref()
    }

    /// Whether it is on this machine, where no proxy is of any use.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host.strip_prefix('[').and_then(|it| it.split(']').next());
        let host = host.unwrap_or_else(|| self.host.split(':').next().unwrap_or_default());
        host == "localhost" || host == "::1" || host.starts_with("127.")
    }

    /// The address without what must not be shown.
    pub(crate) fn shown(&self) -> String {
        let slash = if self.path.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.scheme, self.host, self.path)
    }

    /// The address of a file below the root, without credentials.
    pub(super) fn file<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> String {
        let mut url = self.shown();
        for part in parts {
            url.push('/');
            escape(&mut url, part);
        }
        url
    }

    /// Whether `text` is on this very server.
    pub(super) fn is_origin_of(&self, text: &str) -> bool {
        Self::new(text, self.layout)
            .is_some_and(|it| (it.scheme, it.host) == (self.scheme.clone(), self.host.clone()))
    }
}

/// Everything that is no plain character of a path is written in hex, as RFC 3986 asks.
fn escape(url: &mut String, part: &str) {
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                url.push(byte.into())
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
}

/// Where a server may have a file, most likely first.
pub(super) fn candidates(server: &Server, key: &Key, two_tier: bool) -> Vec<(String, Form)> {
    let id = key.id();
    let mut all = Vec::new();
    let tier = key.tier();
    let folder: Vec<&str> =
        if two_tier { vec![&tier, key.name(), &id] } else { vec![key.name(), &id] };
    let file = |name: &str| server.file(folder.iter().copied().chain([name]));
    if matches!(server.layout(), Layout::Breakpad | Layout::Either)
        && let Some(sym) = key.sym()
    {
        all.push((file(&sym), Form::Sym));
    }
    if matches!(server.layout(), Layout::Microsoft | Layout::Either) {
        all.push((file(key.name()), Form::Plain));
        all.push((file(&key.compressed()), Form::Compressed));
        all.push((file("file.ptr"), Form::Pointer));
    }
    if server.layout() == Layout::Debuginfod
        && let Some(id) = key.build_id()
    {
        all.push((server.file(["buildid", &id, "debuginfo"]), Form::Plain));
    }
    all
}

/// What stands at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The file itself.
    Plain,
    /// A Breakpad symbol file.
    Sym,
    /// A cabinet with the file.
    Compressed,
    /// Words that say where the file is.
    Pointer,
}

#[cfg(test)]
mod tests {
    use super::super::key::Identity;
    use super::*;

    #[test]
    fn credentials_are_used_and_never_shown() {
        let it = Server::new("https://me:s3cret@Symbols.example:8443/a/?token=1", Layout::Either)
            .unwrap();
        assert_eq!(it.credentials(), Some("me:s3cret"));
        assert_eq!(it.shown(), "https://symbols.example:8443/a");
        assert!(it.is_origin_of("https://symbols.example:8443/other"));
        assert!(!it.is_origin_of("https://symbols.example/other"));
        for text in ["", "c:\\x", "ftp://h/x", "https://", "https:///x", "https://a b", "file:///x"]
        {
            assert_eq!(Server::new(text, Layout::Either), None, "{text}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_an_address() {
        let server = Server::new("http://127.0.0.1:9/s", Layout::Either).unwrap();
        let key = Key::new("a b#%2e.pdb", Identity::Pdb { guid: [0x11; 16], age: 10 }).unwrap();
        let all: Vec<_> = candidates(&server, &key, true).into_iter().map(|it| it.0).collect();
        let folder =
            "http://127.0.0.1:9/s/a%20/a%20b%23%252e.pdb/11111111111111111111111111111111a";
        let name = "a%20b%23%252e";
        let expected = ["sym", "pdb", "pd_"].map(|it| format!("{folder}/{name}.{it}"));
        assert_eq!(all[..3], expected);
        assert_eq!(all[3], format!("{folder}/file.ptr"));
        assert!(server.is_loopback());
    }
}

//! Whom to ask for jobs, and what to say who we are. Secrets stay in here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use url::Url;

use super::Error;
use crate::say;
use crate::words::term;

/// Longest wait for a first answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Shorter texts are no secrets; taking them out of messages would only spoil those.
const SHORTEST_SECRET: usize = 4;

/// The server, and the credentials for it.
#[derive(Clone, Default)]
pub struct Access {
    servers: Vec<Url>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    /// File with a JWT and a seed, as `nsc` makes it.
    pub creds: Option<PathBuf>,
    /// File with the seed of an NKey.
    pub nkey: Option<PathBuf>,
    /// File with certificates (PEM) that the server's is checked against, instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// Files with a certificate of our own and its key (PEM).
    pub tls_own: Option<(PathBuf, PathBuf)>,
}

// A password in a log is one that has to be changed.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Access").field(&self.shown()).finish()
    }
}

impl Access {
    /// Servers by their addresses, `nats://host:port` or `tls://host:port`, several with commas
    /// between. `user:password@` or `token@` before the host is what we say who we are.
    ///
    /// # Errors
    ///
    /// When an address is none.
    pub fn new(addresses: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            let shape = term("an address of NATS is nats://HOST[:PORT] or tls://HOST[:PORT]");
            // The address itself is not repeated: it may hold a password.
            Error::Usage(format!("{why}; {shape}"))
        };
        let mut it = Self::default();
        for address in addresses.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let whole = if address.contains("://") {
                address.to_owned()
            } else {
                format!("nats://{address}")
            };
            let mut url = Url::parse(&whole).map_err(|it| wrong(&it.to_string()))?;
            if !matches!(url.scheme(), "nats" | "tls") {
                return Err(wrong(&say!("`{scheme}://` is not spoken", scheme = url.scheme())));
            }
            if url.host_str().is_none_or(str::is_empty) {
                return Err(wrong(term("a host is missing")));
            }
            let plain = |text: &str| {
                percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
            };
            match (url.username(), url.password()) {
                ("", None) => {}
                (token, None) => it.token = Some(plain(token)),
                (user, Some(password)) => {
                    (it.user, it.password) = (Some(plain(user)), Some(plain(password)));
                }
            }
            // The client gets an address that says nothing in its messages.
            let cleared = url.set_username("").and_then(|()| url.set_password(None));
            cleared.map_err(|()| wrong(term("the address takes no user")))?;
            it.servers.push(url);
        }
        if it.servers.is_empty() { Err(wrong(term("no address is given"))) } else { Ok(it) }
    }

    /// Says who we are where no address does.
    #[must_use]
    pub fn or_user(mut self, user: Option<String>, password: Option<String>) -> Self {
        if self.user.is_none() && self.token.is_none() {
            (self.user, self.password) = (user, password);
        }
        self
    }

    /// The servers, without secrets.
    pub fn shown(&self) -> String {
        self.servers.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
    }

    /// A text without what nobody is to read in it.
    pub(super) fn scrub(&self, text: &str) -> String {
        let secrets = [&self.password, &self.token].into_iter().flatten().map(String::as_str);
        scrub(text, secrets)
    }

    pub(super) fn failed(&self, error: impl fmt::Display) -> Error {
        Error::Queue(self.scrub(&error.to_string()))
    }

    pub(super) async fn connect(&self) -> Result<Client, Error> {
        let mut options = ConnectOptions::new()
            .name("oomscope")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE));
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(user) = &self.user {
            let password = self.password.clone().unwrap_or_default();
            options = options.user_and_password(user.clone(), password);
        }
        let unread = |what: &str, path: &PathBuf, error: &dyn fmt::Display| {
            Error::Usage(say!(
                "{what} `{display}` cannot be read: {error}",
                what,
                display = path.display(),
                error
            ))
        };
        if let Some(path) = &self.creds {
            let read = options.credentials_file(path).await;
            options = read.map_err(|it| unread(term("the credentials"), path, &it.kind()))?;
        }
        if let Some(path) = &self.nkey {
            let seed =
                std::fs::read_to_string(path).map_err(|it| unread(term("the NKey"), path, &it))?;
            let mut lines = seed.lines().map(str::trim);
            let seed = lines.rfind(|it| it.starts_with('S')).unwrap_or_default();
            options = options.nkey(seed.to_owned());
        }
        // The client opens these itself, and does not say which it could not.
        let own = self.tls_own.iter().flat_map(|(certificate, key)| [certificate, key]);
        for path in self.tls_ca.iter().chain(own) {
            std::fs::File::open(path)
                .map_err(|it| unread(term("the certificate or key"), path, &it))?;
        }
        if let Some(path) = &self.tls_ca {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &self.tls_own {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        if self.tls_ca.is_some() || self.tls_own.is_some() {
            options = options.require_tls(true);
        }
        let servers = self.servers.iter().map(|it| it.as_str().parse());
        let servers: Result<Vec<async_nats::ServerAddr>, _> = servers.collect();
        let servers = servers.map_err(|it| self.failed(it))?;
        let connected = options.connect(servers).await;
        connected.map_err(|it| {
            self.failed(say!("no connection to {value}: {it}", value = self.shown(), it))
        })
    }
}

/// A text with secrets replaced.
pub(super) fn scrub<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    for secret in secrets.filter(|it| SHORTEST_SECRET <= it.len()) {
        text = text.replace(secret, "(secret)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gives_its_secrets_to_nobody() {
        let it = Access::new("nats://erika:hunt%21er2@one:4333,tls://two").unwrap();
        assert_eq!(it.shown(), "nats://one:4333,tls://two");
        assert_eq!(it.password.as_deref(), Some("hunt!er2"));
        assert!(!format!("{it:?}").contains("hunt"));
        assert_eq!(it.scrub("user hunt!er2 was refused"), "user (secret) was refused");
        let it = Access::new("opaque-token@host").unwrap();
        assert_eq!(it.token.as_deref(), Some("opaque-token"));
        assert_eq!(it.shown(), "nats://host");
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for wrong in ["", "nats://u:secret@", "http://u:secret@h", "nats://u:secret@h:port", "://"]
        {
            let error = Access::new(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_address_speaks_before_the_environment() {
        let other = || (Some("env".to_owned()), Some("env-password".to_owned()));
        let (user, password) = other();
        let it = Access::new("u:p@h").unwrap().or_user(user, password);
        assert_eq!(it.user.as_deref(), Some("u"));
        let (user, password) = other();
        let it = Access::new("h").unwrap().or_user(user, password);
        assert_eq!(it.user.as_deref(), Some("env"));
    }
}

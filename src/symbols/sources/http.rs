//! One file from one server, with patience that ends.
//!
//! A download that drops goes on where it stopped. A server that has trouble is asked again, a
//! little later each time. A server that is down is found out once and then left alone: hundreds
//! of files must not wait for it one after the other.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use tempfile::NamedTempFile;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Timeout};

use super::own;
use super::url::Server;

/// Bytes read at a time.
const CHUNK: usize = 0x1_0000;
/// Bytes that make a request worth having been made: a server that sends a few and then nothing
/// would otherwise be waited for again and again.
const PROGRESS: u64 = 0x8000;
/// Tries that brought something and are therefore not counted as failures.
const RESUMES: u32 = 100;
/// Trouble at which a server counts as down: two connections that fail or time out, or twelve
/// answers that are errors, with no good answer between.
const TROUBLE: u32 = 12;
const HEAVY: u32 = 6;
const LIGHT: u32 = 1;

/// How long a server may take.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Patience {
    /// To find the server and connect.
    pub connect: Duration,
    /// Between any two bytes.
    pub read: Duration,
    /// For one file.
    pub file: Duration,
    /// Requests for one file that bring nothing.
    pub tries: u32,
    /// Between the first and the second request; then twice as long each time.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(10),
            file: Duration::from_secs(30 * 60),
            tries: 3,
            pause: Duration::from_millis(300),
        }
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The file.
    File(NamedTempFile),
    /// The server does not have it.
    Absent,
    /// The server is of no use, now and for all other files.
    Down,
    /// This file cannot be had, and why.
    Failed(String),
}

/// Why a request failed.
enum Trouble {
    /// Nobody there, or nobody who answers.
    Heavy(String),
    /// An error that may pass, and how long the server asks to wait.
    Light(String, Option<Duration>),
    /// No use to ask again for anything.
    Hopeless(String),
    /// No use to ask again for this file.
    File(String),
    /// The file is not there.
    Absent,
}

#[derive(Debug, Default)]
struct Health {
    trouble: u32,
    down: Option<String>,
}

/// Talks to servers, and remembers which of them are down.
pub(super) struct Client {
    agent: Agent,
    patience: Patience,
    /// Bytes that a file may have.
    limit: u64,
    servers: Mutex<HashMap<String, Health>>,
    /// Bytes received by all requests together.
    pub(super) received: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(patience: &Patience, limit: u64) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.read))
            .timeout_per_read(Some(patience.read))
            .timeout_per_write(Some(patience.read))
            .timeout_global(Some(patience.file))
            .max_redirects(5)
            .tls_config(tls)
            .user_agent(concat!("oomscope/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.new_agent(),
            patience: patience.clone(),
            limit,
            servers: Mutex::default(),
            received: AtomicU64::new(0),
        }
    }

    /// Why a server is left alone, if it is.
    pub(super) fn down(&self, server: &Server) -> Option<String> {
        self.health(server, |it| it.down.clone())
    }

    fn health<T>(&self, server: &Server, f: impl FnOnce(&mut Health) -> T) -> T {
        let mut servers = match self.servers.lock() {
            Ok(servers) => servers,
            Err(poisoned) => poisoned.into_inner(),
        };
        f(servers.entry(server.host().to_owned()).or_default())
    }

    /// Asks for a file, which is written into `folder` without a name. `packed` allows the server
    /// to compress it on the way, after which it cannot be resumed.
    pub(super) fn get(&self, server: &Server, url: &str, folder: &Path, packed: bool) -> Answer {
        let begun = match packed {
            true => own::unfinished(folder).map(|it| (it, 0)),
            false => own::resumable(folder, url),
        };
        let mut to = match begun {
            Ok((file, size)) => Part { file, size, validator: None },
            Err(error) => return Answer::Failed(format!("cannot write to the cache: {error}")),
        };
        let started = Instant::now();
        let (mut fruitless, mut pause) = (0_u32, self.patience.pause);
        for _ in 0..RESUMES {
            if self.down(server).is_some() {
                to.leave(packed);
                return Answer::Down;
            }
            let before = to.size;
            let trouble = match self.once(server, url, &mut to, packed, started) {
                Ok(()) => {
                    self.health(server, |it| it.trouble = 0);
                    return Answer::File(to.file);
                }
                Err(trouble) => trouble,
            };
            let brought = PROGRESS <= to.size.saturating_sub(before);
            let (why, weight, wait) = match trouble {
                Trouble::Absent => {
                    self.health(server, |it| it.trouble = 0);
                    return Answer::Absent;
                }
                Trouble::File(why) => return Answer::Failed(why),
                Trouble::Hopeless(why) => {
                    self.health(server, |it| it.down = Some(why));
                    return Answer::Down;
                }
                Trouble::Heavy(why) => (why, HEAVY, None),
                Trouble::Light(why, wait) => (why, LIGHT, wait),
            };
            tracing::debug!(url, why, brought, "a request failed");
            if brought {
                self.health(server, |it| it.trouble = 0);
                fruitless = 0;
                pause = self.patience.pause;
                if self.patience.file < started.elapsed() {
                    to.leave(packed);
                    return Answer::Failed("took too long".to_owned());
                }
                continue;
            }
            let down = self.health(server, |it| {
                it.trouble = it.trouble.saturating_add(weight);
                if TROUBLE <= it.trouble {
                    it.down.get_or_insert_with(|| why.clone());
                }
                it.down.is_some()
            });
            fruitless = fruitless.saturating_add(1);
            match () {
                () if down => {
                    to.leave(packed);
                    return Answer::Down;
                }
                () if self.patience.tries <= fruitless
                    || self.patience.file < started.elapsed() =>
                {
                    to.leave(packed);
                    return Answer::Failed(why);
                }
                () => std::thread::sleep(wait.unwrap_or(pause)),
            }
            pause = pause.saturating_mul(2);
        }
        Answer::Failed("stopped too often".to_owned())
    }

    /// One request: the file from its beginning, or the rest of it.
    fn once(
        &self,
        server: &Server,
        url: &str,
        to: &mut Part,
        packed: bool,
        started: Instant,
    ) -> Result<(), Trouble> {
        let mut request = self.agent.get(url);
        if let Some(credentials) = server.credentials() {
            let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
            request = request.header("Authorization", format!("Basic {encoded}"));
        }
        if !packed || to.size != 0 {
            // A range of something that is compressed on the way is a range of nothing.
            request = request.header("Accept-Encoding", "identity");
        }
        if to.size != 0 {
            request = request.header("Range", format!("bytes={}-", to.size));
            if let Some(validator) = &to.validator {
                request = request.header("If-Range", validator);
            }
        }
        let response = if server.is_loopback() {
            request.config().proxy(None).build().call()
        } else {
            request.call()
        };
        let response = response.map_err(|it| trouble(&it))?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned)
        };
        match response.status().as_u16() {
            // The rest, from where we are. Anything else would be glued in at the wrong place.
            206 if header("content-range").is_some_and(|it| starts_at(&it, to.size)) => {}
            200 => to.restart()?,
            206 | 416 => {
                to.restart()?;
                return Err(Trouble::Light("answered with another part".to_owned(), None));
            }
            404 | 410 | 403 | 400 => return Err(Trouble::Absent),
            401 | 407 => return Err(Trouble::Hopeless("asks for a password".to_owned())),
            429 | 500..=599 => {
                let wait = header("retry-after").and_then(|it| it.parse().ok());
                let wait = wait.map(|it: u64| Duration::from_secs(it.min(5)));
                return Err(Trouble::Light(
                    format!("answered {}", response.status().as_u16()),
                    wait,
                ));
            }
            other => return Err(Trouble::File(format!("answered {other}"))),
        }
        // A weak tag does not promise the same bytes.
        to.validator =
            header("etag").filter(|it| !it.starts_with("W/")).or(header("last-modified"));
        let length = header("content-length").and_then(|it| it.parse::<u64>().ok());
        let expected = length.map(|it| it.saturating_add(to.size));
        if expected.is_some_and(|it| self.limit < it) {
            return Err(self.too_large());
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    if length.is_none() {
                        // Of a file of unknown length, or packed, no rest can be asked for.
                        to.restart()?;
                    }
                    return Err(read_trouble(&error));
                }
            };
            let part = chunk.get(..count).unwrap_or_default();
            to.file.write_all(part).map_err(|it| unwritable(&it))?;
            to.size = to.size.saturating_add(count as u64);
            self.received.fetch_add(count as u64, Ordering::Relaxed);
            if self.limit < to.size {
                return Err(self.too_large());
            }
            if self.patience.file < started.elapsed() {
                return Err(Trouble::File("took too long".to_owned()));
            }
        }
        match expected {
            Some(expected) if to.size < expected => {
                Err(Trouble::Light("ended too early".to_owned(), None))
            }
            _ => Ok(()),
        }
    }

    fn too_large(&self) -> Trouble {
        Trouble::File(format!("larger than {} MiB", self.limit >> 20))
    }
}

/// What of a file has arrived.
struct Part {
    file: NamedTempFile,
    size: u64,
    /// By which a server knows that the rest belongs to what we have.
    validator: Option<String>,
}

impl Part {
    /// Keeps what has arrived for another time, when it is worth it.
    fn leave(self, packed: bool) {
        if !packed && PROGRESS <= self.size {
            own::leave(self.file);
        }
    }

    fn restart(&mut self) -> Result<(), Trouble> {
        let file = self.file.as_file_mut();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map_err(|it| unwritable(&it))?;
        self.size = 0;
        self.validator = None;
        Ok(())
    }
}

/// `bytes 100-199/200` starts at 100.
fn starts_at(range: &str, at: u64) -> bool {
    let start = range.trim().strip_prefix("bytes").and_then(|it| it.trim().split('-').next());
    start.and_then(|it| it.parse().ok()) == Some(at)
}

fn unwritable(error: &io::Error) -> Trouble {
    Trouble::File(format!("cannot write to the cache: {error}"))
}

fn trouble(error: &ureq::Error) -> Trouble {
    match error {
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            Trouble::Heavy("cannot be reached".to_owned())
        }
        ureq::Error::Timeout(_) => Trouble::Heavy("does not answer".to_owned()),
        ureq::Error::HostNotFound => Trouble::Hopeless("has no address".to_owned()),
        ureq::Error::ConnectionFailed => Trouble::Heavy("cannot be reached".to_owned()),
        ureq::Error::Io(error) => read_trouble(error),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => {
            Trouble::Hopeless("its certificate was not accepted".to_owned())
        }
        ureq::Error::InvalidProxyUrl | ureq::Error::ConnectProxyFailed(_) => {
            Trouble::Hopeless("the proxy does not let us through".to_owned())
        }
        ureq::Error::Protocol(_) => {
            Trouble::Light("broke off or answered nonsense".to_owned(), None)
        }
        // Its text may repeat an address, and an address may hold a password.
        _ => Trouble::File("cannot be asked for".to_owned()),
    }
}

fn read_trouble(error: &io::Error) -> Trouble {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<ureq::Error>());
    match (error.kind(), inner) {
        (_, Some(it)) if !matches!(it, ureq::Error::Io(_)) => trouble(it),
        (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) => {
            Trouble::Heavy("does not answer".to_owned())
        }
        (
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable,
            _,
        ) => Trouble::Heavy("cannot be reached".to_owned()),
        // Both arrive as errors of no kind of their own, so their words have to do.
        _ if error.to_string().starts_with("failed to lookup address") => {
            Trouble::Heavy("has no address".to_owned())
        }
        _ if error.to_string().contains("certificate") => {
            Trouble::Hopeless("its certificate was not accepted".to_owned())
        }
        // rustls reports what it does not like as invalid data.
        (io::ErrorKind::InvalidData, _) => Trouble::Light("answered nonsense".to_owned(), None),
        _ => Trouble::Light("broke off".to_owned(), None),
    }
}

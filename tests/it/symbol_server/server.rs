//! A small web server on this machine, which does what a test wants it to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
    /// How often this path was asked for before.
    pub nth: usize,
}

impl Request {
    /// The first byte of the range that was asked for.
    pub fn range(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A file, or the part of it that was asked for.
    File(Vec<u8>),
    /// A file, and never a part of it.
    Whole(Vec<u8>),
    /// As `File`, but the connection ends after so many bytes.
    Drop(Vec<u8>, usize),
    /// As `File`, but nothing follows after so many bytes.
    Stall(Vec<u8>, usize),
    /// Bytes without an end, with no length told.
    Endless,
    /// Nothing but a status.
    Status(u16),
    /// Nothing at all.
    Silence,
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

pub struct Server {
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (log, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Arc<Handler> = Arc::new(handler);
        let (own_log, own_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own_stop.load(Ordering::SeqCst) {
                    break;
                }
                let (log, stop) = (Arc::clone(&own_log), Arc::clone(&own_stop));
                let handler = Arc::clone(&handler);
                // Nobody waits for a connection that stalls.
                std::thread::spawn(move || {
                    let _ = answer(stream.unwrap(), &*handler, &log, &stop);
                });
            }
        });
        Self { address, log, stop, thread: Some(thread) }
    }

    /// A server that has these files, by path.
    pub fn of(files: HashMap<String, Vec<u8>>) -> Self {
        Self::start(move |it| match files.get(&it.path) {
            Some(bytes) => Reply::File(bytes.clone()),
            None => Reply::Status(404),
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|it| it.path).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn answer(
    stream: TcpStream,
    handler: &Handler,
    log: &Mutex<Vec<Request>>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let request = {
            let mut log = log.lock().unwrap();
            let nth = log.iter().filter(|it| it.path == path).count();
            log.push(Request { path, headers, nth });
            log.last().unwrap().clone()
        };
        let (bytes, end, then_stall, ranges) = match handler(&request) {
            Reply::File(it) => (it, None, false, true),
            Reply::Whole(it) => (it, None, false, false),
            Reply::Drop(it, end) => (it, Some(end), false, true),
            Reply::Stall(it, end) => (it, Some(end), true, true),
            Reply::Status(status) => {
                write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            Reply::Endless => {
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                while !stop.load(Ordering::SeqCst) {
                    stream.write_all(&[b'x'; 4096])?;
                }
                return Ok(());
            }
            Reply::Silence => {
                wait(stop);
                return Ok(());
            }
        };
        let start = request.range().filter(|it| ranges && *it < bytes.len());
        let (status, part) = match start {
            Some(start) => ("206 Partial Content", &bytes[start..]),
            None => ("200 OK", &bytes[..]),
        };
        write!(stream, "HTTP/1.1 {status}\r\nETag: \"v1\"\r\nContent-Length: {}\r\n", part.len())?;
        if let Some(start) = start {
            let (last, all) = (bytes.len() - 1, bytes.len());
            write!(stream, "Content-Range: bytes {start}-{last}/{all}\r\n")?;
        }
        write!(stream, "\r\n")?;
        stream.write_all(&part[..end.unwrap_or(part.len()).min(part.len())])?;
        stream.flush()?;
        match (end, then_stall) {
            (Some(_), true) => {
                wait(stop);
                return Ok(());
            }
            (Some(_), false) => return Ok(()),
            (None, _) => {}
        }
    }
}

fn wait(stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

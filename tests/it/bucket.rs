//! An S3 server on loopback, in which a queue keeps its dumps and results.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What signs requests. The server takes any; ours must not show it.
pub(crate) const SECRET: &str = "a-key-that-nobody-may-see";
const BUCKET: &str = "dumps";
/// The server asks who we are, and believes it.
const WHO: (&str, &str) = (
    "authorization",
    "AWS4-HMAC-SHA256 Credential=somebody/20260101/us-east-1/s3/aws4_request, \
     SignedHeaders=host, Signature=0",
);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bucket {
    server: Child,
    port: u16,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Bucket {
    /// `None` where there is no server or no client, which is printed.
    pub(crate) fn start() -> Option<Self> {
        if !cfg!(feature = "cloud") {
            println!("SKIPPED: built without the feature `cloud`");
            return None;
        }
        let python = std::env::var_os("OOMSCOPE_PYTHON").unwrap_or_else(|| "python3".into());
        let has = Command::new(&python).args(["-c", "import moto.server"]).output();
        if !has.is_ok_and(|it| it.status.success()) {
            println!(
                "SKIPPED: moto[server] is not installed (Python; OOMSCOPE_PYTHON names another)"
            );
            return None;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A port that was free a moment ago; another process may be quicker.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new(&python);
            command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
            let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while server.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    let it = Self { server, port };
                    it.agent().put(it.url("")).header(WHO.0, WHO.1).send_empty().unwrap();
                    return Some(it);
                }
                assert!(Instant::now() < deadline, "moto does not answer");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// What `--objects` takes.
    pub(crate) fn address() -> String {
        format!("s3://{BUCKET}/team")
    }

    /// What the program finds it by.
    pub(crate) fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "somebody".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        let mut answer = self
            .agent()
            .get(self.url(&format!("/team/{name}")))
            .header(WHO.0, WHO.1)
            .call()
            .unwrap();
        answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.agent()
            .put(self.url(&format!("/team/{name}")))
            .header(WHO.0, WHO.1)
            .send(bytes)
            .unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        self.agent()
            .delete(self.url(&format!("/team/{name}")))
            .header(WHO.0, WHO.1)
            .call()
            .unwrap();
    }

    /// Names of the objects in a folder, the first thousand of them.
    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let query = format!("?list-type=2&prefix=team/{folder}/");
        let mut answer = self.agent().get(self.url(&query)).header(WHO.0, WHO.1).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let names = text.split("<Key>team/").skip(1).filter_map(|it| it.split_once("</Key>"));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{BUCKET}{path}", self.port)
    }

    fn agent(&self) -> ureq::Agent {
        let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE));
        config.build().new_agent()
    }
}

//! Dumps and results: a folder that all machines see, or a bucket in a cloud.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use url::Url;

use super::{Error, access};

/// Bytes that are put at once. S3 takes parts of at least 5 MiB, and at most 10 000 of them; larger
/// files have larger parts.
const PART: u64 = 8 << 20;
const MOST_PARTS: u64 = 9000;
/// Parts that are on their way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// Largest object that is read into memory: a report of a large process has some megabytes.
const LARGEST_READ: u64 = 512 << 20;
/// Query of an address, and options, whose values are secrets.
const SECRET: &[&str] = &["secret", "key", "token", "password", "sas", "sig", "credential"];

/// Where dumps and results lie.
#[derive(Clone)]
pub struct Place {
    at: At,
    options: Vec<(String, String)>,
    secrets: Vec<String>,
}

#[derive(Clone)]
enum At {
    Folder(PathBuf),
    Cloud(Url),
}

// An address of a container may hold a signature that opens it.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.shown()).finish()
    }
}

impl Place {
    /// A place by its address: `file:///folder` or a folder, `s3://bucket/prefix`,
    /// `az://container/prefix`, `gs://bucket/prefix`. `options` are what the clouds' own variables
    /// say (`AWS_…`, `AZURE_…`, `GOOGLE_…`); others are passed over.
    ///
    /// # Errors
    ///
    /// When it is no such address, or one of a cloud in a program that was built without them.
    pub fn new(
        address: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        // `C:\folder` is a folder.
        let url = address.contains("://").then(|| Url::parse(address));
        let wrong = |why: &str| Error::Usage(format!("no place for dumps and results: {why}"));
        let at = match url {
            None => At::Folder(std::path::absolute(address)?),
            Some(Err(error)) => return Err(wrong(&error.to_string())),
            Some(Ok(url)) => match url.scheme() {
                "file" => {
                    let path = url.to_file_path();
                    At::Folder(path.map_err(|()| wrong("`file://` takes a whole path"))?)
                }
                "s3" | "s3a" | "az" | "azure" | "abfs" | "abfss" | "gs"
                    if cfg!(feature = "cloud") =>
                {
                    At::Cloud(url)
                }
                scheme @ ("s3" | "s3a" | "az" | "azure" | "abfs" | "abfss" | "gs") => {
                    return Err(wrong(&format!(
                        "this program was built without `{scheme}://` (cargo feature `cloud`)"
                    )));
                }
                scheme => {
                    return Err(wrong(&format!(
                        "`{scheme}://` is none of file://, s3://, az://, gs://"
                    )));
                }
            },
        };
        let of_clouds = |name: &str| {
            let name = name.to_ascii_uppercase();
            ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|it| name.starts_with(it))
        };
        let options: Vec<_> = options.into_iter().filter(|(name, _)| of_clouds(name)).collect();
        let is_secret = |name: &str| {
            let name = name.to_ascii_lowercase();
            SECRET.iter().any(|it| name.contains(it)) && !name.contains("file")
        };
        let mut secrets: Vec<String> = options
            .iter()
            .filter(|(name, _)| is_secret(name))
            .map(|(_, value)| value.clone())
            .collect();
        if let At::Cloud(url) = &at {
            secrets.extend(url.password().map(str::to_owned));
            secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        }
        Ok(Self { at, options, secrets })
    }

    /// The address, without secrets.
    pub fn shown(&self) -> String {
        match &self.at {
            At::Folder(path) => path.display().to_string(),
            At::Cloud(url) => {
                let mut url = url.clone();
                let _ = url.set_password(None);
                url.set_query(None);
                url.to_string()
            }
        }
    }

    fn failed(&self, error: &object_store::Error) -> Error {
        let mut text = error.to_string();
        // What is at the bottom says more than the layers above it.
        let mut source = std::error::Error::source(error);
        while let Some(it) = source {
            let more = it.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            source = it.source();
        }
        let text = access::scrub(&text, self.secrets.iter().map(String::as_str));
        Error::Objects(format!("{}: {text}", self.shown()))
    }

    /// Begins to use it. A folder is made only by who submits: a worker that finds none looks at
    /// the wrong place, or before it was mounted.
    pub(super) fn open(&self, make: bool) -> Result<Objects, Error> {
        let (store, root): (Box<dyn ObjectStore>, Name) = match &self.at {
            At::Folder(path) => {
                let named = |it: std::io::Error| {
                    Error::Objects(format!("folder `{}`: {it}", path.display()))
                };
                if make {
                    std::fs::create_dir_all(path).map_err(named)?;
                }
                path.read_dir().map_err(named)?;
                let store = LocalFileSystem::new_with_prefix(path);
                (Box::new(store.map_err(|it| self.failed(&it))?), Name::default())
            }
            At::Cloud(url) => {
                let options = self.options.iter().map(|(name, value)| {
                    // As the clouds' variables are written, in small letters.
                    (name.to_ascii_lowercase(), value.clone())
                });
                prepare_tls();
                object_store::parse_url_opts(url, options).map_err(|it| self.failed(&it))?
            }
        };
        Ok(Objects { store, root, place: self.clone() })
    }
}

/// Says once whose cryptography TLS to clouds is done with.
fn prepare_tls() {
    #[cfg(feature = "cloud")]
    // It fails when somebody said so before, who meant the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An open place.
#[derive(Debug)]
pub(super) struct Objects {
    store: Box<dyn ObjectStore>,
    root: Name,
    place: Place,
}

/// An object that is there, and what changes when it is written anew.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The last part of its name.
    pub(super) name: String,
    pub(super) made: String,
}

impl Objects {
    fn name(&self, name: &str) -> Name {
        let parts = self.root.parts();
        parts.chain(Name::from(name).parts()).map(|it| it.as_ref().to_owned()).collect()
    }

    fn failed(&self, error: object_store::Error) -> Error {
        self.place.failed(&error)
    }

    /// Puts bytes, whole or not at all.
    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let put = self.store.put(&self.name(name), bytes.into()).await;
        put.map(|_| ()).map_err(|it| self.failed(it))
    }

    /// Whether an object of this size is there.
    pub(super) async fn has(&self, name: &str, size: u64) -> Result<bool, Error> {
        match self.store.head(&self.name(name)).await {
            Ok(it) => Ok(it.size == size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Puts a file of this size, a part at a time.
    pub(super) async fn put_file(&self, name: &str, path: &Path, size: u64) -> Result<(), Error> {
        let mut file = File::open(path)?;
        let part = PART.max(size / MOST_PARTS);
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        if size < PART {
            let mut bytes = Vec::new();
            file.take(PART).read_to_end(&mut bytes)?;
            return self.put(name, bytes).await;
        }
        let upload = self.store.put_multipart(&self.name(name)).await;
        let upload = upload.map_err(|it| self.failed(it))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, part);
        let mut chunk = vec![0; 1 << 20];
        loop {
            let count = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // Parts that nobody ends cost money.
                    let _ = upload.abort().await;
                    return Err(error.into());
                }
            };
            upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(|it| self.failed(it))?;
            upload.write(chunk.get(..count).unwrap_or_default());
        }
        upload.finish().await.map(|_| ()).map_err(|it| self.failed(it))
    }

    /// The bytes of an object; `None` when it is not there.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let found = match self.store.get(&self.name(name)).await {
            Ok(it) => it,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        if LARGEST_READ < found.meta.size {
            return Err(Error::Objects(format!("{name} is larger than any result")));
        }
        let bytes = found.bytes().await.map_err(|it| self.failed(it))?;
        Ok(Some(bytes.to_vec()))
    }

    /// Writes an object of this size and hash into a file.
    pub(super) async fn get_file(
        &self,
        name: &str,
        to: &Path,
        size: u64,
        hash: &str,
    ) -> Result<(), Error> {
        let found = match self.store.get(&self.name(name)).await {
            Ok(it) => it,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(Error::Dump(format!("{name} is not in {}", self.place.shown())));
            }
            Err(error) => return Err(self.failed(error)),
        };
        let other = || Error::Dump(format!("{name} is not what was submitted"));
        if found.meta.size != size {
            return Err(other());
        }
        let mut file = File::create(to)?;
        let mut hasher = blake3::Hasher::new();
        let mut bytes = found.into_stream();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(|it| self.failed(it))?;
            hasher.update(&chunk);
            file.write_all(&chunk)?;
        }
        if hasher.finalize().to_hex().as_str() == hash { Ok(()) } else { Err(other()) }
    }

    /// Objects in a folder, by name.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Found>, Error> {
        let prefix = self.name(folder);
        let all = self.store.list(Some(&prefix)).map_ok(|it| Found {
            name: it.location.filename().unwrap_or_default().to_owned(),
            made: format!("{} {}", it.e_tag.unwrap_or_default(), it.last_modified.to_rfc3339()),
        });
        let mut all: Vec<Found> = all.try_collect().await.map_err(|it| self.failed(it))?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_shows_no_signature() {
        let refused = Place::new("https://u:secret@host/x?sig=secret", []).unwrap_err();
        assert!(!refused.to_string().contains("secret"), "{refused}");
        if cfg!(feature = "cloud") {
            let it = Place::new("az://box/x?sig=topsecret", []).unwrap();
            assert_eq!(it.shown(), "az://box/x");
            assert!(!format!("{it:?}").contains("topsecret"));
        } else {
            let refused = Place::new("s3://box/x", []).unwrap_err().to_string();
            assert!(refused.contains("cloud"), "{refused}");
        }
    }

    #[test]
    fn only_what_clouds_read_is_taken_from_the_environment() {
        let variables = [("AWS_SECRET_ACCESS_KEY", "abcdef"), ("HOME", "/home/erika")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let it = Place::new("some/folder", variables).unwrap();
        assert_eq!(it.options.len(), 1);
        assert_eq!(it.secrets, ["abcdef"]);
    }
}

//! Where archives are kept: a folder, or a bucket of a cloud. The only file that knows which.

use std::{
    fs, io,
    path::{Path as FilePath, PathBuf, absolute},
    sync::Arc,
    time::Duration,
};

use object_store::{
    BackoffConfig, ClientConfigKey, MultipartUpload, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme,
    RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use url::Url;

/// Seconds for one request: no longer than what the archive waits for a part.
const REQUEST: &str = "60 seconds";
const CONNECT: &str = "5 seconds";

pub(super) enum Place {
    /// A folder. It is made with the first write, and may be gone and come back like a volume: so it is looked for with
    /// every call.
    Folder(PathBuf),
    /// A bucket.
    Bucket(Arc<dyn ObjectStore>),
}

impl Place {
    /// A place and the path of the archive in it, from `ARCHIVE_URL`. Does no I/O.
    pub(super) fn open(url: &str) -> Result<(Self, Path), String> {
        let Some((scheme, _)) = url.split_once("://") else {
            return folder(FilePath::new(url));
        };
        let parsed = Url::parse(url).map_err(|error| error.to_string())?;
        if scheme == "file" {
            let path = parsed
                .to_file_path()
                .map_err(|()| "file:// must be followed by an absolute path")?;
            return folder(&path);
        }
        if parsed.password().is_some() || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(
                "a password, a query or a fragment do not belong in it; credentials come from AWS_*, GOOGLE_* or AZURE_*"
                    .to_owned(),
            );
        }
        let (kind, base) = ObjectStoreScheme::parse(&parsed).map_err(|error| error.to_string())?;
        let store = bucket(&kind, url).ok_or(
            "it must be a folder, file://, s3://, gs://, az:// or abfs://, or the https:// address of one of those clouds",
        )?;
        Ok((Self::Bucket(store.map_err(|error| error.to_string())?), base))
    }

    /// The store to read from, and to remove from; `None` for a folder that is not there.
    pub(super) async fn reading(&self) -> object_store::Result<Option<Arc<dyn ObjectStore>>> {
        match self {
            Self::Bucket(store) => Ok(Some(store.clone())),
            Self::Folder(path) => {
                let path = path.clone();
                blocking(move || match fs::metadata(&path) {
                    Ok(_) => Ok(Some(local(&path)?)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(io_error(&path, &error)),
                })
                .await
            }
        }
    }

    /// The store to write to.
    pub(super) async fn writing(&self) -> object_store::Result<Arc<dyn ObjectStore>> {
        match self {
            Self::Bucket(store) => Ok(store.clone()),
            Self::Folder(path) => {
                let path = path.clone();
                blocking(move || {
                    make(&path).map_err(|error| io_error(&path, &error))?;
                    local(&path)
                })
                .await
            }
        }
    }

    /// Begins an upload in parts. The object is there when it is completed, and not before.
    pub(super) async fn multipart(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &Path,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        match self {
            Self::Bucket(store) => store.put_multipart(path).await,
            // A file's is opened, its folders made and synced, where it is polled.
            Self::Folder(_) => {
                let (store, path) = (store.clone(), path.clone());
                let runtime = tokio::runtime::Handle::current();
                blocking(move || runtime.block_on(store.put_multipart(&path))).await
            }
        }
    }

    /// Makes sure that what was written at `path` is found after a power cut. The file itself is synced and so are the
    /// folders that this write has made; those of an earlier write that failed in between may not be.
    pub(super) async fn settle(&self, path: &Path) -> object_store::Result<()> {
        let Self::Folder(root) = self else {
            return Ok(());
        };
        let (root, parts) = (root.clone(), path.clone());
        blocking(move || {
            let mut folder = root.clone();
            let mut folders = vec![folder.clone()];
            for part in parts.parts() {
                folder.push(part.as_ref());
                folders.push(folder.clone());
            }
            folders.pop();
            folders
                .iter()
                .try_for_each(|folder| sync(folder).map_err(|error| io_error(folder, &error)))
        })
        .await
    }
}

fn folder(path: &FilePath) -> Result<(Place, Path), String> {
    let path = absolute(path).map_err(|error| error.to_string())?;
    Ok((Place::Folder(path), Path::default()))
}

/// `None`: no cloud that is known.
fn bucket(kind: &ObjectStoreScheme, url: &str) -> Option<object_store::Result<Arc<dyn ObjectStore>>> {
    // Fewer and shorter than the library's own, which go on for three minutes.
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(8),
    };
    macro_rules! build {
        ($builder:ident, $key:ident) => {
            $builder::from_env()
                .with_url(url)
                .with_config($key::Client(ClientConfigKey::Timeout), REQUEST)
                .with_config($key::Client(ClientConfigKey::ConnectTimeout), CONNECT)
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _)
        };
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum may grow")]
    match kind {
        ObjectStoreScheme::AmazonS3 => Some(build!(AmazonS3Builder, AmazonS3ConfigKey)),
        ObjectStoreScheme::GoogleCloudStorage => Some(build!(GoogleCloudStorageBuilder, GoogleConfigKey)),
        ObjectStoreScheme::MicrosoftAzure => Some(build!(MicrosoftAzureBuilder, AzureConfigKey)),
        _ => None,
    }
}

fn local(path: &FilePath) -> object_store::Result<Arc<dyn ObjectStore>> {
    let store = LocalFileSystem::new_with_prefix(path)?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
}

/// Makes a folder and those above it, so that they outlive a power cut.
fn make(path: &FilePath) -> io::Result<()> {
    let missing = match fs::metadata(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.parent(),
        Err(error) => return Err(error),
    };
    if let Some(parent) = missing {
        make(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    missing.map_or(Ok(()), sync)
}

fn sync(folder: &FilePath) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn io_error(path: &FilePath, error: &io::Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "folder",
        source: format!("{}: {error}", path.display()).into(),
    }
}

/// Does `work` beside the runtime's thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> object_store::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

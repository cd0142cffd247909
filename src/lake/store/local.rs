//! Writes to a local lake, and its lock. A write is staged, synced and renamed.
//!
//! `object_store` stages files beside the data, where a glob finds them, and cannot replace them
//! conditionally. So it only reads.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use ulid::Ulid;

use super::{Expected, PutOutcome, StoreError, Tag, layout};
use crate::failpoint::hit;
use crate::{mutex, worker};

/// Age from which a staged file is leftover of a killed run.
const STAGED_AGE: Duration = Duration::from_secs(15 * 60);

/// The lock of a local lake, released when dropped or when the process ends.
///
/// A put keeps it until the file is written, even if the caller of the put was cancelled.
#[derive(Debug)]
pub struct LockGuard(Option<Arc<LockFile>>);

/// The locked file, which names its holder until it is released.
#[derive(Debug)]
struct LockFile(File);

impl Drop for LockFile {
    fn drop(&mut self) {
        // The name is only for runs that wait.
        drop(self.0.set_len(0));
    }
}

impl LockGuard {
    /// The guard of a lake without a lock: conditional puts suffice there.
    pub(super) fn none() -> Self {
        Self(None)
    }
}

/// A weak reference to the lock that this process holds, and the run that it works for.
#[derive(Clone, Debug, Default)]
pub(super) struct LockHandle {
    file: Arc<Mutex<Weak<LockFile>>>,
    run_id: Arc<OnceLock<String>>,
}

impl LockHandle {
    pub(super) fn set(&self, lock: &LockGuard) {
        *mutex::lock(&self.file) = lock.0.as_ref().map(Arc::downgrade).unwrap_or_default();
    }

    /// Returns a further guard of the lock if this process holds it.
    pub(super) fn guard(&self) -> LockGuard {
        LockGuard(mutex::lock(&self.file).upgrade())
    }

    pub(super) fn set_run(&self, run_id: &str) {
        self.run_id.get_or_init(|| run_id.to_owned());
    }

    /// Returns the host, process and run of this process.
    pub(super) fn holder(&self) -> String {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (host, pid) = (host.trim(), std::process::id());
        match self.run_id.get() {
            Some(run_id) => format!("run {run_id} (process {pid} on host {host})"),
            None => format!("process {pid} on host {host}"),
        }
    }
}

/// Makes a path absolute and removes each `..`, after resolving the links before it: `..` after a
/// link leads to the parent of the target.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path);
    }
    let mut resolved = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            resolved = fs::canonicalize(&resolved).unwrap_or(resolved);
            resolved.pop();
        } else {
            resolved.push(part);
        }
    }
    Ok(resolved)
}

/// Returns the absolute path of a file of a local lake.
fn file_of(folder: &Path, path: &str) -> PathBuf {
    path.split('/')
        .fold(folder.to_path_buf(), |folder, part| folder.join(part))
}

/// Returns the folder where a local lake stages its objects.
fn staging_of(folder: &Path) -> PathBuf {
    file_of(folder, layout::STAGING)
}

/// Interval between attempts to take the lock.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(50);

/// Time after which a run that waits for the lock logs whom it waits for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Takes the lock of a local lake, waiting at most `timeout`, and deletes leftover staged files. The lock file
/// names its `holder`.
pub(super) async fn lock(
    folder: &Path,
    holder: &str,
    timeout: Duration,
) -> Result<LockGuard, StoreError> {
    let path = file_of(folder, layout::LOCK);
    let failed = |source| StoreError::File {
        action: "lock",
        path: path.display().to_string(),
        source,
    };
    make_parents(&path).map_err(failed)?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    let other_holder = || fs::read_to_string(&path).unwrap_or_default();
    let started = tokio::time::Instant::now();
    let mut is_patient = true;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if started.elapsed() < timeout => {
                if is_patient && started.elapsed() > LOCK_PATIENCE {
                    is_patient = false;
                    tracing::info!(
                        "waiting for the lock of the lake, held by {}",
                        other_holder()
                    );
                }
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked {
                    path: path.display().to_string(),
                    holder: other_holder(),
                    seconds: timeout.as_secs(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    name_holder(&file, holder).map_err(failed)?;
    let lock = Arc::new(LockFile(file));
    sweep(&staging_of(folder)).map_err(failed)?;
    Ok(LockGuard(Some(lock)))
}

/// Replaces the content of the lock file.
fn name_holder(mut file: &File, holder: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(holder.as_bytes())
}

/// Deletes staged files that killed runs left. The caller holds the lock, so no other run stages
/// files, except for reports and lists, which are younger than [`STAGED_AGE`].
fn sweep(staging: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(staging) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let age = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .map(|at| at.elapsed());
        if matches!(age, Ok(Ok(age)) if age > STAGED_AGE) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes `body` to `path` if `expected` holds; `None` writes unconditionally.
///
/// Stages and syncs the file, renames it (or links it, to create), and syncs the folder.
/// [`Expected::Version`] needs the lock of the lake in `lock`.
pub(super) async fn put(
    folder: &Path,
    path: &str,
    body: Bytes,
    expected: Option<Expected>,
    lock: LockGuard,
) -> Result<PutOutcome, StoreError> {
    let target = file_of(folder, path);
    let staged = staging_of(folder).join(Ulid::generate().to_string());
    let name = target.display().to_string();
    let write = move || {
        let _lock = lock;
        let expected = expected.as_ref();
        let outcome =
            stage(&staged, &body).and_then(|tag| publish(&staged, &target, expected, tag));
        let is_renamed = matches!(outcome, Ok(PutOutcome::Written(_)));
        if !is_renamed || expected == Some(&Expected::Absent) {
            remove(&staged)?;
        }
        outcome
    };
    let failed = |source| StoreError::File {
        action: "write",
        path: name,
        source,
    };
    worker::spawn(write).await.map_err(failed)
}

fn stage(staged: &Path, body: &[u8]) -> io::Result<Tag> {
    make_parents(staged)?;
    let mut file = File::create_new(staged)?;
    file.write_all(body)?;
    file.sync_all()?;
    Ok(tag_of(&file.metadata()?))
}

fn publish(
    staged: &Path,
    target: &Path,
    expected: Option<&Expected>,
    tag: Tag,
) -> io::Result<PutOutcome> {
    hit("after-stage");
    make_parents(target)?;
    match expected {
        None => fs::rename(staged, target)?,
        Some(Expected::Absent) => match fs::hard_link(staged, target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(PutOutcome::Lost);
            }
            linked => linked?,
        },
        Some(Expected::Version(expected)) => {
            let current = match fs::metadata(target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                meta => Some(tag_of(&meta?)),
            };
            if current.as_ref() != Some(expected) {
                return Ok(PutOutcome::Lost);
            }
            fs::rename(staged, target)?;
        }
    }
    hit("after-rename");
    sync_folder(target)?;
    Ok(PutOutcome::Written(tag))
}

/// Returns the tag of a file, in the format of `object_store`.
fn tag_of(meta: &fs::Metadata) -> Tag {
    let modified = meta.modified().ok();
    let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let micros = since.unwrap_or_default().as_micros();
    Tag {
        e_tag: format!("\"{:x}-{micros:x}-{:x}\"", meta.ino(), meta.len()),
        version: None,
    }
}

/// Creates the parent folders of `path`, and syncs each new one into its parent.
fn make_parents(path: &Path) -> io::Result<()> {
    let missing: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .map(Path::to_path_buf)
        .collect();
    for folder in missing.iter().rev() {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => created?,
        }
        sync_folder(folder)?;
    }
    Ok(())
}

/// Syncs the folder of `path`, so that its entry survives a power failure.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::Store;
    use super::*;

    fn body(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn put_replaces_only_the_expected_version() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let put = async |text, expected| {
            let path = "a=1/b.parquet";
            let put = put(at, path, body(text), Some(expected), LockGuard::none());
            put.await.unwrap()
        };
        let PutOutcome::Written(first) = put("1", Expected::Absent).await else {
            panic!("the file did not exist")
        };
        assert_eq!(put("2", Expected::Absent).await, PutOutcome::Lost);
        let first = || Expected::Version(first.clone());
        let PutOutcome::Written(second) = put("3", first()).await else {
            panic!("the file had the first version")
        };
        assert_eq!(put("4", first()).await, PutOutcome::Lost);
        let store = Store::open(&at.display().to_string()).unwrap();
        let (bytes, tag) = store.get("a=1/b.parquet").await.unwrap().unwrap();
        assert_eq!(
            (bytes, tag),
            (body("3"), second),
            "object_store computes the same tag"
        );
        assert_eq!(
            fs::read_dir(staging_of(at)).unwrap().count(),
            0,
            "no staged file is left"
        );
    }

    #[test]
    fn absolute_resolves_links_before_parent_folders() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().canonicalize().unwrap();
        fs::create_dir_all(at.join("a/b")).unwrap();
        std::os::unix::fs::symlink(at.join("a/b"), at.join("link")).unwrap();
        for (path, expected) in [
            ("a/../lake", "lake"),
            ("link/../lake", "a/lake"),
            ("none/../lake", "lake"),
            ("a/./b", "a/b"),
        ] {
            assert_eq!(
                absolute(&at.join(path)).unwrap(),
                at.join(expected),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn lock_times_out_until_guard_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let lock = async |holder, ms| lock(folder.path(), holder, Duration::from_millis(ms)).await;
        let guard = lock("a longer name", 0).await.unwrap();
        drop(guard);
        let guard = lock("run 1", 0).await.unwrap();
        let refused = lock("run 2", 60).await.unwrap_err();
        assert!(refused.to_string().ends_with("held by run 1"), "{refused}");
        drop(guard);
        lock("run 2", 0).await.unwrap();
    }

    #[tokio::test]
    async fn running_put_keeps_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string()).unwrap();
        let lock = async || store.lock(Duration::ZERO).await;
        let guard = lock().await.unwrap();
        let put = store.lock_handle.guard();
        drop(guard);
        lock().await.unwrap_err();
        drop(put);
        drop(lock().await.unwrap());
        drop(store.lock_handle.guard());
        lock().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn yield_lock_lets_a_waiting_run_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string()).unwrap();
        let guard = store.lock(Duration::ZERO).await.unwrap();
        let timeout = Duration::from_secs(60);
        let order = RefCell::new(Vec::new());
        let waiting_run = async {
            let _lock = lock(folder.path(), "", timeout).await.unwrap();
            order.borrow_mut().push("waiting run");
        };
        let yielding_run = async {
            tokio::time::sleep(LOCK_POLL / 2).await;
            let _lock = store.yield_lock(guard, timeout).await.unwrap();
            order.borrow_mut().push("yielding run");
        };
        tokio::join!(waiting_run, yielding_run);
        assert_eq!(order.into_inner(), ["waiting run", "yielding run"]);
    }
}

//! Writing to a folder: staged outside of every glob, synced, renamed; and the lock of a lake.
//!
//! `object_store` stages beside the data, does not update conditionally, and is used to read only.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use ulid::Ulid;

use super::{StoreError, Tag, file_of, staging_of};
use crate::failpoint::hit;
use crate::lake::layout;

/// The lock of a local lake; released when dropped, or when the process dies. A put that is on its way
/// keeps it: whoever waited for the put may be gone.
#[derive(Debug)]
pub struct LockGuard(Option<Arc<File>>);

impl LockGuard {
    /// The lock of a lake that needs none: conditional puts are enough there.
    pub(super) fn none() -> Self {
        Self(None)
    }
}

/// The lock that this process holds, as long as it does.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<Mutex<Weak<File>>>);

impl Held {
    pub(super) fn set(&self, lock: &LockGuard) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            lock.0.as_ref().map(Arc::downgrade).unwrap_or_default();
    }

    pub(super) fn keep(&self) -> LockGuard {
        LockGuard(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .upgrade(),
        )
    }
}

/// What must stand under a path for a put to go ahead.
#[derive(Clone, Debug)]
pub(super) enum Onto {
    /// Whatever stands there is replaced.
    Anything,
    /// Nothing may stand there.
    Nothing,
    /// This version must stand there.
    Version(Tag),
}

/// What a put did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The object stands there now, in this version.
    Done(Tag),
    /// Something else stood there; nothing was written.
    Refused,
}

/// A path as it is from everywhere, without `..`: what is there of it may hold links, behind which `..` leads
/// elsewhere than it seems to.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path);
    }
    let mut there = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            there = fs::canonicalize(&there).unwrap_or(there);
            there.pop();
        } else {
            there.push(part);
        }
    }
    Ok(there)
}

/// How often the lock is tried.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(50);

pub(super) async fn lock(folder: &Path, patience: Duration) -> Result<LockGuard, StoreError> {
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
    let started = tokio::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if started.elapsed() < patience => {
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(TryLockError::WouldBlock) => {
                let seconds = patience.as_secs();
                return Err(StoreError::Locked {
                    path: path.display().to_string(),
                    seconds,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    sweep(&staging_of(folder)).map_err(failed)?;
    Ok(LockGuard(Some(Arc::new(file))))
}

/// Removes what dead runs left staged. Only under the lock, so no living run's file is among them,
/// except for reports and lists, which are small and young.
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
        if matches!(age, Ok(Ok(age)) if age > Duration::from_secs(15 * 60)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Puts `body` under `path`: staged, synced, then renamed (or linked, where nothing may stand
/// there), and the folder synced. Under [`Onto::Version`] `lock` is that of the lake.
pub(super) async fn put(
    folder: &Path,
    path: &str,
    body: Bytes,
    onto: Onto,
    lock: LockGuard,
) -> Result<Written, StoreError> {
    let target = file_of(folder, path);
    let staged = staging_of(folder).join(Ulid::generate().to_string());
    let shown = target.display().to_string();
    let write = move || {
        let _lock = lock;
        let outcome = stage(&staged, &body).and_then(|tag| publish(&staged, &target, &onto, tag));
        if !matches!(outcome, Ok(Written::Done(_))) || matches!(onto, Onto::Nothing) {
            remove(&staged)?;
        }
        outcome
    };
    let failed = |source| StoreError::File {
        action: "write",
        path: shown,
        source,
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(outcome) => outcome.map_err(failed),
        Err(panic) => Err(failed(io::Error::other(panic))),
    }
}

fn stage(staged: &Path, body: &[u8]) -> io::Result<Tag> {
    make_parents(staged)?;
    let mut file = File::create_new(staged)?;
    file.write_all(body)?;
    file.sync_all()?;
    Ok(tag_of(&file.metadata()?))
}

fn publish(staged: &Path, target: &Path, onto: &Onto, tag: Tag) -> io::Result<Written> {
    hit("staged");
    make_parents(target)?;
    match onto {
        Onto::Anything => fs::rename(staged, target)?,
        Onto::Nothing => match fs::hard_link(staged, target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(Written::Refused);
            }
            linked => linked?,
        },
        Onto::Version(expected) => {
            let there = match fs::metadata(target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                meta => Some(tag_of(&meta?)),
            };
            if there.as_ref() != Some(expected) {
                return Ok(Written::Refused);
            }
            fs::rename(staged, target)?;
        }
    }
    hit("renamed");
    sync_folder(target)?;
    Ok(Written::Done(tag))
}

/// The tag of a file, as `object_store` tells it of the files that it reads.
fn tag_of(meta: &fs::Metadata) -> Tag {
    let modified = meta.modified().ok();
    let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let micros = since.unwrap_or_default().as_micros();
    Tag(format!("\"{:x}-{micros:x}-{:x}\"", meta.ino(), meta.len()))
}

/// Makes the folders above `path`, and syncs each new one into the folder that holds it.
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
            made => made?,
        }
        sync_folder(folder)?;
    }
    Ok(())
}

/// Makes the entry of `path` in its folder survive a loss of power.
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
    async fn only_the_expected_version_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let put = |text, onto| put(at, "a=1/b.parquet", body(text), onto, LockGuard::none());
        let Written::Done(first) = put("1", Onto::Nothing).await.unwrap() else {
            panic!("nothing stood there")
        };
        assert_eq!(put("2", Onto::Nothing).await.unwrap(), Written::Refused);
        let onto = || Onto::Version(first.clone());
        let Written::Done(second) = put("3", onto()).await.unwrap() else {
            panic!("the first version stood there")
        };
        assert_eq!(put("4", onto()).await.unwrap(), Written::Refused);
        let store = Store::open(&at.display().to_string()).unwrap();
        let (bytes, tag) = store.get("a=1/b.parquet").await.unwrap().unwrap();
        assert_eq!(
            (bytes, tag),
            (body("3"), second),
            "object_store tells the same tag"
        );
        assert_eq!(
            fs::read_dir(staging_of(at)).unwrap().count(),
            0,
            "nothing stays staged"
        );
    }

    #[test]
    fn a_path_with_dots_leads_where_the_system_would_go() {
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
    async fn a_lock_is_waited_for_and_freed_by_its_drop() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path(), Duration::ZERO).await.unwrap();
        let refused = lock(folder.path(), Duration::from_millis(60))
            .await
            .unwrap_err();
        assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
        drop(held);
        lock(folder.path(), Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn a_put_on_its_way_keeps_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string()).unwrap();
        let lock = async || store.lock(Duration::ZERO).await;
        let held = lock().await.unwrap();
        let put = store.held.keep();
        drop(held);
        lock().await.unwrap_err();
        drop(put);
        drop(lock().await.unwrap());
        drop(store.held.keep());
        lock().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_has_the_lock_before_the_one_that_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string()).unwrap();
        let held = store.lock(Duration::ZERO).await.unwrap();
        let patience = Duration::from_secs(60);
        let order = RefCell::new(Vec::new());
        let waits = async {
            let _lock = lock(folder.path(), patience).await.unwrap();
            order.borrow_mut().push("waits");
        };
        let gives_way = async {
            tokio::time::sleep(LOCK_POLL / 2).await;
            let _lock = store.give_way(held, patience).await.unwrap();
            order.borrow_mut().push("gives way");
        };
        tokio::join!(waits, gives_way);
        assert_eq!(order.into_inner(), ["waits", "gives way"]);
    }
}

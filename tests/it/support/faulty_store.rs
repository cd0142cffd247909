//! An in-memory object store whose every operation waits for a verdict.
//!
//! Each run sees the store through a [`FaultyStore`] of its own; the driver decides, one
//! operation at a time, which run continues and how its operation ends. A schedule is thus a list of
//! choices, and the same choices give the same schedule.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The operation takes effect.
    Done,
    /// The operation has no effect, and the run receives an error.
    Fails,
    /// The operation takes effect, but the run receives an error.
    AnswerIsLost,
    /// The operation takes effect, but the process ends before the response.
    Dies,
}

/// The waiting operations of each run, in the order of their start.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<[VecDeque<Waiting>; RUNS]>);

/// Maximum number of concurrent runs.
pub(crate) const RUNS: usize = 4;

/// An operation that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The name of the operation, such as `put`.
    pub(crate) what: &'static str,
    pub(crate) path: String,
    go: oneshot::Sender<Verdict>,
}

impl Gate {
    pub(crate) fn waits(&self, run: usize) -> bool {
        !self.waiting()[run].is_empty()
    }

    /// Lets the first operation of a run continue and returns its name and path.
    pub(crate) fn open(&self, run: usize, verdict: Verdict) -> (&'static str, String) {
        let waiting = self.waiting()[run].pop_front().unwrap();
        waiting.go.send(verdict).unwrap();
        (waiting.what, waiting.path)
    }

    async fn pass(&self, run: usize, what: &'static str, path: &Path) -> Verdict {
        let (go, verdict) = oneshot::channel();
        let path = path.to_string();
        self.waiting()[run].push_back(Waiting { what, path, go });
        verdict.await.unwrap()
    }

    fn waiting(&self) -> MutexGuard<'_, [VecDeque<Waiting>; RUNS]> {
        let mut waiting = self.0.lock().unwrap();
        for operations in waiting.iter_mut() {
            // An error cancels the other operations of its run.
            operations.retain(|operation| !operation.go.is_closed());
        }
        waiting
    }
}

/// The store as one run sees it.
#[derive(Clone, Debug)]
pub(crate) struct FaultyStore {
    pub(crate) objects: Arc<InMemory>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) run: usize,
}

impl FaultyStore {
    async fn around<T>(
        &self,
        what: &'static str,
        path: &Path,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match self.gate.pass(self.run, what, path).await {
            Verdict::Done => work.await,
            Verdict::Fails => Err(broken(what)),
            Verdict::AnswerIsLost => work.await.and(Err(broken(what))),
            Verdict::Dies => {
                let _ = work.await;
                std::future::pending().await
            }
        }
    }
}

fn broken(what: &'static str) -> Error {
    Error::Generic {
        store: "faulty",
        source: format!("{what} broke off").into(),
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} of {}", self.run, self.objects)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let put = self.objects.put_opts(location, payload, opts);
        self.around("put", location, put).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("multipart puts know no conditions")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = self.objects.get_opts(location, options);
        self.around("get", location, get).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Path| {
            let store = store.clone();
            async move {
                let delete = store.objects.delete(&path);
                store.around("delete", &path, delete).await?;
                Ok(path)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let list = store.objects.list(prefix.as_ref()).try_collect::<Vec<_>>();
            let folder = prefix.clone().unwrap_or_default();
            store.around("list", &folder, list).await
        };
        stream::once(listed)
            .map_ok(|metas| stream::iter(metas.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("nothing is copied")
    }
}

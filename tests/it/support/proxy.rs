//! A proxy in front of an object store, which fails requests in several ways.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A failure of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks before the store receives the request.
    Reset,
    /// The store handles the request, but its response breaks off.
    Cut,
    /// The store is overloaded.
    Busy,
    /// There is no response.
    Hang,
}

/// Returns the fault of a request, by its number and method.
type Plan = dyn Fn(usize, &str) -> Option<Fault> + Send + Sync;

/// A running proxy. Its threads end with the test process.
pub(crate) struct Proxy {
    url: String,
    failed: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts a proxy in front of the store at `address`.
    pub(crate) fn start(
        address: &str,
        plan: impl Fn(usize, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let failed = Arc::new(AtomicUsize::new(0));
        let (address, plan, count): (_, Arc<Plan>, _) =
            (address.to_owned(), Arc::new(plan), Arc::clone(&failed));
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (address, plan, count) =
                    (address.clone(), Arc::clone(&plan), Arc::clone(&count));
                thread::spawn(move || {
                    // The client may close its connection at any time.
                    drop(serve(client.unwrap(), &address, &count, |method| {
                        plan(number, method)
                    }));
                });
            }
        });
        Self { url, failed }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the number of failed requests.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }

    /// Waits until a request has failed.
    #[track_caller]
    pub(crate) fn await_failure(&self) {
        let began = Instant::now();
        while self.failed() == 0 {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "no request fails"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Handles the one request of a connection.
fn serve(
    client: TcpStream,
    address: &str,
    failed: &AtomicUsize,
    plan: impl Fn(&str) -> Option<Fault>,
) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let fault = plan(head.split(' ').next().unwrap_or_default());
    failed.fetch_add(usize::from(fault.is_some()), Ordering::SeqCst);
    if fault == Some(Fault::Reset) {
        return Ok(());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut client = reader.into_inner();
    match fault {
        Some(Fault::Hang) => return client.read(&mut [0]).map(drop),
        Some(Fault::Busy) => {
            let body = "<Error><Code>SlowDown</Code></Error>";
            let mut response = String::from("HTTP/1.1 503 Slow Down\r\nconnection: close\r\n");
            write!(response, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
            return client.write_all(response.as_bytes());
        }
        Some(Fault::Cut | Fault::Reset) | None => {}
    }
    let mut store = TcpStream::connect(address)?;
    store.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
    store.write_all(&body)?;
    let mut response = Vec::new();
    store.read_to_end(&mut response)?;
    let kept = response.len() - usize::from(fault.is_some());
    client.write_all(&response[..kept])
}

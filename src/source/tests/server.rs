//! A server that sends prepared responses, one per request, and records the requests.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use url::Url;

/// A prepared response.
#[derive(Clone, Debug)]
pub(super) struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    missing: usize,
    after: Duration,
}

impl Response {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            missing: 0,
            after: Duration::ZERO,
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Announces this many bytes more than it sends.
    pub(super) fn cut(mut self, missing: usize) -> Self {
        self.missing = missing;
        self
    }

    pub(super) fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }

    fn write(self, mut stream: TcpStream) -> std::io::Result<()> {
        thread::sleep(self.after);
        let length = self.body.len() + self.missing;
        write!(stream, "HTTP/1.1 {} X\r\n", self.status)?;
        write!(stream, "connection: close\r\ncontent-length: {length}\r\n")?;
        for (name, value) in self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        stream.write_all(&self.body)
    }
}

pub(super) struct Server {
    url: Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Sends the responses in this order; each further request receives a 599.
    pub(super) fn start(responses: impl IntoIterator<Item = Response>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&requests);
        let mut responses: VecDeque<Response> = responses.into_iter().collect();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let Some(request) = read(&stream) else {
                    continue;
                };
                seen.lock().unwrap().push(request);
                let response = responses.pop_front();
                let response = response.unwrap_or_else(|| Response::new(599, "unexpected"));
                // On another thread, since a client may close the connection early.
                thread::spawn(move || response.write(stream).ok());
            }
        });
        Self {
            url: Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap(),
            requests,
        }
    }

    pub(super) fn url(&self) -> Url {
        self.url.clone()
    }

    /// Returns the requests so far: head and body.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request).ok()? == 0 {
            return None;
        }
    }
    let length = request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    request += &String::from_utf8(body).ok()?;
    Some(request)
}

//! Builds HTTP responses, including the ones that faults break.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::Response;
use futures::{StreamExt, stream};
use jiff::fmt::rfc2822::DateTimePrinter;

use super::clock::Clock;
use super::faults::FaultKind;
use super::request::{ApiError, ApiResponse, Endpoint};

const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\
                    <body><h1>Please sign in</h1></body></html>\n";

/// Builds an error response.
pub(super) fn error_response(error: &ApiError, endpoint: Endpoint, clock: &Clock) -> Response {
    let body = error.body(endpoint);
    response(error.status, "application/json", Body::from(body), clock)
}

/// Builds an HTML response.
pub(super) fn html(status: u16, clock: &Clock) -> Response {
    response(status, "text/html; charset=utf-8", Body::from(PAGE), clock)
}

/// Returns the response of a fault that replaces the regular one; `None` for other faults.
pub(super) fn replacement(
    fault: &FaultKind,
    endpoint: Endpoint,
    clock: &Clock,
) -> Option<Response> {
    let error_response = |error: &ApiError| Some(error_response(error, endpoint, clock));
    match fault {
        FaultKind::Status(status @ 502..=504) => Some(html(*status, clock)),
        FaultKind::Status(status) => error_response(&ApiError::new(
            *status,
            "UNKNOWN_ERROR",
            "Oops, something went wrong on our end. Please contact Harness Support.",
        )),
        FaultKind::Html200 => Some(html(200, clock)),
        FaultKind::EmptyBody => Some(response(200, "application/json", Body::empty(), clock)),
        FaultKind::TooManyRequests { retry_after } => {
            let mut response = error_response(&ApiError::throttled(429))?;
            if let Some(seconds) = retry_after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, (*seconds).into());
            }
            Some(response)
        }
        FaultKind::TooManyRequestsAs400 => error_response(&ApiError::throttled(400)),
        FaultKind::Forbidden => error_response(&ApiError::forbidden()),
        FaultKind::Unauthorized => error_response(&ApiError::token()),
        _ => None,
    }
}

/// Builds a successful response, changed by a fault if there is one.
pub(super) fn success_response(
    answer: ApiResponse,
    fault: Option<&FaultKind>,
    clock: &Clock,
) -> Response {
    let json = "application/json";
    let body = match fault {
        Some(fault) => fault.corrupt_body(answer.body),
        None => answer.body,
    };
    let half = (0..=body.len() / 2)
        .rev()
        .find(|at| body.is_char_boundary(*at))
        .unwrap_or(0);
    let (first, second) = body.split_at(half);
    let (first, second) = (first.to_owned(), second.to_owned());
    let mut response = match fault {
        Some(FaultKind::MalformedJson) => response(200, json, Body::from(first), clock),
        Some(FaultKind::TruncatedBody) => {
            let broken = Body::from_stream(breaking(first));
            let mut response = response(200, json, broken, clock);
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, body.len().into());
            plain(response)
        }
        Some(FaultKind::TruncatedGzip) => {
            let mut response = response(200, json, Body::from(unfinished_gzip(&first)), clock);
            let gzip = header::HeaderValue::from_static("gzip");
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, gzip);
            response
        }
        Some(FaultKind::ResetMidBody) => plain(response(
            200,
            json,
            Body::from_stream(breaking(first)),
            clock,
        )),
        Some(FaultKind::SlowBody(pause)) => plain(response(
            200,
            json,
            Body::from_stream(slow(first, second, *pause)),
            clock,
        )),
        _ => response(200, json, Body::from(body), clock),
    };
    for (name, value) in answer.headers {
        if let Ok(value) = value.parse() {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}

type Part = Result<Bytes, io::Error>;

/// Sends a part of the body, then resets the connection.
fn breaking(first: String) -> impl futures::Stream<Item = Part> {
    stream::iter([Ok(Bytes::from(first))]).chain(stream::once(async {
        // The first part must be sent before the connection is reset.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    }))
}

fn slow(first: String, second: String, pause: Duration) -> impl futures::Stream<Item = Part> {
    stream::iter([Ok(Bytes::from(first))]).chain(stream::once(async move {
        tokio::time::sleep(pause).await;
        Ok(Bytes::from(second))
    }))
}

/// Builds a gzip stream of stored blocks without a final block.
fn unfinished_gzip(text: &str) -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    const BLOCK: usize = 0x4000;
    let mut stream = HEADER.to_vec();
    for block in text.as_bytes().chunks(BLOCK) {
        let length = u16::try_from(block.len()).unwrap_or_default();
        stream.push(0);
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream
}

/// Disables compression, which would hide how the body is broken.
fn plain(mut response: Response) -> Response {
    let identity = header::HeaderValue::from_static("identity");
    response
        .headers_mut()
        .insert(header::CONTENT_ENCODING, identity);
    response
}

fn response(status: u16, content_type: &'static str, body: Body, clock: &Clock) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&clock.now());
    if let Some(date) = date.ok().and_then(|date| date.parse().ok()) {
        headers.insert(header::DATE, date);
    }
    response
}

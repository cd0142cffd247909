//! Reads the body of a response and unpacks it, within a limit.
//!
//! The HTTP library reads only the first member of a gzip body, though RFC 1952 allows several.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use zstd::stream::write::Decoder;

/// The value of the header `Accept-Encoding`.
pub(super) const ACCEPTED: &str = "gzip, zstd";

/// Packed bytes between two checks of the limit: they can unpack to a thousand times as many.
const PIECE: usize = 4 << 10;

/// A body that is being received.
pub(super) enum Body {
    /// Not packed.
    Plain(Vec<u8>),
    /// Packed with gzip.
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// Packed with zstd.
    Zstd(Box<Decoder<'static, Vec<u8>>>),
}

impl Body {
    /// Returns the empty body of a response with these headers.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the library fails to start.
    pub(super) fn new(headers: &HeaderMap) -> io::Result<Self> {
        let encoding = headers.get(CONTENT_ENCODING);
        let encoding = encoding.and_then(|value| value.to_str().ok());
        let encoding = encoding.unwrap_or_default().trim().to_ascii_lowercase();
        Ok(match encoding.as_str() {
            "gzip" | "x-gzip" => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            "zstd" => Self::Zstd(Box::new(Decoder::new(Vec::new())?)),
            _ => Self::Plain(Vec::new()),
        })
    }

    /// Adds received bytes. Returns false once more than `limit` bytes are unpacked.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if they are not in the encoding of the body.
    pub(super) fn push(&mut self, bytes: &[u8], limit: usize) -> io::Result<bool> {
        for piece in bytes.chunks(PIECE) {
            let unpacked = match self {
                Self::Plain(body) => {
                    body.extend_from_slice(piece);
                    body.len()
                }
                Self::Gzip(decoder) => {
                    decoder.write_all(piece)?;
                    decoder.get_ref().len()
                }
                Self::Zstd(decoder) => {
                    decoder.write_all(piece)?;
                    decoder.get_ref().len()
                }
            };
            if unpacked > limit {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the unpacked bytes.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if a gzip body is truncated. A truncated zstd body is returned as far as it was received, which is
    /// no complete JSON.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(body) => Ok(body),
            // A response without a body, such as 204, may name an encoding.
            Self::Gzip(decoder) if decoder.header().is_none() => Ok(Vec::new()),
            Self::Gzip(decoder) => decoder.finish(),
            Self::Zstd(mut decoder) => {
                decoder.flush()?;
                Ok(decoder.into_inner())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    fn read(encoding: &'static str, chunks: &[&[u8]], limit: usize) -> io::Result<Option<Vec<u8>>> {
        let headers = [(CONTENT_ENCODING, HeaderValue::from_static(encoding))];
        let mut body = Body::new(&HeaderMap::from_iter(headers))?;
        for chunk in chunks {
            if !body.push(chunk, limit)? {
                return Ok(None);
            }
        }
        body.finish().map(Some)
    }

    proptest! {
        #[test]
        fn any_number_of_members_is_read(
            texts in proptest::collection::vec("[ -~]{0,99}", 1..4),
            cut in 1_usize..50,
        ) {
            let expected = texts.concat();
            for (encoding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
                let packed: Vec<u8> = texts.iter().flat_map(|text| pack(text.as_bytes())).collect();
                let chunks: Vec<&[u8]> = packed.chunks(cut).collect();
                let read = read(encoding, &chunks, 1_000).unwrap();
                prop_assert_eq!(read.as_deref(), Some(expected.as_bytes()));
            }
        }
    }

    #[test]
    fn body_that_unpacks_to_too_much_is_not_read() {
        let zeros = vec![0; 20 << 20];
        for (encoding, packed) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
            assert_eq!(read(encoding, &[&packed], 1 << 20).unwrap(), None);
        }
    }

    #[test]
    fn damaged_and_truncated_bodies_are_errors() {
        let packed = gzip(b"a text of some length");
        assert!(read("gzip", &[&packed[..packed.len() / 2]], 99).is_err());
        assert!(read("gzip", &[b"not packed"], 99).is_err());
        assert!(read("zstd", &[b"not packed"], 99).is_err());
        assert_eq!(read("gzip", &[], 99).unwrap(), Some(Vec::new()));
        assert_eq!(
            read("identity", &[b"text"], 99).unwrap(),
            Some(b"text".to_vec())
        );
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A small blocking HTTP/1.1 client on a unix socket.
//!
//! One request for each connection (`Connection: close`), which is all that a command line, a CNI
//! plugin and the lab need; no runtime, so that the plugin stays small.

use crate::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("cannot reach the agent at {path}: {source}")]
    Connect { path: PathBuf, source: io::Error },
    #[error("connection to the agent at {path} broke: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the agent's answer to {method} {request} is not HTTP: {detail}")]
    Protocol {
        method: String,
        request: String,
        detail: String,
    },
    #[error("{}", problem.error)]
    Refused { status: u16, problem: Problem },
    #[error("the agent's answer to {request} cannot be read: {source}")]
    Decode {
        request: String,
        source: serde_json::Error,
    },
    #[error("the request to {request} cannot be written: {source}")]
    Encode {
        request: String,
        source: serde_json::Error,
    },
}

/// A caller of one agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the agent that listens at `socket`; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            timeout: Duration::from_secs(30),
        }
    }

    /// The longest that the agent may take to begin its answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where the agent listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET`, the answer decoded.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call("GET", path, None::<&()>)
    }

    /// `PUT` with a body, the answer decoded.
    pub fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.call("PUT", path, Some(body))
    }

    /// `POST` without a body, the answer decoded.
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call("POST", path, None::<&()>)
    }

    /// `POST` with a body, the answer decoded.
    pub fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.call("POST", path, Some(body))
    }

    /// `DELETE`; the answer has no body.
    pub fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.open("DELETE", path, None).map(drop)
    }

    /// `GET`, the answer as text.
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        let mut body = self.open("GET", path, None)?;
        let mut text = String::new();
        body.read_to_string(&mut text)
            .map_err(|source| self.io(source))?;
        Ok(text)
    }

    /// `GET` of newline-delimited JSON: one item for each line, until the agent ends the stream.
    pub fn stream<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = Result<T, ClientError>> + use<T>, ClientError> {
        let body = self.open("GET", path, None)?;
        body.reader
            .stream
            .set_read_timeout(None)
            .map_err(|source| self.io(source))?;
        let (socket, request) = (self.socket.clone(), path.to_owned());
        Ok(BufReader::new(body)
            .lines()
            .filter(|line| !matches!(line, Ok(l) if l.is_empty()))
            .map(move |line| {
                let line = line.map_err(|source| ClientError::Io {
                    path: socket.clone(),
                    source,
                })?;
                serde_json::from_str(&line).map_err(|source| ClientError::Decode {
                    request: request.clone(),
                    source,
                })
            }))
    }

    fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        let body =
            body.map(serde_json::to_vec)
                .transpose()
                .map_err(|source| ClientError::Encode {
                    request: path.to_owned(),
                    source,
                })?;
        let answer = self.open(method, path, body.as_deref())?;
        serde_json::from_reader(answer).map_err(|source| ClientError::Decode {
            request: path.to_owned(),
            source,
        })
    }

    fn open(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Body, ClientError> {
        let stream = UnixStream::connect(&self.socket).map_err(|source| ClientError::Connect {
            path: self.socket.clone(),
            source,
        })?;
        let io = |source| self.io(source);
        stream.set_read_timeout(Some(self.timeout)).map_err(io)?;
        stream.set_write_timeout(Some(self.timeout)).map_err(io)?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n");
        if let Some(body) = body {
            head.push_str("Content-Type: application/json\r\nContent-Length: ");
            head.push_str(&body.len().to_string());
            head.push_str("\r\n");
        }
        head += "\r\n";
        (&stream).write_all(head.as_bytes()).map_err(io)?;
        (&stream).write_all(body.unwrap_or_default()).map_err(io)?;

        let mut reader = Reader {
            stream,
            buffer: Vec::new(),
            position: 0,
        };
        let protocol = |detail: &str| ClientError::Protocol {
            method: method.to_owned(),
            request: path.to_owned(),
            detail: detail.to_owned(),
        };
        let status_line = reader.line().map_err(io)?;
        let status: u16 = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| protocol(&status_line))?;
        let mut length = Length::UntilClose;
        loop {
            let line = reader.line().map_err(io)?;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(protocol(&line));
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = Length::Known(value.trim().parse().map_err(|_| protocol(&line))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = Length::Chunked(0);
            }
        }
        let mut body = Body { reader, length };
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let mut text = String::new();
        body.read_to_string(&mut text).map_err(io)?;
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            error: format!("{method} {path}: status {status}: {}", text.trim()),
            hint: None,
        });
        Err(ClientError::Refused { status, problem })
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io {
            path: self.socket.clone(),
            source,
        }
    }
}

/// How the end of an answer's body is known (RFC 9112, section 6.3).
enum Length {
    Known(u64),
    /// Bytes left of the current chunk.
    Chunked(u64),
    UntilClose,
    Ended,
}

struct Body {
    reader: Reader,
    length: Length,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = match &mut self.length {
            Length::Ended => return Ok(0),
            Length::UntilClose => return self.reader.read(buffer),
            Length::Known(left) => left,
            Length::Chunked(left) => {
                if *left == 0 {
                    let mut line = self.reader.line()?;
                    if line.is_empty() {
                        line = self.reader.line()?;
                    }
                    let size = line.split(';').next().unwrap_or_default().trim();
                    *left = u64::from_str_radix(size, 16)
                        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "chunk size"))?;
                    if *left == 0 {
                        self.length = Length::Ended;
                        return Ok(0);
                    }
                }
                left
            }
        };
        let most = usize::try_from(*left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self
            .reader
            .read(buffer.get_mut(..most).unwrap_or_default())?;
        *left -= read as u64;
        if read == 0 && *left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }
}

/// Reads, also where the process was stopped and went on meanwhile: a read that has a time limit is then interrupted, even
/// without any signal handler (`man 7 signal`).
fn read_again(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A buffered stream that can hand out lines and bytes in turn.
struct Reader {
    stream: UnixStream,
    buffer: Vec<u8>,
    position: usize,
}

impl Reader {
    /// The longest header line that is accepted.
    const LINE_MAX: usize = 16 * 1024;

    fn fill(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.buffer.len() {
            self.buffer.resize(8192, 0);
            let read = read_again(&mut self.stream, &mut self.buffer)?;
            self.buffer.truncate(read);
            self.position = 0;
        }
        Ok(self.buffer.get(self.position..).unwrap_or_default())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let available = self.fill()?;
            if available.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            line.extend_from_slice(available.get(..taken).unwrap_or_default());
            self.position += taken;
            if end.is_some() {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if line.len() > Self::LINE_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "header line too long",
                ));
            }
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill()?;
        let count = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), available.get(..count)) {
            to.copy_from_slice(from);
        }
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interrupts the first read.
    struct Stopped(bool);

    impl Read for Stopped {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                buffer.fill(b'x');
                return Ok(buffer.len());
            }
            Err(io::ErrorKind::Interrupted.into())
        }
    }

    #[test]
    fn an_answer_is_read_by_a_process_that_was_stopped_meanwhile() {
        let mut buffer = [0; 4];
        assert_eq!(read_again(&mut Stopped(false), &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"xxxx");
    }
}

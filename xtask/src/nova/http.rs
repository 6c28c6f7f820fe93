//! One HTTP request over a Unix socket, which is how this program reaches services whose network
//! it does not see. It knows nothing of OpenStack.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A service that is busy with a migration answers late.
const LIMIT: Duration = Duration::from_secs(120);
/// Far more than any answer has.
const MOST: u64 = 64 * 1024 * 1024;

/// What is asked of a service.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

/// What it answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of the header with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found
                .trim()
                .eq_ignore_ascii_case(name)
                .then_some(value.trim())
        })
    }
}

/// Sends `request` and reads the whole answer. HTTP/1.0, so that the end of the connection is the
/// end of the body.
pub(crate) fn ask(socket: &Path, request: &Request<'_>) -> Result<Answer> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("nobody listens at {}", socket.display()))?;
    stream
        .set_read_timeout(Some(LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(LIMIT)))
        .context("cannot bound the wait for an answer")?;
    let mut head = format!(
        "{} {} HTTP/1.0\r\nHost: cloud\r\nContent-Length: {}\r\n",
        request.method,
        request.path,
        request.body.len()
    );
    for (name, value) in request.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(request.body))
        .with_context(|| format!("cannot send {} {}", request.method, request.path))?;
    let mut bytes = Vec::new();
    stream
        .take(MOST)
        .read_to_end(&mut bytes)
        .with_context(|| format!("no answer to {} {}", request.method, request.path))?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let Some((head, body)) = end.and_then(|at| Some((bytes.get(..at)?, bytes.get(at + 4..)?)))
    else {
        bail!("an answer without a whole head");
    };
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.split_whitespace().nth(1).map(str::parse);
    let Some(Ok(status)) = status else {
        bail!("an answer without a status: {head}");
    };
    Ok(Answer {
        status,
        head,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse(b"HTTP/1.0 201 Created\r\nX-Subject-Token: abc\r\n\r\n{}\r\n\r\n");
        let answer = answer.expect("a whole answer");
        assert_eq!((answer.status, answer.body), (201, b"{}\r\n\r\n".to_vec()));
        let again = parse(b"HTTP/1.1 200 OK\r\nx-subject-token:  def \r\n\r\n").expect("whole");
        assert_eq!(again.header("X-Subject-Token"), Some("def"));
        assert_eq!(again.header("Location"), None);
        for wrong in ["", "HTTP/1.0 200 OK\r\n", "HTTP/1.0 no\r\n\r\n"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}

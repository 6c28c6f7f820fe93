//! Between a client and a server: does to a request what a plan says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It goes through.
    None,
    /// The server never sees it; this is the answer.
    Answer(u16, String),
    /// The server does it, and this is the answer all the same.
    AnswerAfter(u16),
    /// The server never sees it, and the connection ends.
    Cut,
    /// The server does it, and the connection ends without an answer.
    LoseAnswer,
    /// Half of the answer comes, and then the connection ends.
    Half,
    /// The answer comes so much later.
    Slow(Duration),
    /// The server is not told of a condition.
    Careless,
}

/// A request, as a plan sees it.
pub(crate) struct Request<'a> {
    pub(crate) number: usize,
    pub(crate) method: &'a str,
}

type Plan = dyn Fn(&Request<'_>) -> Fault + Send + Sync;

pub(crate) struct Proxy {
    address: SocketAddr,
    task: JoinHandle<()>,
    /// The heads of all requests.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) async fn start(
        server: SocketAddr,
        plan: impl Fn(&Request<'_>) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (plan, numbers): (Arc<Plan>, _) = (Arc::new(plan), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (plan, numbers) = (Arc::clone(&plan), Arc::clone(&numbers));
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    // One that breaks is what these tests are about.
                    let _ = serve(client, server, &*plan, &numbers, &seen).await;
                });
            }
        });
        Self {
            address,
            task,
            heads,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request a connection.
async fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    plan: &Plan,
    numbers: &AtomicUsize,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(at) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<&str> = lines.collect();
    let length = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse::<usize>().ok())?
    });
    while request.len() < end + length.unwrap_or(0) {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    seen.lock().unwrap().push(head.clone());
    let fault = plan(&Request {
        number: numbers.fetch_add(1, Ordering::Relaxed),
        method: first.split(' ').next().unwrap_or_default(),
    });
    match &fault {
        Fault::Answer(status, body) => return answer(&mut client, *status, body).await,
        Fault::Cut => return Ok(()),
        _ => {}
    }
    let kept = headers.iter().filter(|line| {
        let line = line.to_ascii_lowercase();
        let condition = line.starts_with("if-none-match:");
        !(line.starts_with("connection:") || condition && matches!(fault, Fault::Careless))
    });
    let mut forward = format!("{first}\r\nConnection: close\r\n");
    for line in kept {
        forward.push_str(line);
        forward.push_str("\r\n");
    }
    forward.push_str("\r\n");
    let mut upstream = TcpStream::connect(server).await?;
    upstream.write_all(forward.as_bytes()).await?;
    upstream.write_all(&request[end..]).await?;
    let mut response = Vec::new();
    upstream.read_to_end(&mut response).await?;
    match fault {
        Fault::AnswerAfter(status) => return answer(&mut client, status, "").await,
        Fault::LoseAnswer => return Ok(()),
        Fault::Half => response.truncate(response.len() / 2),
        Fault::Slow(time) => tokio::time::sleep(time).await,
        _ => {}
    }
    client.write_all(&response).await?;
    client.shutdown().await
}

async fn answer(client: &mut TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let len = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

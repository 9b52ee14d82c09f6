//! A TCP proxy to stand before a server and misbehave on command.
//!
//! One connection comes in and one goes out for it; both end together, so no client is spared the news that its
//! connection was lost. What was on its way when a connection is cut is lost; what is held back by [`Proxy::stall`] is
//! delivered later, even when its sender has gone meanwhile, as in a network.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::port;

/// Bytes taken up at once.
const CHUNK: usize = 16 * 1024;

/// How a slow connection passes bytes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second in each direction of each connection.
    pub bytes_per_second: u32,
    /// How much later they arrive.
    pub latency: Duration,
}

/// Where to hold a request: in the first one whose beginning contains `marker`, after so many bytes of it.
///
/// A request is what a client sends between two answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// Stands in the first bytes of the request.
    pub marker: String,
    /// How many bytes of it the server gets.
    pub after: usize,
}

#[derive(Debug, Clone, Default)]
struct Orders {
    refuse: bool,
    stall: bool,
    pace: Option<Pace>,
    trap: Option<Trap>,
    /// Counts cuts; a connection ends when it changes.
    cuts: u64,
}

/// A proxy on a port of its own; dropping it cuts all connections.
pub struct Proxy {
    port: u16,
    orders: watch::Sender<Orders>,
    sprung: Arc<AtomicUsize>,
    delivered: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Passes everything on to this port of 127.0.0.1, whether somebody listens there yet or not.
    ///
    /// # Errors
    /// There is no free port, or no thread to be had.
    pub fn to(target: u16) -> Result<Proxy> {
        let [port] = port::free()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .context("cannot start a thread for a proxy")?;
        let (orders, told) = watch::channel(Orders::default());
        let [sprung, delivered, open] = [0; 3].map(|zero| Arc::new(AtomicUsize::new(zero)));
        let listener = runtime.block_on(listen(port)).with_context(|| format!("cannot listen on port {port}"))?;
        let caught = Caught { sprung: Arc::clone(&sprung), delivered: Arc::clone(&delivered) };
        let door = Door { port, target, orders: told, caught, open: Arc::clone(&open) };
        runtime.spawn(door.keep(listener));
        Ok(Proxy { port, orders, sprung, delivered, open, runtime: Some(runtime) })
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends all connections at once; what they hold is lost. Says how many there were.
    pub fn cut(&self) -> usize {
        let open = self.connections();
        self.orders.send_modify(|orders| orders.cuts += 1);
        open
    }

    /// Holds all bytes back, in both directions, or lets them go on.
    pub fn stall(&self, on: bool) {
        self.orders.send_modify(|orders| orders.stall = on);
    }

    /// Slows all connections down, or no longer.
    pub fn slow(&self, pace: Option<Pace>) {
        self.orders.send_modify(|orders| orders.pace = pace);
    }

    /// Lets nobody connect any more, or does again; connections that are open stay.
    pub fn refuse(&self, on: bool) {
        self.orders.send_modify(|orders| orders.refuse = on);
    }

    /// Sets a trap for one request, or takes it away; a request that is held goes on then. If its client goes first, the
    /// server sees the request broken off.
    pub fn trap(&self, trap: Option<Trap>) {
        self.orders.send_modify(|orders| orders.trap = trap);
    }

    /// How many requests have been caught so far.
    pub fn sprung(&self) -> usize {
        self.sprung.load(Ordering::Relaxed)
    }

    /// How many of those went on afterwards, so that the server was sent all that was held of them.
    pub fn delivered(&self) -> usize {
        self.delivered.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Dropped plainly it would wait for its tasks.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// Lets connections in.
struct Door {
    port: u16,
    target: u16,
    orders: watch::Receiver<Orders>,
    caught: Caught,
    open: Arc<AtomicUsize>,
}

/// Counts requests that a trap held.
#[derive(Clone)]
struct Caught {
    sprung: Arc<AtomicUsize>,
    delivered: Arc<AtomicUsize>,
}

impl Door {
    async fn keep(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let accepted = match &listener {
                Some(open) => tokio::select! {
                    accepted = open.accept() => Some(accepted),
                    changed = self.orders.wait_for(|orders| orders.refuse) => match changed {
                        Ok(_) => None,
                        Err(_) => return,
                    },
                },
                None => {
                    if self.orders.wait_for(|orders| !orders.refuse).await.is_err() {
                        return;
                    }
                    listener = listen(self.port).await.ok();
                    if listener.is_none() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    continue;
                }
            };
            match accepted {
                Some(Ok((client, _))) => self.let_in(client),
                Some(Err(_)) => {}
                None => listener = None,
            }
        }
    }

    fn let_in(&self, client: TcpStream) {
        let (target, orders) = (self.target, self.orders.clone());
        let (caught, open) = (self.caught.clone(), Arc::clone(&self.open));
        tokio::spawn(async move {
            open.fetch_add(1, Ordering::Relaxed);
            // However it ends, both sides see it.
            let _ = pass(client, target, orders, &caught).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn pass(
    mut client: TcpStream,
    target: u16,
    mut orders: watch::Receiver<Orders>,
    caught: &Caught,
) -> io::Result<()> {
    let cuts = orders.borrow().cuts;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let request = Request::default();
    let there = Pump { from: from_client, to: to_server, orders: orders.clone() };
    let back = Pump { from: from_server, to: to_client, orders: orders.clone() };
    tokio::select! {
        // First, so that what is held is lost even when the same moment lets it go.
        biased;
        _ = orders.wait_for(|orders| orders.cuts != cuts) => Ok(()),
        ended = there.requests(&request, caught) => ended,
        ended = back.answers(&request) => ended,
    }
}

/// How many bytes of the current request have been passed on.
#[derive(Default)]
struct Request(AtomicUsize);

/// One direction of one connection.
struct Pump<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    orders: watch::Receiver<Orders>,
}

impl Pump<'_> {
    async fn answers(mut self, request: &Request) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = self.from.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            request.0.store(0, Ordering::Relaxed);
            self.deliver(&buffer[..count]).await?;
        }
    }

    async fn requests(mut self, request: &Request, caught: &Caught) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        // The trap that this request walks into, if any.
        let mut trap: Option<Trap> = None;
        loop {
            let count = self.from.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let (chunk, passed) = (&buffer[..count], request.0.load(Ordering::Relaxed));
            if passed == 0 {
                let set = self.orders.borrow().trap.clone();
                trap = set.filter(|trap| contains(chunk, trap.marker.as_bytes()));
            }
            match &trap {
                Some(set) if passed + count > set.after => {
                    let head = set.after.saturating_sub(passed);
                    self.deliver(&chunk[..head]).await?;
                    caught.sprung.fetch_add(1, Ordering::Relaxed);
                    let mut held = chunk[head..].to_vec();
                    if !self.hold(&mut held).await? {
                        return Ok(());
                    }
                    self.deliver(&held).await?;
                    caught.delivered.fetch_add(1, Ordering::Relaxed);
                    trap = None;
                }
                _ => self.deliver(chunk).await?,
            }
            request.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Collects what comes until the trap is taken away; false: the client went first.
    async fn hold(&mut self, held: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            tokio::select! {
                released = self.orders.wait_for(|orders| orders.trap.is_none()) => return Ok(released.is_ok()),
                count = self.from.read_buf(held) => if count? == 0 { return Ok(false) },
            }
        }
    }

    async fn deliver(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let gone = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
            let pace = self.orders.wait_for(|orders| !orders.stall).await.map_err(gone)?.pace;
            let (now, later) = match pace {
                None => (bytes, &bytes[..0]),
                // A tenth of a second's worth at a time.
                Some(pace) => bytes.split_at(bytes.len().min((pace.bytes_per_second as usize / 10).max(1))),
            };
            if let Some(pace) = pace {
                let due = Duration::from_secs_f64(now.len() as f64 / f64::from(pace.bytes_per_second.max(1)));
                tokio::time::sleep(pace.latency + due).await;
            }
            self.to.write_all(now).await?;
            bytes = later;
        }
        Ok(())
    }
}

fn contains(text: &[u8], marker: &[u8]) -> bool {
    !marker.is_empty() && text.windows(marker.len()).any(|window| window == marker)
}

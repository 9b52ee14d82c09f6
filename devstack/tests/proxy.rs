//! The proxy's faults, before a server that answers each byte with the same byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use devstack::{Pace, Proxy, Trap};

const SOON: Duration = Duration::from_secs(5);
const BRIEFLY: Duration = Duration::from_millis(150);

/// An echo server; all that it was sent, connection by connection, comes out of the receiver when they end.
fn echo() -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    all.extend_from_slice(&buffer[..count]);
                    let _ = stream.write_all(&buffer[..count]);
                }
                let _ = sender.send(all);
            });
        }
    });
    (port, ended)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn exchange(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

/// Nothing comes for a while.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(BRIEFLY)).unwrap();
    let silent = matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(SOON)).unwrap();
    silent
}

fn is_ended(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |count| count == 0)
}

#[test]
fn both_ends_end_together() {
    let (port, ended) = echo();
    let proxy = Proxy::to(port).unwrap();
    let (mut first, mut second) = (connect(&proxy), connect(&proxy));
    exchange(&mut first, b"one");
    exchange(&mut second, b"two");
    assert_eq!(proxy.connections(), 2);
    drop(first);
    assert_eq!(ended.recv_timeout(SOON).unwrap(), b"one");
    exchange(&mut second, b"more");
    assert_eq!(proxy.cut(), 1);
    assert!(is_ended(&mut second));
    assert_eq!(ended.recv_timeout(SOON).unwrap(), b"twomore");
    exchange(&mut connect(&proxy), b"a new one is let in");
}

#[test]
fn a_server_that_is_away_shows_as_an_ended_connection() {
    let [port] = devstack::free_ports().unwrap();
    let proxy = Proxy::to(port).unwrap();
    assert!(is_ended(&mut connect(&proxy)));
}

#[test]
fn what_is_stalled_comes_later_even_from_a_client_that_has_gone() {
    let (port, ended) = echo();
    let proxy = Proxy::to(port).unwrap();
    let (mut stays, mut goes) = (connect(&proxy), connect(&proxy));
    exchange(&mut stays, b"a");
    exchange(&mut goes, b"b");
    proxy.stall(true);
    stays.write_all(b"held").unwrap();
    goes.write_all(b"posthumous").unwrap();
    drop(goes);
    assert!(is_silent(&mut stays));
    assert!(ended.try_recv().is_err());
    proxy.stall(false);
    let mut back = [0; 4];
    stays.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"held");
    assert_eq!(ended.recv_timeout(SOON).unwrap(), b"bposthumous");
}

#[test]
fn a_slow_connection_takes_its_time() {
    let (port, _ended) = echo();
    let proxy = Proxy::to(port).unwrap();
    let mut stream = connect(&proxy);
    proxy.slow(Some(Pace { bytes_per_second: 10_000, latency: Duration::from_millis(10) }));
    let begun = Instant::now();
    exchange(&mut stream, &[7; 4_000]);
    assert!(begun.elapsed() > Duration::from_millis(400), "{:?}", begun.elapsed());
    proxy.slow(None);
    let begun = Instant::now();
    exchange(&mut stream, &[7; 4_000]);
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn who_is_refused_is_told_and_the_others_stay() {
    let (port, _ended) = echo();
    let proxy = Proxy::to(port).unwrap();
    let mut stays = connect(&proxy);
    exchange(&mut stays, b"a");
    proxy.refuse(true);
    let deadline = Instant::now() + SOON;
    while TcpStream::connect(("127.0.0.1", proxy.port())).is_ok() {
        assert!(Instant::now() < deadline, "still let in");
    }
    exchange(&mut stays, b"b");
    proxy.refuse(false);
    while TcpStream::connect(("127.0.0.1", proxy.port())).is_err() {
        assert!(Instant::now() < deadline, "still refused");
    }
    exchange(&mut connect(&proxy), b"c");
}

#[test]
fn a_trap_holds_a_request_in_its_middle() {
    let (port, ended) = echo();
    let proxy = Proxy::to(port).unwrap();
    let mut stream = connect(&proxy);
    proxy.trap(Some(Trap { marker: "INSERT".to_owned(), after: 10 }));
    exchange(&mut stream, b"SELECT, longer than that");
    assert_eq!(proxy.sprung(), 0);
    stream.write_all(b"INSERT 0123456789").unwrap();
    let mut back = [0; 10];
    stream.read_exact(&mut back).unwrap();
    assert_eq!((&back, proxy.sprung()), (b"INSERT 012", 1));
    assert!(is_silent(&mut stream));
    assert_eq!(proxy.delivered(), 0);
    proxy.trap(None);
    let mut rest = [0; 7];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"3456789");
    // The answer may be here a moment before it is counted.
    exchange(&mut stream, b"SELECT");
    assert_eq!(proxy.delivered(), 1);

    // A client that goes while it is held leaves half a request.
    proxy.trap(Some(Trap { marker: "INSERT".to_owned(), after: 10 }));
    stream.write_all(b"INSERT abcdefghij").unwrap();
    stream.read_exact(&mut back).unwrap();
    drop(stream);
    assert_eq!(ended.recv_timeout(SOON).unwrap(), b"SELECT, longer than thatINSERT 0123456789SELECTINSERT abc");
}

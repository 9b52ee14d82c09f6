//! The body of a request, in the pieces that it was made of.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Pieces to be sent one after the other, of a length that is known beforehand. Each is freed as soon as it was sent: an
/// insert of many megabytes is never put together, and less of it is there the further it is.
#[derive(Debug, Default)]
pub struct Pieces {
    left: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    /// Bytes of all that are left.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the first one.
    pub fn pop(&mut self) -> Option<Bytes> {
        let next = self.left.pop_front();
        self.bytes -= next.as_ref().map_or(0, Bytes::len);
        next
    }

    /// Appends one.
    pub fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        self.bytes += piece.len();
        self.left.push_back(piece);
    }
}

impl<T: Into<Bytes>> From<T> for Pieces {
    fn from(whole: T) -> Pieces {
        let mut pieces = Pieces::default();
        pieces.push(whole);
        pieces
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_are_sent_in_order_and_their_length_is_known() {
        let mut pieces = Pieces::from(&b"ab"[..]);
        pieces.push(Bytes::new());
        pieces.push(vec![b'c'; 3]);
        assert_eq!((pieces.bytes(), pieces.size_hint().exact(), pieces.is_end_stream()), (5, Some(5), false));
        let first = pieces.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((&first[..], pieces.bytes(), pieces.size_hint().exact()), (&b"ab"[..], 3, Some(3)));
        assert_eq!(&pieces.collect().await.unwrap().to_bytes()[..], b"ccc");
        assert!(Pieces::default().is_end_stream());
    }
}

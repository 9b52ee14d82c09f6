//! A question on its way: asked by a thread of its own, which hands its rows over piece by piece. So whoever judges waits for
//! them as long as it wants to, takes them in between two rounds, or gives up on them.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::stale::Stale;
use super::Answers;
use crate::alert::{Minute, Question, Row};
use crate::clickhouse::QueryError;
use crate::plan::Plan;

/// Pieces that wait to be taken in: none but the one that is handed over, so that of the answer this one and what is put together
/// behind it are all that is held.
const AHEAD: usize = 0;

/// What comes of a question.
pub(super) enum Piece {
    /// All rows within a span.
    Rows(Range<Minute>, Vec<Row>),
    /// No more: all was answered, or why not.
    End(Result<(), QueryError>),
}

/// See the module. Dropped, it is given up.
pub(super) struct Asking {
    /// The question.
    pub(super) position: usize,
    /// What was stale when it was asked.
    pub(super) stale: Stale,
    pub(super) begun: Instant,
    /// All rows before this minute, of what it was asked, were taken in.
    pub(super) taken: Minute,
    /// The longest time in which nobody was there to take rows.
    pub(super) left_alone: Duration,
    /// When somebody was last.
    attended: Instant,
    pieces: Receiver<Piece>,
    /// Comes before these.
    put_back: Option<Piece>,
    /// That it is gone ends the thread.
    _held: oneshot::Sender<Infallible>,
}

/// Why rows are handed on no more.
enum Halt {
    Query(QueryError),
    /// Nobody takes them.
    Unwanted,
}

impl From<QueryError> for Halt {
    fn from(error: QueryError) -> Halt {
        Halt::Query(error)
    }
}

impl Asking {
    /// Asks a question of some spans, which are stale.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(
        answers: &(impl Answers + Clone + Send + 'static),
        runtime: &Handle,
        plan: &Arc<Plan>,
        (position, question): (usize, &Question),
        (stale, spans): (Stale, Vec<Range<Minute>>),
    ) -> std::io::Result<Asking> {
        let (hand, pieces) = sync_channel(AHEAD);
        let (held, mut gone) = oneshot::channel::<Infallible>();
        let (answers, runtime, plan) = (answers.clone(), runtime.clone(), plan.clone());
        let question = question.clone();
        let ask = move || {
            let rows = answers.rows::<Halt>(&question, &plan.rollups[question.rollup], &spans, |span, rows| {
                handed(&hand, Piece::Rows(span, rows))
            });
            let answer = runtime.block_on(async {
                tokio::select! {
                    answer = rows => answer,
                    _ = &mut gone => Err(Halt::Unwanted),
                }
            });
            let _ = match answer {
                Ok(()) => handed(&hand, Piece::End(Ok(()))),
                Err(Halt::Query(error)) => handed(&hand, Piece::End(Err(error))),
                Err(Halt::Unwanted) => Ok(()),
            };
        };
        std::thread::Builder::new().name("alerts-question".to_owned()).spawn(ask)?;
        let now = Instant::now();
        Ok(Asking {
            position,
            stale,
            begun: now,
            taken: Minute::MIN,
            left_alone: Duration::ZERO,
            attended: now,
            pieces,
            put_back: None,
            _held: held,
        })
    }

    /// The next piece, if one comes in time.
    ///
    /// # Errors
    /// The thread ended before the answer did: it panicked.
    pub(super) fn next(&mut self, within: Duration) -> Result<Option<Piece>, String> {
        if let Some(piece) = self.put_back.take() {
            return Ok(Some(piece));
        }
        self.left_alone = self.left_alone.max(self.attended.elapsed());
        let next = self.pieces.recv_timeout(within);
        self.attended = Instant::now();
        match next {
            Ok(piece) => Ok(Some(piece)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("the thread that asked a question panicked".to_owned()),
        }
    }

    /// Leaves a piece to whoever asks next.
    pub(super) fn put_back(&mut self, piece: Option<Piece>) {
        self.put_back = piece;
    }
}

fn handed(to: &SyncSender<Piece>, piece: Piece) -> Result<(), Halt> {
    to.send(piece).map_err(|_| Halt::Unwanted)
}

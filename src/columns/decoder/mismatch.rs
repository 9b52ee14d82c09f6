//! What a reader can't read of a writer.

/// A field that a reader can't read, or not every value of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The reader's field; that of a nested record behind the record's name and a point; the event type where it is
    /// about the whole.
    pub field: String,
    /// What is wrong, and what to do about it.
    pub reason: String,
    /// Whether no message can be read. Otherwise those that hold certain values (a branch of a union, a symbol of an
    /// enum) become dead letters, and all others are read.
    pub always: bool,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let some = if self.always { "" } else { " (some values only)" };
        write!(f, "field `{}`{some}: {}", self.field, self.reason)
    }
}

/// Why messages of a writer's schema can't be read as an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError {
    /// The writer's schema is none.
    Schema {
        /// The event type.
        event: String,
        /// What the Avro library finds wrong.
        problem: String,
    },
    /// Fields that can't be read.
    Mismatches {
        /// The event type.
        event: String,
        /// All of them; at least one is [`Mismatch::always`].
        mismatches: Vec<Mismatch>,
    },
}

impl std::fmt::Display for ResolveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ResolveError::Schema { event, problem } => {
                write!(f, "the writer's schema of {event} is no valid Avro schema: {problem}; register a valid one")
            }
            ResolveError::Mismatches { event, mismatches } => {
                write!(f, "what the writer's schema says can't be read as {event}")?;
                mismatches.iter().try_for_each(|mismatch| write!(f, "\n  {mismatch}"))
            }
        }
    }
}

impl std::error::Error for ResolveError {}

//! Where a rewind goes back to.

use jiff::Timestamp;

use super::Args;
use crate::command::UsageError;

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Start,
    Time(i64),
    Offset(u64),
}

impl To {
    pub(super) fn parse(args: &Args) -> Result<To, UsageError> {
        if args.to == "start" {
            return Ok(To::Start);
        }
        if let Ok(offset) = args.to.parse() {
            if args.partitions.len() == 1 {
                return Ok(To::Offset(offset));
            }
            return Err(UsageError(
                "--to an offset needs one --partition: offsets of partitions are not related".into(),
            ));
        }
        let time = args.to.parse::<Timestamp>().map_err(|_| {
            UsageError(format!(
                "--to {:?} is neither `start`, nor an offset, nor a time such as 2026-11-20T08:00:00Z",
                args.to
            ))
        })?;
        Ok(To::Time(time.as_millisecond()))
    }
}

/// The beginning of the ledger's row that has an offset, or of its first; the ledger's end for what lies beyond.
pub(super) fn row_of(offset: u64) -> String {
    format!("if(max(`to`) <= {offset}, max(`to`), greatest(maxIf(`from`, `from` <= {offset}), min(`from`)))")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_or_refused_with_what_is_accepted() {
        let args = |to: &str, partitions: &[i32]| Args {
            topic: "t".into(),
            to: to.into(),
            partitions: partitions.into(),
            go_on: false,
            yes: false,
        };
        assert_eq!(To::parse(&args("start", &[])), Ok(To::Start));
        assert_eq!(To::parse(&args("500", &[3])), Ok(To::Offset(500)));
        assert_eq!(To::parse(&args("2026-11-20T08:00:00Z", &[])), Ok(To::Time(1_795_161_600_000)));
        for (to, partitions) in [("500", &[][..]), ("500", &[1, 2]), ("yesterday", &[]), ("-5", &[1]), ("", &[])] {
            assert!(To::parse(&args(to, partitions)).is_err(), "{to}");
        }
    }
}

//! Where reading begins, as written on the command line.

use std::str::FromStr;

use tidelog_client::{Admin, Error, Offset, OffsetSpec, TimestampMs, TopicPartition};

/// `earliest`, `latest`, an offset, or `timestamp:MILLISECONDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartPoint {
    /// The first record that is retained.
    Earliest,
    /// What is written from now on.
    Latest,
    /// This offset.
    At(Offset),
    /// The first record at or after this time.
    Since(TimestampMs),
}

impl FromStr for StartPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse::<i64>().ok().filter(|number| *number >= 0);
        match text {
            "earliest" | "beginning" => return Ok(StartPoint::Earliest),
            "latest" | "end" => return Ok(StartPoint::Latest),
            _ => {}
        }
        match text.strip_prefix("timestamp:") {
            Some(time) => number(time)
                .map(|ms| StartPoint::Since(TimestampMs(ms)))
                .ok_or_else(|| "a timestamp is milliseconds since 1970".to_owned()),
            None => number(text)
                .map(|offset| StartPoint::At(Offset(offset)))
                .ok_or_else(|| "not earliest, latest, an offset or timestamp:MS".to_owned()),
        }
    }
}

impl StartPoint {
    /// The offset that it means in one partition.
    pub(super) async fn resolve(self, admin: &Admin, of: &TopicPartition) -> Result<Offset, Error> {
        let spec = match self {
            StartPoint::At(offset) => return Ok(offset),
            StartPoint::Earliest => OffsetSpec::Earliest,
            StartPoint::Latest => OffsetSpec::Latest,
            StartPoint::Since(time) => OffsetSpec::AtTime(time),
        };
        admin.start_offset(of, spec).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_points_are_read() {
        assert_eq!("earliest".parse(), Ok(StartPoint::Earliest));
        assert_eq!("latest".parse(), Ok(StartPoint::Latest));
        assert_eq!("17".parse(), Ok(StartPoint::At(Offset(17))));
        assert_eq!(
            "timestamp:1700000000000".parse(),
            Ok(StartPoint::Since(TimestampMs(1_700_000_000_000)))
        );
        for wrong in ["", "-1", "yesterday", "timestamp:", "timestamp:-5", "1.5"] {
            assert!(wrong.parse::<StartPoint>().is_err(), "{wrong}");
        }
    }
}

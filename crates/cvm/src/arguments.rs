//! Words of the command line that are more than words.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use cvm_provisioning::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A template parameter with its value: `NAME=VALUE`. The value may be empty and may contain `=`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Assignment {
    name: String,
    value: String,
}

impl FromStr for Assignment {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            _ => Err(ArgumentError::Assignment),
        }
    }
}

/// The assignments by name.
pub(crate) fn by_name(assignments: Vec<Assignment>) -> Result<BTreeMap<String, String>, ArgumentError> {
    let mut values = BTreeMap::new();
    for Assignment { name, value } in assignments {
        if values.insert(name, value).is_some() {
            return Err(ArgumentError::Repeated);
        }
    }
    Ok(values)
}

/// How long something lasts: a number and a unit, as in `90s`, `15m`, `12h`, `7d`, `2w`; one second to ten years.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TimeToLive(Duration);

impl TimeToLive {
    const MAX_SECONDS: u64 = 10 * 365 * 24 * 60 * 60;

    pub(crate) const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for TimeToLive {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let unit = text.chars().next_back().ok_or(ArgumentError::TimeToLive)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            'w' => 7 * 24 * 60 * 60,
            _ => return Err(ArgumentError::TimeToLive),
        };
        let digits = &text[..text.len() - unit.len_utf8()];
        // `parse` would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ArgumentError::TimeToLive);
        }
        match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)) {
            Some(seconds @ 1..=Self::MAX_SECONDS) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(ArgumentError::TimeToLive),
        }
    }
}

/// A point in time: RFC 3339, such as `2026-01-31T12:00:00Z`, or a day, which begins at midnight UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PointInTime(Timestamp);

impl PointInTime {
    pub(crate) const fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl FromStr for PointInTime {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339);
        let parsed = parsed.or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339));
        parsed.map(|time| Self(time.into())).map_err(|_| ArgumentError::PointInTime)
    }
}

/// Why a word of the command line cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ArgumentError {
    #[error("expected NAME=VALUE, such as Site=berlin")]
    Assignment,
    #[error("expected a time such as 2026-01-31T12:00:00Z (RFC 3339), or a day such as 2026-01-31 (UTC)")]
    PointInTime,
    #[error("a parameter was given twice: give each --parameter once")]
    Repeated,
    #[error("expected a number and one of the units s m h d w, such as 7d, and ten years at most")]
    TimeToLive,
}

/// Parses an address to listen on. A name is resolved; its IPv4 address comes first, as clients of the default names use
/// that one.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let Some((name, Ok(port))) = text.rsplit_once(':').map(|(name, port)| (name, port.parse::<u16>())) else {
        return Err("expected ADDRESS:PORT, such as 127.0.0.1:8443, [::1]:8443 or localhost:8443".to_owned());
    };
    if name.is_empty() {
        return Err(format!("the address is missing: write 0.0.0.0:{port} or [::]:{port} to listen on every address"));
    }
    let unresolved = || format!("{name:?} does not resolve to an address of this machine: write the address itself");
    let mut addresses: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(|_| unresolved())?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.first().copied().ok_or_else(unresolved)
}

/// The same for what is written into a configuration: the system chooses no port there.
pub(crate) fn fixed_listen_address(text: &str) -> Result<SocketAddr, String> {
    match listen_address(text)? {
        address if address.port() == 0 => Err("name the port that clients connect to, such as 8883".to_owned()),
        address => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_a_number_and_a_unit() {
        for (text, seconds) in [("1s", 1), ("15m", 900), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)] {
            assert_eq!(text.parse::<TimeToLive>().unwrap().duration(), Duration::from_secs(seconds), "{text}");
        }
        for bad in [
            "",
            "7",
            "d",
            "0d",
            "-1d",
            "+1d",
            "1.5h",
            "7 d",
            "7D",
            "1d2h",
            "7é",
            "521w1",
            "522w",
            "99999999999999999999s",
        ] {
            assert_eq!(bad.parse::<TimeToLive>(), Err(ArgumentError::TimeToLive), "{bad:?}");
        }
    }

    #[test]
    fn a_point_in_time_is_a_timestamp_or_the_beginning_of_a_day() {
        let seconds = |text: &str| text.parse::<PointInTime>().map(|point| point.timestamp().seconds());
        assert_eq!(seconds("1970-01-02"), Ok(86_400));
        assert_eq!(seconds("1970-01-01T01:00:00+01:00"), Ok(0));
        for bad in ["", "yesterday", "1970-01-32", "1970-01-01T", "00:00"] {
            assert_eq!(seconds(bad), Err(ArgumentError::PointInTime), "{bad:?}");
        }
    }

    #[test]
    fn an_assignment_ends_its_name_at_the_first_sign() {
        let parsed: Assignment = "Site=a=b".parse().unwrap();
        assert_eq!(parsed, Assignment { name: "Site".to_owned(), value: "a=b".to_owned() });
        assert_eq!("Site=".parse::<Assignment>().unwrap().value, "");
        for bad in ["", "Site", "=berlin"] {
            assert_eq!(bad.parse::<Assignment>(), Err(ArgumentError::Assignment), "{bad:?}");
        }
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        let assignments = ["Site=a", "Room=1", "Site=b"].map(|text| text.parse::<Assignment>().unwrap());
        assert_eq!(by_name(assignments[..2].to_vec()).unwrap().len(), 2);
        assert_eq!(by_name(assignments.to_vec()), Err(ArgumentError::Repeated));
    }

    #[test]
    fn a_listen_address_may_be_a_name_and_a_wrong_one_says_what_to_write() {
        let listen = |text: &str| listen_address(text);
        assert_eq!(listen("127.0.0.1:8443").unwrap().to_string(), "127.0.0.1:8443");
        assert_eq!(listen("[::1]:8443").unwrap().to_string(), "[::1]:8443");
        assert!(fixed_listen_address("localhost:0").unwrap_err().contains("8883"));
        assert!(listen("localhost:8443").unwrap().ip().is_loopback());
        for (text, advice) in [
            ("8443", "127.0.0.1:8443"),
            ("localhost", "localhost:8443"),
            (":8443", "0.0.0.0:8443"),
            ("a b:1", "the address itself"),
        ] {
            let error = listen(text).unwrap_err();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}

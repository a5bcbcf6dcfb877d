//! How far a long run has come: a line that is drawn over on a terminal, a line now and then in a log.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::output::{Output, count};

/// Tells how far a run over many things has come.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    output: &'a Output,
    started: Instant,
    told: Instant,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// The things that were worked on.
    pub(crate) done: u64,
    /// The part of the list that has been read, from 0 to 1, where its length is known.
    pub(crate) part: Option<f64>,
}

impl<'a> Progress<'a> {
    /// Between two drawings of the line.
    const DRAWN: Duration = Duration::from_millis(200);
    /// Between two lines in a log.
    const LOGGED: Duration = Duration::from_secs(10);

    pub(crate) fn start(output: &'a Output) -> Self {
        let now = Instant::now();
        Self { output, started: now, told: now }
    }

    /// Says so, if it is time to.
    pub(crate) fn tell(&mut self, standing: Standing) -> io::Result<()> {
        let (since, elapsed) = (self.told.elapsed(), self.started.elapsed());
        if since < Self::DRAWN {
            return Ok(());
        }
        let line = Line { standing, elapsed };
        if self.output.redraw(&line)? {
            self.told = Instant::now();
        } else if since >= Self::LOGGED {
            self.output.note(&line)?;
            self.told = Instant::now();
        }
        Ok(())
    }

    /// Ends it, and returns how long it took.
    pub(crate) fn finish(self) -> Duration {
        self.started.elapsed()
    }
}

/// Wipes the line away, so that a result or an error stands where it was.
impl Drop for Progress<'_> {
    fn drop(&mut self) {
        // Where this fails, what comes next on stderr fails too, and says so.
        let _ = self.output.redraw("");
    }
}

struct Line {
    standing: Standing,
    elapsed: Duration,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { done, part } = self.standing;
        let elapsed = self.elapsed.as_secs_f64();
        write!(f, "{}, {:.0} a second", count(done, "device"), done as f64 / elapsed.max(0.001))?;
        match part {
            Some(part) if part > 0.0 => {
                let left = Duration::from_secs_f64((elapsed / part - elapsed).clamp(0.0, 1e9));
                write!(f, ", {:.0} %, {} left", 100.0 * part, Spell(left))
            }
            _ => Ok(()),
        }
    }
}

/// A duration in two units at most: `9 s`, `4 min 30 s`, `2 h 5 min`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spell(pub(crate) Duration);

impl fmt::Display for Spell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..60 => write!(f, "{seconds} s"),
            seconds @ 60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            seconds => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_and_the_time_left_are_those_so_far() {
        let line = |done, part| Line { standing: Standing { done, part }, elapsed: Duration::from_secs(10) };
        assert_eq!(line(500, Some(0.25)).to_string(), "500 devices, 50 a second, 25 %, 30 s left");
        assert_eq!(line(500, Some(0.01)).to_string(), "500 devices, 50 a second, 1 %, 16 min 30 s left");
        assert_eq!(line(500, None).to_string(), "500 devices, 50 a second");
        assert_eq!(line(1, None).to_string(), "1 device, 0 a second");
        assert_eq!(line(0, Some(0.0)).to_string(), "0 devices, 0 a second");
        assert_eq!(Spell(Duration::from_secs(7_500)).to_string(), "2 h 5 min");
    }
}

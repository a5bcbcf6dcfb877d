//! Aligned columns.

/// Lays out rows under headers, page by page. A column is as wide as its widest cell so far: what was written cannot
/// be moved, so a wider cell on a later page widens its column from there on.
///
/// With a `limit`, no line is longer. The cell that names the row is never cut: if it is too long for its column, it stands
/// on a line of its own, above the others.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    headers: [&'static str; COLUMNS],
    widths: [usize; COLUMNS],
    limit: Option<usize>,
    key: usize,
}

/// The blanks between two columns.
const GAP: &str = "  ";
/// The widest cell that does not name its row, in characters.
const WIDEST: usize = 24;

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table without rows, whose lines have at most `limit` characters. The first column names the rows.
    pub(crate) fn new(headers: [&'static str; COLUMNS], limit: Option<usize>) -> Self {
        Self { headers, widths: headers.map(str::len), limit, key: 0 }
    }

    /// The same, whose rows are named by this column.
    pub(crate) fn keyed_by(self, key: usize) -> Self {
        Self { key, ..self }
    }

    /// Makes room for these rows.
    pub(crate) fn fit<'a>(&mut self, rows: impl IntoIterator<Item = &'a [String; COLUMNS]>) {
        for row in rows {
            for (number, (width, cell)) in self.widths.iter_mut().zip(row).enumerate() {
                let length = cell.chars().count();
                let length = if self.limit.is_some() && number != self.key { length.min(WIDEST) } else { length };
                *width = length.max(*width);
            }
        }
        if let Some(limit) = self.limit {
            let others = self.widths.iter().sum::<usize>() - self.widths[self.key] + GAP.len() * (COLUMNS - 1);
            let room = limit.saturating_sub(others).max(self.headers[self.key].len());
            self.widths[self.key] = self.widths[self.key].min(room);
        }
    }

    pub(crate) fn header(&self) -> String {
        self.line(&self.headers)
    }

    pub(crate) fn line(&self, cells: &[impl AsRef<str>; COLUMNS]) -> String {
        let mut cells = cells.each_ref().map(|cell| cell.as_ref().to_owned());
        let mut above = String::new();
        if cells[self.key].chars().count() > self.widths[self.key] {
            above = format!("{}\n", std::mem::take(&mut cells[self.key]));
        }
        let Some(limit) = self.limit else { return format!("{above}{}", self.aligned(&cells)) };
        let last = COLUMNS - 1;
        for (number, cell) in cells.iter_mut().enumerate().filter(|(number, _)| ![self.key, last].contains(number)) {
            *cell = cut(cell, self.widths[number]);
        }
        // A last cell may go on to the end of the line.
        format!("{above}{}", cut(&self.aligned(&cells), limit))
    }

    fn aligned(&self, cells: &[String; COLUMNS]) -> String {
        let cells: Vec<String> = self.widths.iter().zip(cells).map(|(width, cell)| format!("{cell:width$}")).collect();
        cells.join(GAP).trim_end().to_owned()
    }
}

/// The text, or its beginning and an ellipsis if it has more than `limit` characters.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// The day of a timestamp in RFC 3339: `2027-01-31`.
<<<<<<< HEAD
pub(crate) fn day(timestamp: impl ToString) -> String {
=======
pub(crate) fn day(timestamp: &impl ToString) -> String {
>>>>>>> h-cli
    timestamp.to_string().chars().take(10).collect()
}

/// The same to the minute: `2027-01-31T12:30Z`.
<<<<<<< HEAD
pub(crate) fn minute(timestamp: impl ToString) -> String {
=======
pub(crate) fn minute(timestamp: &impl ToString) -> String {
>>>>>>> h-cli
    let text: String = timestamp.to_string().chars().take(16).collect();
    format!("{text}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const COLUMNS: usize>(cells: [&str; COLUMNS]) -> [String; COLUMNS] {
        cells.map(str::to_owned)
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_the_end() {
        let mut table = Table::new(["ID", "STATE", "NOTE"], None);
        let rows = [row(["sn-0001", "ok", ""]), row(["x", "quarantined", "é"])];
        table.fit(&rows);
        assert_eq!(table.header(), "ID       STATE        NOTE");
        assert_eq!(table.line(&rows[0]), "sn-0001  ok");
        assert_eq!(table.line(&rows[1]), "x        quarantined  é");
    }

    #[test]
    fn no_line_is_longer_than_the_limit_and_no_id_is_cut() {
        let mut table = Table::new(["ID", "STATE", "WHY"], Some(80));
        let (id, why) = ("x".repeat(64), "because ".repeat(20));
        let rows = [row([&id, "quarantined", &why]), row(["sn-1", "ok", "-"])];
        table.fit(&rows);
        let line = table.line(&rows[0]);
        let (above, below) = line.split_once('\n').unwrap();
        assert_eq!(above, id);
        assert_eq!(below.chars().count(), 80, "{below}");
        assert!(below.trim_start().starts_with("quarantined  because because") && below.ends_with('…'), "{below}");
        assert_eq!(table.line(&rows[1]).find("ok"), below.find("quarantined"));
        assert!(table.header().chars().count() <= 80);
    }

    #[test]
    fn a_timestamp_is_shortened_and_stays_utc() {
<<<<<<< HEAD
        assert_eq!(day("2027-01-31T12:30:59Z"), "2027-01-31");
        assert_eq!(minute("2027-01-31T12:30:59Z"), "2027-01-31T12:30Z");
=======
        assert_eq!(day(&"2027-01-31T12:30:59Z"), "2027-01-31");
        assert_eq!(minute(&"2027-01-31T12:30:59Z"), "2027-01-31T12:30Z");
>>>>>>> h-cli
    }
}

//! Aligned columns.

/// Lays out rows under headers, page by page. A column is as wide as its widest cell so far: what was written cannot
/// be moved, so a wider cell on a later page widens its column from there on.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    headers: [&'static str; COLUMNS],
    widths: [usize; COLUMNS],
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(headers: [&'static str; COLUMNS]) -> Self {
        Self { headers, widths: headers.map(str::len) }
    }

    /// Makes room for these rows.
    pub(crate) fn fit(&mut self, rows: &[[String; COLUMNS]]) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
    }

    pub(crate) fn header(&self) -> String {
        self.line(&self.headers)
    }

    pub(crate) fn line(&self, cells: &[impl AsRef<str>; COLUMNS]) -> String {
        let cells: Vec<String> =
            self.widths.iter().zip(cells).map(|(width, cell)| format!("{:width$}", cell.as_ref())).collect();
        cells.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_the_end() {
        let mut table = Table::new(["ID", "STATE", "NOTE"]);
        let rows = [["sn-0001", "ok", ""], ["x", "quarantined", "é"]].map(|row| row.map(str::to_owned));
        table.fit(&rows);
        assert_eq!(table.header(), "ID       STATE        NOTE");
        assert_eq!(table.line(&rows[0]), "sn-0001  ok");
        assert_eq!(table.line(&rows[1]), "x        quarantined  é");
    }
}

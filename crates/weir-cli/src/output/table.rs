// SPDX-License-Identifier: Apache-2.0
//! Columns under each other, for people and for `grep`.

/// Between two columns.
const GAP: &str = "   ";

/// Rows of cells; a cell of several lines makes its row as high.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with a header.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = Self::default();
        table.row(header);
        table
    }

    /// Columns of numbers, from 0, which are aligned at their last digit.
    #[must_use]
    pub(crate) fn right<const N: usize>(mut self, columns: [usize; N]) -> Self {
        self.right = columns.to_vec();
        self
    }

    pub(crate) fn row<const N: usize, S: Into<String>>(&mut self, cells: [S; N]) {
        self.cells(cells.into_iter().map(Into::into).collect());
    }

    /// A row whose number of columns depends on what was asked for.
    pub(crate) fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The header is left out.
    pub(crate) fn lines_without_header(mut self) -> Vec<String> {
        if !self.rows.is_empty() {
            self.rows.remove(0);
        }
        self.lines()
    }

    /// All lines, none with spaces at its end.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .flat_map(|cell| cell.lines().map(width))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        self.rows
            .iter()
            .flat_map(|row| self.row_lines(row, &widths))
            .collect()
    }

    fn row_lines(&self, row: &[String], widths: &[usize]) -> Vec<String> {
        let height = row
            .iter()
            .map(|cell| cell.lines().count())
            .max()
            .unwrap_or(0)
            .max(1);
        (0..height)
            .map(|line| {
                let cells: Vec<String> = widths
                    .iter()
                    .enumerate()
                    .map(|(column, &wide)| {
                        let cell = row.get(column).map_or("", String::as_str);
                        let text = cell.lines().nth(line).unwrap_or_default();
                        let space = " ".repeat(wide.saturating_sub(width(text)));
                        if self.right.contains(&column) {
                            format!("{space}{text}")
                        } else {
                            format!("{text}{space}")
                        }
                    })
                    .collect();
                cells.join(GAP).trim_end().to_owned()
            })
            .collect()
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(["NAME", "USED", "LABELS"]).right([1]);
        table.row(["flows", "12", "a\nb"]);
        table.row(["x", "1234567", ""]);
        insta::assert_snapshot!(table.lines().join("\n"), @r"
        NAME       USED   LABELS
        flows        12   a
                          b
        x       1234567
        ");
        assert_eq!(
            table.lines_without_header().first().map(String::as_str),
            Some("flows        12   a")
        );
    }

    #[test]
    fn nothing_is_no_line() {
        assert!(Table::default().lines().is_empty());
    }
}

//! Columns, aligned by spaces. No lines, no colours: output for people that `awk` reads as well.

/// Space between columns.
const GAP: &str = "  ";

/// Rows under a head; every row has as many cells as the head.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Table {
            rows: vec![head.map(str::to_owned)],
        }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// The table as text; the last column is not padded. Cells that would be empty show a dash, so that columns
    /// can be counted.
    pub(super) fn render(&self) -> String {
        let shown = |cell: &str| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell.to_owned()
            }
        };
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(shown(cell).chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<_> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{:width$}", shown(cell)))
                .collect();
            text.push_str(cells.join(GAP).trim_end());
            text.push('\n');
        }
        text
    }
}

/// Numbers or names in one cell.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut table = Table::new(["NAME", "COUNT", "NOTE"]);
        table.row(["orders".to_owned(), "3".to_owned(), String::new()]);
        table.row(["größe".to_owned(), String::new(), "x".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME    COUNT  NOTE\norders  3      -\ngröße   -      x\n"
        );
    }

    #[test]
    fn lists_have_commas() {
        assert_eq!(list([1, 2, 3]), "1,2,3");
        assert_eq!(list::<i32>([]), "");
    }
}

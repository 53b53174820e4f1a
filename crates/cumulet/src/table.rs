//! Plain columns for a terminal.

/// Rows under their headings, columns as wide as their widest cell.
pub fn render<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line: String =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    let mut text = line(headings);
    for row in rows {
        text += &line(std::array::from_fn(|at| row[at].as_str()));
    }
    text
}

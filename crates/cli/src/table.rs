//! Lists for people: columns as wide as their widest cell.

use std::io::{self, Write};

/// Prints a table; numbers stand to the right.
pub(crate) fn print(out: &mut impl Write, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number = |column: usize| {
        !rows.is_empty() && rows.iter().all(|row| row[column].starts_with(|c: char| c.is_ascii_digit() || c == '-'))
    };
    let right: Vec<bool> = (0..head.len()).map(is_number).collect();
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = if right[column] { (pad.as_str(), "") } else { ("", pad.as_str()) };
            line.push_str(if column == 0 { "" } else { "  " });
            line.push_str(before);
            line.push_str(cell);
            line.push_str(after);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        let rows = [["inputs", "8", "durable"], ["s", "16", "memory"]].map(|row| row.map(str::to_owned).to_vec());
        print(&mut out, &["TOPIC", "PARTITIONS", "CLASS"], &rows).unwrap();
        let right = "TOPIC   PARTITIONS  CLASS\ninputs           8  durable\ns               16  memory\n";
        assert_eq!(String::from_utf8(out).unwrap(), right);
    }
}

//! `--write-out=table`: boxes. Only what comes in rows has this format.

use unicode_width::UnicodeWidthStr;

use super::{Answer, Health, hash_rows, member_rows, status_rows};

pub(super) fn render(answer: Answer<'_>) -> Option<Vec<u8>> {
    let (header, rows): (&[&str], _) = match answer {
        Answer::MemberList(answer) => {
            (&["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"], member_rows(answer))
        }
        Answer::EndpointHealth(all) => (&["endpoint", "health", "took", "error"], all.iter().map(health).collect()),
        Answer::EndpointStatus(all) => (
            &[
                "endpoint",
                "ID",
                "version",
                "storage version",
                "db size",
                "in use",
                "percentage not in use",
                "quota",
                "is leader",
                "is learner",
                "raft term",
                "raft index",
                "raft applied index",
                "errors",
                "downgrade target version",
                "downgrade enabled",
            ],
            status_rows(all),
        ),
        Answer::EndpointHashKv(all) => (&["endpoint", "hash", "hash revision"], hash_rows(all)),
        _ => return None,
    };
    Some(boxed(header, rows).into_bytes())
}

fn health(health: &Health) -> Vec<String> {
    vec![health.endpoint.clone(), health.healthy.to_string(), health.took.clone(), health.error.clone()]
}

/// Titles in capitals and centred, cells to the right, one space beside each.
fn boxed(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let header: Vec<String> = header.iter().map(|title| title.to_uppercase()).collect();
    let mut widths: Vec<usize> = header.iter().map(|title| title.width()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let rule = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let mut table = rule("┌", "┬", "┐");
    table.push_str(&written(&header, &widths, |gap| gap / 2));
    table.push_str(&rule("├", "┼", "┤"));
    for row in &rows {
        table.push_str(&written(row, &widths, |gap| gap));
    }
    table.push_str(&rule("└", "┴", "┘"));
    table
}

/// One row; `before` is how much of a cell's free space stands before it.
fn written(row: &[String], widths: &[usize], before: fn(usize) -> usize) -> String {
    let cell = |(text, width): (&String, &usize)| {
        let gap = width - text.width();
        let before = before(gap);
        format!(" {}{text}{} ", " ".repeat(before), " ".repeat(gap - before))
    };
    let cells: Vec<String> = row.iter().zip(widths).map(cell).collect();
    format!("│{}│\n", cells.join("│"))
}

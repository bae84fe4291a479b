//! Help and usage pages in Cobra's layout.

use std::fmt::Write as _;

use super::flags::{Flag, Kind, local};
use super::{Group, Spec};
use crate::go::quote;

/// Names are padded to this width at least.
const NAME_WIDTH: usize = 11;

/// The words that call the last command of `path`.
pub fn called(path: &[&'static Spec]) -> String {
    path.iter().map(|spec| spec.name).collect::<Vec<_>>().join(" ")
}

/// What `--help` prints: what the command is for, then how it is used.
pub fn help(path: &[&'static Spec]) -> String {
    let spec = last(path);
    let head = if spec.long.is_empty() { spec.short } else { spec.long };
    format!("{}\n\n{}", head.trim_end(), usage(path))
}

/// How the command is used: its line, its children, its flags.
pub fn usage(path: &[&'static Spec]) -> String {
    let spec = last(path);
    let mut page = String::from("Usage:");
    if spec.run.is_some() {
        let parent = called(&path[..path.len() - 1]);
        let space = if path.len() > 1 { " " } else { "" };
        let flags = if spec.choices.is_empty() { " [flags]" } else { "" };
        let _ = write!(page, "\n  {parent}{space}{}{flags}", spec.usage);
    }
    let has_children = spec.children.iter().any(|child| !child.hidden);
    if has_children {
        let _ = write!(page, "\n  {} [command]", called(path));
    }
    if !spec.example.is_empty() {
        let _ = write!(page, "\n\nExamples:\n{}", spec.example);
    }
    if has_children {
        children(spec, &mut page);
    }
    flag_part("Flags", &local(spec, path.len() == 1), &mut page);
    let above: Vec<Flag> = path[..path.len() - 1].iter().flat_map(|spec| spec.inherited).copied().collect();
    flag_part("Global Flags", &above, &mut page);
    if has_children {
        let _ = write!(page, "\n\nUse \"{} [command] --help\" for more information about a command.", called(path));
    }
    page.push('\n');
    page
}

fn last(path: &[&'static Spec]) -> &'static Spec {
    path[path.len() - 1]
}

fn children(spec: &Spec, page: &mut String) {
    let mut children: Vec<&Spec> = spec.children.iter().copied().filter(|child| !child.hidden).collect();
    children.sort_by_key(|child| child.name);
    let width = children.iter().map(|child| child.name.len()).max().unwrap_or(0).max(NAME_WIDTH);
    let list = |group: Group, page: &mut String| {
        for child in children.iter().filter(|child| child.group == group) {
            let _ = write!(page, "\n  {:width$} {}", child.name, child.short);
        }
    };
    if children.iter().all(|child| child.group == Group::None) {
        page.push_str("\n\nAvailable Commands:");
        list(Group::None, page);
    } else {
        for (group, title) in Group::ALL {
            let _ = write!(page, "\n\n{title}");
            list(group, page);
        }
    }
}

fn flag_part(title: &str, flags: &[Flag], page: &mut String) {
    let table = flag_table(flags);
    if !table.is_empty() {
        let _ = write!(page, "\n\n{title}:\n{}", table.trim_end());
    }
}

/// One line for each flag that is not hidden, in columns.
pub fn flag_table(flags: &[Flag]) -> String {
    let shown: Vec<(String, &Flag)> =
        flags.iter().filter(|flag| !flag.hidden).map(|flag| (written(flag), flag)).collect();
    let width = shown.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    let mut table = String::new();
    for (left, flag) in shown {
        let _ = writeln!(table, "{left:width$}   {}{}", flag.help, default_of(flag));
    }
    table
}

fn written(flag: &Flag) -> String {
    let mut left = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    left.push_str(match flag.kind {
        Kind::Bool => "",
        Kind::Int => " int",
        Kind::Uint => " uint",
        Kind::Text => " string",
        Kind::Duration => " duration",
        Kind::List => " strings",
    });
    left
}

fn default_of(flag: &Flag) -> String {
    match flag.kind {
        _ if flag.default_is_nothing() => String::new(),
        Kind::Text => format!(" (default {})", quote(flag.default.as_bytes())),
        Kind::List => format!(" (default [{}])", flag.default),
        _ => format!(" (default {})", flag.default),
    }
}

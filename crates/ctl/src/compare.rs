//! Comparisons of `txn`: `TARGET("key") OPERATOR "value"`.

use milepost_proto::etcdserverpb::Compare;
use milepost_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::go::{parse_int, quote, unquote};

/// Reads one comparison. Key and value stand in Go's quotes, spaces around the operator are needed.
///
/// # Errors
/// What etcdctl says about such a line.
pub fn parse(line: &[u8]) -> Result<Compare, String> {
    let shown = String::from_utf8_lossy(line);
    let malformed = || format!("malformed comparison: {shown}");
    let open = line.iter().position(|&byte| byte == b'(').ok_or_else(malformed)?;
    let target = String::from_utf8_lossy(&line[..open]).into_owned();
    let parts = scan(&line[open + 1..]);
    let Parts { key, operator, value: Some(value) } = parts else {
        let (key, operator) = (quote(&parts.key), String::from_utf8_lossy(&parts.operator).into_owned());
        return Err(format!("{}; got {target}({key}) {operator} \"\"", malformed()));
    };
    let number = |base| {
        let text = String::from_utf8_lossy(&value);
        parse_int(&text, base).map_err(|_| format!("invalid txn compare request: {shown}"))
    };
    let (target, union) = match target.as_str() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        // etcdctl panics here; an id is hexadecimal, as everywhere else in the tool.
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        unknown => return Err(format!("{} (unknown target {unknown})", malformed())),
    };
    let result = match operator.as_slice() {
        b"=" => CompareResult::Equal,
        b"!=" => CompareResult::NotEqual,
        b">" => CompareResult::Greater,
        b"<" => CompareResult::Less,
        // And here.
        other => {
            let other = String::from_utf8_lossy(other);
            return Err(format!("{} (unknown operator {other}: use =, !=, > or <)", malformed()));
        }
    };
    Ok(Compare {
        result: result as i32,
        target: target as i32,
        key: key.into(),
        target_union: Some(union),
        range_end: Default::default(),
    })
}

/// What could be read of `"key") OPERATOR "value"`, from the left.
#[derive(Default)]
struct Parts {
    key: Vec<u8>,
    operator: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Reads as Go's `Sscanf("%q) %s %q")` does; what stands behind the value does not matter.
fn scan(text: &[u8]) -> Parts {
    let mut parts = Parts::default();
    let Some((key, rest)) = unquote(text.trim_ascii_start()) else { return parts };
    parts.key = key;
    let Some(rest) = rest.strip_prefix(b")").and_then(spaced) else { return parts };
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let (operator, rest) = rest.split_at(end);
    parts.operator = operator.to_vec();
    parts.value = spaced(rest).and_then(unquote).map(|(value, _)| value);
    parts
}

/// Behind at least one space.
fn spaced(text: &[u8]) -> Option<&[u8]> {
    let rest = text.trim_ascii_start();
    (rest.len() < text.len()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_that_hold() {
        let compare = parse(br#"mod("k")   >   "12" and more"#).unwrap();
        assert_eq!((compare.target(), compare.result()), (CompareTarget::Mod, CompareResult::Greater));
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(12)));
        let compare = parse(b"val(`k`) != \"a\\x00\"").unwrap();
        assert_eq!((compare.key.as_ref(), compare.result()), (&b"k"[..], CompareResult::NotEqual));
        assert_eq!(compare.target_union, Some(TargetUnion::Value(b"a\0".to_vec().into())));
        let compare = parse(br#"lease("k") = "70cc1f""#).unwrap();
        assert_eq!(compare.target_union, Some(TargetUnion::Lease(0x70_cc1f)));
    }

    #[test]
    fn what_is_wrong_is_said_in_etcdctls_words() {
        let golden = [
            ("mod k", "malformed comparison: mod k"),
            (r#"mod("k")= "1""#, r#"malformed comparison: mod("k")= "1"; got mod("k")  """#),
            (r#"mod("k") ="1""#, r#"malformed comparison: mod("k") ="1"; got mod("k") ="1" """#),
            (r#"mod("k" ) = "1""#, r#"malformed comparison: mod("k" ) = "1"; got mod("k")  """#),
            (r#"mod("k") = 1"#, r#"malformed comparison: mod("k") = 1; got mod("k") = """#),
            (r#"mod(k) = "1""#, r#"malformed comparison: mod(k) = "1"; got mod("")  """#),
            (r#"mod("k") = "x""#, r#"invalid txn compare request: mod("k") = "x""#),
            (r#"foo("k") = "1""#, r#"malformed comparison: foo("k") = "1" (unknown target foo)"#),
            (r#"mod("k") <> "1""#, r#"malformed comparison: mod("k") <> "1" (unknown operator <>: use =, !=, > or <)"#),
        ];
        for (line, error) in golden {
            assert_eq!(parse(line.as_bytes()), Err(error.to_owned()), "{line}");
        }
    }
}

//! Numbers out of the one-line, flat JSON object that `milepost bench --json` prints.

/// Value of the number field `name`; `None` when it is absent, null or not a number. The writer is ours and puts no
/// braces or quotes of its own into names, so the first match is the field.
pub fn number(object: &str, name: &str) -> Option<f64> {
    let marker = format!("\"{name}\":");
    let rest = object.get(object.find(&marker)? + marker.len()..)?.trim_start();
    let end = rest.find([',', '}'])?;
    rest[..end].trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let object = r#"{"command":"put","ops":12,"ops_per_second":3.5e3,"syncs":null,"max": 7}"#;
        assert_eq!(number(object, "ops"), Some(12.0));
        assert_eq!(number(object, "ops_per_second"), Some(3500.0));
        assert_eq!(number(object, "max"), Some(7.0));
        assert_eq!(number(object, "syncs"), None);
        assert_eq!(number(object, "command"), None);
        assert_eq!(number(object, "second"), None);
        assert_eq!(number("", "ops"), None);
    }
}

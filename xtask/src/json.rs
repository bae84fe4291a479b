//! Numbers out of the one-line, flat JSON object that `milepost bench --json` prints.

use std::collections::BTreeMap;

/// Value of the number field `name`; `None` when it is absent, null or not a number. The writer is ours and puts no
/// braces or quotes of its own into names, so the first match is the field.
pub fn number(object: &str, name: &str) -> Option<f64> {
    let marker = format!("\"{name}\":");
    let rest = object.get(object.find(&marker)? + marker.len()..)?.trim_start();
    let end = rest.find([',', '}'])?;
    rest[..end].trim().parse().ok()
}

/// All number fields of a flat object, by name; of a name that stands twice, the first.
pub fn numbers(object: &str) -> BTreeMap<String, f64> {
    // Names have no quotes inside: every second piece between quotes is a name or a text.
    let names = object.split('"').skip(1).step_by(2);
    names.filter_map(|name| Some((name.to_owned(), number(object, name)?))).collect()
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
        let all = numbers(object);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["max", "ops", "ops_per_second"]);
        assert_eq!(all["max"], 7.0);
    }
}

//! Sizes for people: `20 kB`, `2.1 GB`; decimal units, one digit behind the point below ten.

/// `bytes` in decimal units.
pub fn si_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let exponent = bytes.ilog(1000) as usize;
    let value = (bytes as f64 / 1000f64.powi(exponent as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[exponent.min(6)];
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_the_real_tool_shows_them() {
        let golden = [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (120_848_384, "121 MB"),
            (9_999, "10 kB"),
        ];
        for (bytes, shown) in golden {
            assert_eq!(si_bytes(bytes), shown);
        }
    }
}

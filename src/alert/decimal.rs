//! Exact decimals, as whole numbers of 10⁻¹².

use crate::rollup::COST_SCALE;

/// Digits behind the point.
pub const SCALE: u8 = COST_SCALE;

/// 1, in units of 10⁻¹².
pub const ONE: i128 = 10_i128.pow(SCALE as u32);

/// Reads digits with or without a point and a sign, to the unit of `scale` digits behind the point. `None` where it is no
/// such number, has more digits than that or does not fit.
pub fn parse(text: &str, scale: u8) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
        None => (digits, ""),
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > usize::from(scale) {
        return None;
    }
    let padding = u32::from(scale) - fraction.len() as u32;
    let units: i128 = format!("{whole}{fraction}").parse().ok()?;
    let units = units.checked_mul(10_i128.checked_pow(padding)?)?;
    Some(if negative { -units } else { units })
}

/// Writes units of `scale` digits behind the point, without zeros at the end.
pub fn show(units: i128, scale: u8) -> String {
    let unit = 10_u128.pow(u32::from(scale));
    let magnitude = units.unsigned_abs();
    let (whole, fraction) = (magnitude / unit, magnitude % unit);
    let sign = if units < 0 { "-" } else { "" };
    let fraction = format!("{fraction:0width$}", width = usize::from(scale));
    let fraction = if scale == 0 { "" } else { fraction.trim_end_matches('0') };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// As a double.
pub fn double(units: i128, scale: u8) -> f64 {
    units as f64 / 10_f64.powi(i32::from(scale))
}

/// A double in units of 10⁻¹², rounded; what does not fit is held to the greatest that does, and NaN is 0.
pub fn from_double(value: f64) -> i128 {
    (value * ONE as f64).round() as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_exactly() {
        for (text, scale, units) in [
            ("0", 12, 0),
            ("50.00", 12, 50 * ONE),
            ("0.000000000001", 12, 1),
            ("-1.5", 12, -3 * ONE / 2),
            ("12345678901234567890123.5", 12, 12_345_678_901_234_567_890_123_500_000_000_000),
            ("17", 0, 17),
            ("3.10", 1, 31),
        ] {
            assert_eq!(parse(text, scale), Some(units), "{text}");
            assert_eq!(parse(&show(units, scale), scale), Some(units), "{text}");
        }
        assert_eq!((show(-ONE / 2, 12), show(10 * ONE, 12), show(7, 0)), ("-0.5".into(), "10".into(), "7".into()));
        for text in ["", ".5", "5.", "-", "+5", "1e3", "1,000", " 5", "0x1", "0.0000000000001", "9".repeat(40).as_str()]
        {
            assert_eq!(parse(text, 12), None, "{text}");
        }
        assert_eq!((from_double(0.5), from_double(f64::NAN), from_double(1e300)), (ONE / 2, 0, i128::MAX));
    }
}

//! Numbers as people type them.

use crate::say;

/// A size: hex (`0x27994`), or decimal with a unit (`1MiB`, `1.5G`) or without.
///
/// KB, MB and GB count in 1024s, as Windows does on every screen that shows them.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || say!("`{text}` is not a size such as 0x27994, 64KiB or 1MiB", text);
    if let Some(hex) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).map_err(|_| wrong());
    }
    let digits = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let unit = 1_u64 << shift;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = (number * unit as f64).round();
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// One size, or the first and the last of a range: `0x100`, `64KiB..1MiB`, `..4K`, `1MiB..`.
pub(super) fn sizes(text: &str) -> Result<(u64, u64), String> {
    let Some((first, last)) = text.split_once("..") else {
        return size(text).map(|it| (it, it));
    };
    let end = |text: &str, open| if text.is_empty() { Ok(open) } else { size(text) };
    let (first, last) = (end(first, 0)?, end(last.trim_start_matches('='), u64::MAX)?);
    if last < first {
        return Err(say!("`{text}` begins behind its end", text));
    }
    Ok((first, last))
}

/// Bytes an hour: `10MiB/h`.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let bytes = text.trim().strip_suffix("/h").unwrap_or(text);
    size(bytes).map_err(|_| say!("`{text}` is not a rate such as 10MiB/h", text))
}

/// An address: hex, with or without `0x`, and with the backtick that debuggers print.
pub(super) fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text);
    let digits: String = digits.chars().filter(|it| *it != '`' && *it != '_').collect();
    // `from_str_radix` takes a sign, an address has none.
    let hex = digits.chars().all(|it| it.is_ascii_hexdigit());
    let parsed = if hex { u64::from_str_radix(&digits, 16).ok() } else { None };
    parsed.ok_or_else(|| say!("`{text}` is not an address such as 0x00420000", text))
}

/// A thread id: hex with `0x`, otherwise decimal.
pub(super) fn thread_id(text: &str) -> Result<u32, String> {
    let hex = text.strip_prefix("0x").or(text.strip_prefix("0X"));
    let parsed = match hex {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| say!("`{text}` is not a thread id such as 0xb64 or 2916", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_hex_or_decimal_with_units() {
        assert_eq!(size("0x27994"), Ok(0x27994));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert_eq!(size("64 KiB"), Ok(0x1_0000));
        assert_eq!(size("4GB"), Ok(4 << 30));
        assert_eq!(size("1.5k"), Ok(1536));
        assert_eq!(size("1500000"), Ok(1_500_000));
        for text in ["", "MiB", "1XiB", "0x", "-1", "99999999TiB", "1.2.3", "999999999999999.5T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_hex_as_debuggers_print_them() {
        assert_eq!(address("0x00420000"), Ok(0x42_0000));
        assert_eq!(address("00420000"), Ok(0x42_0000));
        assert_eq!(address("7ffb`1c3a0000"), Ok(0x7ffb_1c3a_0000));
        for text in ["", "0x", "ntdll", "+1", "-1", "12345678901234567"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn thread_ids_are_hex_only_with_a_prefix() {
        assert_eq!(thread_id("0xb64"), Ok(0xb64));
        assert_eq!(thread_id("2916"), Ok(2916));
        assert!(thread_id("b64").is_err());
    }
}

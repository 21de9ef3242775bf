//! Numbers as people read them: sizes with units, addresses in hex, times in words.

use crate::space::Va;

pub use crate::table::units as bytes;

/// An address: 8 digits in a 32-bit process, 16 in a 64-bit one and where 8 are not enough.
pub fn address(va: Va, bitness: u32) -> String {
    if bitness == 32 && u32::try_from(va).is_ok() {
        format!("{va:#010x}")
    } else {
        format!("{va:#018x}")
    }
}

/// A count with its thousands apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx != 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `count` with its noun.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A share in whole percent; empty of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    let share = part as f64 / whole as f64 * 100.0;
    if 0 < part && share < 0.5 { "<1 %".to_owned() } else { format!("{share:.0} %") }
}

/// A span of time in its two largest units.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{} {hours} h", counted(days, "day", "days")),
    }
}

/// CPU time from milliseconds.
pub fn cpu(milliseconds: u64) -> String {
    if milliseconds < 1000 {
        format!("{milliseconds} ms")
    } else {
        format!("{:.1} s", milliseconds as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_digits_of_its_process() {
        assert_eq!(address(0x42_0000, 32), "0x00420000");
        assert_eq!(address(0x42_0000, 64), "0x0000000000420000");
        assert_eq!(address(0x7ff8_0000_0000, 32), "0x00007ff800000000");
    }

    #[test]
    fn counts_shares_and_times_read_as_words() {
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "heap", "heaps"), "1 heap");
        assert_eq!(percent(0, 10), "0 %");
        assert_eq!(percent(1, 1000), "<1 %");
        assert_eq!(percent(1, 0), "");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3_725), "1 h 2 min");
        assert_eq!(duration(90_000), "1 day 1 h");
        assert_eq!(cpu(434_000), "434.0 s");
    }
}

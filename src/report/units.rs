//! Numbers as people read them: sizes with units, addresses in hex, times in words.

use crate::words::{Language, filled};
use minidump::CrashReason;

pub use crate::table::{address, units as bytes};

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
    let sentence = format!("{{count}} {many}");
    match Language::current().translate(&sentence) {
        // Other languages have one word for both, and count with a word of their own before it.
        Some(sentence) => filled(sentence, &[("count", &count(number))]),
        None => format!("{} {}", count(number), if number == 1 { one } else { many }),
    }
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

/// A Windows error code's name in the headers; `None` when it is not known.
pub fn error_name(code: u32) -> Option<String> {
    match CrashReason::from_windows_error(code) {
        CrashReason::WindowsUnknown(_) => None,
        it => Some(it.to_string()),
    }
}

/// An `NTSTATUS`'s name in the headers. Codes that are no warnings or errors have names that
/// are told apart from those of Win32 errors by their place only, so they have none here.
pub fn status_name(code: u32) -> Option<String> {
    if code >> 30 < 2 { None } else { error_name(code) }
}

/// A point in time from units of 100 ns since 1601, in UTC; `None` for 0, which is no time.
pub fn file_time(ticks: u64) -> Option<String> {
    if ticks == 0 {
        return None;
    }
    let seconds = ticks / 10_000_000;
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // 400 years of the Gregorian calendar have 146,097 days; 1601 begins such a span. A year that
    // begins in March has its leap day at the end, and months of 153 days in five.
    let day = day + 306;
    let (span, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, january) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 1600 + span * 400 + year + january;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    Some(format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{:02} UTC", second % 60))
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

    #[test]
    fn errors_and_points_in_time_have_names() {
        assert_eq!(error_name(2).as_deref(), Some("ERROR_FILE_NOT_FOUND"));
        assert_eq!(error_name(0xdead_beef), None);
        assert_eq!(status_name(0xc000_0034).as_deref(), Some("STATUS_OBJECT_NAME_NOT_FOUND"));
        assert_eq!(status_name(0x103), None);
        assert_eq!(file_time(0), None);
        assert_eq!(file_time(1).as_deref(), Some("1601-01-01 00:00:00 UTC"));
        let unix = |seconds: u64| file_time((seconds + 11_644_473_600) * 10_000_000).unwrap();
        assert_eq!(unix(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(unix(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(unix(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(unix(1_735_689_599), "2024-12-31 23:59:59 UTC");
        assert_eq!(file_time(u64::MAX).unwrap(), "60056-05-28 05:36:10 UTC");
    }
}

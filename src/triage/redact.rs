//! Taking out what may say something about a person: text that was found in memory, and names of
//! users in paths.

use serde_json::Value;

/// What stands where something was.
const GONE: &str = "(redacted)";
/// Fields whose text comes out of the process's memory.
const FROM_MEMORY: &[&str] =
    &["target", "message", "command_line", "comments", "strings", "samples"];
/// Folders whose children are named after people.
const HOMES: &[&str] = &["users", "documents and settings", "home"];

/// Redacts a report or a row.
pub fn redact(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(clean) = without_user(text) {
                *text = clean;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (name, field) in fields {
                if FROM_MEMORY.contains(&name.as_str()) {
                    gone(field);
                } else {
                    redact(field);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn gone(value: &mut Value) {
    match value {
        Value::String(text) => *text = GONE.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(gone),
        Value::Object(fields) => fields.iter_mut().for_each(|(_, it)| gone(it)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text with the folder after `Users` replaced, when there is one.
fn without_user(text: &str) -> Option<String> {
    let is_separator = |it: char| matches!(it, '\\' | '/');
    let mut clean = String::with_capacity(text.len());
    let mut after_home = false;
    let mut changed = false;
    for piece in text.split_inclusive(is_separator) {
        let name = piece.trim_end_matches(is_separator);
        if after_home && !name.is_empty() {
            clean.push_str(GONE);
            clean.push_str(piece.get(name.len()..).unwrap_or_default());
            changed = true;
        } else {
            clean.push_str(piece);
        }
        let closed = name.len() < piece.len();
        after_home = closed && HOMES.iter().any(|it| it.eq_ignore_ascii_case(name));
    }
    changed.then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_text_go_and_the_rest_stays() {
        let mut value = serde_json::json!({
            "path": r"C:\Users\Erika Mustermann\app\a.dll",
            "other": r"\Device\HarddiskVolume3\Documents and Settings\em\x",
            "home": "/home/em",
            "plain": r"C:\Windows\System32\ntdll.dll",
            "users": "two users",
            "wait": { "kind": "network", "target": "https://intranet/em" },
            "count": 3,
        });
        redact(&mut value);
        assert_eq!(value["path"], r"C:\Users\(redacted)\app\a.dll");
        assert_eq!(value["other"], r"\Device\HarddiskVolume3\Documents and Settings\(redacted)\x");
        assert_eq!(value["home"], "/home/(redacted)");
        assert_eq!(value["plain"], r"C:\Windows\System32\ntdll.dll");
        assert_eq!(value["users"], "two users");
        assert_eq!(value["wait"]["target"], GONE);
        assert_eq!(value["wait"]["kind"], "network");
        assert_eq!(value["count"], 3);
    }
}

//! The language of text for people: English, or what `locales/` has of it.
//!
//! Sentences stand in the code in English, inside [`say!`](crate::say); the English sentence is the key of its
//! translation, so that code reads as the report does. What is for programs (ids, JSON, numbers with
//! their units) has no language. A sentence without a translation stays English: a report is never
//! empty for want of words, and a test names the sentence.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::atomic::{AtomicU8, Ordering};

/// A language that reports can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese in simplified characters.
    Chinese,
}

/// The sentences are built in by a macro that reads the file behind the compiler's back: this makes a
/// change of it a reason to compile.
const _: &str = include_str!("../locales/zh-CN.yml");

/// The language that sentences are made in.
static LANGUAGE: AtomicU8 = AtomicU8::new(0);

impl Language {
    /// Every language.
    pub const ALL: [Language; 2] = [Language::English, Language::Chinese];

    /// The tag of BCP 47.
    pub fn tag(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Chinese => "zh-CN",
        }
    }

    /// The language of a locale's name (`zh_CN.UTF-8`, `zh-Hans-CN`, `de_DE`); English for those that
    /// reports do not speak, and for Chinese in traditional characters.
    pub fn of_locale(name: &str) -> Self {
        let name = name.split('.').next().unwrap_or_default().to_lowercase().replace('_', "-");
        let mut parts = name.split('-');
        let is_chinese = parts.next() == Some("zh");
        let traditional = parts.any(|it| matches!(it, "hant" | "tw" | "hk" | "mo"));
        if is_chinese && !traditional { Language::Chinese } else { Language::English }
    }

    /// The language in which this process makes its sentences now.
    pub fn current() -> Self {
        match LANGUAGE.load(Ordering::Relaxed) {
            0 => Language::English,
            _ => Language::Chinese,
        }
    }

    /// From now on, sentences of this process are made in this language. Those of an analysis are made
    /// while it runs, so that it comes before; JSON of an analysis in another language than English has
    /// that language's sentences.
    pub fn speak(self) {
        LANGUAGE.store(self as u8, Ordering::Relaxed);
    }

    /// The translation of a sentence, when there is one.
    pub fn translate(self, english: &str) -> Option<&'static str> {
        if self == Language::English {
            return None;
        }
        // The catalogue is in the program, so what it has is borrowed from there.
        match crate::_rust_i18n_try_translate(self.tag(), english)? {
            Cow::Borrowed(it) => Some(it),
            Cow::Owned(_) => None,
        }
    }
}

/// A fixed text in the current language.
pub fn term(english: &'static str) -> &'static str {
    Language::current().translate(english).unwrap_or(english)
}

/// A text that is read from data that comes with the program, in the current language.
pub fn translated(english: &str) -> Cow<'_, str> {
    Language::current().translate(english).unwrap_or(english).into()
}

/// A text of several paragraphs in the current language, each for itself.
pub fn paragraphs(english: &str) -> String {
    let all: Vec<_> = english.trim().split("\n\n").map(|it| translated(it.trim())).collect();
    all.join("\n\n")
}

/// A sentence in the current language, with each `{name}` replaced by what stands for it.
pub fn sentence(english: &'static str, parts: &[(&str, &dyn Display)]) -> String {
    filled(term(english), parts)
}

/// A text with each `{name}` replaced by what stands for it.
pub fn filled(template: &str, parts: &[(&str, &dyn Display)]) -> String {
    let mut rest = template;
    let mut text = String::with_capacity(rest.len());
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            text.push('{');
            rest = after;
            continue;
        };
        match parts.iter().find(|it| it.0 == name) {
            Some((_, value)) => text.push_str(&value.to_string()),
            None => text.push_str(&format!("{{{name}}}")),
        }
        rest = behind;
    }
    text.push_str(rest);
    text
}

/// A sentence for people in the current language:
/// `say!("{count} blocks hold {bytes}", count = n, bytes = units(n))`.
#[macro_export]
macro_rules! say {
    (@value $name:ident) => { $name };
    (@value $name:ident = $value:expr) => { $value };
    ($english:literal $(, $name:ident $(= $value:expr)?)* $(,)?) => {
        $crate::words::sentence(
            $english,
            &[$((stringify!($name), &$crate::say!(@value $name $(= $value)?) as &dyn ::std::fmt::Display)),*],
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_names_its_language() {
        for name in ["zh_CN.UTF-8", "zh-CN", "zh-Hans-SG", "zh"] {
            assert_eq!(Language::of_locale(name), Language::Chinese, "{name}");
        }
        for name in ["en_US.UTF-8", "C", "", "de", "zh-TW", "zh_Hant_HK.UTF-8", "zhx"] {
            assert_eq!(Language::of_locale(name), Language::English, "{name}");
        }
    }

    #[test]
    fn parts_of_a_sentence_are_put_in_once_and_what_they_hold_is_not_looked_into() {
        let count = 3;
        assert_eq!(say!("{count} of {all}", count, all = "{count}"), "3 of {count}");
        assert_eq!(say!("an {open brace"), "an {open brace");
        assert_eq!(say!("{unknown} stays"), "{unknown} stays");
    }
}

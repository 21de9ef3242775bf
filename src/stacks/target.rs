//! The address on the network that a thread waits for, when it stands where its frames lead to.
//!
//! Functions that fetch something get a URL as an argument, keep it in their frames, or in an
//! object that their frames point to. We look at these places, innermost first, and at nothing
//! else; what we find may be left over from an earlier call, so it is only likely.

use super::blocked::{Walk, reads};
use super::waits::has_module;
use crate::space::{Memory, Va};
use crate::table::DumpText;

/// Words of all stacks together that are looked at. A dump may claim a hundred thousand threads.
const WORDS_IN_ALL: u64 = 1 << 22;
/// Words of one stack, at least and at most.
const STACK_WORDS: (u64, u64) = (64, 4096);
/// Of this part of them the objects are looked into as well.
const OBJECTS_PART: u64 = 4;
/// Words of an object.
const OBJECT_WORDS: u64 = 32;
/// Longer ones are cut.
const LONGEST: usize = 256;
/// Schemes of what Windows retrieves by URL.
const SCHEMES: [&str; 4] = ["http://", "https://", "ldap://", "ftp://"];
/// Words behind the return address into a module's caller, where that passed its arguments.
const ARGUMENTS: u64 = 8;

/// The URL that stands nearest to where the thread waits. Without its query and without a user's
/// name and password: a report may be passed on.
pub(super) fn target(walk: &Walk<'_>) -> Option<DumpText> {
    if walk.wait.kind != "network" {
        return None;
    }
    let (memory, stack) = reads(walk);
    let word = walk.code.cpu.word();
    let decided = walk.frames.get(walk.wait.frame)?;
    let module = [decided.module.raw()];
    let callers = walk.frames.iter().skip(walk.wait.frame).take_while(|it| has_module(it, &module));
    let behind = walk.wait.frame.checked_add(callers.count())?;
    let start = walk.frames.first()?.sp;
    let end = walk.frames.get(behind).or(walk.frames.last())?.sp;
    let words = end.saturating_sub(start).checked_div(word)?.saturating_add(ARGUMENTS);
    let share = WORDS_IN_ALL / (walk.code.process.threads.len() as u64).max(1);
    let words = words.min(share.clamp(STACK_WORDS.0, STACK_WORDS.1));
    let at = |it: u64| start.checked_add(it.checked_mul(word)?);
    let value = |it: u64| stack.word(at(it)?, word);
    let on_stack = || (0..words).find_map(|it| url(memory, at(it)?));
    let behind_one = || (0..words).find_map(|it| url(memory, value(it)?));
    let behind_two = || {
        (0..words.div_ceil(OBJECTS_PART)).filter_map(value).find_map(|object| {
            // Objects are in memory of their own, not in code and not in other frames.
            let is_object = object % word == 0 && walk.code.names.image(object).is_none();
            if !is_object || stack.word(object, word).is_some() {
                return None;
            }
            let bytes = memory.slice_up_to(object, OBJECT_WORDS.saturating_mul(word));
            bytes.chunks_exact(usize::try_from(word).ok()?).find_map(|it| {
                let mut value = [0; 8];
                value.get_mut(..it.len())?.copy_from_slice(it);
                url(memory, u64::from_le_bytes(value))
            })
        })
    };
    behind_one().or_else(on_stack).or_else(behind_two).map(DumpText::from)
}

/// The URL at `va`, in UTF-16 or in bytes.
fn url(memory: &Memory, va: Va) -> Option<String> {
    // All schemes begin with one of these letters.
    if !matches!(memory.u8(va)?, b'h' | b'H' | b'l' | b'L' | b'f' | b'F') {
        return None;
    }
    let bytes = memory.slice_up_to(va, (LONGEST as u64).saturating_mul(2));
    let text = |units: &mut dyn Iterator<Item = u16>| -> String {
        let printable = |it: &u16| (0x21..0x7f).contains(it);
        let units = units.take_while(printable).take(LONGEST);
        units.filter_map(|it| char::from_u32(it.into())).collect()
    };
    let wide = bytes.chunks_exact(2).map(|it| match it {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    let wide = text(&mut wide.into_iter());
    let narrow = || text(&mut bytes.iter().map(|&it| it.into()));
    presentable(&wide).or_else(|| presentable(&narrow()))
}

fn presentable(text: &str) -> Option<String> {
    let scheme = SCHEMES
        .iter()
        .find(|it| text.get(..it.len()).is_some_and(|start| start.eq_ignore_ascii_case(it)))?;
    let rest = text.get(scheme.len()..)?;
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = match rest.find('/') {
        Some(it) => rest.split_at_checked(it)?,
        None => (rest, ""),
    };
    let host = host.rsplit('@').next().unwrap_or_default();
    let sound = |it: char| it.is_ascii_alphanumeric() || "-._:[]%*+".contains(it);
    // An LDAP URL without a host asks the domain.
    let named = !host.is_empty() || *scheme == "ldap://" && !path.is_empty();
    (named && host.chars().all(sound)).then(|| format!("{scheme}{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(presentable(text).as_deref(), expected, "{text}");
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        check("http://ctldl.example.com/a.cab?x=1", Some("http://ctldl.example.com/a.cab"));
        check("HTTPS://me:word@host:8080/p#f", Some("https://host:8080/p"));
        check("https://host", Some("https://host"));
        check("ldap:///CN=x", Some("ldap:///CN=x"));
        check("http:///x", None);
        check("http://", None);
        check("http://a\"b/", None);
        check("hello", None);
    }
}

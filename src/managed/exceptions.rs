//! Exceptions on the heap: what went wrong in this process, also when nobody looked.

use std::collections::HashMap;

use super::fields;
use super::names::Names;
use super::tables::Shape;
use crate::space::Va;
use crate::table::DumpText;

/// Exceptions that are read; a process that throws in a loop has many.
const READ: usize = 1 << 14;
/// Different ones that are kept.
const GROUPS: usize = 1000;
/// Characters of a message.
const MESSAGE: u32 = 2000;
/// Frames of one stack trace.
const FRAMES: u64 = 128;
/// Characters of a stack trace that the runtime has put into words.
const TRACE: u32 = 8000;

const EXCEPTION: Option<&str> = Some("System.Exception");

/// Exceptions that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The type.
    pub kind: DumpText,
    /// `_message`; `None` where the type's own text would be shown.
    pub message: Option<DumpText>,
    /// `_HResult`.
    pub hresult: Option<u32>,
    /// The inner exception: address, type and message.
    pub inner: Option<(Va, DumpText, Option<DumpText>)>,
    /// Where it was thrown and through which methods it went, the innermost first. Empty where it
    /// was never thrown.
    pub stack: Vec<DumpText>,
    /// How many are alike.
    pub count: u64,
    /// Where one of them is.
    pub address: Va,
    /// Threads whose stacks refer to one of them.
    pub threads: Vec<u32>,
}

impl Exception {
    /// Whether it was thrown.
    pub fn was_thrown(&self) -> bool {
        !self.stack.is_empty()
    }
}

/// Reads exceptions, given as address and method table, and puts those that are alike together:
/// the ones that were thrown first. `thread` says whose stack refers to an address.
pub(super) fn exceptions(
    names: &Names<'_>,
    all: &[(Va, Va)],
    thread: &HashMap<Va, Vec<u32>>,
) -> Vec<Exception> {
    let mut groups: Vec<Exception> = Vec::new();
    let mut index: HashMap<_, usize> = HashMap::new();
    for &(va, table) in all.iter().take(READ) {
        let Some(mut it) = read(names, va, table) else { continue };
        it.threads = thread.get(&va).cloned().unwrap_or_default();
        let inner = it.inner.as_ref().map(|it| (it.1.raw().to_owned(), it.2.clone()));
        let key = (it.kind.clone(), it.message.clone(), it.hresult, inner, it.stack.clone());
        let known = index.get(&key).copied();
        match known {
            Some(idx) => {
                let Some(group) = groups.get_mut(idx) else { continue };
                group.count += 1;
                group.threads.extend(it.threads);
                group.threads.sort_unstable();
                group.threads.dedup();
            }
            None if groups.len() < GROUPS => {
                index.insert(key, groups.len());
                groups.push(it);
            }
            None => {}
        }
    }
    groups.sort_by_key(|it| {
        let order = (it.threads.is_empty(), !it.was_thrown(), std::cmp::Reverse(it.count));
        (order, it.address)
    });
    groups
}

fn read(names: &Names<'_>, va: Va, table: Va) -> Option<Exception> {
    let memory = names.memory();
    let shape = Shape::read(memory, table)?;
    let at = |name: &str| va.checked_add(names.field(table, EXCEPTION, name)?);
    let reference = |name: &str| at(name).and_then(|it| memory.pointer(it)).filter(|&it| it != 0);
    let message = |va: Va| {
        let message =
            memory.pointer(va.checked_add(names.field(table, EXCEPTION, "_message")?)?)?;
        fields::text(memory, message, MESSAGE).filter(|_| message != 0)
    };
    let inner = reference("_innerException").and_then(|inner| {
        let kind = names.of(&Shape::of(memory, inner)?)?.name;
        Some((inner, DumpText::from(kind.as_ref()), message(inner)))
    });
    let told = reference("_stackTraceString").and_then(|it| fields::text(memory, it, TRACE));
    let told = told.map(|it| {
        let lines = it.raw().lines().map(|it| it.trim().trim_start_matches("at "));
        lines.filter(|it| !it.is_empty()).map(DumpText::from).collect::<Vec<_>>()
    });
    let stack = told.filter(|it| !it.is_empty());
    let stack = stack.or_else(|| reference("_stackTrace").and_then(|it| frames(names, it)));
    Some(Exception {
        kind: names.of(&shape)?.name.as_ref().into(),
        message: message(va),
        hresult: at("_HResult").and_then(|it| memory.u32(it)),
        inner,
        stack: stack.unwrap_or_default(),
        count: 1,
        address: va,
        threads: Vec::new(),
    })
}

/// The methods of a stack trace that is still in the runtime's own form.
///
/// ```text
///   array: size_t frames, Thread*, then for each frame: ip, sp, MethodDesc, flags, a word each
/// ```
///
/// To .NET 8 it is a byte array; since .NET 9 it may stand first in an array of objects that keep
/// the methods alive. Layout: dotnet/coreclr v3.1.9 `src/vm/object.h`, `clrex.h`.
fn frames(names: &Names<'_>, array: Va) -> Option<Vec<DumpText>> {
    let memory = names.memory();
    let size = memory.pointer_size();
    let shape = Shape::of(memory, array)?;
    let elements = array.checked_add(2 * size)?;
    let array = match shape.has_pointers {
        true => memory.pointer(elements).filter(|&it| it != 0)?,
        false => array,
    };
    let elements = array.checked_add(2 * size)?;
    let bytes = u64::from(memory.u32(array.checked_add(size)?)?);
    let count = memory.u32(elements)?;
    let first = elements.checked_add(2 * size)?;
    let room = bytes.saturating_sub(2 * size) / (4 * size);
    if count == 0 || room < u64::from(count) {
        return None;
    }
    let frame = |idx: u64| {
        let at = first.checked_add(idx * 4 * size)?;
        let desc = memory.pointer(at.checked_add(2 * size)?)?;
        let ip = memory.pointer(at)?;
        Some(names.method(desc).unwrap_or_else(|| format!("{ip:#x}")).into())
    };
    Some((0..u64::from(count).min(FRAMES)).map_while(frame).collect())
}

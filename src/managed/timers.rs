//! Timers: what runs every few seconds in this process.
//!
//! `TimerQueueTimer` is what a `System.Threading.Timer`, a `CancellationTokenSource` with a time
//! limit, `Task.Delay` and a `PeriodicTimer` all come down to. Its callback is a delegate, and the
//! type of the delegate's target says whose it is. Fields: dotnet/runtime `src/libraries/
//! System.Private.CoreLib/src/System/Threading/Timer.cs`.

use std::collections::BTreeMap;

use super::names::Names;
use super::tables::{self, Shape};
use crate::space::Va;
use crate::table::DumpText;

/// Timers that are read.
const READ: usize = 1 << 16;
/// What stands for "never".
const NEVER: u32 = u32::MAX;

/// Timers that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Milliseconds from one run to the next; `None` for those that run once.
    pub period_ms: Option<u32>,
    /// Milliseconds to the first run; `None` for those that are stopped.
    pub due_ms: Option<u32>,
    /// The method that runs, or the type that it or its state is of.
    pub callback: Option<DumpText>,
    /// How many are alike.
    pub count: u64,
    /// Where one of them is.
    pub address: Va,
}

/// Reads timers, given as address and method table. Those that run again and again come first, the
/// most frequent ahead.
pub(super) fn timers(names: &Names<'_>, all: &[(Va, Va)]) -> Vec<Timer> {
    let mut groups: BTreeMap<_, Timer> = BTreeMap::new();
    for &(va, table) in all.iter().take(READ) {
        let memory = names.memory();
        // To .NET Core 2.2 and in .NET Framework, fields begin with `m_`.
        let field = |name: &str| {
            let of = |name: &str| names.field(table, None, name);
            of(&format!("_{name}")).or_else(|| of(&format!("m_{name}")))
        };
        let at = |name: &str| va.checked_add(field(name)?);
        let number = |name: &str| at(name).and_then(|it| memory.u32(it));
        let reference = |name: &str| at(name).and_then(|it| memory.pointer(it));
        let period_ms = number("period").filter(|&it| it != NEVER && it != 0);
        let due_ms = number("dueTime").filter(|&it| it != NEVER);
        let delegate = reference("timerCallback");
        let callback = delegate.and_then(|it| method(names, it));
        let target = || delegate.and_then(|it| target(names, it));
        let state = || reference("state").and_then(|it| type_of(names, it));
        let callback = callback.or_else(target).or_else(state).map(DumpText::from);
        let key = (period_ms, due_ms, callback.as_ref().map(|it| it.raw().to_owned()));
        groups.entry(key).and_modify(|it| it.count += 1).or_insert(Timer {
            period_ms,
            due_ms,
            callback,
            count: 1,
            address: va,
        });
    }
    let mut timers: Vec<Timer> = groups.into_values().collect();
    timers.sort_by_key(|it| {
        (it.period_ms.is_none(), it.period_ms, std::cmp::Reverse(it.count), it.address)
    });
    timers
}

/// A field of a delegate.
fn delegate_field(names: &Names<'_>, delegate: Va, name: &str) -> Option<Va> {
    let memory = names.memory();
    let table = tables::table_of(memory, delegate)?;
    let offset = names.field(table, Some("System.Delegate"), name)?;
    memory.pointer(delegate.checked_add(offset)?)
}

/// The method of a delegate. One to a static method goes through a stub that all of its kind share,
/// and has the method in its other pointer.
fn method(names: &Names<'_>, delegate: Va) -> Option<String> {
    let other = delegate_field(names, delegate, "_methodPtrAux").filter(|&it| it != 0);
    let code = other.or_else(|| delegate_field(names, delegate, "_methodPtr"))?;
    names.method_of_code(code)
}

/// The type of a delegate's target. One to a static method has itself as target, which says nothing.
fn target(names: &Names<'_>, delegate: Va) -> Option<String> {
    let target = delegate_field(names, delegate, "_target").filter(|&it| it != delegate)?;
    type_of(names, target)
}

/// The type of an object.
pub(super) fn type_of(names: &Names<'_>, object: Va) -> Option<String> {
    let shape = Shape::of(names.memory(), object).filter(|_| object != 0)?;
    Some(names.of(&shape)?.name.as_ref().to_owned())
}

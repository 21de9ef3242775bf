//! Threads as .NET sees them: name, managed id, and which one finalizes.
//!
//! The objects of type `System.Threading.Thread` lead to the runtime's own structure, and that has
//! the id of the operating system. Where in it has changed with each version, so the offset is
//! learned: the one at which most of them have the id of a thread in the dump, each another one, and
//! the base of that thread's stack elsewhere.
//! The first two managed threads are the program's and the finalizer's, to .NET 8 in this order, in
//! .NET 10 in the other. Fields: dotnet/runtime
//! `src/coreclr/System.Private.CoreLib/src/System/Threading/Thread.CoreCLR.cs`.

use std::collections::HashSet;

use super::fields;
use super::names::Names;
use crate::process::Process;
use crate::space::Va;
use crate::table::DumpText;

/// Threads that are read.
const READ: usize = 1 << 14;
/// Bytes of the runtime's structure in which the id is looked for.
const SEARCHED: u64 = 0x800;
/// Characters of a name.
const NAME: u32 = 200;
/// Managed ids of the threads that the runtime begins with.
const FIRST: (u32, u32) = (1, 2);

/// A managed thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedThread {
    /// Its id in the operating system; `None` where it has ended or not begun.
    pub id: Option<u32>,
    /// `ManagedThreadId`.
    pub managed_id: u32,
    /// Its name, when it was given one.
    pub name: Option<DumpText>,
    /// Whether it runs finalizers.
    pub is_finalizer: bool,
    /// Its object.
    pub address: Va,
}

/// Reads threads, given as address and method table.
pub(super) fn threads(
    process: &Process,
    names: &Names<'_>,
    all: &[(Va, Va)],
) -> Vec<ManagedThread> {
    let memory = names.memory();
    let ids: HashSet<u32> = process.threads.iter().map(|it| it.id).collect();
    let mut found = Vec::new();
    for &(va, table) in all.iter().take(READ) {
        let at = |name: &str| va.checked_add(names.field(table, None, name)?);
        let of = |options: [&str; 2]| options.into_iter().find_map(at);
        let native = of(["_DONT_USE_InternalThread", "DONT_USE_InternalThread"]);
        let managed_id = of(["_managedThreadId", "m_ManagedThreadId"]);
        let name = of(["_name", "m_Name"]).and_then(|it| memory.pointer(it));
        let name = name.filter(|&it| it != 0).and_then(|it| fields::text(memory, it, NAME));
        let Some(managed_id) = managed_id.and_then(|it| memory.u32(it)) else { continue };
        let native = native.and_then(|it| memory.pointer(it)).filter(|&it| it != 0);
        let thread = ManagedThread { id: None, managed_id, name, is_finalizer: false, address: va };
        found.push((native, thread));
    }
    let natives: Vec<Va> = found.iter().filter_map(|it| it.0).collect();
    let id_at = |native: Va, offset: u64| {
        let id = native.checked_add(offset).and_then(|it| memory.u32(it))?;
        ids.contains(&id).then_some(id)
    };
    // The structure also knows where the thread's stack is, so an id that is another's shows.
    let size = memory.pointer_size();
    let stack = |id: u32| {
        let thread = process.threads.iter().find(|it| it.id == id)?;
        Some(thread.stack()?.base)
    };
    let knows_stack = |native: Va, id: u32| {
        let words = (0..SEARCHED).step_by(size as usize);
        stack(id).is_some_and(|base| {
            words.filter_map(|it| memory.pointer(native.checked_add(it)?)).any(|it| it == base)
        })
    };
    let score = |offset: u64| {
        let ids = natives.iter().filter_map(|&it| Some((it, id_at(it, offset)?)));
        let ids: Vec<(Va, u32)> = ids.collect();
        let different = ids.iter().map(|it| it.1).collect::<HashSet<u32>>().len();
        let proven = match different {
            0 | 1 => 0,
            _ => ids.iter().filter(|it| knows_stack(it.0, it.1)).count(),
        };
        (proven, different)
    };
    let offsets = (0..SEARCHED).step_by(4).map(|it| (score(it), it));
    // The first of the best, so that copies further on do not matter.
    let best = offsets.max_by_key(|&(score, offset)| (score, std::cmp::Reverse(offset)));
    if let Some(((_, different), offset)) = best
        && natives.len() <= 2 * different
    {
        for (native, thread) in &mut found {
            thread.id = native.and_then(|it| id_at(it, offset));
        }
    }
    let mut threads: Vec<ManagedThread> = found.into_iter().map(|it| it.1).collect();
    threads.sort_by_key(|it| (it.managed_id, it.address));
    // The runtime begins with two threads: the one that it was started on, and the finalizer's.
    let first = process.threads.first().map(|it| it.id);
    let mut starters = threads.iter_mut().filter(|it| it.id.is_some());
    let starters = (starters.next(), starters.next());
    if let (Some(one), Some(two)) = starters
        && (one.managed_id, two.managed_id) == FIRST
    {
        let finalizer = if two.id == first { one } else { two };
        finalizer.is_finalizer = true;
    }
    threads
}

//! Equal stacks, told once.

use std::collections::HashMap;

use super::{Stack, waits};

/// Stacks that are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// Index of the one that is shown.
    pub representative: usize,
    /// Indices of the others.
    pub others: Vec<usize>,
}

impl Folded {
    /// How many stacks it stands for.
    pub fn count(&self) -> usize {
        self.others.len().saturating_add(1)
    }
}

/// Folds equal stacks. What may block the process comes first (network, locks), then what there is
/// most of, then the order of the dump.
pub fn fold(stacks: &[Stack]) -> Vec<Folded> {
    let mut folded: Vec<Folded> = Vec::new();
    let mut known: HashMap<Vec<u64>, usize> = HashMap::new();
    for (idx, stack) in stacks.iter().enumerate() {
        // The same addresses are the same frames. Waiters for another lock are others, whoever holds
        // it. Nothing at all is not the same as nothing.
        let locks = stack.blockers.iter().filter_map(|it| it.object.address());
        let key: Vec<u64> = stack.frames.iter().map(|it| it.address).chain(locks).collect();
        let same = if stack.frames.is_empty() { None } else { known.get(&key) };
        match same.and_then(|&at| folded.get_mut(at)) {
            Some(it) => it.others.push(idx),
            None => {
                known.insert(key, folded.len());
                folded.push(Folded { representative: idx, others: Vec::new() });
            }
        }
    }
    let rank = |it: &Folded| {
        let wait = stacks.get(it.representative).and_then(|it| it.wait.as_ref());
        waits::rank(wait.map(|it| it.kind))
    };
    folded.sort_by_key(|it| (rank(it), std::cmp::Reverse(it.count()), it.representative));
    folded
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, Trust, Wait};
    use super::*;
    use crate::table::DumpText;

    fn stack(thread: usize, addresses: &[u64], kind: Option<&'static str>) -> Stack {
        let frame = |&address: &u64| Frame {
            address,
            module: DumpText::default(),
            function: None,
            offset: 0,
            source: None,
            decorated: None,
            inlined: Vec::new(),
            trust: Trust::Context,
            sp: 0,
        };
        let wait = kind.map(|kind| Wait { kind, what: "", frame: 0 });
        Stack {
            thread,
            frames: addresses.iter().map(frame).collect(),
            wait,
            blockers: Vec::new(),
            target: None,
            stopped: None,
        }
    }

    #[test]
    fn network_and_locks_come_before_what_there_is_most_of() {
        let stacks = [
            stack(0, &[1, 2], Some("thread-pool-idle")),
            stack(1, &[1, 2], Some("thread-pool-idle")),
            stack(2, &[5], None),
            stack(3, &[3], Some("lock")),
            stack(4, &[4], Some("network")),
            stack(5, &[1, 2], Some("thread-pool-idle")),
            stack(6, &[], None),
            stack(7, &[], None),
        ];
        let order: Vec<_> =
            fold(&stacks).into_iter().map(|it| (it.representative, it.others)).collect();
        let expected =
            [(4, vec![]), (3, vec![]), (0, vec![1, 5]), (2, vec![]), (6, vec![]), (7, vec![])];
        assert_eq!(order, expected);
    }
}

//! Conclusions from two dumps or more, which may say *grows* and *leaks*.

use super::snapshot::{Dimension, signed};
use super::{Comparison, Growth, Relation};
use crate::findings::{Confidence, Evidence, Finding};
use crate::owners::Usage;
use crate::say;
use crate::table::{percent, units};
use crate::words::term;

/// A usage grows when it does by this many bytes …
const GROWS_BYTES: i64 = 1 << 20;
/// … and by this share of what there was.
const GROWS_PERCENT: u64 = 5;
/// Handles and threads grow by this many …
const GROWS_COUNT: i64 = 16;
/// … and by this share.
const GROWS_COUNT_PERCENT: u64 = 10;
/// A unit is a leak when it explains this share of a heap's growth, and there are so many.
const EXPLAINS: f64 = 50.0;
const UNITS: u64 = 10;

/// One conclusion from several dumps.
pub struct GrowthCheck {
    /// Kebab-case id.
    pub id: &'static str,
    /// What it means, why it happens, what to do.
    pub explain: &'static str,
    check: fn(&GrowthCheck, &Comparison) -> Option<Finding>,
}

impl std::fmt::Debug for GrowthCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowthCheck").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Every conclusion, most important first.
pub const ALL: &[GrowthCheck] = &[
    GrowthCheck {
        id: "leak-unit",
        explain: "Blocks of a few sizes grew together, by the same number each, and explain at \
                  least half of what a native heap grew by: one thing is allocated again and \
                  again, as these parts, and not freed. The unit tells what to look for: a \
                  structure of these sizes that is made at this pace.\n\nDump the process with \
                  gflags +ust: `oomscope allocs` then names who allocates each part. Without, \
                  `oomscope blocks --size` shows what stands in them.",
        check: leak_unit,
    },
    GrowthCheck {
        id: "native-heap-grows",
        explain: "Native heaps hold more in the later dump. Two dumps some hours apart, with the \
                  same load, tell growth from a cache that fills up; three tell steady growth from \
                  a single jump.\n\nSee which sizes grew, and record who allocates them: gflags /i \
                  program.exe +ust.",
        check: |it, of| usage(it, of, Usage::Heap, term("native heaps grow")),
    },
    GrowthCheck {
        id: "managed-heap-grows",
        explain: "The managed heap takes more in the later dump. The collector keeps memory that \
                  it does not need at the moment, so a managed heap that grew once is no leak yet; \
                  one that grows with each dump is.\n\nSee which types grew, and what keeps them.",
        check: |it, of| usage(it, of, Usage::ManagedHeap, term("the managed heap grows")),
    },
    GrowthCheck {
        id: "private-data-grows",
        explain: "Memory from VirtualAlloc that no heap owns grows: code that allocates pages for \
                  itself, such as a runtime, a graphics driver or an allocator that the program \
                  brings along.\n\n\
                  See the new regions: `oomscope map DUMP --regions --usage private-data`.",
        check: |it, of| {
            usage(it, of, Usage::PrivateData, term("private data outside of heaps grows"))
        },
    },
    GrowthCheck {
        id: "handles-grow",
        explain: "The process has more handles of a type in the later dump. Each handle holds an \
                  object of the kernel, which costs memory of the system; at 16 million a process \
                  gets no more.\n\n\
                  The type says what is not closed: Event, Thread, File, Key, Section. The code \
                  that opens them can be traced with `!htrace` in a debugger.",
        check: handles,
    },
    GrowthCheck {
        id: "threads-grow",
        explain: "The process has more threads in the later dump. Each takes addresses for its \
                  stack, 1 MiB by default, which a 32-bit process cannot afford many of. Threads \
                  that wait for what does not come pile up.\n\nSee what the new ones wait for: \
                  `oomscope threads DUMP`.",
        check: threads,
    },
];

/// Runs every check.
pub(super) fn findings(it: &Comparison) -> Vec<Finding> {
    if it.snapshots.len() < 2 || it.relation == Relation::Different {
        return Vec::new();
    }
    ALL.iter().filter_map(|check| crate::guarded(|| (check.check)(check, it)).flatten()).collect()
}

/// Between runs of a program a difference can have other reasons.
fn confidence(it: &Comparison) -> Confidence {
    match it.relation {
        Relation::SameProcess if 2 < it.snapshots.len() => Confidence::Certain,
        Relation::SameProcess => Confidence::Likely,
        _ => Confidence::Possible,
    }
}

fn evidence(label: &'static str, value: String) -> Evidence {
    Evidence { label: term(label), value }
}

/// First, last, change and rate of something.
fn told(growth: &Growth) -> Vec<Evidence> {
    let bytes: Vec<String> = growth.values.iter().map(|it| units(it.bytes)).collect();
    let counts: Vec<String> = growth.values.iter().map(|it| it.count.to_string()).collect();
    let has_bytes = growth.values.iter().any(|it| it.bytes != 0);
    let mut told = vec![evidence("values", if has_bytes { bytes } else { counts }.join(" → "))];
    if has_bytes {
        told.push(evidence("change", signed(growth.change_bytes)));
        if let Some(rate) = growth.bytes_per_hour {
            told.push(evidence("an hour", signed(rate as i64)));
        }
    }
    if let Some(trend) = growth.trend {
        told.push(evidence("trend", trend.id().to_owned()));
    }
    told
}

fn usage(check: &GrowthCheck, it: &Comparison, usage: Usage, says: &str) -> Option<Finding> {
    let is_usage = |it: &&Growth| it.key.dimension == Dimension::Usage && it.key.name == usage.id();
    let growth = it.growth.iter().find(is_usage)?;
    let before = growth.values.first()?.bytes;
    let enough = GROWS_BYTES <= growth.change_bytes
        && before.saturating_mul(GROWS_PERCENT) / 100 <= growth.change_bytes.unsigned_abs();
    enough.then(|| Finding {
        id: check.id,
        confidence: confidence(it),
        headline: say!(
            "{says} by {unsigned_abs}",
            says,
            unsigned_abs = units(growth.change_bytes.unsigned_abs())
        ),
        evidence: told(growth),
        next_steps: next_steps(it),
        bytes: growth.change_bytes.unsigned_abs(),
    })
}

fn next_steps(it: &Comparison) -> Vec<String> {
    let mut steps = Vec::new();
    if it.snapshots.len() == 2 {
        steps.push(say!(
            "Take a third dump under the same load: three tell steady growth from a single jump."
        ));
    }
    steps
}

fn leak_unit(check: &GrowthCheck, it: &Comparison) -> Option<Finding> {
    let unit = it.unit.as_ref()?;
    if unit.units < UNITS
        || unit.explained_percent < EXPLAINS
        || unit.heap_growth_bytes < GROWS_BYTES
    {
        return None;
    }
    let parts = unit.parts.iter().map(|(size, count, _)| format!("{size:#x} x {count:+}"));
    let mut evidence = vec![
        evidence("parts", parts.collect::<Vec<_>>().join(", ")),
        evidence("one unit", units(unit.unit_bytes)),
        evidence("units", unit.units.to_string()),
        evidence(
            "explains",
            say!(
                "{explained_percent} % of the growth of heap {heap}",
                explained_percent = format!("{:.1}", unit.explained_percent),
                heap = unit.heap
            ),
        ),
    ];
    if let Some(cadence) = unit.cadence {
        let value = say!(
            "{seconds} s, {per_hour} an hour",
            seconds = format!("{:.0}", cadence.seconds),
            per_hour = format!("{:.1}", cadence.per_hour)
        );
        evidence.push(self::evidence("one every", value));
    }
    if let Some((period, what)) = unit.timers.first() {
        evidence.push(self::evidence(
            "a timer that runs as often",
            say!("{period} ms: {what}", period, what),
        ));
    }
    let types = unit.companions.iter().filter(|it| it.dimension == Dimension::Type);
    let types = types.take(4).map(|it| it.name.clone()).collect::<Vec<_>>().join(", ");
    if !types.is_empty() {
        evidence.push(self::evidence("as many more objects of", types));
    }
    let mut next_steps = vec![say!(
        "See what stands in them: `oomscope blocks DUMP --size {first}`",
        first = format!("{:#x}", unit.parts.first().map_or(0, |it| it.0))
    )];
    next_steps.push(say!("See who allocates them: `oomscope allocs DUMP`"));
    let sure = matches!(it.relation, Relation::SameProcess) && 90.0 <= unit.explained_percent;
    Some(Finding {
        id: check.id,
        confidence: if sure { Confidence::Certain } else { confidence(it) },
        headline: say!(
            "{unit} units of {unit_bytes} leak in heap {heap}",
            unit = unit.units,
            unit_bytes = units(unit.unit_bytes),
            heap = unit.heap
        ),
        evidence,
        next_steps,
        bytes: unit.total_bytes,
    })
}

/// Whether a number grew by enough to be told.
fn more(growth: &Growth) -> bool {
    let before = growth.values.first().map_or(0, |it| it.count);
    GROWS_COUNT <= growth.change_count
        && before.saturating_mul(GROWS_COUNT_PERCENT) / 100 <= growth.change_count.unsigned_abs()
}

fn handles(check: &GrowthCheck, it: &Comparison) -> Option<Finding> {
    let of = it.growth.iter().filter(|it| it.key.dimension == Dimension::Handle);
    let growth = of.filter(|it| more(it)).max_by_key(|it| it.change_count)?;
    Some(Finding {
        id: check.id,
        confidence: confidence(it),
        headline: say!(
            "{change_count} more handles of type {key}",
            change_count = growth.change_count,
            key = growth.key.name
        ),
        evidence: told(growth),
        next_steps: next_steps(it),
        bytes: 0,
    })
}

fn threads(check: &GrowthCheck, it: &Comparison) -> Option<Finding> {
    let mut of = it.growth.iter().filter(|it| it.key.dimension == Dimension::Thread);
    let growth = of.find(|it| more(it))?;
    let before = growth.values.first().map_or(0, |it| it.count);
    let share = percent(growth.change_count.unsigned_abs(), before);
    Some(Finding {
        id: check.id,
        confidence: confidence(it),
        headline: say!(
            "{change_count} more threads ({share} %)",
            change_count = growth.change_count,
            share = format!("{:.0}", share)
        ),
        evidence: told(growth),
        next_steps: vec![say!("See what the new ones wait for: `oomscope threads DUMP`")],
        bytes: 0,
    })
}

//! Managed objects of real processes, against what those processes counted themselves.

use oomscope::managed::Objects;
use oomscope::{Analysis, Options, Quiet};
use serde_json::Value;

use crate::dumps::{self, number as address};

const DUMPS: [&str; 3] = ["wine/net31-x86", "wine/net8-x64", "wine/net10-x64"];

fn of(name: &str) -> Option<(Analysis, Value)> {
    let path = dumps::dump(name)?;
    let analysis = Analysis::of(&path, &Options::default(), &Quiet).unwrap();
    Some((analysis, dumps::truth(name).unwrap()["managed_program"].take()))
}

fn count(objects: &Objects, name: &str) -> u64 {
    let types = objects.types.iter().filter(|it| it.name.as_deref() == Some(name));
    types.map(|it| it.count).sum()
}

#[test]
fn every_type_has_as_many_objects_as_the_program_made() {
    for name in DUMPS {
        let Some((analysis, truth)) = of(name) else { continue };
        let [objects] = analysis.objects.as_slice() else { panic!("{name}") };
        println!("{name}: {:?} {} %", objects.generations, objects.coverage_percent());
        println!(
            "damage {:?} unseen {} {}",
            objects.first_damage, objects.damaged_bytes, objects.missing_bytes
        );
        for it in objects.types.iter().take(12) {
            println!("{:?} {} {}", it.name, it.count, it.total_bytes);
        }
        for it in objects.types.iter().filter(|it| it.name.is_none()).take(12) {
            println!("{:#x?} {} {}", it.shape, it.count, it.total_bytes);
        }
        for (kind, it) in truth["exact_counts_by_type"].as_object().unwrap() {
            let got = count(objects, kind);
            println!("{kind}: {got} of {}", it["count"]);
        }
        let _ = address(&Value::from("0x1"));
    }
}

#[test]
fn zz_peek() {
    for name in DUMPS {
        let Some((analysis, _)) = of(name) else { continue };
        let o = &analysis.objects[0];
        println!("== {name}");
        println!("{:?}", o.finalization);
        for it in &o.handles {
            println!(
                "H {} {} {} {:?}",
                it.kind,
                it.count,
                it.empty,
                &it.types[..it.types.len().min(4)]
            );
        }
        for it in &o.exceptions {
            println!("E {it:?}");
        }
        for it in &o.timers {
            println!("T {it:?}");
        }
        for it in &o.threads {
            println!("TH {it:?}");
        }
        for it in o.strings.duplicates.iter().take(5) {
            println!("S {it:?}");
        }
        println!(
            "{} {} {} {}",
            o.strings.count, o.strings.duplicated, o.strings.wasted_bytes, o.strings.not_compared
        );
        for it in o.sparse.iter().take(5) {
            println!("SP {it:?} {:?}", o.types[it.of].name);
        }
        for it in o.largest.iter().take(3) {
            println!("L {it:?} {:?}", o.types[it.2].name);
        }
        for it in o.types.iter().filter(|it| it.role == oomscope::managed::Role::Handle) {
            println!("N {:?} {}", it.name, it.count);
        }
        println!("{:?}", analysis.notes);
    }
}

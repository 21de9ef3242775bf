//! The HTML report: inert whatever names a dump has, whole without a network, and a page that
//! works in a browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use oomscope::synth::{HeapSpec, ImageSpec, SynthDump, ThreadSpec};
use serde_json::Value;

use crate::dumps;

/// The page of a dump.
fn html(dumps: &[&Path]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    let output = command.arg("report").args(dumps).args(["--format", "html"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// Closes every context that a name may land in, and runs where it can.
const MARKUP: &str = "\"'><img src=x onerror=alert(1)></script><script>alert(2)</script>\
                      <!--{{31337*3}}{% x %}&lt;\u{202e}gpj\u{1b}[2J\u{7}\u{2028}`<b>`";

fn hostile() -> SynthDump {
    let thread = ThreadSpec::new(9).name(MARKUP).stack(0x0300_0000, 0x030f_0000, 0x0310_0000);
    SynthDump::x86()
        .process(MARKUP, 77)
        .command_line(MARKUP)
        .thread(thread)
        .handles(MARKUP, 40_000)
        .comment(MARKUP)
        .unloaded(MARKUP, 0x6000_0000, 0x1000)
        .image(0x7000_0000, ImageSpec::new(MARKUP).pdb(MARKUP, [7; 16], 1).exports(&[(MARKUP, 16)]))
        .heap(HeapSpec::new(0x0042_0000).segment(0x0042_0000, 0x10_0000, 0x8_0000).busy(0x2000, 40))
}

#[test]
fn names_in_a_dump_are_inert() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("a.dmp");
    std::fs::write(&dump, hostile().build()).unwrap();
    let clean = folder.path().join("b.dmp");
    std::fs::write(&clean, SynthDump::x86().process("b.exe", 77).build()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
    command.args(["report", "--show-command-line", "--format", "html"]).arg(&dump);
    let page = String::from_utf8(command.output().unwrap().stdout).unwrap();
    // The names are there, as text.
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"), "{page}");
    for harm in ["<img", "alert(2)</script>", "<!--", "\u{202e}", "\u{1b}", "\u{7}", "\u{2028}"] {
        assert!(!page.contains(harm), "{harm:?} got into the page");
    }
    // Nothing was added to the page but text: the scripts are those of a harmless dump.
    let scripts = |page: &str| page.matches("<script").count();
    assert_eq!(scripts(&page), scripts(&html(&[&clean])));
    assert!(!page.contains("94011"), "a name was taken for a template");
}

#[test]
fn a_page_asks_nothing_of_any_network_and_is_small() {
    for path in [sample("ceiling-x86.dmp"), sample("healthy-x64.dmp")] {
        check_links(&html(&[&path]));
    }
    for name in ["seed/seed-after", "wine/net8-x64", "real/firefox-x64"] {
        let Some(path) = dumps::dump(name) else { continue };
        let page = html(&[&path]);
        check_links(&page);
        assert!(page.len() < 2 << 20, "{name}: {} bytes", page.len());
    }
}

#[test]
fn every_dump_has_a_page() {
    for path in dumps::all().iter().filter_map(|it| dumps::dump(it)) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
        let output = command.arg("report").arg(&path).args(["--format", "html"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => check_links(&String::from_utf8(output.stdout).unwrap()),
            code => {
                assert!(code == Some(1) && error.contains("cannot analyze"), "{path:?}: {error}");
            }
        }
    }
}

#[track_caller]
fn check_links(page: &str) {
    for attribute in ["src=\"", "href=\"", "url(", "@import"] {
        for rest in page.split(attribute).skip(1) {
            let inner = rest.starts_with('#') || rest.starts_with("data:");
            assert!(inner, "{attribute}{}", rest.get(..60).unwrap_or(rest));
        }
    }
    assert!(page.contains("default-src 'none'"));
    assert!(!page.contains("script-src 'unsafe-inline'"));
}

/// What a person does on the page, and what must hold of it. The result becomes the title.
const VISIT: &str = r#"
addEventListener("load", () => {
  const wrong = [];
  const done = { tables: 0, searches: 0, pictures: 0, links: 0 };
  const value = (cell) => cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent.trim();
  for (const table of document.querySelectorAll("table.sort")) {
    for (const details of document.querySelectorAll("details")) details.open = true;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      for (const click of [1, 2]) {
        head.querySelector("button").click();
        const up = head.getAttribute("aria-sort") === "ascending";
        const cells = [...table.tBodies[0].rows].map((row) => value(row.cells[column]));
        const known = cells.filter((it) => typeof it === "number");
        for (let i = 1; i < known.length; i++) {
          if (up ? known[i] < known[i - 1] : known[i - 1] < known[i]) {
            wrong.push("not sorted: " + head.textContent + " " + head.getAttribute("aria-sort"));
            break;
          }
        }
      }
    });
    done.tables += 1;
  }
  for (const field of document.querySelectorAll("input[type=search]")) {
    const rows = [...field.nextElementSibling.querySelectorAll("tbody tr")];
    const wanted = rows[0].cells[0].textContent.trim();
    field.value = wanted;
    field.dispatchEvent(new Event("input"));
    const seen = rows.filter((it) => !it.hidden);
    if (!seen.includes(rows[0]) || seen.some((it) => !it.textContent.includes(wanted)))
      wrong.push("search does not find " + wanted);
    field.value = "no row says this";
    field.dispatchEvent(new Event("input"));
    if (rows.some((it) => !it.hidden)) wrong.push("search finds what is not there");
    field.value = "";
    field.dispatchEvent(new Event("input"));
    done.searches += 1;
  }
  for (const space of document.querySelectorAll(".space")) {
    for (const picture of space.querySelectorAll(".picture")) {
      picture.focus();
      const before = space.querySelector(".told").textContent;
      picture.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
      const after = space.querySelector(".told").textContent;
      if (!before || !after) wrong.push("the picture tells nothing");
      done.pictures += 1;
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((it) => it.id);
  if (new Set(ids).size !== ids.length) wrong.push("an id stands twice");
  for (const link of document.querySelectorAll("a[href^='#']")) {
    if (!document.getElementById(decodeURIComponent(link.hash.slice(1)))) wrong.push("no target: " + link.hash);
    done.links += 1;
  }
  for (const it of document.querySelectorAll("input,svg,img"))
    if (!it.getAttribute("aria-label") && !it.getAttribute("alt")) wrong.push("no label: " + it.outerHTML.slice(0, 80));
  if (innerWidth + 1 < document.documentElement.scrollWidth)
    wrong.push("wider than the window: " + document.documentElement.scrollWidth + " of " + innerWidth);
  document.title = "RESULT" + JSON.stringify({ wrong, done, width: innerWidth }) + "END";
});
"#;

fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let runs = |it: &&&str| Command::new(it).arg("--version").output().is_ok();
    let found = names.iter().find(runs).copied();
    if found.is_none() {
        println!("SKIPPED: no Chromium");
    }
    found
}

/// The page's document after its scripts ran, and what the browser's console says.
fn visit(browser: &str, page: &Path, profile: &Path, width: u32) -> (String, String) {
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update"]);
    command.args(["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg(format!("--window-size={width},900"));
    let output = command.arg(format!("file://{}", page.display())).output().unwrap();
    let console: Vec<_> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|it| it.contains("CONSOLE"))
        .map(str::to_owned)
        .collect();
    (String::from_utf8(output.stdout).unwrap(), console.join("\n"))
}

#[test]
fn a_browser_shows_it_without_complaint_and_everything_on_it_works() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let hostile_dump = folder.path().join("hostile.dmp");
    std::fs::write(&hostile_dump, hostile().build()).unwrap();
    let mut pages = vec![
        vec![sample("ceiling-x86.dmp")],
        vec![sample("ceiling-x86.dmp"), sample("healthy-x64.dmp")],
        vec![hostile_dump],
    ];
    let shared = ["seed/seed-after", "seed/oom-3g", "wine/net8-x64", "real/firefox-x64"];
    pages.extend(shared.iter().filter_map(|it| dumps::dump(it)).map(|it| vec![it]));
    let mut wide = 0;
    for (idx, paths) in pages.iter().enumerate() {
        let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        let page = html(&paths);
        let file = folder.path().join(format!("{idx}.html"));
        std::fs::write(&file, &page).unwrap();
        let (document, console) = visit(browser, &file, &folder.path().join("profile"), 1280);
        assert_eq!(console, "", "{paths:?}");
        assert!(document.contains("<button"), "{paths:?}: the page's own script did not run");
        // The page allows no script but its own; for the visit, it allows one more.
        let policy = page.split("<meta http-equiv=").nth(1).unwrap().split('>').next().unwrap();
        let visited = page.replace(&format!("<meta http-equiv={policy}>"), "");
        let visited = visited.replacen("</body>", &format!("<script>{VISIT}</script></body>"), 1);
        std::fs::write(&file, visited).unwrap();
        for width in [1280, 500] {
            let (document, console) = visit(browser, &file, &folder.path().join("profile"), width);
            assert_eq!(console, "", "{paths:?}");
            let result = document.split("RESULT").nth(1).and_then(|it| it.split("END").next());
            let result = result.unwrap_or_else(|| panic!("{paths:?}: the visit did not end"));
            let result: Value = serde_json::from_str(&result.replace("&amp;", "&")).unwrap();
            assert_eq!(result["wrong"], serde_json::json!([]), "{paths:?} at {width}: {result}");
            assert!(1 <= result["done"]["tables"].as_u64().unwrap(), "{result}");
            assert!(1 <= result["done"]["links"].as_u64().unwrap(), "{result}");
            wide += result["done"]["searches"].as_u64().unwrap();
            wide += result["done"]["pictures"].as_u64().unwrap();
        }
    }
    assert!(2 * pages.len() as u64 <= wide, "few searches and pictures: {wide}");
}

#[test]
fn a_comparison_has_a_page_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let hostile_dump = folder.path().join("hostile.dmp");
    std::fs::write(&hostile_dump, hostile().build()).unwrap();
    let mut pairs = vec![
        (sample("healthy-x64.dmp"), sample("ceiling-x86.dmp"), "Private bytes"),
        (hostile_dump.clone(), sample("ceiling-x86.dmp"), "different programs"),
    ];
    if let (Some(a), Some(b)) = (dumps::dump("seed/seed-before"), dumps::dump("seed/seed-after")) {
        pairs.push((a, b, "64 units of"));
    }
    for (idx, (before, after, sign)) in pairs.iter().enumerate() {
        let page = folder.path().join(format!("{idx}.html"));
        let program = env!("CARGO_BIN_EXE_oomscope");
        let ran = Command::new(program)
            .args(["compare", "--quiet", "--format", "html", "--output"])
            .args([&page, before, after])
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains(sign), "{before:?}: {sign}");
        assert!(text.ends_with("</html>\n") || text.ends_with("</html>"), "{before:?}");
        // Names in a dump are text and nothing else, and there is one script, the page's own.
        assert!(!text.contains("<img") && text.matches("<script").count() == 1, "{before:?}");
        assert!(!text.contains("http://") && !text.contains("https://"), "{before:?}");
        if let Some(browser) = chromium() {
            let (document, console) = visit(browser, &page, &folder.path().join("profile"), 1280);
            assert_eq!(console, "", "{before:?}");
            assert!(document.contains("<button"), "{before:?}: the page's own script did not run");
        }
    }
}

/// A dump that is dropped on the program, with somebody to open the page.
#[cfg(target_os = "linux")]
mod dropped {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Drop {
        folder: tempfile::TempDir,
        opened: PathBuf,
    }

    impl Drop {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let opened = folder.path().join("opened");
            let opener = folder.path().join("bin/xdg-open");
            std::fs::create_dir(folder.path().join("bin")).unwrap();
            let script = format!("#!/bin/sh\nprintf %s \"$1\" > {}\n", opened.display());
            std::fs::write(&opener, script).unwrap();
            std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
            Self { folder, opened }
        }

        fn run(&self, dumps: &[&Path]) -> std::process::Output {
            let path = format!("{}:/usr/bin:/bin", self.folder.path().join("bin").display());
            let mut command = Command::new(env!("CARGO_BIN_EXE_oomscope"));
            command.arg("--dropped").args(dumps).env("PATH", path);
            command.env("TMPDIR", self.folder.path().join("tmp")).env_remove("BROWSER");
            command.output().unwrap()
        }

        /// What was opened, as soon as it was.
        fn opened(&self) -> PathBuf {
            for _ in 0..500 {
                match std::fs::read_to_string(&self.opened) {
                    Ok(path) if !path.is_empty() => return path.into(),
                    _ => std::thread::sleep(std::time::Duration::from_millis(20)),
                }
            }
            panic!("nothing was opened");
        }
    }

    #[test]
    fn a_dropped_dump_gets_its_page_beside_it() {
        let it = Drop::new();
        let dump = it.folder.path().join("a.dmp");
        std::fs::copy(sample("ceiling-x86.dmp"), &dump).unwrap();
        let output = it.run(&[&dump]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let page = it.folder.path().join("a.dmp.oomscope.html");
        assert_eq!(std::fs::read_to_string(&page).unwrap(), html(&[&dump]));
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.contains("Verdict") && out.contains(page.to_str().unwrap()), "{out}");
        assert_eq!(it.opened(), page);
    }

    #[test]
    fn several_become_one_page_and_a_bad_one_loses_none() {
        let it = Drop::new();
        let (a, b, c) =
            (it.folder.path().join("a"), it.folder.path().join("b"), sample("README.md"));
        std::fs::copy(sample("ceiling-x86.dmp"), &a).unwrap();
        std::fs::copy(sample("healthy-x64.dmp"), &b).unwrap();
        let output = it.run(&[&a, &b, &c]);
        assert_eq!(output.status.code(), Some(1));
        let page = it.folder.path().join("a.and-2-more.oomscope.html");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("2 dumps"), "{page}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("README.md"));
    }

    #[test]
    fn where_nothing_can_be_written_the_page_goes_to_the_temporary_folder() {
        // Nobody makes files there, not even the superuser.
        let file = std::fs::File::open(sample("ceiling-x86.dmp")).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let dump = PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()));
        let it = Drop::new();
        std::fs::create_dir(it.folder.path().join("tmp")).unwrap();
        let output = it.run(&[&dump]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(it.opened(), it.folder.path().join(format!("tmp/{number}.oomscope.html")));
    }
}

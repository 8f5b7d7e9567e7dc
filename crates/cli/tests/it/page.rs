//! The page in a real browser, where one is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::bench::{Bench, assert_same};
use crate::models::{Start, reading};

/// Put behind the page's own content: writes the size of every figure, and whether the page is wider than the window,
/// into the document that `--dump-dom` prints.
const RULER: &str = "<pre id=\"ruler\"></pre><script>\
    const box = (e) => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };\
    document.getElementById('ruler').textContent = JSON.stringify({\
      figures: [...document.querySelectorAll('svg')].filter((e) => e.checkVisibility()).map(box),\
      headings: [...document.querySelectorAll('h2')].map((e) => e.textContent),\
      window: window.innerWidth, page: document.documentElement.scrollWidth});\
    </script>";

#[test]
fn the_page_in_a_browser() {
    let Some(browser) = browser() else {
        return println!("skipped: no Chromium is installed");
    };
    let bench = Bench::new();
    reading(&bench, "tiny", 512, Start::Token);
    bench.succeed(&["report", "tiny", "--out", "page"]);
    let html = fs::read_to_string(bench.path("page/index.html")).unwrap();
    let measured = html.replacen("</body>", &format!("{RULER}</body>"), 1);
    assert_ne!(measured, html, "the page has a body");
    bench.write("measured.html", measured);
    let open = |file: &str, options: &[&str]| open(&browser, &bench, file, options);

    for size in ["--window-size=1200,900", "--window-size=500,900"] {
        let dom = open("measured.html", &[size, "--dump-dom"]);
        let (_, ruler) = dom.rsplit_once("<pre id=\"ruler\">").unwrap();
        let ruler: Value = serde_json::from_str(ruler.split_once("</pre>").unwrap().0).unwrap();
        let figures = ruler["figures"].as_array().unwrap();
        assert!(figures.len() >= 4, "{size}: {ruler}");
        for figure in figures {
            assert!(figure[0].as_f64().unwrap() > 20.0 && figure[1].as_f64().unwrap() > 10.0, "{size}: {figure}");
        }
        assert!(ruler["headings"].as_array().unwrap().len() >= 8, "{size}: {ruler}");
        assert!(ruler["page"].as_u64().unwrap() <= ruler["window"].as_u64().unwrap(), "{size}: wider than the window");
        assert_same("page_headings", &headings(&ruler));
    }

    // The page itself: what the browser made of it still has every panel, and it can be drawn.
    let dom = open("page/index.html", &["--dump-dom"]);
    assert_eq!(dom.matches("<svg").count(), html.matches("<svg").count());
    assert_eq!(dom.matches("<section").count(), html.matches("<section").count());
    let picture = bench.path("page.png");
    open("page/index.html", &["--window-size=1200,900", &format!("--screenshot={}", picture.display())]);
    let picture = fs::read(picture).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
    // An empty page of this size compresses to about 4 kB.
    assert!(picture.len() > 20_000, "{} bytes of picture", picture.len());
}

fn headings(ruler: &Value) -> String {
    ruler["headings"].as_array().unwrap().iter().map(|heading| format!("{}\n", heading.as_str().unwrap())).collect()
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|program| program.is_file())
}

fn open(browser: &Path, bench: &Bench, file: &str, options: &[&str]) -> String {
    let profile = format!("--user-data-dir={}", bench.path("profile").display());
    let output = assert_cmd::Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .arg(profile)
        .args(options)
        .arg(format!("file://{}", bench.path(file).display()))
        .timeout(Duration::from_secs(120))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

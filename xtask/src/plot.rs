//! `cargo xtask plot`: what the measurement of windows found, as a picture.
//!
//! A dot is a migration. To the left of the line the history was complete before the
//! guest's first byte at the destination; to the right a reader had less for so long.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Readable on white and on black.
const INK: &str = "#76808c";
const FAINT: &str = "#76808c55";
const OURS: &str = "#2f81d6";
const THEIRS: &str = "#d9772b";

const WIDTH: f64 = 860.0;
/// Where the axis begins and ends.
const AXIS: (f64, f64) = (150.0, 840.0);
const TOP: f64 = 96.0;
const LANE: f64 = 34.0;
const GROUP: f64 = 2.0 * LANE + 22.0;

/// Below this many milliseconds the axis is linear, beyond logarithmic.
const LINEAR: f64 = 10.0;

/// The measurement's names, and what they are called here.
const WAYS: [(&str, &str, &str); 2] = [
    ("logchain", "logchain migrate", OURS),
    (
        "after-shutoff",
        "virsh migrate, wait for shutoff, rsync, rename",
        THEIRS,
    ),
];

/// Migrations of one way and one size of history.
#[derive(Debug, Default, PartialEq)]
struct Lane {
    mib: u64,
    way: usize,
    /// In milliseconds, sorted.
    windows: Vec<f64>,
}

pub(crate) fn run(csv: &Path, svg: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(csv).with_context(|| format!("cannot read {}", csv.display()))?;
    let picture = draw(&lanes(&text)?);
    std::fs::write(svg, picture).with_context(|| format!("cannot write {}", svg.display()))?;
    println!("{}", svg.display());
    Ok(())
}

/// Small histories first, and our way before the other.
fn lanes(csv: &str) -> Result<Vec<Lane>> {
    let mut lanes: Vec<Lane> = Vec::new();
    for (number, line) in csv.lines().enumerate().skip(1) {
        let at = || format!("line {}: {line}", number + 1);
        let mut cells = line.split(',');
        let mut next = || cells.next().with_context(at);
        let name = next()?;
        let way = WAYS.iter().position(|(way, ..)| *way == name);
        let way = way.with_context(at)?;
        let mib = next()?.parse().with_context(at)?;
        let window: f64 = next()?.parse().with_context(at)?;
        match lanes.iter_mut().find(|l| (l.mib, l.way) == (mib, way)) {
            Some(lane) => lane.windows.push(window),
            None => lanes.push(Lane {
                mib,
                way,
                windows: vec![window],
            }),
        }
    }
    if lanes.is_empty() {
        bail!("nothing was measured");
    }
    lanes.sort_by_key(|lane| (lane.mib, lane.way));
    for lane in &mut lanes {
        lane.windows.sort_by(f64::total_cmp);
    }
    Ok(lanes)
}

/// Linear around 0, logarithmic beyond.
fn scaled(millis: f64) -> f64 {
    let size = millis.abs() / LINEAR;
    let far = if size <= 1.0 {
        size
    } else {
        1.0 + size.log10()
    };
    far.copysign(millis)
}

/// Whole decades that hold all of it, and half a second at least.
fn bounds(lanes: &[Lane]) -> (f64, f64) {
    let all = || lanes.iter().flat_map(|lane| &lane.windows);
    let decade = |most: f64| {
        let mut end = 1000.0;
        while end < most {
            end *= 10.0;
        }
        end
    };
    let least = all().copied().fold(0.0, f64::min);
    let most = all().copied().fold(0.0, f64::max);
    (-decade(-least), decade(most))
}

fn ticks((least, most): (f64, f64)) -> Vec<f64> {
    let mut ticks = vec![0.0];
    let mut step = LINEAR;
    while step <= most.max(-least) {
        ticks.extend(
            [-step, step]
                .into_iter()
                .filter(|t| (least..=most).contains(t)),
        );
        step *= 10.0;
    }
    ticks.sort_by(f64::total_cmp);
    ticks
}

fn span(millis: f64) -> String {
    let sign = if millis < 0.0 { "−" } else { "" };
    match millis.abs() {
        0.0 => "0".to_owned(),
        size if size < 1000.0 => format!("{sign}{size:.0} ms"),
        size if size % 1000.0 == 0.0 => format!("{sign}{:.0} s", size / 1000.0),
        size => format!("{sign}{:.1} s", size / 1000.0),
    }
}

fn history(mib: u64) -> String {
    match mib {
        mib if mib >= 1024 && mib % 1024 == 0 => format!("{} GiB", mib / 1024),
        mib => format!("{mib} MiB"),
    }
}

fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// How far from the middle of its lane a dot lies: no two near each other alike,
/// and the same each time.
fn aside(number: usize) -> f64 {
    const PATTERN: [f64; 7] = [0.0, 0.55, -0.45, 0.85, -0.9, 0.25, -0.2];
    PATTERN
        .get(number % PATTERN.len())
        .copied()
        .unwrap_or_default()
        * 9.0
}

fn draw(lanes: &[Lane]) -> String {
    let mut sizes: Vec<u64> = lanes.iter().map(|lane| lane.mib).collect();
    sizes.dedup();
    let bounds = bounds(lanes);
    let (from, to) = (scaled(bounds.0), scaled(bounds.1));
    let x = |millis: f64| AXIS.0 + (scaled(millis) - from) / (to - from) * (AXIS.1 - AXIS.0);
    let groups = u32::try_from(sizes.len()).map_or(0.0, f64::from);
    let bottom = TOP + groups * GROUP;
    let height = bottom + 62.0;
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
         <title>When the history is complete at the destination</title>"
    );
    legend(&mut svg, lanes);
    for tick in ticks(bounds) {
        let (x, line) = (x(tick), if tick == 0.0 { INK } else { FAINT });
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{line}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            span(tick)
        );
    }
    let zero = x(0.0);
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">← complete before the guest's first byte there</text>\
         <text x=\"{:.1}\" y=\"{:.1}\">a reader has less for so long →</text>",
        zero - 8.0,
        bottom + 42.0,
        zero + 8.0,
        bottom + 42.0
    );
    for (group, mib) in (0_u32..).zip(&sizes) {
        let top = TOP + f64::from(group) * GROUP;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} of history</text>",
            AXIS.0 - 14.0,
            top + GROUP / 2.0 + 4.0,
            history(*mib)
        );
        for lane in lanes.iter().filter(|lane| lane.mib == *mib) {
            let y = top + 11.0 + LANE / 2.0 + if lane.way == 0 { 0.0 } else { LANE };
            dots(&mut svg, lane, y, &x);
        }
        if group > 0 {
            let _ = writeln!(
                svg,
                "<line x1=\"20\" x2=\"{}\" y1=\"{top}\" y2=\"{top}\" stroke=\"{FAINT}\"/>",
                AXIS.1
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, lanes: &[Lane]) {
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"26\" font-size=\"16\" font-weight=\"600\">\
         From the guest's first byte at the destination until its history is complete there</text>"
    );
    let mut x = 26.0;
    for (way, (_, words, colour)) in WAYS.iter().enumerate() {
        let runs: usize = lanes
            .iter()
            .filter(|l| l.way == way)
            .map(|l| l.windows.len())
            .sum();
        let words = format!("{words} ({runs})");
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"48\" r=\"4\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"52.5\">{words}</text>",
            x + 10.0
        );
        x += 40.0 + f64::from(u32::try_from(words.len()).unwrap_or(0)) * 6.9;
    }
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"76\">A dot is a migration; the stroke and the figure are the median.</text>"
    );
}

fn dots(svg: &mut String, lane: &Lane, y: f64, x: &impl Fn(f64) -> f64) {
    let colour = WAYS.get(lane.way).map_or(INK, |way| way.2);
    for (number, window) in lane.windows.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\" fill=\"{colour}\" fill-opacity=\"0.6\"/>",
            x(*window),
            y + aside(number)
        );
    }
    let median = middle(&lane.windows);
    let longest = lane.windows.last().copied().unwrap_or_default();
    // Beside the dots, where there is room.
    let (at, anchor) = if x(longest) > AXIS.1 - 80.0 {
        let first = lane.windows.first().copied().unwrap_or_default();
        (x(first) - 10.0, "end")
    } else {
        (x(longest) + 10.0, "start")
    };
    let middle = x(median);
    let _ = writeln!(
        svg,
        "<line x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2.5\"/>\
         <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>",
        y - 13.0,
        y + 13.0,
        y + 4.5,
        span(median)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "way,mib,window_ms,blur_ms\n\
                       after-shutoff,64,3021,2\nlogchain,64,-70,2\nlogchain,1,-90,2\nlogchain,64,-80,2\n";

    #[test]
    fn rows_become_lanes() {
        let found = lanes(CSV).unwrap();
        let lane = |mib, way, windows: &[f64]| Lane {
            mib,
            way,
            windows: windows.to_vec(),
        };
        assert_eq!(
            found,
            [
                lane(1, 0, &[-90.0]),
                lane(64, 0, &[-80.0, -70.0]),
                lane(64, 1, &[3021.0]),
            ]
        );
        for wrong in [
            "",
            "way\n",
            "way\nvirsh,1,2\n",
            "way\nlogchain,1\n",
            "way\nlogchain,1,x\n",
        ] {
            assert!(lanes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_axis_is_even_around_zero_and_steady() {
        assert_eq!(scaled(0.0), 0.0);
        assert_eq!((scaled(10.0), scaled(-10.0)), (1.0, -1.0));
        assert_eq!(scaled(1000.0), 3.0);
        assert_eq!(ticks((-1000.0, 10_000.0)).len(), 8);
        assert_eq!(bounds(&lanes(CSV).unwrap()), (-1000.0, 10_000.0));
        assert_eq!(
            [span(-70.0), span(3021.0), span(10_000.0)],
            ["−70 ms", "3.0 s", "10 s"]
        );
    }

    #[test]
    fn every_migration_is_a_dot() {
        let svg = draw(&lanes(CSV).unwrap());
        assert_eq!(svg.matches("r=\"2.6\"").count(), 4);
        assert!(svg.contains("64 MiB of history") && svg.ends_with("</svg>\n"));
    }
}

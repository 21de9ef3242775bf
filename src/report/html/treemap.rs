//! Private memory as a treemap: usage, then heap or owner, then block size.
//!
//! Squarified (Bruls, Huizing and van Wijk, "Squarified Treemaps", 2000): rows are filled as long
//! as that makes their rectangles squarer.

use serde::Serialize;

use crate::Analysis;
use crate::owners::Usage;
use crate::report::units;
use crate::say;
use crate::words::term;

/// Width of the drawing, in its own units.
const WIDTH: f64 = 1000.0;
/// Height of the drawing.
const HEIGHT: f64 = 420.0;
/// Height of a line of text.
const LINE: f64 = 14.0;
/// Width of a letter, about.
const LETTER: f64 = 6.2;
/// Children of one node that are drawn by themselves.
const CHILDREN: usize = 24;

/// Something that holds bytes.
#[derive(Debug, Clone)]
struct Node {
    label: String,
    bytes: u64,
    class: String,
    children: Vec<Node>,
}

/// A rectangle of the drawing.
#[derive(Debug, Serialize)]
pub(super) struct Tile {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
    class: String,
    depth: u32,
    /// What hovering shows: the path to it and its size.
    title: String,
    /// The label, as much as there is room for.
    label: String,
}

/// A treemap, drawn.
#[derive(Debug, Serialize)]
pub(super) struct Treemap {
    width: f64,
    height: f64,
    tiles: Vec<Tile>,
}

/// Draws the private memory of a process; nothing when there is none.
pub(super) fn treemap(analysis: &Analysis) -> Option<Treemap> {
    let nodes = nodes(analysis);
    let total: u64 = nodes.iter().map(|it| it.bytes).fold(0, u64::saturating_add);
    if total == 0 {
        return None;
    }
    let mut tiles = Vec::new();
    place(&nodes, Rect { x: 0.0, y: 0.0, w: WIDTH, h: HEIGHT }, "", 0, total, &mut tiles);
    Some(Treemap { width: WIDTH, height: HEIGHT, tiles })
}

fn nodes(analysis: &Analysis) -> Vec<Node> {
    let ledger = &analysis.ledger;
    let mut nodes = Vec::new();
    for total in ledger.totals().iter().filter(|it| it.private_bytes != 0) {
        let children = match total.usage {
            Usage::Heap => heaps(analysis),
            Usage::ManagedHeap => generations(analysis),
            usage => owners(analysis, usage),
        };
        let class = format!("u-{}", total.usage.id());
        nodes.push(whole(total.usage.label(), total.private_bytes, &class, children));
    }
    sorted(nodes)
}

/// A node whose children are what is known of it; the rest of its bytes is one more child.
fn whole(label: &str, bytes: u64, class: &str, children: Vec<Node>) -> Node {
    let mut children = sorted(children);
    for it in &mut children {
        it.class = class.to_owned();
    }
    if CHILDREN < children.len() {
        let rest: Vec<Node> = children.drain(CHILDREN..).collect();
        let sum = rest.iter().map(|it| it.bytes).fold(0, u64::saturating_add);
        children.push(leaf(
            say!("{rest} more", rest = units::count(rest.len() as u64)),
            sum,
            class,
        ));
    }
    let known = children.iter().map(|it| it.bytes).fold(0, u64::saturating_add);
    // Reserved segments and overhead make the sums of the two sides differ.
    let rest = bytes.saturating_sub(known);
    if !children.is_empty() && bytes / 200 < rest {
        children.push(leaf(say!("the rest"), rest, class));
    }
    Node { label: label.to_owned(), bytes, class: class.to_owned(), children }
}

fn leaf(label: String, bytes: u64, class: &str) -> Node {
    Node { label, bytes, class: class.to_owned(), children: Vec::new() }
}

fn sorted(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.retain(|it| it.bytes != 0);
    nodes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.label.cmp(&b.label)));
    nodes
}

fn heaps(analysis: &Analysis) -> Vec<Node> {
    let bitness = analysis.process.bitness;
    let heap = |it: &crate::owners::Heap| {
        let sizes = it.walk.iter().flat_map(|it| &it.sizes);
        let sizes = sizes.map(|it| {
            let label = format!("{:#x} × {}", it.size_bytes, units::count(it.count));
            leaf(label, it.total_bytes, "")
        });
        let label = say!("heap {size}", size = units::address(it.address, bitness));
        whole(&label, it.committed_bytes, "u-heap", sizes.collect())
    };
    analysis.heaps.iter().map(heap).collect()
}

fn generations(analysis: &Analysis) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for range in analysis.managed.iter().flat_map(|it| &it.ranges) {
        match nodes.iter_mut().find(|it| it.label == range.generation) {
            Some(it) => it.bytes = it.bytes.saturating_add(range.committed_bytes),
            None => nodes.push(leaf(range.generation.to_owned(), range.committed_bytes, "")),
        }
    }
    nodes
}

/// Private bytes of a usage by what the map says they are.
fn owners(analysis: &Analysis, usage: Usage) -> Vec<Node> {
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for it in analysis.ledger.slices().iter().filter(|it| it.usage == usage) {
        let sum = sums.entry(it.what.raw()).or_default();
        *sum = sum.saturating_add(it.private());
    }
    sums.into_iter()
        .map(|(what, bytes)| {
            let label = if what.is_empty() { term("unnamed") } else { what };
            leaf(label.to_owned(), bytes, "")
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
struct Rect {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

/// Places `nodes`, the largest first, into `rect`, and their children into theirs.
fn place(nodes: &[Node], rect: Rect, path: &str, depth: u32, whole: u64, tiles: &mut Vec<Tile>) {
    let sum: u64 = nodes.iter().map(|it| it.bytes).fold(0, u64::saturating_add);
    if sum == 0 || rect.w < 2.0 || rect.h < 2.0 {
        return;
    }
    let scale = rect.w * rect.h / sum as f64;
    let mut left = rect;
    let mut rest = nodes;
    while !rest.is_empty() {
        let count = row(rest, left, scale);
        let (row, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        let area: f64 = row.iter().map(|it| it.bytes as f64 * scale).sum();
        let across = left.w <= left.h;
        let side = if across { left.w } else { left.h };
        let thickness = if side == 0.0 { 0.0 } else { area / side };
        let mut at = 0.0;
        for node in row {
            let length = if thickness == 0.0 { 0.0 } else { node.bytes as f64 * scale / thickness };
            let own = if across {
                Rect { x: left.x + at, y: left.y, w: length, h: thickness }
            } else {
                Rect { x: left.x, y: left.y + at, w: thickness, h: length }
            };
            at += length;
            tile(node, own, path, depth, whole, tiles);
        }
        if across {
            left.y += thickness;
            left.h -= thickness;
        } else {
            left.x += thickness;
            left.w -= thickness;
        }
        rest = others;
    }
}

/// How many of the first nodes make the squarest row along the shorter side.
fn row(nodes: &[Node], rect: Rect, scale: f64) -> usize {
    let side = rect.w.min(rect.h);
    let (mut area, mut best) = (0.0, f64::INFINITY);
    let largest = nodes.first().map_or(0.0, |it| it.bytes as f64 * scale);
    for (idx, node) in nodes.iter().enumerate() {
        let own = node.bytes as f64 * scale;
        area += own;
        let (square, side) = (area * area, side * side);
        let worst = (side * largest / square).max(square / (side * own));
        if best < worst {
            return idx.max(1);
        }
        best = worst;
    }
    nodes.len()
}

fn tile(node: &Node, rect: Rect, path: &str, depth: u32, whole: u64, tiles: &mut Vec<Tile>) {
    let size = units::bytes(node.bytes);
    let own =
        if path.is_empty() { node.label.clone() } else { format!("{path} › {}", node.label) };
    let heading = LINE + 4.0;
    let room = rect.h >= heading && LETTER * 4.0 < rect.w;
    let label = if room { fit(&format!("{}  {size}", node.label), rect.w) } else { String::new() };
    let round = |it: f64| (it * 10.0).round() / 10.0;
    tiles.push(Tile {
        x: round(rect.x),
        y: round(rect.y),
        w: round(rect.w),
        h: round(rect.h),
        class: node.class.clone(),
        depth,
        title: format!("{own}: {size}, {}", units::percent(node.bytes, whole)),
        label,
    });
    if !node.children.is_empty() && room {
        let inner = Rect {
            x: rect.x + 2.0,
            y: rect.y + heading,
            w: (rect.w - 4.0).max(0.0),
            h: (rect.h - heading - 2.0).max(0.0),
        };
        place(&node.children, inner, &own, depth.saturating_add(1), whole, tiles);
    }
}

/// As many letters as fit into a width.
fn fit(text: &str, width: f64) -> String {
    let room = ((width - 6.0) / LETTER).max(0.0) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(room.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(bytes: u64, children: Vec<Node>) -> Node {
        Node { label: format!("n{bytes}"), bytes, class: "u-heap".to_owned(), children }
    }

    #[test]
    fn areas_are_proportional_and_inside() {
        let nodes = [node(600, vec![]), node(300, vec![]), node(90, vec![]), node(10, vec![])];
        let mut tiles = Vec::new();
        place(&nodes, Rect { x: 0.0, y: 0.0, w: 100.0, h: 50.0 }, "", 0, 1000, &mut tiles);
        assert_eq!(tiles.len(), 4);
        for (tile, node) in tiles.iter().zip(&nodes) {
            let share = tile.w * tile.h / 5000.0;
            assert!((share - node.bytes as f64 / 1000.0).abs() < 0.01, "{tile:?}");
            assert!(tile.x + tile.w <= 100.2 && tile.y + tile.h <= 50.2, "{tile:?}");
        }
    }
}

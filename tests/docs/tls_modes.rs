//! docs/tls-modes.svg, drawn from the tree by which the doctor chooses an encryption mode.
//!
//! Yes leads down, no leads to the right. Colours follow the reader's preference for light or dark.

use std::fmt::Write as _;

use edgeallow::doctor::{
    Mode,
    tls::modes::{self, Choice, Node},
};

use super::expect_generated;

/// All lengths are pixels. A box is as wide as its column; its lines are so high.
const MARGIN: usize = 24;
const WIDTH: usize = 350;
const BETWEEN: usize = 90;
const LINE: usize = 20;
const PADDING: usize = 14;
const DOWN: usize = 44;
/// So many characters fit into a box, at a width of seven and a half pixels each.
const CHARACTERS: usize = 42;
const RIGHT: usize = MARGIN + WIDTH + BETWEEN;

const STYLE: &str = "
    text { font: 14px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328; }
    .paper { fill: #ffffff; }
    .box { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1.5; }
    .flexible { stroke: #bc4c00; } .full { stroke: #9a6700; } .strict { stroke: #1a7f37; }
    .flexible, .full, .strict { stroke-width: 2.5; }
    .way { stroke: #57606a; stroke-width: 1.5; fill: none; marker-end: url(#tip); }
    .tip { fill: #57606a; }
    .mode { font-weight: 700; font-size: 16px; }
    .answer { font-weight: 600; }
    .small { font-size: 13px; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .paper { fill: #0d1117; }
      .box { fill: #161b22; stroke: #6e7681; }
      .flexible { stroke: #f0883e; } .full { stroke: #d29922; } .strict { stroke: #3fb950; }
      .way { stroke: #8d96a0; }
      .tip { fill: #8d96a0; }
    }
";

/// What is drawn so far, and how far down it reaches.
struct Picture {
    body: String,
    words: Vec<String>,
    bottom: usize,
}

impl Picture {
    /// A box with lines of these classes; its height.
    fn put(&mut self, (x, y): (usize, usize), kind: &str, lines: &[(&str, String)]) -> usize {
        let height = lines.len() * LINE + 2 * PADDING;
        writeln!(self.body, r#"  <rect class="box {kind}" x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="8"/>"#)
            .unwrap();
        for (i, (class, line)) in lines.iter().enumerate() {
            let (x, y) = (x + PADDING, y + PADDING + i * LINE + 15);
            writeln!(self.body, r#"  <text class="{class}" x="{x}" y="{y}">{}</text>"#, escaped(line)).unwrap();
        }
        self.bottom = self.bottom.max(y + height);
        height
    }

    fn way(&mut self, path: &str, answer: &str, (x, y): (usize, usize)) {
        writeln!(self.body, r#"  <path class="way" d="{path}"/>"#).unwrap();
        writeln!(self.body, r#"  <text class="answer" x="{x}" y="{y}">{answer}</text>"#).unwrap();
    }

    /// A node and all below it, from this height on. Where no leads is as high as the question at least.
    fn node(&mut self, node: &Node, y: usize) {
        let Node::Ask { question, yes, no } = node else {
            let Node::Choose(choice) = node else { unreachable!() };
            self.choice(choice, (MARGIN, y));
            return;
        };
        let lines: Vec<_> = wrapped(question.text).into_iter().map(|l| ("", l)).collect();
        let Node::Choose(otherwise) = no else { panic!("the picture has no room for a question after a no") };
        self.words.push(format!("{} No: {}.", question.text, modes::name(otherwise.mode)));
        let asked = self.put((MARGIN, y), "", &lines);
        let beside = self.choice(otherwise, (RIGHT, y));
        let middle = y + asked / 2;
        let (from, to) = (MARGIN + WIDTH, RIGHT - 6);
        self.way(&format!("M{from} {middle} H{to}"), "No", (from + BETWEEN / 2 - 14, middle - 8));
        let next = y + asked.max(beside) + DOWN;
        let x = MARGIN + WIDTH / 2;
        self.way(&format!("M{x} {} V{}", y + asked, next - 6), "Yes", (x + 10, next - DOWN / 2 + 2));
        self.node(yes, next);
    }

    fn choice(&mut self, choice: &Choice, at: (usize, usize)) -> usize {
        let kind = match choice.mode {
            Mode::Flexible => "flexible",
            Mode::Full => "full",
            Mode::Strict => "strict",
            Mode::Unknown => unreachable!("no choice"),
        };
        let error = |mode, error: Option<u16>| match error {
            Some(error) => format!("{}: Error {error}", modes::name(mode)),
            None => format!("{}: works", modes::name(mode)),
        };
        let mut lines = vec![
            ("mode", modes::name(choice.mode).to_owned()),
            ("", format!("{} · {}", error(Mode::Full, choice.full), error(Mode::Strict, choice.strict))),
        ];
        let next = choice.next.map(|next| wrapped(&format!("Better: {next}."))).unwrap_or_default();
        lines.extend(next.into_iter().map(|line| ("small", line)));
        if choice.next.is_none() {
            self.words.push(format!("Yes to all: {}.", modes::name(choice.mode)));
        }
        self.put(at, kind, &lines)
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > CHARACTERS {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn picture() -> String {
    let mut picture = Picture { body: String::new(), words: Vec::new(), bottom: 0 };
    picture.node(&modes::TREE, MARGIN);
    let (width, height) = (RIGHT + WIDTH + MARGIN, picture.bottom + MARGIN);
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="title desc">
  <!-- Made from the code by `make docs`. Do not edit. -->
  <title id="title">Which of Cloudflare's encryption modes to choose</title>
  <desc id="desc">{}</desc>
  <style>{STYLE}  </style>
  <defs><marker id="tip" viewBox="0 0 10 10" refX="4" refY="5" markerWidth="9" markerHeight="9" orient="auto"><path class="tip" d="M0 0 L10 5 L0 10 z"/></marker></defs>
  <rect class="paper" width="100%" height="100%" rx="6"/>
{}</svg>
"#,
        escaped(&picture.words.join(" ")),
        picture.body
    )
}

#[test]
fn the_picture_is_the_tree() {
    expect_generated("docs/tls-modes.svg", &picture());
}

#[test]
fn every_question_and_every_mode_is_in_the_picture() {
    let picture = picture();
    let mut node = &modes::TREE;
    while let Node::Ask { question, yes, .. } = node {
        assert!(wrapped(question.text).iter().all(|line| picture.contains(&escaped(line))), "{}", question.text);
        node = yes;
    }
    for mode in [Mode::Flexible, Mode::Full, Mode::Strict] {
        let name =
            picture.lines().any(|l| l.contains(r#"class="mode""#) && l.contains(&format!(">{}<", modes::name(mode))));
        assert!(name, "{mode:?}");
    }
}

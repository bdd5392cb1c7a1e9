//! The state machine, by hand and at random.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const URL: &str = "https://shop.example/";
const RULES: Rules = Rules { fail_after: 3, acts: true, cooldown: SignedDuration::from_mins(10), max_per_hour: 3 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

const fn cloudflare(status: u16) -> Trouble {
    Trouble { whose: Whose::Cloudflare, status }
}

fn judged(verdict: Verdict, seen: bool) -> Judged {
    Judged { verdict, seen, straight: false, odd: None }
}

/// One round of one page; what came of it.
fn round(memory: &mut Memory, second: i64, verdict: Verdict) -> Outcome {
    memory.round(&RULES, at(second), &[(URL.to_owned(), judged(verdict, true))], None, false)
}

const FAILS: Verdict = Verdict::Failing(cloudflare(521));

#[test]
fn a_page_is_down_after_n_failures_in_a_row_and_told_once() {
    let mut m = Memory::default();
    for second in [0, 60] {
        assert_eq!(round(&mut m, second, FAILS), Outcome::default());
    }
    let down = News::Down { url: URL.into(), trouble: cloudflare(521), failures: 3, since: at(0) };
    assert_eq!(round(&mut m, 120, FAILS), Outcome { news: vec![down], act: true });
    assert_eq!(round(&mut m, 180, FAILS), Outcome { news: vec![News::Held(Held::Cooldown)], act: false });
    assert_eq!(round(&mut m, 240, FAILS), Outcome::default());
    let changed = News::Changed { url: URL.into(), from: cloudflare(521), to: cloudflare(522) };
    assert_eq!(round(&mut m, 300, Verdict::Failing(cloudflare(522))).news, [changed]);
    let up = News::Recovered { url: URL.into(), trouble: cloudflare(522), lasted: SignedDuration::from_secs(360) };
    assert_eq!(round(&mut m, 360, Verdict::Well).news, [up]);
    assert_eq!(round(&mut m, 420, Verdict::Well), Outcome::default());
    assert!(m.sites.is_empty(), "there is nothing to remember of a page that is well");
}

#[test]
fn an_act_that_could_not_be_begun_is_none() {
    let rules = Rules { fail_after: 1, cooldown: SignedDuration::from_mins(10), max_per_hour: 1, ..RULES };
    let mut m = Memory::default();
    let fails =
        |m: &mut Memory, second| m.round(&rules, at(second), &[(URL.to_owned(), judged(FAILS, true))], None, false).act;
    assert!(fails(&mut m, 0));
    m.take_back();
    assert_eq!((m.acts.len(), m.acts_total), (0, 0));
    assert!(fails(&mut m, 60), "neither the cooldown nor the hour has begun");
    assert!(!fails(&mut m, 120));
    assert_eq!(m.acts_total, 1);
}

#[test]
fn a_row_is_interrupted_by_an_answer_and_by_not_knowing() {
    for between in [Verdict::Well, Verdict::Unknown] {
        let mut m = Memory::default();
        for (n, verdict) in [FAILS, FAILS, between, FAILS, FAILS].into_iter().enumerate() {
            assert_eq!(round(&mut m, 60 * i64::try_from(n).unwrap(), verdict), Outcome::default());
        }
        assert_eq!(m.sites[URL].since, Some(at(180)));
    }
}

#[test]
fn what_is_down_stays_down_while_it_is_not_known_and_nothing_is_done_then() {
    let mut m = Memory::default();
    (0..3).for_each(|n| drop(round(&mut m, 60 * n, FAILS)));
    assert_eq!(round(&mut m, 3000, Verdict::Unknown), Outcome::default());
    // It fails again, and the row begins anew.
    assert_eq!(round(&mut m, 3060, FAILS), Outcome::default());
    assert_eq!(round(&mut m, 3120, FAILS), Outcome::default());
    assert_eq!(round(&mut m, 3180, FAILS), Outcome { news: vec![], act: true });
    let lasted = SignedDuration::from_secs(3240);
    assert!(
        matches!(&round(&mut m, 3240, Verdict::Well).news[..], [News::Recovered { lasted: l, .. }] if *l == lasted)
    );
}

#[test]
fn there_is_a_most_per_hour_and_each_reason_to_hold_back_is_told_once() {
    let mut m = Memory::default();
    let (mut acts, mut held) = (vec![], vec![]);
    for minute in 0..120 {
        let outcome = round(&mut m, 60 * minute, FAILS);
        if outcome.act {
            acts.push(minute);
        }
        held.extend(outcome.news.into_iter().filter_map(|n| match n {
            News::Held(why) => Some((minute, why)),
            _ => None,
        }));
    }
    assert_eq!(acts, [2, 12, 22, 62, 72, 82]);
    let (c, h) = (Held::Cooldown, Held::MaxPerHour);
    assert_eq!(held, [(3, c), (13, c), (23, h), (63, h), (73, h), (83, h)].map(|(m, w)| (m, w)));
}

#[test]
fn a_clock_that_is_set_back_neither_frees_nor_freezes_it() {
    let mut m = Memory::default();
    (0..3).for_each(|n| drop(round(&mut m, 100_000 + n, FAILS)));
    assert_eq!(m.acts.len(), 1);
    let held = |why| Outcome { news: vec![News::Held(why)], act: false };
    assert_eq!(round(&mut m, 0, FAILS), held(Held::Unsure), "the act lies in the future: as if it were now");
    assert!(!round(&mut m, 599, FAILS).act);
    assert!(round(&mut m, 600, FAILS).act);
    assert_eq!(round(&mut m, 601, FAILS), held(Held::Cooldown), "this one is known");
}

#[test]
fn what_is_not_known_is_not_called_an_act_and_holds_back_no_longer_than_one() {
    let lost = || Memory { acts: vec![at(0)], unsure: Some(at(0)), ..Memory::default() };
    let mut m = lost();
    (0..2).for_each(|n| drop(round(&mut m, n, FAILS)));
    assert_eq!(round(&mut m, 2, FAILS).news.last(), Some(&News::Held(Held::Unsure)));
    assert!(round(&mut m, 600, FAILS).act);
    let mut back = lost();
    (-10..-8).for_each(|n| drop(round(&mut back, n, FAILS)));
    assert_eq!(round(&mut back, -8, FAILS).news.last(), Some(&News::Held(Held::Unsure)), "set back once more");
    assert!(!round(&mut back, 591, FAILS).act && round(&mut back, 592, FAILS).act);
}

#[test]
fn what_runs_still_holds_the_next_one_back() {
    let mut m = Memory::default();
    let pages = [(URL.to_owned(), judged(FAILS, true))];
    (0..3).for_each(|n| drop(m.round(&RULES, at(n), &pages, None, false)));
    assert_eq!(m.round(&RULES, at(1000), &pages, None, true).news, [News::Held(Held::Running)]);
    assert!(m.round(&RULES, at(1001), &pages, None, false).act);
}

#[test]
fn sight_of_the_edge_and_an_odd_origin_are_told_once() {
    let mut m = Memory::default();
    let mut one = |verdict, seen, odd| {
        let page = (URL.to_owned(), Judged { verdict, seen, straight: false, odd });
        m.round(&RULES, at(0), &[page], None, false).news
    };
    let (unseen, seen) = (News::Unseen { url: URL.into() }, News::Seen { url: URL.into() });
    let told: Vec<Vec<News>> = (0..5).map(|_| one(Verdict::Unknown, false, None)).collect();
    assert_eq!(told, [vec![], vec![], vec![unseen], vec![], vec![]]);
    assert_eq!(one(Verdict::Well, true, Some(true)), [seen, News::Odd { url: URL.into() }]);
    assert_eq!(one(Verdict::Well, true, Some(true)), []);
    assert_eq!(one(Verdict::Unknown, false, None), []);
    assert_eq!(one(Verdict::Well, true, Some(false)), [News::Even { url: URL.into() }]);
}

#[test]
fn what_the_origin_alone_told_it_takes_back_and_nothing_else() {
    const ORIGIN: Verdict = Verdict::Failing(Trouble { whose: Whose::Origin, status: 521 });
    let well_straight = Judged { straight: true, ..judged(Verdict::Unknown, false) };
    let after = |fails: Judged| {
        let mut m = Memory::default();
        let mut one = |judged| m.round(&RULES, at(0), &[(URL.to_owned(), judged)], None, false).news;
        (0..3).for_each(|_| drop(one(fails)));
        assert_eq!(one(judged(Verdict::Unknown, false)), [], "that it can't be told is no answer");
        one(well_straight)
    };
    assert!(matches!(after(judged(ORIGIN, false))[..], [News::Recovered { .. }]));
    // What visitors saw is over when they see an answer.
    assert_eq!(after(judged(FAILS, true)), []);
}

#[test]
fn drift_is_told_once_and_when_to_look_is_known() {
    let mut m = Memory::default();
    assert!(m.is_look_due(at(0)));
    let found = |drift: &[&str], refused| Firewalls {
        drift: drift.iter().map(|&d| d.to_owned()).collect(),
        refused,
        unknown: false,
    };
    let mut look = |second, found: &Firewalls| m.round(&RULES, at(second), &[], Some(found), false).news;
    assert_eq!(look(0, &found(&["ufw"], true)), [News::Drift(vec!["ufw".into()])]);
    assert_eq!(look(60, &found(&["ufw"], true)), []);
    assert_eq!(look(120, &found(&[], false)), [News::InSync]);
    assert!(!m.is_look_due(at(719)) && m.is_look_due(at(720)) && m.is_look_due(at(0)));
    m.round(&RULES, at(720), &[], Some(&found(&[], true)), false);
    assert!(m.is_look_due(at(721)), "while something is refused each round looks");
}

#[test]
fn what_a_filter_did_is_over_when_it_does_so_no_more() {
    let mut m = Memory::default();
    let found = |refused| Firewalls { refused, ..Firewalls::default() };
    let fails = Verdict::Failing(Trouble { whose: Whose::Firewall, status: 522 });
    let mut one = |verdict, refused| {
        let page = [(URL.to_owned(), judged(verdict, true))];
        m.round(&RULES, at(0), &page, Some(&found(refused)), false).news
    };
    (0..3).for_each(|_| drop(one(fails, true)));
    assert_eq!(one(Verdict::Unknown, true), []);
    assert!(matches!(one(Verdict::Unknown, false)[..], [News::Recovered { .. }]));
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => (520_u16..524).prop_map(|status| Verdict::Failing(cloudflare(status))),
        1 => Just(Verdict::Well),
        1 => Just(Verdict::Unknown),
    ]
}

/// What happens to two pages, after how many seconds, and whether the last act is still running.
fn rounds() -> impl Strategy<Value = Vec<(i64, Verdict, Verdict, bool)>> {
    let step = prop_oneof![9 => 1_i64..400, 1 => 400_i64..5000];
    proptest::collection::vec((step, verdicts(), verdicts(), proptest::bool::weighted(0.1)), 1..200)
}

proptest! {
    #[test]
    fn the_limits_hold_whatever_happens(
        rounds in rounds(),
        fail_after in 1_u32..5,
        cooldown in 0_i64..2000,
        max_per_hour in 0_u32..5,
        restarts in proptest::collection::vec(proptest::bool::weighted(0.05), 200),
    ) {
        let rules = Rules { fail_after, acts: true, cooldown: SignedDuration::from_secs(cooldown), max_per_hour };
        let mut m = Memory::default();
        let (mut now, mut acts) = (0, Vec::<i64>::new());
        let mut rows = [0_u32; 2];
        let mut told: BTreeMap<&str, Trouble> = BTreeMap::new();
        for ((step, a, b, running), restart) in rounds.into_iter().zip(restarts) {
            now += step;
            if restart {
                m = serde_json::from_str(&serde_json::to_string(&m).unwrap()).unwrap();
            }
            let pages = [("a", a), ("b", b)];
            let with = pages.map(|(url, v)| (url.to_owned(), judged(v, true)));
            let outcome = m.round(&rules, at(now), &with, None, running);
            for (row, (_, verdict)) in rows.iter_mut().zip(pages) {
                *row = if matches!(verdict, Verdict::Failing(_)) { *row + 1 } else { 0 };
            }
            if outcome.act {
                prop_assert!(!running && rows.iter().any(|row| *row >= fail_after), "before {fail_after} in a row");
                prop_assert!(acts.last().is_none_or(|last| now - last >= cooldown), "within the cooldown");
                acts.push(now);
                let lately = acts.iter().filter(|act| now - **act < 3600).count();
                prop_assert!(lately <= max_per_hour as usize, "{lately} in an hour");
            }
            // Each transition is told once, and what was told is what is so.
            for news in &outcome.news {
                match news {
                    News::Down { url, trouble, .. } => {
                        let url = if url == "a" { "a" } else { "b" };
                        prop_assert_eq!(told.insert(url, *trouble), None);
                    }
                    News::Changed { url, from, to } => {
                        let url = if url == "a" { "a" } else { "b" };
                        prop_assert!(from != to);
                        prop_assert_eq!(told.insert(url, *to), Some(*from));
                    }
                    News::Recovered { url, trouble, .. } => {
                        prop_assert_eq!(told.remove(url.as_str()), Some(*trouble));
                    }
                    News::Held(_) => prop_assert!(!outcome.act),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            for ((url, verdict), row) in pages.into_iter().zip(rows) {
                match verdict {
                    Verdict::Failing(trouble) if row >= fail_after => prop_assert_eq!(told.get(url), Some(&trouble)),
                    Verdict::Well => prop_assert_eq!(told.get(url), None),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn while_nothing_stands_against_it_it_acts(gap in 3_600_i64..10_000, fail_after in 1_u32..4) {
        let rules = Rules { fail_after, ..RULES };
        let mut m = Memory::default();
        let page = [(URL.to_owned(), judged(FAILS, true))];
        let acts: Vec<bool> = (0..6).map(|n| m.round(&rules, at(n * gap), &page, None, false).act).collect();
        let expected: Vec<bool> = (1..=6).map(|n| n >= fail_after).collect();
        prop_assert_eq!(acts, expected);
    }
}

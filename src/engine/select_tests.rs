//! Which backends run, over tools that are said to be there.

use super::*;
use crate::{
    backends::{AnySeen, Meta},
    engine::apply::tests::Toy,
};

struct Said(&'static Meta, Probe);

impl AnyBackend for Said {
    fn meta(&self) -> &'static Meta {
        self.0
    }
    fn stores(&self) -> bool {
        true
    }
    fn probe(&self, _: &Context<'_>) -> Probe {
        self.1.clone()
    }
    fn look<'b>(&'b self, _: &Context<'_>) -> Result<Box<dyn AnySeen + 'b>> {
        Err(Error::new(ErrorKind::Internal, "choosing doesn't look"))
    }
}

static UFW: Meta = Meta { name: "ufw", summary: "", files: &[], packet_filter: true };
static FIREWALLD: Meta = Meta { name: "firewalld", ..UFW };
static NFTABLES: Meta = Meta { name: "nftables", ..UFW };
static IPTABLES: Meta = Meta { name: "iptables", ..UFW };
static FAIL2BAN: Meta = Meta { name: "fail2ban", packet_filter: false, ..UFW };

fn ready(auto: bool) -> Probe {
    let auto = if auto { Auto::Yes("it refuses".into()) } else { Auto::No("it refuses nothing".into()) };
    Probe::Ready { version: String::new(), auto }
}

fn chosen(tools: &[(&'static Meta, Probe)], names: &[&str], only: bool, used: &[&str]) -> String {
    let all: Vec<Box<dyn AnyBackend>> =
        tools.iter().map(|(m, p)| Box::new(Said(m, p.clone())) as Box<dyn AnyBackend>).collect();
    let toy = Toy::default();
    let cx = Context { host: &toy, applied: None, full_check: 1, deep: false, leave_stored: false };
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let s = select(&all, &cx, &Asked { names: &names, only_these: only }, used);
    let of = |b: &[(&dyn AnyBackend, String)]| b.iter().map(|(b, _)| b.meta().name).collect::<Vec<_>>().join(" ");
    let unusable: Vec<_> = s.unusable.iter().map(|(n, _)| *n).collect();
    let warnings: Vec<_> = s.warnings.iter().map(|w| w.id.as_str()).collect();
    format!("+{} -{} !{} ?{}", of(&s.chosen), of(&s.dropped), unusable.join(" "), warnings.join(" "))
}

#[test]
fn auto_takes_every_filter_that_refuses_and_every_tool_above() {
    let tools = [(&NFTABLES, ready(true)), (&IPTABLES, ready(false)), (&FAIL2BAN, ready(true))];
    assert_eq!(chosen(&tools, &["auto"], false, &[]), "+nftables fail2ban - ! ?");
}

#[test]
fn where_nothing_refuses_nothing_is_touched_and_nothing_is_taken_out() {
    let tools = [(&NFTABLES, ready(false)), (&IPTABLES, Probe::Absent("gone".into()))];
    assert_eq!(chosen(&tools, &["auto"], false, &["nftables", "iptables"]), "+ - ! ?nothing-refuses");
    assert_eq!(chosen(&tools, &["nftables"], false, &[]), "+nftables - ! ?", "a named one is applied all the same");
}

#[test]
fn a_tool_that_was_switched_is_cleaned_up_but_not_by_a_run_for_one_backend() {
    let tools = [(&NFTABLES, ready(true)), (&IPTABLES, ready(false))];
    assert_eq!(chosen(&tools, &["auto"], false, &["iptables"]), "+nftables -iptables ! ?");
    assert_eq!(chosen(&tools, &["nftables"], false, &["iptables"]), "+nftables -iptables ! ?");
    assert_eq!(chosen(&tools, &["nftables"], true, &["iptables"]), "+nftables - ! ?");
}

#[test]
fn what_is_named_must_work() {
    let tools = [(&NFTABLES, Probe::Absent("the kernel has no nf_tables".into())), (&IPTABLES, ready(true))];
    assert_eq!(chosen(&tools, &["nftables"], true, &[]), "+ -!nftables ?".replace("-!", "- !"));
    assert_eq!(chosen(&tools, &["auto"], false, &[]), "+iptables - ! ?");
}

#[test]
fn firewalls_that_undo_each_other_are_told() {
    let both = [(&UFW, ready(true)), (&FIREWALLD, ready(true)), (&IPTABLES, ready(false))];
    assert_eq!(chosen(&both, &["auto"], false, &[]), "+ufw firewalld - ! ?firewalls-fight");
    let one = [(&UFW, ready(true)), (&IPTABLES, ready(false))];
    assert_eq!(chosen(&one, &["iptables"], true, &[]), "+iptables - ! ?firewalls-fight");
    assert_eq!(chosen(&one, &["auto"], false, &[]), "+ufw - ! ?");
}

#[test]
fn a_name_that_is_none_is_refused_with_the_nearest() {
    let all: Vec<Box<dyn AnyBackend>> = vec![Box::new(Said(&NFTABLES, ready(true)))];
    assert_eq!(known(&all, "nftabels").unwrap_err().hint.as_deref(), Some("did you mean `nftables`?"));
    assert!(known(&all, "auto").is_ok());
}

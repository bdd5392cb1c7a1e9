use super::*;
use crate::probe::tls::{Failure, Shown};

const NOW: &str = "2026-06-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn good() -> Certificate {
    Certificate {
        subject: "shop.example".into(),
        issuer: "Lab".into(),
        names: vec!["shop.example".into()],
        not_before: "2026-05-01T00:00:00Z".parse().unwrap(),
        not_after: "2026-08-01T00:00:00Z".parse().unwrap(),
        trust: Trust::Known,
        sent: 2,
        edwards: false,
    }
}

fn shown(wants: Option<Wants>) -> Shown {
    Shown { version: Version(0x0304), cipher: "TLS_AES".into(), alpn: Some("h2".into()), chain: vec![vec![]], wants }
}

fn place(at: &str, host: Option<&str>) -> Place {
    Place { host: host.map(str::to_owned), at: at.parse().unwrap(), plain: Some(true) }
}

fn asked(handshake: Result<Shown, Failure>, without: Option<Answer>, certificate: Option<Certificate>) -> Outcome {
    Outcome::Asked(Box::new(Asked { handshake, without, certificate: certificate.map(Ok), only_http2: false }))
}

/// One look at shop.example, port 443.
fn look(outcome: Outcome) -> Look {
    Look { place: place("192.0.2.1:443", Some("shop.example")), outcome }
}

fn fails(how: How, wants: Option<Wants>) -> Look {
    let certificate = wants.is_some().then(good);
    look(asked(Err(Failure { how, chain: vec![], wants }), None, certificate))
}

fn with(certificate: Certificate) -> Look {
    look(asked(Ok(shown(None)), None, Some(certificate)))
}

/// All that is said where nobody speaks of Authenticated Origin Pulls.
fn judge(looks: &[Look], mode: Mode, now: Timestamp) -> Vec<Finding> {
    super::judge(looks, Zone { mode, origin_pulls: false }, now)
}

/// Ids and verdicts of all but the mode.
fn said_of(look: Look, mode: Mode) -> Vec<(&'static str, Finds)> {
    let found = judge(&[look], mode, now());
    found.iter().filter(|f| f.id != "tls.mode").map(|f| (f.id, f.verdict)).collect()
}

fn mode_of(looks: &[Look], mode: Mode) -> Finding {
    judge(looks, mode, now()).into_iter().find(|f| f.id == "tls.mode").unwrap()
}

#[test]
fn what_only_strict_objects_to_is_a_cause_only_under_strict() {
    let day = |text: &str| format!("{text}T00:00:00Z").parse().unwrap();
    let table = [
        ("tls.expired", Certificate { not_after: day("2026-05-20"), ..good() }),
        ("tls.not-yet-valid", Certificate { not_before: day("2026-06-20"), ..good() }),
        ("tls.wrong-name", Certificate { names: vec!["other.example".into()], ..good() }),
        ("tls.self-signed", Certificate { trust: Trust::SelfSigned, ..good() }),
        ("tls.unknown-issuer", Certificate { trust: Trust::Unknown, ..good() }),
        ("tls.private-issuer", Certificate { trust: Trust::Here, ..good() }),
        ("tls.incomplete-chain", Certificate { trust: Trust::Incomplete, ..good() }),
        ("tls.untrusted", Certificate { trust: Trust::Bad("x".into()), ..good() }),
    ];
    for (id, certificate) in table {
        for (mode, verdict) in [
            (Mode::Strict, Finds::Cause),
            (Mode::Unknown, Finds::Warning),
            (Mode::Full, Finds::Note),
            (Mode::Flexible, Finds::Note),
        ] {
            assert_eq!(said_of(with(certificate.clone()), mode), [(id, verdict)], "{mode:?}");
        }
        let found = judge(&[with(certificate.clone())], Mode::Unknown, now());
        assert!(found[0].text.contains("if the zone's mode is Full (strict), visitors see Error 526"));
        assert_eq!(found[0].cloudflare_errors, [526]);
        assert!(mode_of(&[with(certificate)], Mode::Unknown).text.ends_with("for shop.example is Full"));
    }
}

#[test]
fn several_faults_of_one_certificate_are_one_finding() {
    let bad = Certificate { trust: Trust::SelfSigned, names: vec!["localhost".into()], ..good() };
    let found = judge(&[with(bad)], Mode::Strict, now());
    assert_eq!(found[0].id, "tls.wrong-name");
    assert_eq!(
        found[0].text,
        "the certificate shown for shop.example on port 443 is not for shop.example but for localhost and is self-signed"
    );
}

#[test]
fn a_certificate_that_nothing_has_renewed_is_warned_of_in_time() {
    let until = |text: &str| Certificate { not_after: text.parse().unwrap(), ..good() };
    let ids = |c: Certificate, mode| said_of(with(c), mode);
    assert_eq!(ids(until("2026-06-15T00:00:00Z"), Mode::Strict), [("tls.expires-soon", Finds::Warning)]);
    assert_eq!(ids(until("2026-06-15T00:00:00Z"), Mode::Full), [("tls.expires-soon", Finds::Note)]);
    assert_eq!(ids(until("2026-06-20T00:00:00Z"), Mode::Strict), [("tls.certificate", Finds::Ok)]);
    // One of six days is renewed when four are left.
    let short = Certificate { not_before: "2026-05-31T00:00:00Z".parse().unwrap(), ..until("2026-06-06T00:00:00Z") };
    assert_eq!(ids(short, Mode::Strict), [("tls.certificate", Finds::Ok)]);
}

#[test]
fn a_handshake_that_fails_is_a_cause_wherever_one_is_made() {
    let older =
        |version, offered| How::Older { shown: Box::new(Shown { version: Version(version), ..shown(None) }), offered };
    let table = [
        ("tls.no-tls", How::NotTls { http: true }),
        ("tls.old-version", older(0x0301, true)),
        ("tls.no-cipher", older(0x0303, false)),
        ("tls.no-certificate", How::Alert("unrecognized_name".into())),
        ("tls.handshake", How::Alert("handshake_failure".into())),
        ("tls.hangs-up", How::Closed),
    ];
    for (id, how) in table {
        for mode in [Mode::Full, Mode::Strict, Mode::Unknown] {
            assert_eq!(said_of(fails(how.clone(), None), mode), [(id, Finds::Cause)]);
        }
        assert_eq!(said_of(fails(how.clone(), None), Mode::Flexible), [(id, Finds::Note)]);
        let no_tls = matches!(how, How::NotTls { .. });
        let mode = mode_of(&[fails(how, None)], Mode::Full);
        if no_tls {
            assert_eq!(
                (mode.text.as_str(), mode.verdict),
                ("the mode to choose for shop.example is Off or Flexible", Finds::Note)
            );
        } else {
            let text =
                "which mode to choose for shop.example can't be told yet: no handshake succeeds on port 443, see above";
            assert_eq!((mode.text.as_str(), mode.verdict), (text, Finds::Skipped));
        }
        assert_eq!(mode.evidence[2].shows, "Error 525");
    }
    // Without a name a server may well refuse, and whose port it is isn't known.
    let nameless = |how| Look { place: place("192.0.2.1:443", None), ..fails(how, None) };
    for how in [How::Alert("unrecognized_name".into()), How::Closed, How::NotTls { http: false }] {
        let found = judge(&[nameless(how)], Mode::Full, now());
        assert_eq!((found.len(), found[0].id, found[0].verdict), (1, "tls.unseen", Finds::Skipped));
    }
    assert_eq!(said_of(nameless(How::NotTls { http: true }), Mode::Full), [("tls.no-tls", Finds::Cause)]);
    // Flexible is for port 443 only.
    let other = Look { place: place("192.0.2.1:8443", Some("shop.example")), ..fails(How::Closed, None) };
    assert_eq!(said_of(other, Mode::Flexible), [("tls.hangs-up", Finds::Cause)]);
}

#[test]
fn client_certificates() {
    let name = |cn: &str| {
        let text = [&[0x0c, u8::try_from(cn.len()).unwrap()][..], cn.as_bytes()].concat();
        let wrap = |tag: u8, inner: Vec<u8>| [vec![tag, u8::try_from(inner.len()).unwrap()], inner].concat();
        wrap(0x30, wrap(0x31, wrap(0x30, [b"\x06\x03\x55\x04\x03".to_vec(), text].concat())))
    };
    let wants = |authorities: &[&str]| Some(Wants { authorities: authorities.iter().map(|a| name(a)).collect() });
    let ids = |wants, answer, mode| {
        let mut ids = said_of(look(asked(Ok(shown(wants)), Some(answer), Some(good()))), mode);
        assert_eq!(ids.pop(), Some(("tls.certificate", Finds::Ok)));
        ids
    };
    let cause = [("tls.client-certificate", Finds::Cause)];
    let alert = || Answer::Alert("certificate_required".into());
    assert_eq!(ids(wants(&["Ours"]), Answer::Needs(400), Mode::Full), cause);
    assert_eq!(ids(wants(&["Ours"]), alert(), Mode::Unknown), cause);
    assert_eq!(ids(wants(&["Ours"]), alert(), Mode::Flexible), [("tls.client-certificate", Finds::Note)]);
    assert_eq!(ids(wants(&[]), alert(), Mode::Full), [("tls.client-certificate", Finds::Warning)]);
    let pull = [("tls.origin-pull", Finds::Note)];
    assert_eq!(ids(wants(&["Ours", "origin-pull.cloudflare.net"]), Answer::Needs(400), Mode::Strict), pull);
    assert_eq!(ids(wants(&["Ours"]), Answer::Status(200), Mode::Strict), pull);

    // Cloudflare looks at the server's certificate first: what visitors see is named first.
    for (mode, expected) in [
        (Mode::Strict, [("tls.self-signed", Finds::Cause), cause[0]]),
        (Mode::Full, [cause[0], ("tls.self-signed", Finds::Note)]),
    ] {
        let bad = Certificate { trust: Trust::SelfSigned, ..good() };
        for answer in [alert(), Answer::Needs(400)] {
            let look = look(asked(Ok(shown(wants(&["Ours"]))), Some(answer), Some(bad.clone())));
            assert_eq!(said_of(look, mode), expected);
        }
    }

    // Who says that it is uploaded is believed.
    for (authorities, answer) in
        [(&["Ours"][..], Answer::Needs(400)), (&[], alert()), (&["origin-pull.cloudflare.net"], alert())]
    {
        let look = look(asked(Ok(shown(wants(authorities))), Some(answer), Some(good())));
        let found = super::judge(&[look], Zone { mode: Mode::Strict, origin_pulls: true }, now());
        assert_eq!((found[0].id, found[0].verdict), ("tls.origin-pull", Finds::Note));
        assert!(found[0].text.contains("as you say"), "{}", found[0].text);
    }

    let refused = judge(&[fails(How::Alert("handshake_failure".into()), wants(&["Ours"]))], Mode::Full, now());
    assert_eq!((refused[0].id, refused[0].cloudflare_errors.as_slice()), ("tls.client-certificate", &[525, 520][..]));
    assert!(refused[0].text.contains("a certificate of Ours"), "{}", refused[0].text);
}

#[test]
fn two_families_that_show_the_same_are_said_once() {
    let (four, mut six) = (with(good()), with(good()));
    six.place.at = "[2001:db8::1]:443".parse().unwrap();
    let found = judge(&[four, six], Mode::Strict, now());
    let ids: Vec<_> = found.iter().map(|f| (f.id, f.verdict)).collect();
    assert_eq!(ids, [("tls.certificate", Finds::Ok), ("tls.mode", Finds::Ok)]);
    assert!(found[0].evidence.iter().any(|e| e.source.contains("-connect [2001:db8::1]:443 -servername shop.example")));
}

#[test]
fn the_mode_suits_all_of_a_names_ports() {
    let mut alt = with(Certificate { trust: Trust::SelfSigned, ..good() });
    alt.place.at.set_port(8443);
    let mode = mode_of(&[with(good()), alt], Mode::Strict);
    assert_eq!((mode.text.as_str(), mode.verdict), ("the mode to choose for shop.example is Full", Finds::Note));
    // One family that isn't served is for the names' room; nothing at all on 443 decides.
    let mut six = look(Outcome::NotListening);
    six.place.at = "[2001:db8::1]:443".parse().unwrap();
    assert!(mode_of(&[with(good()), six.clone()], Mode::Strict).text.ends_with("is Full (strict)"));
    let both = judge(&[with(good()), six.clone()], Mode::Strict, now());
    assert!(both.iter().any(|f| f.text.starts_with("nothing takes connections on port 443 over IPv6")), "{both:?}");
    assert_eq!(said_of(six.clone(), Mode::Strict), [("tls.not-listening", Finds::Skipped)]);
    let none = mode_of(&[six], Mode::Strict);
    assert_eq!(
        (none.evidence[1].shows.as_str(), none.evidence[3].shows.as_str()),
        ("works, by plain HTTP over port 80", "Error 521")
    );
}

#[test]
fn no_mode_is_chosen_for_a_site_that_serves_nothing() {
    let silent = |plain| {
        let mut look = look(Outcome::NotListening);
        look.place.plain = plain;
        mode_of(&[look], Mode::Unknown)
    };
    assert!(silent(Some(true)).text.ends_with("is Off or Flexible"), "the one mode that works");
    for (plain, why) in [(Some(false), "nothing listens on port 80 either"), (None, "can't be seen from here")] {
        let mode = silent(plain);
        assert_eq!(mode.verdict, Finds::Skipped);
        assert!(
            mode.text.contains("can't be told yet: nothing listens on port 443") && mode.text.contains(why),
            "{mode:?}"
        );
    }
    let mut plain = fails(How::NotTls { http: true }, None);
    plain.place.plain = Some(false);
    assert!(mode_of(&[plain], Mode::Unknown).text.contains("port 443 speaks no TLS"));
}

#[test]
fn what_is_not_asked_for_and_what_is_odd_is_said() {
    let mut only = with(good());
    if let Outcome::Asked(asked) = &mut only.outcome {
        asked.only_http2 = true;
    }
    assert_eq!(said_of(only, Mode::Strict), [("tls.certificate", Finds::Ok), ("tls.only-http2", Finds::Skipped)]);
    let odd = with(Certificate { edwards: true, ..good() });
    assert_eq!(said_of(odd, Mode::Strict), [("tls.key", Finds::Note), ("tls.certificate", Finds::Ok)]);
}

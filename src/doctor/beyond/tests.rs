use super::*;

fn directive(file: &str, line: usize, words: &[&str]) -> Directive {
    Directive {
        words: words.iter().map(|w| (*w).to_owned()).collect(),
        file: file.into(),
        line,
        block: None,
        opens: None,
    }
}

#[test]
fn what_is_wanted_of_a_client_certificate_decides() {
    let shared = |path: &Path| match path.to_str()? {
        "/etc/nginx/cloudflare.pem" => Some(true),
        "/etc/ssl/own.pem" => Some(false),
        _ => None,
    };
    let site = "/etc/nginx/site.conf";
    for (words, signer, wanted, id, verdict) in [
        (&["ssl_verify_client", "on"], "cloudflare.pem", Some(Wants::Shared), "beyond.any-customer", Finds::Note),
        (&["ssl_verify_client", "on"], "/etc/ssl/own.pem", Some(Wants::Own), "beyond.origin-pulls", Finds::Note),
        (&["SSLVerifyClient", "Require"], "/etc/ssl/gone.pem", Some(Wants::Some), "beyond.origin-pulls", Finds::Note),
        (&["ssl_verify_client", "optional"], "/etc/ssl/own.pem", Some(Wants::Asks), "beyond.any-customer", Finds::Note),
        (&["ssl_verify_client", "off"], "/etc/ssl/own.pem", None, "beyond.any-customer", Finds::Note),
    ] {
        let all = [
            directive("/etc/nginx/other.conf", 1, &["ssl_client_certificate", "/etc/ssl/own.pem"]),
            directive(site, 3, &["ssl_client_certificate", signer]),
            directive(site, 4, words),
        ];
        let found = wants(&all, &shared);
        assert_eq!(found.map(|(w, _)| w), wanted, "{words:?} {signer}");
        let finding = judge_pulls(found, &all);
        assert_eq!((finding.id, finding.verdict), (id, verdict), "{finding:?}");
        assert!(!finding.evidence.is_empty() && finding.cloudflare_errors.is_empty(), "{finding:?}");
        if wanted.is_some() {
            assert_eq!(finding.evidence[0].source, "/etc/nginx/site.conf line 4");
        }
    }
    assert_eq!(judge_pulls(None, &[]).evidence[0].shows, "no configuration of nginx or Apache to be read here");
}

#[test]
fn a_socket_on_udp_443_is_seen() {
    let head = "   sl  local_address rem_address   st tx_queue rx_queue\n";
    assert!(binds_443(&format!("{head}  123: 00000000:01BB 00000000:0000 07 00000000:00000000\n")));
    assert!(binds_443(&format!("{head}  9: 00000000000000000000000000000000:01BB 0000:0000 07\n")));
    assert!(!binds_443(&format!("{head}  123: 0100007F:0035 00000000:01BB 07 00000000:00000000\n")));
    assert!(http3(Some(true)).fix.is_some() && http3(Some(false)).fix.is_none() && http3(None).fix.is_none());
}

#[test]
fn the_letter_fits_the_panel() {
    let plesk = letter(&["shop.example".to_owned()], "80 and 443", Some(Panel::Plesk));
    assert!(plesk.contains("shop.example is behind Cloudflare") && plesk.contains("TCP ports 80 and 443"), "{plesk}");
    assert!(plesk.contains("Trusted IP Addresses") && !plesk.contains("cPanel"), "{plesk}");
    let any = letter(&[], "443", None);
    assert!(["My site", "cPanel", "Plesk", "DirectAdmin"].iter().all(|w| any.contains(w)), "{any}");
}

//! Whom nginx hangs up on: many a site ends every connection without an answer (444) that isn't Cloudflare's.
//!
//! Belongs here: conditions on which that is done. Does not: lists of addresses (`firewall`), what was answered (`answers`).

use crate::{
    doctor::{
        Context,
        directives::{Directive, Said},
    },
    host::ListenSocket,
};

/// What the names of nginx's processes begin with.
const NGINX: [&str; 2] = ["nginx", "openresty"];
/// The status that is no answer: nginx closes the connection.
const NO_ANSWER: &str = "444";

/// The place of a condition on which nginx ends connections without an answer, and what it says.
pub(super) fn hangs_up(cx: &Context<'_>) -> Option<(String, String)> {
    may_be_nginx(cx.listeners.as_deref().unwrap_or_default()).then(|| condition(cx.configs.nginx()))?
}

/// Whether it listens, as far as it may be seen who does.
fn may_be_nginx(listening: &[ListenSocket]) -> bool {
    listening.iter().any(|socket| {
        let is_its = |name: &str| NGINX.iter().any(|program| name.starts_with(program));
        socket.programs.is_empty() || socket.programs.iter().any(|p| is_its(&p.name))
    })
}

/// What a server does for everybody is none: `return 444` in a `server`, or in a location that visitors name.
fn condition(said: &Said) -> Option<(String, String)> {
    if let (Some(why), false) = (said.unread.first(), said.directives.is_empty()) {
        return Some(("/etc/nginx".to_owned(), why.clone()));
    }
    let one = said.directives.iter().find_map(|directive| {
        let ends = |value: &str| directive.value() == value;
        if ["limit_req_status", "limit_conn_status"].iter().any(|name| directive.is(name)) && ends(NO_ANSWER) {
            return Some(directive);
        }
        if !directive.is("return") || !ends(NO_ANSWER) {
            return None;
        }
        // What a list refuses goes to such a location (`error_page 403 @gone;`).
        let is_condition = |head: &&Directive| {
            let is_led_to = head.is("location")
                && (head.value().starts_with('@') || said.inside(Some(head)).any(|d| d.is("internal")));
            head.is("if") || is_led_to
        };
        said.around_of(directive).find(is_condition)
    })?;
    Some((one.place(), one.words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::directives::tests::said_by_nginx;

    #[test]
    fn only_what_is_done_on_a_condition_may_be_meant_for_strangers() {
        for (config, says) in [
            ("server { if ($cf = 0) { return 444; } }", Some("if ($cf = 0)")),
            ("server { location / { if ($http_cf_ray = \"\") { return 444; } } }", Some("if ($http_cf_ray = )")),
            ("server { deny all; error_page 403 @gone; location @gone { return 444; } }", Some("location @gone")),
            ("server { location /gone { internal; return 444; } }", Some("location /gone")),
            ("limit_req_status 444; server { limit_req zone=one; }", Some("limit_req_status 444")),
            ("server { return 444; }", None),
            ("server { location / { return 444; } }", None),
            ("server { if ($cf = 0) { return 403; } }", None),
        ] {
            let said = said_by_nginx(&format!("http {{ {config} }}"));
            assert_eq!(condition(&said).map(|(_, says)| says).as_deref(), says, "{config}");
        }
    }

    #[test]
    fn what_could_not_be_read_may_have_a_condition() {
        let mut said = said_by_nginx("http { server { return 444; } }");
        said.unread.push("cannot read /etc/nginx/sites-enabled/shop".to_owned());
        assert_eq!(condition(&said).unwrap().1, "cannot read /etc/nginx/sites-enabled/shop");
    }
}

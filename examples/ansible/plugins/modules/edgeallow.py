#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: the edgeallow authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs edgeallow and tells Ansible what it did: its JSON report in, changed, diff, warnings and failure out.

Belongs here: options to arguments, report to result. Does not: what a firewall should look like; edgeallow decides that.
Runs on the managed hosts, so it keeps to Python 3.6.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: edgeallow
short_description: Keep a host's firewalls open to Cloudflare
version_added: 0.1.0
description:
  - Runs C(edgeallow) on the host, which makes every firewall there let Cloudflare's published ranges through, changes
    only what differs, and proves that the change took.
  - The module adds nothing of its own. Whether something changes, and what, is what C(edgeallow) reports.
author:
  - The edgeallow authors
requirements:
  - edgeallow on the managed host; the role P(edgeallow.edgeallow.edgeallow#role) installs it
options:
  state:
    description:
      - With V(present) the firewalls are made to hold the list (C(edgeallow sync)).
      - With V(absent) all that edgeallow owns is taken out (C(edgeallow remove)).
      - With V(verified) nothing is changed; the task fails unless every range reaches every port, and names the rule
        that refuses it (C(edgeallow verify)).
    type: str
    choices: [present, absent, verified]
    default: present
  backends:
    description:
      - Only these backends. By default those of the configuration, and with O(state=absent) every one.
      - A backend that is named must work, or the task fails.
    type: list
    elements: str
    default: []
  list:
    description:
      - Files on the host with the list to use instead of Cloudflare's, as text or as the API's JSON.
      - No network connection is opened then.
    type: list
    elements: path
    default: []
  list_content:
    description:
      - The list itself, instead of Cloudflare's, as text or as the API's JSON. It is handed over on standard input, so
        that the host neither needs the internet nor a file.
      - What C(edgeallow fetch) prints on the controller is such a list.
    type: str
  allow_shrink:
    description: Believe a list even if most of the last one is gone.
    type: bool
    default: false
  remove_now:
    description: Close vanished ranges at once instead of after the grace period.
    type: bool
    default: false
  require_reach:
    description:
      - Fail if Cloudflare is still refused afterwards by something that edgeallow doesn't own, or if that can't be told.
      - Not asked in check mode, where nothing has been opened yet.
    type: bool
    default: false
  ports:
    description: With O(state=verified), the ports to ask about. By default those of the configuration.
    type: list
    elements: int
    default: []
  offline:
    description: Never open a network connection; use the last good copy of the list, or the one in the binary.
    type: bool
    default: false
  config:
    description: The configuration file on the host, if it isn't C(/etc/edgeallow/config.toml).
    type: path
  config_content:
    description:
      - A configuration to use instead of the file, for this run only.
      - In check mode it shows what a configuration would do that isn't on the host yet.
    type: str
  state_dir:
    description: Where edgeallow remembers what it did, if that isn't C(/var/lib/edgeallow).
    type: path
  lock_timeout:
    description: How many seconds to wait for another edgeallow on the host to finish. By default edgeallow's own.
    type: int
  executable:
    description: The program, as a name or a path.
    type: str
    default: edgeallow
attributes:
  check_mode:
    description: Runs C(--dry-run), which shows every change and makes none.
    support: full
  diff_mode:
    description: Shows each change with its reason, the command or transaction, and the lines of files that differ.
    support: full
  platform:
    description: Where it runs.
    support: full
    platforms: linux
notes:
  - In check mode, on a host where edgeallow isn't installed yet, the task is reported as changed with a warning, because
    nobody can tell what the first run would do there.
"""

EXAMPLES = r"""
- name: Keep the firewalls open to Cloudflare
  edgeallow.edgeallow.edgeallow:

- name: Only ufw, and fail if something else still refuses Cloudflare
  edgeallow.edgeallow.edgeallow:
    backends: [ufw]
    require_reach: true

- name: Fetch the list once, on the controller
  ansible.builtin.command:
    cmd: edgeallow fetch
  register: fetched
  changed_when: false
  check_mode: false
  delegate_to: localhost
  run_once: true

- name: Hand it to a host that can't reach the internet
  edgeallow.edgeallow.edgeallow:
    list_content: "{{ fetched.stdout }}"

- name: Stop here if Cloudflare doesn't get through
  edgeallow.edgeallow.edgeallow:
    state: verified

- name: Take everything out again
  edgeallow.edgeallow.edgeallow:
    state: absent
"""

RETURN = r"""
command:
  description: What was run, without its standard input.
  returned: when edgeallow was run
  type: list
  elements: str
  sample: [/usr/bin/edgeallow, --format, json, sync]
rc:
  description: Its exit status.
  returned: when edgeallow was run
  type: int
  sample: 0
report:
  description:
    - Its whole report. C(docs/schema/report.json) describes it.
  returned: when edgeallow wrote one
  type: dict
  sample:
    schema: 1
    command: sync
    dry_run: false
    changed: true
    backends: [{name: nftables, state: applied, changed: true, changes: []}]
    warnings: []
backends:
  description: How each backend ended.
  returned: when edgeallow wrote a report
  type: dict
  sample: {nftables: applied, fail2ban: in_sync}
errors:
  description: What went wrong, with the stable kind of each error and what to do next.
  returned: on failure, when edgeallow wrote a report
  type: list
  elements: dict
  sample:
    - backend: ufw
      kind: no-privilege
      message: ufw can't be read
      hint: run edgeallow as root
stderr:
  description: What it wrote on standard error.
  returned: on failure
  type: str
  sample: ""
"""

import json
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

# A backend that is one of these is as it should be, or left alone on purpose.
GOOD_STATES = ("in_sync", "planned", "applied", "removed", "pending", "skipped")
COMMANDS = {"present": "sync", "absent": "remove", "verified": "verify"}
STATE_DIR = "/var/lib/edgeallow"


def arguments(params, check_mode, config=None):
    """The arguments for these options; `config` is the path of the configuration to name."""
    state = params["state"]
    args = ["--format", "json", "--color", "never"]
    if config:
        args += ["--config", config]
    if params["state_dir"]:
        args += ["--state-dir", params["state_dir"]]
    if params["lock_timeout"] is not None:
        args += ["--lock-timeout", str(params["lock_timeout"])]
    if params["offline"]:
        args.append("--offline")
    args.append(COMMANDS[state])
    if check_mode and state != "verified":
        args.append("--dry-run")
    if state != "verified":
        for name in params["backends"]:
            args += ["--backend", name]
    if state != "absent":
        for path in params["list"]:
            args += ["--list", path]
        if params["list_content"] is not None:
            args += ["--list", "-"]
        if params["allow_shrink"]:
            args.append("--allow-shrink")
    if state == "present":
        if params["remove_now"]:
            args.append("--remove-now")
        if params["require_reach"] and not check_mode:
            args.append("--require-reach")
    if state == "verified":
        for port in params["ports"]:
            args += ["--port", str(port)]
    return args


def diff_of(report):
    """What changed, a text a backend, as Ansible prints it."""
    diffs = []
    for backend in report.get("backends") or []:
        parts = []
        for change in backend.get("changes") or []:
            parts.append("# {0}: {1}".format(backend["name"], change["why"]))
            parts.append(change["preview"])
            if change.get("diff"):
                parts.append(change["diff"].rstrip("\n"))
        if parts:
            diffs.append({"prepared": "\n".join(parts) + "\n"})
    return diffs


def errors_of(report):
    """Every error of the run and of its backends."""
    found = []
    if report.get("error"):
        found.append(dict(report["error"], backend=None))
    for backend in report.get("backends") or []:
        if backend.get("error"):
            found.append(dict(backend["error"], backend=backend["name"]))
        elif backend.get("state") not in GOOD_STATES:
            what = "ended as {0}".format(backend.get("state"))
            found.append({"backend": backend["name"], "kind": "internal", "message": what, "hint": backend.get("reason")})
    return found


def refusals_of(report):
    """What stands in Cloudflare's way, a sentence each, worst first."""
    reach = report.get("reach") or {}
    sentences = []
    for culprit in reach.get("culprits") or []:
        if culprit["verdict"] not in ("refused", "unknown"):
            continue
        ports = []
        for caught in culprit["catches"]:
            ports += [port for port in caught["ports"] if port not in ports]
        place = culprit.get("place") or {}
        rule = place.get("text") or culprit.get("detail") or culprit["effect"]
        words = "port {0} is {1}: {2}: {3}".format(
            ", ".join(ports), culprit["verdict"], culprit.get("name") or culprit.get("tool") or "unknown", rule
        )
        if culprit.get("mend"):
            words += " (to mend it: {0})".format(culprit["mend"][0])
        sentences.append(words)
    sentences += ["it can't be told: {0}".format(gap) for gap in reach.get("gaps") or []]
    return sentences


def sentence(error):
    """An error with its backend and its hint."""
    words = error["message"]
    if error["backend"]:
        words = "{0}: {1}".format(error["backend"], words)
    if error.get("hint"):
        words += " ({0})".format(error["hint"])
    return words


def failure(rc, report, stderr):
    """One line that says what went wrong."""
    sentences = [sentence(e) for e in errors_of(report)] if report else []
    if report and rc == 7:
        sentences = refusals_of(report) + sentences
    if not sentences and report:
        sentences = [w["message"] for w in report.get("warnings") or []]
    if not sentences and stderr.strip():
        sentences = [stderr.strip()]
    return "; ".join(sentences) or "edgeallow ended with exit status {0} and without a word".format(rc)


def result_of(rc, stdout, stderr, want_diff):
    """What Ansible is told, and the warnings: pure, so that it can be tested without a host."""
    try:
        report = json.loads(stdout)
    except ValueError:
        report = None
    if not isinstance(report, dict) or "command" not in report:
        report = None
    result = {"rc": rc, "changed": False}
    warnings = []
    if report:
        result["report"] = report
        result["changed"] = bool(report.get("changed")) and report["command"] in ("sync", "remove")
        result["backends"] = dict((b["name"], b["state"]) for b in report.get("backends") or [])
        warnings = ["{message} [{id}]".format(**w) for w in report.get("warnings") or []]
        if want_diff and result["changed"]:
            result["diff"] = diff_of(report)
    if rc != 0 or not report:
        result["failed"] = True
        result["msg"] = failure(rc, report, stderr)
        result["stderr"] = stderr
        if report:
            result["errors"] = errors_of(report)
    return result, warnings


def counts_as_applied(state_dir):
    """Whether what edgeallow remembers says that there are rules of its own; so does what can't be read."""
    path = os.path.join(state_dir, "state.json")
    if not os.path.lexists(path):
        return False
    try:
        with open(path, "rb") as stream:
            state = json.loads(stream.read().decode("utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(state, dict) or bool(state.get("backends", True))


def not_installed(module):
    """What to say where the program isn't there."""
    executable = module.params["executable"]
    if module.params["state"] == "absent":
        state_dir = module.params["state_dir"] or STATE_DIR
        if not counts_as_applied(state_dir):
            module.exit_json(changed=False, msg="edgeallow isn't installed and has left nothing behind")
        # In check mode too: it would fail.
        module.fail_json(
            msg="{0} isn't installed here, but by {1} there are rules of edgeallow's on this host, which only the program "
            "can take out: say where it is, in the role by edgeallow_path, or by the edgeallow_artifact that the host "
            "was installed from".format(executable, state_dir)
        )
    if module.check_mode:
        module.warn("{0} isn't installed here yet, so what it would change can't be shown".format(executable))
        module.exit_json(changed=module.params["state"] != "verified")
    module.fail_json(msg="{0} isn't installed here (the role edgeallow.edgeallow.edgeallow installs it)".format(executable))


def find(module):
    """The program's path, or None."""
    executable = module.params["executable"]
    if os.path.sep in executable:
        return executable if os.access(executable, os.X_OK) else None
    return module.get_bin_path(executable, opt_dirs=["/usr/local/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"])


def temporary(module, content):
    """A file with this content, which is gone when the module ends."""
    descriptor, path = tempfile.mkstemp(dir=module.tmpdir, suffix=".toml")
    module.add_cleanup_file(path)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content.encode("utf-8"))
    return path


def main():
    """Reads the options, runs edgeallow, reports."""
    module = AnsibleModule(
        argument_spec=dict(
            state=dict(type="str", choices=["present", "absent", "verified"], default="present"),
            backends=dict(type="list", elements="str", default=[]),
            list=dict(type="list", elements="path", default=[]),
            list_content=dict(type="str"),
            allow_shrink=dict(type="bool", default=False),
            remove_now=dict(type="bool", default=False),
            require_reach=dict(type="bool", default=False),
            ports=dict(type="list", elements="int", default=[]),
            offline=dict(type="bool", default=False),
            config=dict(type="path"),
            # It may hold the address of a webhook.
            config_content=dict(type="str", no_log=True),
            state_dir=dict(type="path"),
            lock_timeout=dict(type="int"),
            executable=dict(type="str", default="edgeallow"),
        ),
        mutually_exclusive=[("config", "config_content")],
        supports_check_mode=True,
    )
    params = module.params
    if params["list"] and params["list_content"] is not None:
        module.fail_json(msg="list and list_content can't be combined: it would not be clear which list is meant")
    if params["list_content"] is not None and not params["list_content"].strip():
        module.fail_json(msg="list_content is empty: leave it out to use Cloudflare's list")
    program = find(module)
    if not program:
        not_installed(module)
    config = params["config"]
    if params["config_content"] is not None:
        config = temporary(module, params["config_content"])
    command = [program] + arguments(params, module.check_mode, config)
    rc, stdout, stderr = module.run_command(
        command,
        data=params["list_content"] if params["state"] != "absent" else None,
        environ_update={"LC_ALL": "C.UTF-8"},
        # Firewalls' programs lie where a log-in without root's PATH doesn't look.
        path_prefix="/usr/local/sbin:/usr/sbin:/sbin",
        expand_user_and_vars=False,
    )
    result, warnings = result_of(rc, stdout, stderr, module._diff)
    for warning in warnings:
        module.warn(warning)
    result["command"] = command
    if result.get("failed"):
        msg = result.pop("msg")
        module.fail_json(msg=msg, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()

"""What the module makes of each kind of report, and which arguments it gives: without a host, without a binary."""

import importlib.util
import json
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
PATH = os.path.join(os.path.dirname(__file__), "../../examples/ansible/plugins/modules/edgeallow.py")
SPEC = importlib.util.spec_from_file_location("edgeallow_module", PATH)
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)

DEFAULTS = {
    "state": "present",
    "backends": [],
    "list": [],
    "list_content": None,
    "allow_shrink": False,
    "remove_now": False,
    "require_reach": False,
    "ports": [],
    "offline": False,
    "config": None,
    "config_content": None,
    "state_dir": None,
    "lock_timeout": None,
    "executable": "edgeallow",
}
CHANGE = {"why": "the set is missing", "preview": "nft add set", "diff": "--- a\n+++ b\n+x\n"}


def report(command="sync", **more):
    """A report as edgeallow prints it."""
    backend = {"name": "nftables", "state": "applied", "changed": True, "reason": None, "changes": [CHANGE], "error": None}
    base = {"schema": 1, "command": command, "dry_run": False, "changed": True, "backends": [backend], "warnings": []}
    base["error"] = None
    base.update(more)
    return base


def result(rc, value, diff=True):
    """The module's result and warnings for an exit status and a report."""
    return MODULE.result_of(rc, value if isinstance(value, str) else json.dumps(value), "on stderr\n", diff)


class Results(unittest.TestCase):
    """From report to result."""

    def test_a_change_is_changed_with_its_diff_and_its_reason(self):
        found, warnings = result(0, report())
        self.assertTrue(found["changed"])
        self.assertNotIn("failed", found)
        self.assertEqual(found["backends"], {"nftables": "applied"})
        self.assertEqual(found["diff"][0]["prepared"], "# nftables: the set is missing\nnft add set\n--- a\n+++ b\n+x\n")
        self.assertEqual(warnings, [])
        self.assertNotIn("diff", result(0, report(), diff=False)[0])

    def test_nothing_to_change_is_ok_and_warnings_are_passed_on(self):
        found, warnings = result(0, report(changed=False, backends=[], warnings=[{"id": "list-old", "message": "old"}]))
        self.assertFalse(found["changed"])
        self.assertNotIn("diff", found)
        self.assertEqual(warnings, ["old [list-old]"])

    def test_an_error_of_the_run_is_its_message_and_hint(self):
        error = {"kind": "locked", "message": "another edgeallow is running", "hint": "try again"}
        found, _warnings = result(75, report(changed=False, backends=[], error=error))
        self.assertTrue(found["failed"])
        self.assertEqual(found["msg"], "another edgeallow is running (try again)")
        self.assertEqual(found["errors"][0]["kind"], "locked")

    def test_a_failed_backend_names_itself_and_what_others_changed_still_counts(self):
        error = {"kind": "program", "message": "ufw answered with 1", "hint": None}
        bad = {"name": "ufw", "state": "failed", "changed": False, "reason": None, "changes": [], "error": error}
        found, _warnings = result(4, report(backends=report()["backends"] + [bad]))
        self.assertTrue(found["failed"] and found["changed"])
        self.assertEqual(found["msg"], "ufw: ufw answered with 1")

    def test_what_is_no_report_is_a_failure_with_what_was_said(self):
        for rc in (0, 1, 2, -9):
            for stdout in ("", "Segmentation fault", "[]", "{}"):
                found, _warnings = result(rc, stdout)
                self.assertTrue(found["failed"], (rc, stdout))
                self.assertEqual(found["msg"], "on stderr")
        silent, _warnings = MODULE.result_of(1, "", "", True)
        self.assertIn("exit status 1", silent["msg"])

    def test_a_refusal_names_port_rule_tool_and_what_would_mend_it(self):
        culprit = {
            "verdict": "refused",
            "tool": "ufw",
            "name": "ufw",
            "effect": "drop",
            "detail": None,
            "place": {"text": "-A ufw-user-input -p tcp --dport 443 -j DROP"},
            "catches": [{"ports": ["443/tcp"]}, {"ports": ["443/tcp", "80/tcp"]}],
            "mend": ["ufw delete deny 443"],
        }
        throttled = dict(culprit, verdict="throttled")
        reach = {"verdict": "refused", "culprits": [culprit, throttled], "gaps": []}
        found, _warnings = result(7, report("verify", changed=True, backends=[], reach=reach))
        self.assertFalse(found["changed"], "verify never changes anything")
        self.assertEqual(
            found["msg"],
            "port 443/tcp, 80/tcp is refused: ufw: -A ufw-user-input -p tcp --dport 443 -j DROP"
            " (to mend it: ufw delete deny 443)",
        )


class Arguments(unittest.TestCase):
    """From options to arguments."""

    def arguments(self, check_mode=False, config=None, **options):
        """Those after the ones that are always there."""
        found = MODULE.arguments(dict(DEFAULTS, **options), check_mode, config)
        self.assertEqual(found[:4], ["--format", "json", "--color", "never"])
        return found[4:]

    def test_each_state_has_its_command_and_check_mode_is_a_dry_run(self):
        self.assertEqual(self.arguments(), ["sync"])
        self.assertEqual(self.arguments(check_mode=True), ["sync", "--dry-run"])
        self.assertEqual(self.arguments(state="absent", check_mode=True), ["remove", "--dry-run"])
        self.assertEqual(self.arguments(state="verified", check_mode=True), ["verify"])

    def test_options_reach_the_commands_that_know_them(self):
        options = {
            "backends": ["ufw"],
            "list_content": "x",
            "allow_shrink": True,
            "remove_now": True,
            "require_reach": True,
            "ports": [443],
            "offline": True,
            "lock_timeout": 0,
            "state_dir": "/s",
        }
        common = ["--config", "/c", "--state-dir", "/s", "--lock-timeout", "0", "--offline"]
        trust = ["--list", "-", "--allow-shrink"]
        ufw = ["--backend", "ufw"]
        sync = common + ["sync"] + ufw + trust + ["--remove-now", "--require-reach"]
        self.assertEqual(self.arguments(config="/c", **options), sync)
        # Before anything is opened there is nothing to reach.
        self.assertNotIn("--require-reach", self.arguments(check_mode=True, **options))
        self.assertEqual(self.arguments(config="/c", state="absent", **options), common + ["remove"] + ufw)
        verify = common + ["verify"] + trust + ["--port", "443"]
        self.assertEqual(self.arguments(config="/c", state="verified", **options), verify)


class NotInstalled(unittest.TestCase):
    """What a host without the program is told."""

    def end(self, state, check_mode, state_dir):
        """How the module ends: with which call, and with what."""
        ended = []

        class Ended(Exception):
            """Both calls end the module."""

        def end(how):
            def call(**words):
                ended.append((how, words))
                raise Ended

            return call

        class Module:
            """What the module asks of Ansible here."""

        Module.params = dict(DEFAULTS, state=state, state_dir=state_dir, executable="/opt/edgeallow")
        Module.check_mode = check_mode
        Module.warn = staticmethod(lambda words: None)
        Module.exit_json, Module.fail_json = staticmethod(end("exit")), staticmethod(end("fail"))
        self.assertRaises(Ended, MODULE.not_installed, Module)
        return ended[0]

    def test_check_mode_fails_where_the_run_would(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "state.json")
            for content, how in [
                (None, "exit"),
                ('{"schema": 1, "backends": {}}', "exit"),
                ('{"schema": 1, "backends": {"nftables": {}}}', "fail"),
                ("garbage", "fail"),
            ]:
                if content is not None:
                    with open(path, "w") as stream:
                        stream.write(content)
                for check_mode in (False, True):
                    self.assertEqual(self.end("absent", check_mode, folder)[0], how, content)
            self.assertIn("edgeallow_artifact", self.end("absent", True, folder)[1]["msg"])
            # What the role will install by then.
            self.assertEqual(self.end("present", True, folder), ("exit", {"changed": True}))
            self.assertEqual(self.end("present", False, folder)[0], "fail")


if __name__ == "__main__":
    unittest.main()

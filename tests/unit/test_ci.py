"""Every system of continuous integration runs the same command: .ci/run."""

import pathlib
import unittest

import yaml

TOP = pathlib.Path(__file__).parents[2]


class ContinuousIntegrationTest(unittest.TestCase):
    def test_github(self) -> None:
        workflow = yaml.safe_load((TOP / ".github/workflows/tests.yaml").read_text())
        # YAML 1.1 reads "on" as true
        self.assertIn("pull_request", workflow[True])
        job = workflow["jobs"]["tests"]
        self.assertEqual("bash .ci/run", job["steps"][-1]["run"])
        checkout = next(
            s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout")
        )
        # pbr makes the version of the history
        self.assertEqual(0, checkout["with"]["fetch-depth"])

    def test_zuul(self) -> None:
        parts = yaml.safe_load((TOP / ".zuul.yaml").read_text())
        jobs = {part["job"]["name"]: part["job"] for part in parts if "job" in part}
        project = next(part["project"] for part in parts if "project" in part)
        for pipeline in ("check", "gate"):
            for name in project[pipeline]["jobs"]:
                plays = yaml.safe_load((TOP / jobs[name]["run"]).read_text())
                commands = [t["ansible.builtin.command"]["cmd"] for t in plays[0]["tasks"]]
                self.assertEqual(["bash .ci/run"], commands)

"""How Sphinx builds the documentation; see tools/docs."""

import pathlib
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "doc" / "ext")]

project = "kvmdriver"
copyright = "The kvmdriver developers"  # noqa: A001
extensions = [
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "cliff.sphinxext",
    "reno.sphinxext",
    "rpc_reference",
]
html_theme = "openstackdocs"
html_copy_source = False
openstackdocs_repo_name = ""
openstackdocs_use_storyboard = False
openstackdocs_auto_name = False
openstackdocs_pdf_link = False
pygments_style = "native"
highlight_language = "console"

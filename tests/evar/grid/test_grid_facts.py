"""Facts read from sources equal those of the imported classes."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from evar.errors import UserError
from evar.grid import facts
from model_adapters import registry


def test_every_model_has_the_facts_of_its_class():
    names = facts.model_names()
    assert names == registry.model_names()
    for name in names:
        assert facts.model_facts(name) == facts._imported(name), name


def test_no_model_of_this_package_has_to_be_imported(monkeypatch):
    monkeypatch.setattr(facts, "_imported", lambda spec: pytest.fail(f"{spec} was imported"))
    facts.model_facts.cache_clear()
    for name in set(facts.model_names()) - facts._installed():
        facts.model_facts(name)


def test_options_that_are_handed_on_are_the_models():
    for name in ("tag_text:ast", "caption_map:m2d"):
        assert set(facts.model_facts(name).options) == set(registry.model_options(name))
    assert "stats" in facts.model_facts("tag_text:ast").options


@pytest.mark.parametrize("protocol", ["lineareval", "zeroshot", "retrieval", "finetune"])
def test_a_protocols_settings_are_those_of_its_signature(protocol):
    parameters = inspect.signature(getattr(import_module(f"evar.{protocol}"), protocol)).parameters.values()
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - facts.NOT_FOR_CELLS
    assert set(facts.protocol_options(protocol)) == named


OWN = """
from model_adapters.base import Adapter, ModelInfo

class Mine(Adapter):
    info = ModelInfo(title="Mine", kind="audio-language", paper="", code_licence="MIT")
    def __init__(self, *, weights=None, width: int = 4): ...
    def embed_audio(self, waveforms, lengths): ...
    def embed_text(self, texts): ...

raise SystemExit("a plan must not run this file")
"""


def test_a_users_own_file_is_read_and_not_run(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    found = facts.model_facts(f"{path}:Mine")
    assert found == facts.ModelFacts("audio-language", True, False, ("width",), False, False)


def test_an_own_file_whose_source_does_not_tell_is_imported(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        "from model_adapters.log_mel_stats import LogMelStats\n"
        "class Odd(LogMelStats):\n    info = LogMelStats.info\n    embed_text = embed_audio = lambda self: None\n"
    )
    assert facts.model_facts(f"{path}:Odd").text


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("m2dd", "no model is called 'm2dd'. Did you mean 'm2d'?"),
        ("gpvad:x", "'gpvad:x': gpvad takes nothing after a colon"),
        ("nowhere.py:Mine", "there is no file nowhere.py"),
    ],
)
def test_a_wrong_name_is_one_clear_line(spec, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        facts.model_facts(spec)


def test_models_that_need_anothers_name_are_known():
    assert facts.model_facts("hf").needs_base and not facts.model_facts("tag_text").needs_base
    assert facts.model_facts("tag_text:gpvad").takes_base

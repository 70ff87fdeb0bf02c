"""List models: ``python -m evar.models [NAME]``."""

from __future__ import annotations

from fnmatch import fnmatch

from evar.cli import main
from evar.convert import keyword_parameters
from model_adapters.base import AudioLanguage, EmbedsFrames
from model_adapters.registry import adapter_class, model_info, model_names, model_options


def models(names: tuple[str, ...] = ()) -> None:
    """List all models, or describe the named ones.

    Args:
        names: model names, comma-separated, with wildcards; all if left out
    """
    known = [n for n in model_names() if not names or any(fnmatch(n, pattern) for pattern in names)]
    if not known and names:
        adapter_class(names[0])  # says what the nearest name is
    if names:
        print("\n\n".join(describe(name) for name in known))
        return
    width = max(map(len, known))
    for name in known:
        info = model_info(name)
        weights = (
            "none"
            if "weights" not in keyword_parameters(adapter_class(name)[0])
            else ("--weights=PATH" if info.needs_weights else "downloaded or --weights=PATH")
        )
        print(f"{name:<{width}}  {info.kind:<14}  weights: {weights:<29}  {info.title}")


def describe(name: str) -> str:
    """Return a model's facts and options, one per line."""
    info, (cls, _, _) = model_info(name), adapter_class(name)
    can = ["linear evaluation"] + [
        text
        for proto, text in ((AudioLanguage, "zero-shot"), (EmbedsFrames, "frames"))
        if all(hasattr(cls, method) for method in _methods(proto))
    ]
    weights = info.weights
    facts = {
        "title": info.title,
        "kind": info.kind,
        "can": ", ".join(can),
        "paper": info.paper,
        "code": info.code_licence,
        "weights": f"{weights.source} ({weights.licence})" if weights else "none",
        "trained on": ", ".join(info.trained_on),
        "probe lr": f"{info.probe_lr:g}",
        "options": ", ".join(f"--{option}" for option in model_options(name)),
    }
    return "\n".join([name, *(f"  {key:<10} {text}" for key, text in facts.items() if text)])


def _methods(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if name.startswith("embed")]


if __name__ == "__main__":
    main(models)

"""Slips that are planted into the package: a passage of a module is replaced, and its functions get the code of the new text."""

import importlib
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType


def plant(monkeypatch, module_name: str, slips: dict[str, str]) -> None:
    """Replace passages of a module's text, the first of each; neither the passage nor what replaces it has a line break."""
    module = importlib.import_module(module_name)
    text = inspect.getsource(module)
    for passage, slip in slips.items():
        assert passage in text, f"{module_name} has no such passage any more: {passage}"
        text = text.replace(passage, slip, 1)
    slipped = {(code.co_name, code.co_firstlineno): code for code in _codes(compile(text, module.__file__, "exec"))}
    changed = 0
    for function in _functions(module):
        code = slipped[function.__code__.co_name, function.__code__.co_firstlineno]
        if code != function.__code__:
            monkeypatch.setattr(function, "__code__", code)
            changed += 1
    assert changed == len(slips), f"{module_name}: {changed} functions changed, expected {len(slips)}"


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _functions(module) -> Iterator[FunctionType]:
    """The functions of a module and the methods of its classes."""
    for owner in (module, *(each for each in vars(module).values() if inspect.isclass(each))):
        if owner is not module and owner.__module__ != module.__name__:
            continue
        for value in vars(owner).values():
            function = inspect.unwrap(getattr(value, "__func__", value))
            if isinstance(function, FunctionType) and function.__code__.co_filename == module.__file__:
                yield function

"""A filter's source, loaded: its functions (hooks) by their names, and its own tests.

Loading runs the module once. Whatever goes wrong, now or later, is told by the line of the source. The module has
a name of its own, so that two versions of a source are two modules, and requests in flight keep the one they began with.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType, ModuleType
from typing import Any, Final

import msgspec

from gateway.base.logs import Printed, logger, plain, whereto
from gateway.filters import api
from gateway.filters.api.http_client import Call
from gateway.scripting.hooks import HOOKS, Hook, HookName, Hooks
from gateway.scripting.shared_state.local import local
from gateway.scripting.shared_state.memory import Memory, create

MIN_TIMER_SECONDS: Final = 0.01  # seconds between two calls of a timer
_numbers = itertools.count(1)


class ScriptError(ValueError):
    """A source that cannot be used. `line` is 0 where none can be blamed."""

    def __init__(self, name: str, line: int, reason: str) -> None:
        reason = plain(reason)
        super().__init__(f"{name}, line {line}: {reason}" if line else f"{name}: {reason}")
        self.line = line
        self.reason = reason


class Code(Hooks):
    """A loaded source."""

    __slots__ = ("file", "module", "name", "tests", "timers")

    def __init__(self, name: str, file: str, module: ModuleType) -> None:
        super().__init__()
        self.name = name
        self.file = file
        self.module = module
        self.tests: dict[str, Hook] = {}
        self.timers: list[tuple[float, Hook]] = []  # seconds, and what is called each time

    @property
    def runs(self) -> str:
        """Where, in words."""
        return "inline"

    def retire(self) -> None:
        """Let go of the module; those who still run it keep it."""
        sys.modules.pop(self.module.__name__, None)
        linecache.cache.pop(self.file, None)


def load(name: str, source: str, config: str = "{}", services: Mapping[str, Any] = MappingProxyType({})) -> Code:
    """Compile and run a source. Raises ScriptError, which names the line."""
    number = next(_numbers)
    file = f"<filter {name} #{number}>"
    module = ModuleType(f"fsm_filter_{number}")
    module.__file__ = file
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    code = Code(name, file, module)
    log = logger(f"fsm.filter.{name}")
    if not isinstance(sys.stdout, Printed):  # as in a process of its own: here it must be known who says it
        module.__dict__["print"] = partial(print, file=Printed(log.info))
    given = {
        "config": _read_only(msgspec.json.decode(config)),
        "log": log,
        "every": partial(_every, code),
        "http": api.HttpClient(nobody),
        "shared": api.Shared(local(_own_memory, name)),
        "metrics": api.Metrics(lambda _: None),
        "secrets": MappingProxyType({}),
        **services,
    }
    try:
        compiled = compile(source, file, "exec", dont_inherit=True)
        sys.modules[module.__name__] = module  # dataclasses and the like look their module up
        with api.loading(given):
            exec(compiled, module.__dict__)  # noqa: S102  # this is what a filter is
    except SyntaxError as error:
        code.retire()
        raise ScriptError(name, error.lineno or 0, f"{type(error).__name__}: {error.msg}") from None
    except Exception as error:
        line, words = blame(error, file)
        code.retire()
        raise ScriptError(name, line, words) from None
    try:
        _find(code)
    except ScriptError:
        code.retire()
        raise
    return code


def _every(code: Code, seconds: float) -> Callable[[Hook], Hook]:
    """Have a function called again and again, once the filter is in force."""
    if not seconds >= MIN_TIMER_SECONDS:
        raise ValueError(f"every {seconds} s is too often; every {MIN_TIMER_SECONDS} s is not")

    def take(function: Hook) -> Hook:
        code.timers.append((seconds, function))
        return function

    return take


@cache
def _own_memory() -> Memory:
    """What a filter shares while nobody else is there: its tests, and `fsm filter`."""
    return Memory(create())


async def nobody(call: Call) -> api.Reply:
    """In place of a client, where there is nobody to call: a filter's tests give it their own."""
    raise OSError(f"{call.method} {whereto(call.url)}: nobody can be called from here")


def wrong_result(hook: Any, result: Any, wanted: str) -> TypeError:
    """What is wrong with something that a function of a filter returned."""
    return TypeError(f"{getattr(hook, '__name__', 'it')} returned {type(result).__name__}; {wanted} was expected")


def bytes_or_nothing(hook: Any, result: Any) -> bytes | None:
    """What a function of pieces returned. Raises TypeError for anything else."""
    if result is not None and not isinstance(result, bytes):
        raise wrong_result(hook, result, "bytes or nothing")
    return result


def verdict_or_nothing(hook: Any, result: Any) -> bool | None:
    """What a function of connections returned. Raises TypeError for anything else."""
    if result not in (None, True, False):
        raise wrong_result(hook, result, "True, False or nothing")
    verdict: bool | None = result
    return verdict


def _find(code: Code) -> None:
    own = {
        name: value
        for name, value in vars(code.module).items()
        if inspect.isfunction(value) and value.__module__ == code.module.__name__
    }
    code.tests = {name: function for name, function in own.items() if name.startswith("test_")}
    functions: dict[HookName, Hook] = {}
    for name, kind in HOOKS.items():
        function = own.get(name)
        if function is None:
            continue
        try:
            inspect.signature(function).bind(*kind.parameters)
        except TypeError:
            line = function.__code__.co_firstlineno
            raise ScriptError(code.name, line, f"{name} must take ({', '.join(kind.parameters)})") from None
        functions[name] = function
    if not functions:
        raise ScriptError(code.name, 0, f"there is no function of a known name; these are {', '.join(HOOKS)}")
    code.set_functions(functions)
    of_exchanges = [name for name in functions if HOOKS[name].of_exchanges]
    later = any(inspect.iscoroutinefunction(function) for function in (code.request, code.response))
    code.is_quick = bool(of_exchanges) and all(HOOKS[name].is_quick for name in of_exchanges) and not later


async def run_tests(code: Code) -> int:
    """Run the source's own tests, one after another. Returns how many; raises ScriptError for one that fails."""
    for word, test in code.tests.items():
        try:
            result = test()
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            line, words = blame(error, code.file)
            raise ScriptError(code.name, line, f"{word}: {words}") from None
    return len(code.tests)


def blame(error: BaseException, file: str) -> tuple[int, str]:
    """The last line of a source that an exception passed, and the exception in words."""
    line = 0
    step = error.__traceback__  # walked by hand: a recursion without end has a million steps
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, AssertionError) and not str(error):
        words = f"AssertionError: {linecache.getline(file, line).strip()}"
    return line, words


def _read_only(value: Any) -> Any:
    return MappingProxyType(value) if isinstance(value, dict) else value

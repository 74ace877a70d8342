"""The error tree: codes, messages, remedies, and what a notebook shows of them."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import kitlib
from kitlib import errors
from kitlib.errors import ApiError, CommandError, KitError, ParamsError, Problem, exit_codes


def tree(cls: type[KitError] = KitError) -> list[type[KitError]]:
    return [cls, *(each for child in cls.__subclasses__() for each in tree(child))]


def test_the_exit_codes_are_the_documented_ones():
    codes = {cls.__name__: cls.exit_code for cls in tree() if cls.__module__ == errors.__name__}
    assert codes == {
        "KitError": 1,
        "ParamsError": 2,
        "PreconditionError": 3,
        "GuardError": 3,
        "ConnectError": 4,
        "HostKeyError": 4,
        "HostLoginError": 4,
        "BecomeError": 4,
        "ApiError": 5,
        "CommandError": 6,
        "ParseError": 7,
        "ChecksFailed": 8,
        "DeadlineError": 9,
        "LabError": 10,
        "RecordError": 11,
        "Interrupted": 130,
    }


def test_every_error_and_code_stands_in_the_modules_own_picture():
    picture = errors.__doc__ or ""
    for cls in tree():
        if cls.__module__ == errors.__name__:
            line = next(line for line in picture.splitlines() if f" {cls.__name__} " in line)
            assert str(cls.exit_code) in line.split(), line


def test_no_module_hides_an_error_that_a_notebook_could_end_with():
    """The error of an executed notebook is found again by its name in kitlib.errors."""
    for module in pkgutil.iter_modules(kitlib.__path__, "kitlib."):
        if module.name != "kitlib.lab":
            importlib.import_module(module.name)
    elsewhere = {
        cls.__name__
        for cls in tree()
        if cls.__module__.startswith("kitlib.") and cls.__module__ != errors.__name__
    }
    assert elsewhere <= {"NoAgent", "WatchExpired"}, "(the measuring and the recorder keep those)"


def test_the_table_names_every_code_once_and_the_common_ancestor_explains_it():
    table = exit_codes()
    assert list(table) == sorted({0} | {cls.exit_code for cls in tree()})
    assert table[0] == "PASS, or PLANNED in a dry run"
    assert table[4] == errors.ConnectError.kind
    assert table[3] == errors.PreconditionError.kind
    assert all(table.values())


def test_every_public_error_is_exported():
    named = {cls.__name__ for cls in tree() if cls.__module__ == errors.__name__}
    assert named <= set(errors.__all__)


def test_an_interrupt_says_what_could_not_be_put_right():
    plain = errors.Interrupted.by(KeyboardInterrupt(), "verify", remedy="run it again")
    assert str(plain) == "verify: interrupted\n  remedy: run it again"
    assert errors.Interrupted.by(KeyboardInterrupt()).message == "interrupted"
    left = errors.Interrupted.by(KeyboardInterrupt("x is still there: delete it"), "verify")
    assert left.message == "verify: interrupted\n  x is still there: delete it"


def test_the_remedy_is_a_line_of_its_own():
    assert str(KitError("worker-1: x: y")) == "worker-1: x: y"
    assert str(KitError("worker-1: x: y", remedy="do z")) == "worker-1: x: y\n  remedy: do z"


def test_ipython_shows_the_message_instead_of_a_traceback():
    error = CommandError("worker-1", "kubeadm join", 1, "boom", remedy="look")
    assert error._render_traceback_() == [f"CommandError: {error}"]
    assert "Traceback" not in str(error)


@pytest.mark.parametrize(("status", "ended"), [(3, "exit status 3"), (None, "did not end")])
def test_a_command_error_tells_host_command_end_and_tail(status, ended):
    error = CommandError("worker-1", "kubeadm join", status, "one\ntwo")
    assert str(error) == f"worker-1: kubeadm join: {ended}\n  | one\n  | two"
    assert (error.host, error.command, error.exit_status) == ("worker-1", "kubeadm join", status)


def test_parameter_problems_are_all_in_one_message():
    found = [Problem.of("x.yaml", "plugin", "flanel", "unknown"), Problem.of("x.yaml", "a", 1, "b")]
    error = ParamsError(found)
    assert str(error) == "x.yaml: plugin: 'flanel': unknown\nx.yaml: a: 1: b"
    assert error.problems == found
    assert ParamsError("one").problems == ["one"]


@pytest.mark.parametrize(
    ("status", "again"), [(0, True), (429, True), (500, True), (503, True), (404, False)]
)
def test_an_api_error_says_whether_trying_again_can_help(status, again):
    assert ApiError("GET /x: no", status=status).retryable is again


def test_only_lost_connections_are_transient():
    transient = {cls.__name__ for cls in tree() if cls.transient}
    assert transient == {"ConnectError"}


def test_a_command_error_says_where_the_full_output_is():
    error = CommandError("worker-1", "kubeadm join", 1, "no", record="runs/lab/x/raw/join.txt")
    assert error.message.splitlines()[-1] == "  full output: runs/lab/x/raw/join.txt"

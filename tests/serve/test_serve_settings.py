"""How the server is set: flags before the environment before a file before the defaults."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from serve.settings import Settings, read_settings
from xmodal.errors import DataError


def test_without_a_word_the_server_listens_on_this_machine_alone():
    settings = read_settings([], {})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"


def test_flags_come_before_the_environment_before_the_file(tmp_path):
    (tmp_path / "serve.toml").write_text('port = 1\nqueue = 2\nmax_batch = 3\nmodel = "m"\n')
    environ = {"XMODAL_SERVE_CONFIG": str(tmp_path / "serve.toml"), "XMODAL_SERVE_PORT": "4", "XMODAL_SERVE_QUEUE": "5"}
    settings = read_settings(["--port", "6"], environ)
    assert (settings.port, settings.queue, settings.max_batch, settings.model) == (6, 5, 3, "m")


def test_the_config_flag_comes_before_the_config_of_the_environment(tmp_path):
    for name, port in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"port: {port}\n")
    environ = {"XMODAL_SERVE_CONFIG": str(tmp_path / "a.yaml")}
    assert read_settings(["--config", str(tmp_path / "b.yaml")], environ).port == 2


def test_values_of_every_type_are_read_from_text_and_from_a_file(tmp_path):
    (tmp_path / "serve.yaml").write_text("time_limit_seconds: 3\nlibrary: [a, b]\ndemo: d\nmmap: false\nport: 7\n")
    of_file = read_settings(["--config", str(tmp_path / "serve.yaml")], {})
    flags = [
        "--time-limit-seconds",
        "3",
        "--library",
        "a",
        "--library",
        "b",
        "--demo",
        "d",
        "--mmap",
        "no",
        "--port",
        "7",
    ]
    of_flags = read_settings(flags, {})
    names = {"LIBRARY": "a, b", "TIME_LIMIT_SECONDS": "3", "DEMO": "d", "MMAP": "false", "PORT": "7"}
    of_names = read_settings([], {f"XMODAL_SERVE_{name}": value for name, value in names.items()})
    assert of_file == of_flags == of_names
    assert (of_file.time_limit_seconds, of_file.library, of_file.demo, of_file.mmap) == (
        3.0,
        ("a", "b"),
        Path("d"),
        False,
    )
    assert read_settings(["--trust"], {}).trust is True


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        ([], {"XMODAL_SERVE_PROT": "1"}, r"the environment sets 'XMODAL_SERVE_PROT'.*did you mean port\?"),
        (["--port", "x"], {}, "--port must be a whole number, got 'x'"),
        (["--port", "70000"], {}, "port must be below 65536, got 70000"),
        (["--queue", "0"], {}, "queue must be at least 1, got 0"),
        (["--time-limit-seconds", "nan"], {}, "time_limit_seconds must be a finite number"),
        (["--mmap", "maybe"], {}, "--mmap must be yes or no, got 'maybe'"),
        ([], {"XMODAL_SERVE_MAX_WAIT_MS": "soon"}, "XMODAL_SERVE_MAX_WAIT_MS must be a number, got 'soon'"),
        (["--log-format", "xml"], {}, "log_format must be text or json"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(argv, environ, message):
    with pytest.raises(ValueError, match=message):
        read_settings(argv, environ)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.toml", "prot = 1", "did you mean port"),
        ("s.toml", 'port = "8000"', "port must be a whole number, got '8000'"),
        ("s.yaml", "mmap: 1", "mmap must be true or false, got 1"),
        ("s.yaml", "library: a", "library must be a list of texts, got 'a'"),
        ("s.yaml", "time_limit_seconds: true", "time_limit_seconds must be a number, got True"),
    ],
)
def test_a_file_with_a_wrong_name_or_type_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(["--config", str(tmp_path / name)], {})


@pytest.mark.parametrize("text", ["port = = 1", "[", "- 1\n- 2", "\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, text):
    for name in ("s.toml", "s.yaml"):
        (tmp_path / name).write_text(text)
        with pytest.raises((DataError, ValueError), match=name):
            read_settings(["--config", str(tmp_path / name)], {})
    with pytest.raises(DataError, match=r"none\.toml"):
        read_settings(["--config", str(tmp_path / "none.toml")], {})


def test_an_unknown_flag_ends_with_a_usage_message(capsys):
    with pytest.raises(SystemExit):
        read_settings(["--prot", "1"], {})
    assert "--prot" in capsys.readouterr().err


def test_every_setting_explains_itself_in_the_help(capsys):
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    shown = " ".join(capsys.readouterr().out.split())
    for one in fields(Settings):
        assert f"--{one.name.replace('_', '-')}" in shown
        assert len(one.metadata["help"]) > 10

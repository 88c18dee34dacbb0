from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from learning_assets.errors import UserError
from learning_assets.store.settings import settings

HOME = {"HOME": "/home/ann"}


@pytest.mark.parametrize("book", ["", "Main", "9lives", "a-b", "a b", "a" * 32, 'a"; drop', "ä"])
def test_a_book_name_that_is_none_is_refused(book: str) -> None:
    with pytest.raises(UserError, match="book name"):
        settings(HOME, book)


def test_books_have_schemas_of_their_own() -> None:
    main, demo = settings(HOME), settings(HOME, "demo")
    assert (main.schema, main.dagster_schema) == ("learning", "dagster")
    assert (demo.schema, demo.dagster_schema) == ("learning_demo", "dagster_demo")
    assert settings(HOME, "a" * 31).schema == "learning_" + "a" * 31


@pytest.mark.parametrize(
    ("env", "home"),
    [
        ({"LEARNING_HOME": "/srv/la"}, "/srv/la"),
        ({"LEARNING_HOME": "~/la"}, "/home/ann/la"),
        ({"LEARNING_HOME": "/srv/x/../la"}, "/srv/la"),
        ({"XDG_DATA_HOME": "/data"}, "/data/learning-assets"),
    ],
)
def test_home(env: dict[str, str], home: str) -> None:
    assert settings(HOME | env).home == Path(home)


def test_home_is_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert settings(HOME).home == Path("/home/ann/.local/share/learning-assets")
    assert settings(HOME | {"XDG_DATA_HOME": "relative"}).home.is_relative_to("/home/ann")


def test_a_relative_home_is_made_absolute() -> None:
    assert settings({"LEARNING_HOME": "x"}).home == Path.cwd() / "x"


def test_without_addresses_everything_is_on_the_embedded_server() -> None:
    chosen = settings(HOME | {"LEARNING_DATABASE_URL": " "})
    assert chosen.needs_embedded_server
    assert chosen.learning_url.startswith("postgresql://postgres@/learning?host=%2Fhome%2Fann")
    assert chosen.strands_source_url == chosen.learning_url
    url = make_url(chosen.dagster_storage_url)
    assert url.drivername == "postgresql+psycopg2"
    assert url.query["host"] == str(chosen.socket_folder)
    assert url.query["options"] == "-csearch_path=dagster"


def test_addresses_of_the_user() -> None:
    env = {
        "LEARNING_DATABASE_URL": "postgres://u:p@h:6543/d?sslmode=require",
        "LEARNING_DAGSTER_URL": "postgresql+psycopg2://u:p%40@h/e?options=-c%20a.b%3D1",
        "LEARNING_STRANDS_URL": "postgresql://s/strands",
    }
    chosen = settings(HOME | env, "b")
    assert not chosen.needs_embedded_server
    assert chosen.learning_url == "postgresql://u:p@h:6543/d?sslmode=require"
    assert chosen.strands_source_url == "postgresql://s/strands"
    url = make_url(chosen.dagster_storage_url)
    assert (url.password, url.database) == ("p@", "e")
    assert url.query["options"] == "-c a.b=1 -csearch_path=dagster_b"


def test_the_strands_are_in_the_learning_database_by_default() -> None:
    chosen = settings(HOME | {"LEARNING_DATABASE_URL": "postgresql://h/d"})
    assert chosen.strands_source_url == "postgresql://h/d"
    assert chosen.needs_embedded_server  # for Dagster's history


@pytest.mark.parametrize(
    "address",
    ["mysql://u:secret@h/d", "host=h password=secret", "postgresql://u:secret@[h/d", "secret"],
)
@pytest.mark.parametrize("variable", ["DATABASE", "DAGSTER", "STRANDS"])
def test_an_address_that_is_none_is_refused_without_its_password(
    address: str, variable: str
) -> None:
    with pytest.raises(UserError, match=f"LEARNING_{variable}_URL") as caught:
        settings(HOME | {f"LEARNING_{variable}_URL": address})
    assert "secret" not in str(caught.value)


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(UserError, match="pgbouncer"):
        settings(HOME | {"LEARNING_DATABASE_URL": "postgresql://h/d?pgbouncer=true"})


def test_passwords_are_not_shown() -> None:
    chosen = settings(HOME | {"LEARNING_DATABASE_URL": "postgresql://u:secret@h/d"})
    assert "secret" not in repr(chosen)


def test_a_long_path_gets_a_short_folder_for_its_socket() -> None:
    short = settings({"LEARNING_HOME": "/srv/la"})
    long = settings({"LEARNING_HOME": "/srv/" + "x" * 100})
    other = settings({"LEARNING_HOME": "/srv/" + "y" * 100})
    assert short.socket_folder == short.data_folder
    assert len(str(long.socket_folder)) < 50
    assert long.socket_folder != other.socket_folder

"""The option `database`: what it may say, and that no error repeats what may be a password."""

from __future__ import annotations

import pytest

from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.database_url import parse_database_url
from bedside.core.errors import ConfigError


def test_a_url_gives_what_libpq_needs():
    told = parse_database_url("postgresql://fed@db.example.org:5433/bedside?sslmode=verify-full&sslrootcert=/ca.pem")
    assert told.parameters == {
        "dbname": "bedside",
        "user": "fed",
        "host": "db.example.org",
        "port": "5433",
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
    }
    assert str(told) == "postgresql://db.example.org:5433/bedside"


def test_a_socket_and_several_servers_stand_behind_the_question_mark():
    assert parse_database_url("postgresql:///bedside?host=/run/postgresql").host == "/run/postgresql"
    two = parse_database_url("postgres://fed@/bedside?host=a,b&port=5432,5433")
    assert (two.host, two.parameters["port"]) == ("a,b", "5432,5433")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://fed:s3cret@db/bedside",
        "postgresql://fed:@db/bedside",
        "postgresql://fed@db/bedside?password=s3cret",
        "postgresql://fed@db/bedside?options=-c%20s3cret",
        "postgresql://fed@db/bedside?passfile=s3cret",
        "postgresql://fed@db/bedside?sslmode=a&sslmode=s3cret",
        "postgresql://fed@db/bedside?s3cret",
        "postgresql://fed@db/s3cret/more",
        "postgresql://fed@db:s3cret/bedside",
        "postgresql://fed@db/",
        "postgresql+psycopg://fed@db/s3cret",
        "sqlite:///s3cret.db",
        "s3cret",
        "postgresql://fed@[db/s3cret",
        "postgresql://fed@db/s3cret#x",
        "postgresql://fed@db/s3cret\n",
        "postgresql://fed@db/s3cret%00",
        "postgresql://fed@db/" + "s3cret" * 1000,
    ],
)
def test_a_url_that_is_wrong_or_holds_a_secret_is_refused_without_its_words(text):
    with pytest.raises(ConfigError) as caught:
        CoordinatorConfig(database=text)
    assert caught.value.code == "database-url"
    assert "s3cret" not in caught.value.diagnostics()


def test_a_password_without_a_database_is_a_mistake():
    with pytest.raises(ConfigError) as caught:
        CoordinatorConfig(database_password="credential:db")
    assert caught.value.code == "config-range"
    assert CoordinatorConfig().database_url is None

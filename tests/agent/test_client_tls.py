"""TLS of what this device connects to."""

from pathlib import Path

import pytest

from bedside.agent.client_tls import ClientTls, client_context
from bedside.core.errors import ConfigError


@pytest.mark.parametrize("name", ["absent.pem", "null\0byte.pem"])
def test_a_file_that_cannot_be_is_an_error_of_the_configuration(tmp_path: Path, name: str) -> None:
    for tls in (ClientTls(ca=tmp_path / name), ClientTls(certificate=tmp_path / name)):
        with pytest.raises(ConfigError) as refused:
            client_context(tls, "mqtt-tls")
        assert refused.value.code == "mqtt-tls"

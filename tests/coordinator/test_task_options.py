"""What an operator chooses of a bundle's training graphs."""

from types import SimpleNamespace

import pytest

from bedside.coordinator.cli.task_options import _graph
from bedside.core.errors import ProtocolError
from tiny_manifest import GRAPH, make_manifest


def test_a_graph_that_the_bundle_does_not_have_is_not_there_and_those_it_has_are_named():
    options = SimpleNamespace(level=None, suffix=None, local_optimiser=None)
    assert _graph(options, make_manifest()) == GRAPH
    options.local_optimiser = "adam"
    with pytest.raises(ProtocolError, match="it has q1-all-sgd") as caught:
        _graph(options, make_manifest())
    assert (caught.value.code, caught.value.exit_status) == ("no-such-graph", 76)

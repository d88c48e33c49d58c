"""The file `infer.tflite`: its table of patches, the form of its tensors, and what is no net of ours."""

import pytest
from ai_edge_litert import schema_py_generated as schema
from deployed_nets import NETS, Deployed

from bedside.authoring.tflite_graph import build_tflite
from bedside.core.bundle.patch import apply_patches, check_patches
from bedside.core.errors import MalformedError
from bedside.ondevice.runtimes.litert import LiteRtRuntime


@pytest.fixture(params=NETS)
def deployed(request):
    return Deployed(NETS[request.param])


def test_the_table_covers_all_that_follows_from_the_parameters(deployed):
    tensors = deployed.tensors()
    data, table = build_tflite(deployed.net, tensors)
    check_patches(table, len(data))
    other = {name: (array * 0 + 1).astype(array.dtype) for name, array in tensors.items()}
    fresh, again = build_tflite(deployed.net, other)
    assert again == table
    assert apply_patches(data, table, other) == fresh != data


def test_a_file_of_another_recipe_is_not_run():
    flat = Deployed(NETS["one dense layer"])
    data, _ = build_tflite(flat.net, flat.tensors())
    with pytest.raises(MalformedError) as caught:
        LiteRtRuntime(data, (16, 3), 3)
    assert caught.value.code == "bad-graph"


def test_inner_layers_are_integers_with_a_scale_per_channel_and_aligned(deployed):
    tensors, steps = deployed.tensors(), deployed.net.steps
    data, table = build_tflite(deployed.net, tensors)
    assert all(patch.offset % 16 == 0 for patch in table if patch.tensor.endswith((".q", ".real")))
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    found = [graph.Tensors(number) for number in range(graph.TensorsLength())]
    weights = {tensor.Name().decode(): tensor for tensor in found if tensor.Name().startswith(b"w")}
    depthwise = {f"w{step.order}" for step in steps if step.kernel and step.kernel.form == "depthwise"}
    for name, tensor in weights.items():
        if tensor.Type() == schema.TensorType.INT8:
            axis = tensor.Quantization().QuantizedDimension()
            assert axis == (3 if name in depthwise else 0)
            assert tensor.Quantization().ScaleLength() == tensor.Shape(axis) == tensors[f"{name}.scale"].size
    assert weights[f"w{steps[-1].order}"].Type() == schema.TensorType.FLOAT32


def test_an_integer_layer_is_one_whose_output_goes_to_a_layer_with_weights_alone():
    """Of the residual network: those inside a block, and no other."""
    deployed = Deployed(NETS["a residual network"])
    data, _ = build_tflite(deployed.net, deployed.tensors())
    graph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    found = [graph.Tensors(number) for number in range(graph.TensorsLength())]
    whole = {one.Name().decode() for one in found if one.Name()[:1] == b"w" and one.Type() == schema.TensorType.INT8}
    assert whole == {"w1", "w3"}

"""A trained network as one self-sufficient ONNX file: uint8 images in, `probabilities` and `label` out.

Normalisation is in the graph and the class names are in the file's metadata, so that a consumer needs nothing
else. The same network gives the same bytes: traces of where the exporter ran are removed.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from nightshift.errors import InputError
from nightshift.inference.onnx_stats import INPUT
from nightshift.inference.pair_sums import pair_sums
from nightshift.inference.portability import PAIR_SUM
from nightshift.records import Dataset, model_facts

OPSET: Final = 20
OUTPUTS: Final = ("probabilities", "label")
LARGEST: Final = 2**31  # bytes of a protobuf message


class Serving(nn.Module):
    """uint8 [N,H,W,C] in, probabilities float32 [N,K] of K classes and label int64 [N] out.

    Normalisation is a 1x1 convolution. OpenVINO takes a multiplication and a sum after the cast from bytes
    for the dequantization of an int8 file and moves them: the digits' probabilities were then off by 0.010
    on average instead of 0.0015, and up to 1.2 % of their labels were others.
    """

    def __init__(self, network: nn.Module, dataset: Dataset) -> None:
        super().__init__()
        self.network = network
        deviation = torch.tensor(dataset.std).clamp_min(1e-3)  # as in dataset.standardised
        channels = len(dataset.mean)
        self.normalise = nn.Conv2d(channels, channels, 1)
        self.normalise.weight.data = torch.diag(1 / (255 * deviation))[..., None, None]
        self.normalise.bias = nn.Parameter(-torch.tensor(dataset.mean) / deviation)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        given = self.network(self.normalise(images.permute(0, 3, 1, 2).float()))
        # A network gives logits, a Vote what its members decided.
        return given if isinstance(given, tuple) else (given.softmax(1), given.argmax(1))


def export(network: nn.Module, dataset: Dataset) -> onnx.ModelProto:
    """The float graph with batch norm folded into the convolutions and a dynamic batch, not yet labelled.

    Raises InputError when the weights are too many for one file, or something in the network has no like in
    ONNX.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size >= LARGEST:
        raise InputError(
            f"the weights take {size / 1e9:.2f} GB, one ONNX file holds less than {LARGEST / 1e9:.2f} GB; "
            "choose a smaller train.model or train.width, fewer train.members, or quantize.vote = 'none'"
        )
    serving = Serving(fuse(network.cpu().eval()), dataset).eval()
    example = torch.zeros((2, *dataset.preprocess.input_shape), dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                serving,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                external_data=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise InputError(
            f"the network has an operation that ONNX {OPSET} lacks ({reason}); choose another train.model"
        ) from error
    if program is None:
        raise InputError(
            "torch.onnx.export gave no program for the network; check the versions of torch and onnxscript"
        )
    return _without_traces(program.model_proto)


def finish(graph: onnx.ModelProto, dataset: Dataset, recipe: str) -> bytes:
    """The bytes of the finished file: labelled, checked, and run once by ONNX Runtime.

    Raises InputError when the graph is not valid or does not give what it promises.
    """
    graph = _without_traces(graph)
    _shorten(graph.graph)
    facts = {
        model_facts.CLASSES: json.dumps(list(dataset.classes), ensure_ascii=False),
        model_facts.PREPROCESS: json.dumps(dataset.preprocess.pixel_settings()),
        "nightshift.recipe": recipe,
        PAIR_SUM: str(max(pair_sums(graph).values(), default=0)),
    }
    onnx.helper.set_model_props(graph, facts)
    graph.producer_name, graph.producer_version, graph.doc_string = "nightshift", "", ""
    data: bytes = graph.SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(data, full_check=True)
        _try_out(data, dataset)
    except Exception as error:  # onnx and ONNX Runtime raise many kinds, none of them public
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"recipe {recipe} made an ONNX file that does not run ({reason}); use another recipe"
        ) from error
    return data


def _try_out(data: bytes, dataset: Dataset) -> None:
    """Run three images at once and check the promised names, types and shapes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    shape = (3, *dataset.preprocess.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    probabilities, labels = session.run(list(OUTPUTS), {INPUT: images})
    right_shape = probabilities.shape == (3, len(dataset.classes)) and labels.shape == (3,)
    if not right_shape or probabilities.dtype != np.float32 or labels.dtype != np.int64:
        raise InputError(
            f"probabilities {probabilities.dtype}{probabilities.shape}, label {labels.dtype}{labels.shape} "
            f"instead of float32 (3, {len(dataset.classes)}) and int64 (3,)"
        )
    if not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise InputError(f"probabilities sum to {probabilities.sum(1).tolist()} instead of 1")


def _without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Remove stack traces and file names that the exporter leaves on nodes: they differ between machines."""
    clean = onnx.ModelProto()
    clean.CopyFrom(graph)
    inner = clean.graph
    inner.doc_string = ""
    del inner.metadata_props[:]
    for part in (*inner.node, *inner.initializer, *inner.value_info, *inner.input, *inner.output):
        part.doc_string = ""
        del part.metadata_props[:]
    return clean


def _shorten(graph: onnx.GraphProto) -> None:
    """Leave out what small networks feel: names, but for those of weights, and shapes, which follow."""
    del graph.value_info[:]
    kept = {value.name for value in (*graph.input, *graph.output)}
    kept |= {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    short: dict[str, str] = {"": ""}  # an input that is left out

    def name(long: str) -> str:
        return long if long in kept else short.setdefault(long, f"_{len(short)}")

    for tensor in graph.initializer:
        tensor.name = name(tensor.name)
    for node in graph.node:
        node.name = ""
        node.input[:], node.output[:] = map(name, node.input), map(name, node.output)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and warns about its own deprecations; only its exceptions matter here."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        yield

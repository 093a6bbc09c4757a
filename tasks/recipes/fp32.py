"""Recipe `fp32`: the float network as it was trained, the reference for all others."""

from tasks.config import QuantizeSettings
from tasks.export import export, finish
from tasks.recipes import Details, Trained


def make(trained: Trained, settings: QuantizeSettings) -> tuple[bytes, Details]:
    graph = export(trained.network, trained.dataset)
    return finish(graph, trained.dataset, "fp32"), {"nodes": len(graph.graph.node)}

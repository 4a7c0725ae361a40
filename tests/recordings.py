"""Recordings of reference implementations, and the settings with which a method does the same."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from iirc_train.methods.base_method import BaseMethod
from tests.toy_problem import CLASSES_PER_TASK, N_CLASSES

FOLDER = Path(__file__).parent / "golden" / "references"
NAMES = {f"c{number}": number for number in range(N_CLASSES)}

Recording = dict[str, Any]
State = dict[str, torch.Tensor]


def load(name: str) -> Recording:
    """Return a recording: plain values and tensors, as the README beside the files describes."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        tree, values = json.loads(arrays["meta"].tobytes()), torch.from_numpy(arrays["values"])

    def filled(node: Any) -> Any:
        if isinstance(node, list):
            return [filled(value) for value in node]
        if not isinstance(node, dict):
            return node
        if list(node) == ["tensor"]:
            offset, *shape = node["tensor"]
            n = int(np.prod(shape))
            return values[offset : offset + n].view(shape).clone()
        return {key: filled(value) for key, value in node.items()}

    found: Recording = filled(tree)
    return found


class Case(NamedTuple):
    """How a method here does what a recording does.

    Attributes:
        settings: Settings of the method besides those that all recordings name.
        names: Maps the name of a tensor of the method's network to its name in the recording.
        starts_anew: Whether each task starts with new random weights.
        imprints: Whether the weights of new classes are not random.
        skipped: Tasks that are not compared; the method takes over their results.
        nearest_mean: Whether scores are distances to class means.
        optional: Beginnings of the names of tensors that the method's network has only while it
            uses them; the reference keeps them.
        kept: The network that is kept after a task, where it is not the one that predicts.
        tensors: More tensors of the method, by their names in the recording.
    """

    settings: Mapping[str, Any] = MappingProxyType({})
    names: Callable[[str], str] = lambda name: name
    starts_anew: bool = False
    imprints: bool = False
    skipped: tuple[int, ...] = ()
    nearest_mean: bool = False
    optional: tuple[str, ...] = ()
    kept: Callable[[BaseMethod], nn.Module] = lambda method: method.net
    tensors: Callable[[BaseMethod], State] = lambda method: {}


EWC = {"ewc_lambda": 40.0, "ewc_gamma": 0.9, "ewc_fisher": "data_weighted"}
FOSTER = {
    "lr_cosine": True,
    "alignment": "reference",
    "compression_epochs": 2,
    "compression_weight_decay": 0.0,
    "evaluated": "reference",
}


def name_of_branch(name: str) -> str:
    return name.replace(".model.", ".")


def name_in_foster(name: str) -> str:
    return name_of_branch(name).replace("auxiliary_head", "new_head")


def student_or_net(method: BaseMethod) -> nn.Module:
    """Return FOSTER's compressed network, which the reference keeps but does not evaluate."""
    return method.net if method.old_net is None else method.old_net


def bias_of_tasks(method: BaseMethod) -> State:
    """Return BiC's correction of each task."""
    layer: Any = method.net.model.output_layer
    firsts = np.cumsum([0, *CLASSES_PER_TASK[:-1]])
    both = (("alpha", layer.alpha, layer.fixed_alpha), ("beta", layer.beta, layer.fixed_beta))
    return {
        f"bias.{name}": torch.where(layer.is_current, fitted, fixed)[firsts].detach()
        for name, fitted, fixed in both
    }


def statistics_of(method: BaseMethod) -> State:
    """Return the statistics of a method on a frozen network, by their names in the recording."""
    if method.cur_task_id < 0:
        return {}
    of = method.statistics.get_buffer
    if "gram" in method.statistics._buffers:
        return {name: of(name) for name in ("projection", "gram", "sums")}
    if "factors" in method.statistics._buffers:
        factors = of("factors")
        return {"means": of("means"), "correlations": factors @ factors.mT}
    found = {"means": of("sums") / of("counts").unsqueeze(1)}
    if "scatter" in method.statistics._buffers:
        found["covariance"] = of("scatter") / of("n")
    return found


RANPAC = {"ranpac_features": 24}
FECAM = {"fecam_shrinkages": 2}


CASES = {
    "icarl-pycil": Case({"distillation_temperature": 2.0}, nearest_mean=True),
    "agem-mammoth": Case(),
    "lucir-mammoth": Case({"lucir_lambda": 5 / 2**0.5}, skipped=(0, 1), imprints=True),
    "er-mammoth": Case(),
    "er-mammoth-all_classes": Case({"output_classes": "all"}),
    "der-mammoth": Case({"der_alpha": 0.5, "logit_distance": "reference"}),
    "der-mammoth-all_classes": Case(
        {"der_alpha": 0.5, "logit_distance": "reference", "output_classes": "all"}
    ),
    "der_plus_plus-mammoth": Case(
        {"der_alpha": 0.5, "der_beta": 0.7, "logit_distance": "reference"}
    ),
    "der_plus_plus-mammoth-all_classes": Case(
        {
            "der_alpha": 0.5,
            "der_beta": 0.7,
            "logit_distance": "reference",
            "output_classes": "all",
        }
    ),
    "er_ace-mammoth": Case({"first_task": "reference"}),
    "er_ace-mammoth-task_free": Case(),
    "er_ace-mammoth-cosine": Case({"first_task": "reference", "cosine_head": True}),
    "gdumb-mammoth": Case({"epochs_per_task": 5, "first_task_epochs": 5}, starts_anew=True),
    "lwf-pycil": Case({"lwf_lambda": 3.0, "lwf_distillation": "joint"}),
    "lwf-mammoth": Case(
        {
            "lwf_lambda": 0.5,
            "lwf_distillation": "joint",
            "lwf_classes": "seen",
            "lwf_warmup": 2,
            "epochs_per_task": 4,
        }
    ),
    "lwf_mc-mammoth": Case({"loss": "bce"}),
    "ewc_online-mammoth": Case({**EWC, "ewc_fisher_classes": "all"}),
    "ewc_online-mammoth-seen_softmax": Case(EWC),
    "ewc_online-pycil": Case(
        {
            "ewc_lambda": 1000.0,
            "ewc_fisher": "batches",
            "ewc_fisher_batch_size": 24,
            "ewc_fisher_max": 0.01,
            "ewc_merge": "average",
            "ewc_classes": "new",
        }
    ),
    "si-mammoth": Case({"si_c": 50.0, "si_xi": 0.1, "si_clip": 1.0, "si_negative": "keep"}),
    "si-mammoth-clipped": Case(
        {"si_c": 4000.0, "si_xi": 0.1, "si_clip": 1.0, "si_negative": "keep"}
    ),
    "wa-pycil": Case(),
    "podnet-pycil": Case(
        {
            "pod_spatial": 5.0,
            "podnet_form": "reference",
            "old_proxies_lr_factor": 0.0,
            "lr_cosine": True,
            "finetuning_epochs": 2,
            "finetuning_lr": 0.005,
        }
    ),
    "bic-pycil": Case(
        {"bic_form": "reference", "correction_weight_decay": 5e-4}, tensors=bias_of_tasks
    ),
    "der_expandable-pycil": Case(
        {"classifier": "reference"}, names=name_of_branch, optional=("auxiliary_head.",)
    ),
    "foster-pycil": Case(
        {**FOSTER, "new_class_weights": "reference"},
        names=name_in_foster,
        optional=("new_head.", "old_head."),
        kept=student_or_net,
    ),
    "foster-pycil-aligned": Case(
        {**FOSTER, "weight_alignment": True},
        names=name_in_foster,
        optional=("new_head.", "old_head."),
        kept=student_or_net,
    ),
    "simplecil-pilot": Case(tensors=statistics_of),
    "ranpac-pilot": Case(
        {**RANPAC, "ranpac_scores": "cosine"}, starts_anew=True, tensors=statistics_of
    ),
    "ranpac-authors": Case(RANPAC, starts_anew=True, tensors=statistics_of),
    "fecam-authors": Case(FECAM, tensors=statistics_of),
    "fecam-authors-no_tukey": Case({**FECAM, "fecam_tukey": 1.0}, tensors=statistics_of),
    "slda-authors": Case(tensors=statistics_of),
}

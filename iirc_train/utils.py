"""The published helper functions, re-exported from the modules that define them."""

from iirc_train.buffer.labels import transform_labels_names_to_vector
from iirc_train.buffer.latents import SubsetSampler
from iirc_train.methods.decisions import labels_index_to_one_hot
from iirc_train.methods.forward_passes import copy_freeze
from iirc_train.methods.gradients import get_gradient, update_gradient
from iirc_train.methods.losses import contrastive_distance_loss, l_distance, triplet_margin_loss
from iirc_train.methods.optimizers import get_optimizer
from iirc_train.saved_model import load_model, save_model

__all__ = [
    "SubsetSampler",
    "contrastive_distance_loss",
    "copy_freeze",
    "get_gradient",
    "get_optimizer",
    "l_distance",
    "labels_index_to_one_hot",
    "load_model",
    "save_model",
    "transform_labels_names_to_vector",
    "triplet_margin_loss",
    "update_gradient",
]

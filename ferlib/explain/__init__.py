"""Explanation: attention recorded, rolled out, Grad-CAM, and scores that say how far a map can be trusted.

Chapter 8.
"""

from ferlib.explain.answer import answer
from ferlib.explain.batch import BatchAttention, batch_attention
from ferlib.explain.cam import grad_cam, input_gradient
from ferlib.explain.gradient_rollout import gradient_rollout
from ferlib.explain.layout import Layout
from ferlib.explain.methods import BASELINES, METHODS, attention_map
from ferlib.explain.perturbation import deletion_insertion
from ferlib.explain.picture import unwarp
from ferlib.explain.recorder import Attention, AttentionRecorder
from ferlib.explain.rollout import output_rows, rollout, rollout_layers, rollout_rows, token_map
from ferlib.explain.sanity import SanityCheck, sanity_check
from ferlib.explain.scores import attention_score, rank_correlation
from ferlib.explain.target import TargetLayer, channels_last_to_map, target_layer, tokens_to_map

__all__ = [
    "BASELINES", "METHODS", "Attention", "AttentionRecorder", "BatchAttention", "Layout", "SanityCheck",
    "TargetLayer", "answer", "attention_map", "attention_score", "batch_attention", "channels_last_to_map",
    "deletion_insertion", "grad_cam", "gradient_rollout", "input_gradient", "output_rows", "rank_correlation",
    "rollout", "rollout_layers", "rollout_rows", "sanity_check", "target_layer", "token_map", "tokens_to_map",
    "unwarp",
]  # fmt: skip

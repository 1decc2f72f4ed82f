"""Explanation: attention recorded, rolled out, Grad-CAM, and scores that tell how far a map can be trusted.

Chapter 8.
"""

from ferlib.explain.cam import (
    BASELINES,
    METHODS,
    attention_map,
    channels_last_to_map,
    grad_cam,
    target_layer,
    tokens_to_map,
)
from ferlib.explain.recorder import Attention, AttentionRecorder, batch_attention, output_logits
from ferlib.explain.rollout import gradient_rollout, rollout, rollout_rows, token_map
from ferlib.explain.scores import attention_score, rank_correlation

__all__ = [
    "BASELINES",
    "METHODS",
    "Attention",
    "AttentionRecorder",
    "attention_map",
    "attention_score",
    "batch_attention",
    "channels_last_to_map",
    "grad_cam",
    "gradient_rollout",
    "output_logits",
    "rank_correlation",
    "rollout",
    "rollout_rows",
    "target_layer",
    "token_map",
    "tokens_to_map",
]
